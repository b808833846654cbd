//! Byte-pair merging of one word.

use super::vocabulary::Vocabulary;

const NO_MERGE: u32 = u32::MAX;

/// Appends the ids of `word` (UTF-8, not empty) to `ids`.
///
/// As long as two neighbours can merge, the pair with the smallest merged id is merged everywhere, from left to right.
pub(super) fn merge_word(vocabulary: &Vocabulary, word: &[u8], ids: &mut Vec<u32>) {
    let mut symbols: Vec<u32> = word
        .iter()
        .map(|&byte| vocabulary.byte_ids[usize::from(byte)])
        .collect();
    if let Some(last) = symbols.last_mut() {
        *last += 256;
    }
    let merged = |left: u32, right: u32| {
        vocabulary
            .merges
            .get(&(left, right))
            .copied()
            .unwrap_or(NO_MERGE)
    };
    // pairs[i] = what symbols[i] and symbols[i + 1] merge into.
    let mut pairs: Vec<u32> = symbols
        .windows(2)
        .map(|pair| merged(pair[0], pair[1]))
        .collect();

    while let Some(&best) = pairs.iter().min()
        && best != NO_MERGE
    {
        let (mut read, mut write) = (0, 0);
        let mut left_is_new = false;
        while read < symbols.len() {
            // Only pairs beside a new symbol change; the others keep their value, which bounds the look-ups.
            let is_new = pairs.get(read) == Some(&best);
            let symbol = if is_new { best } else { symbols[read] };
            if write > 0 {
                pairs[write - 1] = if is_new || left_is_new {
                    merged(symbols[write - 1], symbol)
                } else {
                    pairs[read - 1]
                };
            }
            symbols[write] = symbol;
            write += 1;
            read += if is_new { 2 } else { 1 };
            left_is_new = is_new;
        }
        symbols.truncate(write);
        pairs.truncate(write - 1);
    }
    ids.extend_from_slice(&symbols);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lets the tokenizer look whole words up: merging cannot end in anything but the word's own symbol.
    #[test]
    fn every_word_of_the_vocabulary_merges_into_itself() {
        let vocabulary = Vocabulary::embedded();
        let words = vocabulary
            .words
            .iter()
            .filter(|(word, _)| !word.starts_with(b"<|"));
        let mut count = 0;
        for (word, &id) in words {
            let mut ids = Vec::new();
            merge_word(&vocabulary, word, &mut ids);
            assert_eq!(ids, [id], "{:?}", vocabulary.texts[id as usize]);
            count += 1;
        }
        assert!(count > 30_000, "only {count} words");
    }

    /// The pairs beside a merge are looked up again, all others keep their value: the same as looking all up.
    #[test]
    fn keeping_pairs_changes_nothing() {
        let vocabulary = Vocabulary::embedded();
        for word in [
            "aaaaaaa",
            "hahahahahahahahaha",
            "abcabcabcabc",
            "antidisestablishmentarianism",
            "zzzzzzzzzzzzzzz",
        ] {
            let mut ids = Vec::new();
            merge_word(&vocabulary, word.as_bytes(), &mut ids);
            assert_eq!(ids, merge_plainly(&vocabulary, word.as_bytes()), "{word}");
        }
    }

    fn merge_plainly(vocabulary: &Vocabulary, word: &[u8]) -> Vec<u32> {
        let mut symbols: Vec<u32> = word
            .iter()
            .map(|&byte| vocabulary.byte_ids[usize::from(byte)])
            .collect();
        *symbols.last_mut().expect("word has a byte") += 256;
        while let Some(best) = symbols
            .windows(2)
            .filter_map(|pair| vocabulary.merges.get(&(pair[0], pair[1])))
            .min()
            .copied()
        {
            let mut at = 0;
            while at + 1 < symbols.len() {
                if vocabulary.merges.get(&(symbols[at], symbols[at + 1])) == Some(&best) {
                    symbols.splice(at..at + 2, [best]);
                }
                at += 1;
            }
        }
        symbols
    }
}

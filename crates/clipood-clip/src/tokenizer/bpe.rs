//! Byte-pair merging of one word.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocabulary::Vocabulary;

const NO_MERGE: u32 = u32::MAX;
/// Longest word, in bytes, that is merged by looking for the best pair in all of it: the fastest way for real words.
const SHORT_WORD: usize = 128;

/// Appends the ids of `word` (UTF-8, not empty) to `ids`.
///
/// As long as two neighbours can merge, the pair with the smallest merged id is merged everywhere, from left to right.
pub(super) fn merge_word(vocabulary: &Vocabulary, word: &[u8], ids: &mut Vec<u32>) {
    let symbols = symbols_of(vocabulary, word);
    if word.len() > SHORT_WORD {
        merge_by_heap(vocabulary, symbols, ids);
    } else {
        merge_by_scan(vocabulary, symbols, ids);
    }
}

/// The word's bytes as symbols, the last one as the end of a word.
fn symbols_of(vocabulary: &Vocabulary, word: &[u8]) -> Vec<u32> {
    let mut symbols: Vec<u32> = word
        .iter()
        .map(|&byte| vocabulary.byte_ids[usize::from(byte)])
        .collect();
    if let Some(last) = symbols.last_mut() {
        *last += 256;
    }
    symbols
}

/// What two symbols merge into.
fn merged(vocabulary: &Vocabulary, left: u32, right: u32) -> u32 {
    let id = vocabulary.merges.get(&(left, right));
    id.copied().unwrap_or(NO_MERGE)
}

/// Merges in n log n steps. Pairs wait in a heap, the smallest merged id first and of equal ones the leftmost. A new pair
/// contains the new symbol, so it merges into a larger id: the order is that of merging one pair everywhere at a time.
fn merge_by_heap(vocabulary: &Vocabulary, mut symbols: Vec<u32>, ids: &mut Vec<u32>) {
    let length = symbols.len();
    // A symbol stays at the place of its first byte; these are its neighbours. Places that were merged away hold NO_MERGE.
    let mut next: Vec<usize> = (1..=length).collect();
    let mut previous: Vec<usize> = (0..length).map(|place| place.wrapping_sub(1)).collect();
    let mut waiting: BinaryHeap<Reverse<(u32, usize)>> = symbols
        .windows(2)
        .enumerate()
        .map(|(place, pair)| Reverse((merged(vocabulary, pair[0], pair[1]), place)))
        .filter(|Reverse((id, _))| *id != NO_MERGE)
        .collect();
    while let Some(Reverse((id, place))) = waiting.pop() {
        let right = next[place];
        // One of the two may have been merged with another neighbour since.
        if right >= length
            || symbols[place] == NO_MERGE
            || merged(vocabulary, symbols[place], symbols[right]) != id
        {
            continue;
        }
        symbols[place] = id;
        symbols[right] = NO_MERGE;
        let after = next[right];
        next[place] = after;
        if after < length {
            previous[after] = place;
            let pair = merged(vocabulary, id, symbols[after]);
            if pair != NO_MERGE {
                waiting.push(Reverse((pair, place)));
            }
        }
        let before = previous[place];
        if before < length {
            let pair = merged(vocabulary, symbols[before], id);
            if pair != NO_MERGE {
                waiting.push(Reverse((pair, before)));
            }
        }
    }
    ids.extend(symbols.into_iter().filter(|symbol| *symbol != NO_MERGE));
}

/// Merges by looking through the whole word for the best pair, as often as there is one.
fn merge_by_scan(vocabulary: &Vocabulary, mut symbols: Vec<u32>, ids: &mut Vec<u32>) {
    let merged = |left: u32, right: u32| merged(vocabulary, left, right);
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

    /// Words of any length are merged alike by both ways.
    #[test]
    fn the_heap_merges_as_the_scan_does() {
        let vocabulary = Vocabulary::embedded();
        let mut rng = clipood_core::SplitMix64::keyed(1, "words", 0);
        let alphabets: [&[u8]; 4] = [
            b"a",
            b"ah",
            b"eainotrsl",
            "abcdefghijklmnopqrstuvwxyzé".as_bytes(),
        ];
        for number in 0..400 {
            let alphabet = alphabets[number % alphabets.len()];
            let length = 1 + rng.below(600) as usize;
            let word: Vec<u8> = (0..length)
                .map(|_| alphabet[rng.below(alphabet.len() as u64) as usize])
                .collect();
            let (mut heap, mut scan) = (Vec::new(), Vec::new());
            merge_by_heap(&vocabulary, symbols_of(&vocabulary, &word), &mut heap);
            merge_by_scan(&vocabulary, symbols_of(&vocabulary, &word), &mut scan);
            assert_eq!(heap, scan, "{:?}", String::from_utf8_lossy(&word));
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

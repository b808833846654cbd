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

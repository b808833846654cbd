//! The vocabulary: 512 byte symbols, one symbol a merge, two special tokens.

use std::io::Read;

use flate2::read::GzDecoder;
use rustc_hash::FxHashMap;

/// Id of the start-of-text token, the first of every tokenized text.
pub const SOT: u32 = 49_406;
/// Id of the end-of-text token. It is the largest id, which is how the text tower finds a text's end.
pub const EOT: u32 = 49_407;
/// Number of ids; every id is smaller than this.
pub const VOCAB_SIZE: usize = 49_408;

const SOT_TEXT: &str = "<|startoftext|>";
const EOT_TEXT: &str = "<|endoftext|>";
const END_OF_WORD: &str = "</w>";

static MERGES: &[u8] = include_bytes!("../../data/bpe_merges.txt.gz");

/// The symbols and how they arise.
pub(super) struct Vocabulary {
    /// Symbol of each id, in the printable byte alphabet.
    pub texts: Vec<Box<str>>,
    /// Id of the symbol that a pair of symbols merges into. A smaller id is merged first.
    pub merges: FxHashMap<(u32, u32), u32>,
    /// Id of each symbol that is a whole word, by the word's UTF-8 bytes. Merging such a word always ends in its own
    /// symbol (the crate's tests prove it for all of them), so a look-up replaces the merging.
    pub words: FxHashMap<Box<[u8]>, u32>,
    /// Id of each byte as a symbol inside a word; at a word's end it is 256 larger.
    pub byte_ids: [u32; 256],
    /// Byte that each character of the printable alphabet stands for.
    byte_of: FxHashMap<char, u8>,
}

impl Vocabulary {
    /// Reads the embedded merges.
    pub fn embedded() -> Self {
        let mut lines = String::new();
        GzDecoder::new(MERGES)
            .read_to_string(&mut lines)
            // The bytes are part of the program and every test of the tokenizer reads them.
            .expect("embedded merges are gzip of UTF-8");

        let alphabet = printable_alphabet();
        let mut byte_ids = [0; 256];
        let mut texts: Vec<Box<str>> = Vec::with_capacity(VOCAB_SIZE);
        for (id, (byte, letter)) in alphabet.iter().enumerate() {
            byte_ids[usize::from(*byte)] = id as u32;
            texts.push(letter.to_string().into());
        }
        for (_, letter) in &alphabet {
            texts.push(format!("{letter}{END_OF_WORD}").into());
        }

        let mut ids: FxHashMap<Box<str>, u32> = FxHashMap::default();
        ids.reserve(VOCAB_SIZE);
        ids.extend(
            texts
                .iter()
                .zip(0u32..)
                .map(|(text, id)| (text.clone(), id)),
        );
        let mut merges = FxHashMap::default();
        merges.reserve(VOCAB_SIZE);
        for line in lines.lines() {
            let id = texts.len() as u32;
            let pair = line.split_once(' ');
            if let Some((left, right)) = pair
                && let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right))
            {
                merges.insert((left_id, right_id), id);
                let text: Box<str> = format!("{left}{right}").into();
                ids.insert(text.clone(), id);
                texts.push(text);
            }
        }
        texts.push(SOT_TEXT.into());
        texts.push(EOT_TEXT.into());

        let byte_of: FxHashMap<char, u8> = alphabet
            .into_iter()
            .map(|(byte, letter)| (letter, byte))
            .collect();
        let mut words: FxHashMap<Box<[u8]>, u32> = FxHashMap::default();
        words.reserve(VOCAB_SIZE);
        for (text, id) in texts.iter().zip(0u32..) {
            if let Some(word) = text.strip_suffix(END_OF_WORD) {
                words.insert(
                    word.chars()
                        .filter_map(|letter| byte_of.get(&letter).copied())
                        .collect(),
                    id,
                );
            }
        }
        words.insert(SOT_TEXT.as_bytes().into(), SOT);
        words.insert(EOT_TEXT.as_bytes().into(), EOT);

        Self {
            texts,
            merges,
            words,
            byte_ids,
            byte_of,
        }
    }

    /// Bytes of the symbols of `ids`, one after another; an id outside the vocabulary adds nothing.
    pub fn bytes(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter()
            .filter_map(|&id| self.texts.get(id as usize))
            .flat_map(|text| text.chars())
            .filter_map(|letter| self.byte_of.get(&letter).copied())
            .collect()
    }
}

/// GPT-2's printable alphabet: visible Latin-1 characters stand for their own byte and come first, every other byte gets
/// a character from U+0100 upwards. The order is the order of the ids.
fn printable_alphabet() -> Vec<(u8, char)> {
    let visible = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let own = (0..=255u8)
        .filter(visible)
        .map(|byte| (byte, char::from(byte)));
    let moved = (0..=255u8).filter(|byte| !visible(byte)).zip('\u{100}'..);
    own.chain(moved).collect()
}

//! The tokenizer itself: clean, split, merge, frame.

use super::bpe::merge_word;
use super::clean::{clean_text, is_plain};
use super::split::words;
use super::vocabulary::{EOT, SOT, Vocabulary};

/// Context length of every OpenAI CLIP text tower, in tokens.
pub const CONTEXT_LENGTH: usize = 77;

/// Why a text could not be tokenized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// The text with its start and end tokens does not fit the context.
    #[error("text {text:?} makes {tokens} tokens, the context holds {context_length}")]
    TooLong {
        /// The text's first 80 characters.
        text: String,
        /// Tokens of the whole text, start and end included.
        tokens: usize,
        /// Tokens that fit.
        context_length: usize,
    },
}

/// CLIP's byte-pair tokenizer with its embedded vocabulary.
///
/// Building one unpacks 0.5 MB and takes some ten milliseconds; share it between threads by reference.
pub struct Tokenizer {
    vocabulary: Vocabulary,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// A tokenizer with OpenAI's vocabulary of [`VOCAB_SIZE`](super::VOCAB_SIZE) tokens.
    pub fn new() -> Self {
        Self {
            vocabulary: Vocabulary::embedded(),
        }
    }

    /// Ids of `text`, without start and end tokens, of any length (empty for an empty text).
    ///
    /// The literal words `<|startoftext|>` and `<|endoftext|>` become [`SOT`] and [`EOT`], as in the reference.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(CONTEXT_LENGTH);
        self.encode_into(text, &mut ids);
        ids
    }

    /// `[SOT, ids of the text, EOT, 0, 0, ...]`, exactly `context_length` ids.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] if the text's tokens and the two frame tokens exceed `context_length`.
    pub fn tokenize(&self, text: &str, context_length: usize) -> Result<Vec<u32>, TokenizeError> {
        let mut ids = self.framed(text, context_length);
        if ids.len() > context_length {
            let text = text.chars().take(80).collect();
            return Err(TokenizeError::TooLong {
                text,
                tokens: ids.len(),
                context_length,
            });
        }
        ids.resize(context_length, 0);
        Ok(ids)
    }

    /// As [`tokenize`](Self::tokenize), but a text that is too long is cut and its last id is [`EOT`].
    pub fn tokenize_truncate(&self, text: &str, context_length: usize) -> Vec<u32> {
        let mut ids = self.framed(text, context_length);
        if ids.len() > context_length {
            ids.truncate(context_length);
            if let Some(last) = ids.last_mut() {
                *last = EOT;
            }
        }
        ids.resize(context_length, 0);
        ids
    }

    /// Text of `ids`: words end in a space, bytes that are not UTF-8 become U+FFFD, start and end tokens appear as
    /// `<|startoftext|>` and `<|endoftext|>`. An id outside the vocabulary is left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.vocabulary.bytes(ids)).replace("</w>", " ")
    }

    /// Symbol of `id` as vocabulary files spell it: one printable character a byte, `</w>` at a word's end.
    /// `None` for an id outside the vocabulary.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocabulary.texts.get(id as usize).map(AsRef::as_ref)
    }

    /// `[SOT, ids of the text, EOT]` with room for `context_length` ids.
    fn framed(&self, text: &str, context_length: usize) -> Vec<u32> {
        let mut ids = Vec::with_capacity(context_length.clamp(2, 1024));
        ids.push(SOT);
        self.encode_into(text, &mut ids);
        ids.push(EOT);
        ids
    }

    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        // Most captions are plain ASCII, where cleaning can change nothing but the case and the white space that the
        // splitter drops anyway.
        let cleaned = if is_plain(text) {
            text.to_ascii_lowercase()
        } else {
            clean_text(text)
        };
        for word in words(&cleaned) {
            match self.vocabulary.words.get(word.as_bytes()) {
                Some(&id) => ids.push(id),
                None => merge_word(&self.vocabulary, word.as_bytes(), ids),
            }
        }
    }
}

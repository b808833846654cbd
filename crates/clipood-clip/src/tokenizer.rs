//! CLIP's tokenizer: text to the ids that every OpenAI and open_clip text tower was trained on.
//!
//! A text is cleaned (mojibake mended, HTML unescaped, white space collapsed, lower case), cut into words, and every word
//! is merged byte pair by byte pair into symbols of a vocabulary of 49,408. The result equals `simple_tokenizer.py` of
//! <https://github.com/openai/CLIP> with `ftfy` 6.3, id for id; only characters that Unicode did not yet assign when the
//! reference's Python was made can differ, in case and composition.
//!
//! ```
//! use clipood_clip::tokenizer::Tokenizer;
//!
//! let tokenizer = Tokenizer::new();
//! let ids = tokenizer.tokenize("a photo of a cat.", 77)?;
//! assert_eq!(ids[..8], [49406, 320, 1125, 539, 320, 2368, 269, 49407]);
//! assert_eq!(ids.len(), 77);
//! # Ok::<(), clipood_clip::tokenizer::TokenizeError>(())
//! ```

mod badness;
mod bpe;
mod clean;
mod code_pages;
mod fix_text;
mod html;
mod mojibake;
mod split;
mod tokenize;
mod vocabulary;

pub use clean::clean_text;
pub use tokenize::{CONTEXT_LENGTH, TokenizeError, Tokenizer};
pub use vocabulary::{EOT, SOT, VOCAB_SIZE};

//! Weight files of all formats, converted into one form: a [`ClipConfig`](crate::config::ClipConfig) and
//! [`Weights`](crate::weights::Weights) under OpenAI's names.
//!
//! | what | read from |
//! | --- | --- |
//! | open_clip folder | `open_clip_config.json`; `open_clip_model.safetensors` or `open_clip_pytorch_model.bin` |
//! | Hugging Face folder | `config.json`; `processor_config.json` or `preprocessor_config.json`; `model.safetensors` or `pytorch_model.bin`, whole or in parts with an index |
//! | a file alone | safetensors, a state dict of `torch.save`, OpenAI's TorchScript archive; names of any of the three |
//!
//! [`torch_file`] reads and writes the files of `torch.save`, without running any code in them.

#[cfg(test)]
mod fuzz;
mod hugging_face;
mod infer;
mod names;
mod open;
mod open_clip;
mod other;
mod pickle;
mod problem;
pub mod torch_file;
mod torch_write;
pub mod value;
mod weight_file;
mod zip;

pub use open::OpenOptions;
pub(crate) use open::open;

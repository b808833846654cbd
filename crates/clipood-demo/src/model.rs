//! The trained demo CLIP, embedded so that the program works wherever it is copied to.

/// The files of an open_clip folder.
#[derive(Debug, Clone, Copy)]
pub struct ModelFiles {
    /// `open_clip_config.json`.
    pub config: &'static str,
    /// `open_clip_model.safetensors`, f16.
    pub weights: &'static [u8],
}

/// The embedded model; `data/demo/model/README.md` says how it was made.
pub fn model_files() -> ModelFiles {
    ModelFiles {
        config: include_str!("../../../data/demo/model/open_clip_config.json"),
        weights: include_bytes!("../../../data/demo/model/open_clip_model.safetensors"),
    }
}

//! The trained demo CLIP, embedded in the binary so that it needs no files beside it.

/// The files of an open_clip folder.
#[derive(Debug, Clone, Copy)]
pub struct ModelFiles {
    /// `open_clip_config.json`.
    pub config: &'static str,
    /// `open_clip_model.safetensors`, f16.
    pub weights: &'static [u8],
}

/// The embedded model; `data/demo/model/README.md` describes how it was trained.
pub fn model_files() -> ModelFiles {
    ModelFiles {
        config: include_str!("../../../data/demo/model/open_clip_config.json"),
        weights: include_bytes!("../../../data/demo/model/open_clip_model.safetensors"),
    }
}

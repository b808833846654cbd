//! The vision transformer of CLIP (`clip/model.py` of openai/CLIP; local features as LoCoOp's `clip_w_local`).

use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::backend::Backend;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{FloatDType, Tensor};

use crate::config::{ClipConfig, ImageFamily};
use crate::error::{ClipError, Result};
use crate::image_features::ImageFeatures;
use crate::kernels::ClipBackend;
use crate::layers::{ResidualBlock, cast, layer_norm, load_layer_norm, save_layer_norm, tokens_at};
use crate::weights::Weights;

/// Patch embedding, transformer and projection.
#[derive(Module, Debug)]
pub struct VisionTransformer<B: Backend> {
    conv1: Param<Tensor<B, 4>>,
    class_embedding: Param<Tensor<B, 1>>,
    positional_embedding: Param<Tensor<B, 2>>,
    ln_pre: LayerNorm<B>,
    blocks: Vec<ResidualBlock<B>>,
    ln_post: LayerNorm<B>,
    proj: Param<Tensor<B, 2>>,
}

impl<B: ClipBackend> VisionTransformer<B> {
    /// Reads the tower from `visual.*`.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        let image = &config.image;
        let width = image.width;
        let ImageFamily::Vit { layers, patch } = image.family else {
            return Err(ClipError::Config {
                origin: weights.origin.clone(),
                reason: "the image tower is not a vision transformer".into(),
            });
        };
        let blocks = (0..layers)
            .map(|i| {
                ResidualBlock::load(
                    weights,
                    &format!("visual.transformer.resblocks.{i}"),
                    width,
                    image.heads,
                    config.activation,
                    device,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            conv1: weights.param("visual.conv1.weight", [width, 3, patch, patch], device)?,
            class_embedding: weights.param("visual.class_embedding", [width], device)?,
            positional_embedding: weights.param(
                "visual.positional_embedding",
                [image.positions() + 1, width],
                device,
            )?,
            ln_pre: load_layer_norm(weights, "visual.ln_pre", width, device)?,
            blocks,
            ln_post: load_layer_norm(weights, "visual.ln_post", width, device)?,
            proj: weights.param("visual.proj", [width, config.embed_dim], device)?,
        })
    }

    /// Writes the tower back under `visual.*`.
    pub fn save(&self, weights: &mut Weights) {
        weights.store("visual.conv1.weight", self.conv1.val());
        weights.store("visual.class_embedding", self.class_embedding.val());
        weights.store(
            "visual.positional_embedding",
            self.positional_embedding.val(),
        );
        save_layer_norm(&self.ln_pre, weights, "visual.ln_pre");
        for (i, block) in self.blocks.iter().enumerate() {
            block.save(weights, &format!("visual.transformer.resblocks.{i}"));
        }
        save_layer_norm(&self.ln_post, weights, "visual.ln_post");
        weights.store("visual.proj", self.proj.val());
    }

    /// The tower in another number format, which the pixels must have as well; its norms stay float32.
    #[must_use]
    pub fn cast(self, dtype: FloatDType) -> Self {
        Self {
            conv1: cast(self.conv1, dtype),
            class_embedding: cast(self.class_embedding, dtype),
            positional_embedding: cast(self.positional_embedding, dtype),
            ln_pre: self.ln_pre,
            blocks: self.blocks.into_iter().map(|b| b.cast(dtype)).collect(),
            ln_post: self.ln_post,
            proj: cast(self.proj, dtype),
        }
    }

    /// Normalised pixels `[batch, 3, size, size]` -> features before normalisation.
    pub fn forward(&self, pixels: Tensor<B, 4>, local: bool) -> ImageFeatures<B> {
        let [width, _, patch, _] = self.conv1.dims();
        let batch = pixels.dims()[0];
        let options = ConvOptions::new([patch, patch], [0, 0], [1, 1], 1);
        let patches = conv2d(pixels, self.conv1.val(), None, options)
            .flatten::<3>(2, 3)
            .swap_dims(1, 2);
        let class = self
            .class_embedding
            .val()
            .reshape([1, 1, width])
            .expand([batch, 1, width]);
        let x =
            Tensor::cat(vec![class, patches], 1) + self.positional_embedding.val().unsqueeze::<3>();
        let mut x = layer_norm(&self.ln_pre, x);
        let Some((last, blocks)) = self.blocks.split_last() else {
            return ImageFeatures {
                global: self.project(tokens_at(x, &vec![0; batch])),
                local: None,
            };
        };
        for block in blocks {
            x = block.forward(x, false);
        }
        // Local features come from the last block's value path alone, as in the references.
        let local = local.then(|| {
            let tokens = x.dims()[1];
            let values = last.forward_values(x.clone()).narrow(1, 1, tokens - 1);
            self.project(values)
        });
        ImageFeatures {
            global: self.project(last.forward_at(x, false, &vec![0; batch])),
            local,
        }
    }

    /// `[..., width]` -> `[..., D]`.
    fn project<const N: usize>(&self, x: Tensor<B, N>) -> Tensor<B, N> {
        layer_norm(&self.ln_post, x).matmul(self.proj.val().unsqueeze())
    }
}

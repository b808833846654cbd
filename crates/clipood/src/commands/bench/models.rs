//! Models to measure: released sizes with random parameters, or an existing model.

use anyhow::Result;
use clipood_clip::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use clipood_clip::init::initial_weights;
use clipood_clip::model::Model;
use clipood_pipeline::open_model;

/// A released size with random parameters, `demo`, or a folder.
pub(super) fn model(name: &str) -> Result<Model> {
    match architecture(name) {
        Some(config) => {
            let weights = initial_weights(&config, 1);
            Ok(Model::new(config, weights)?)
        }
        None => Ok(open_model(name)?),
    }
}

/// Sizes as OpenAI released them.
fn architecture(name: &str) -> Option<ClipConfig> {
    let vit = |layers, patch| ImageFamily::Vit { layers, patch };
    // Width of the shared space; width, heads and family of the image tower; width and heads of the text tower.
    let (embed_dim, width, heads, family, text_width, text_heads) = match name {
        "ViT-B-32" => (512, 768, 12, vit(12, 32), 512, 8),
        "ViT-B-16" => (512, 768, 12, vit(12, 16), 512, 8),
        "ViT-L-14" => (768, 1024, 16, vit(24, 14), 768, 12),
        "RN50" => {
            let layers = [3, 4, 6, 3];
            (1024, 64, 32, ImageFamily::Resnet { layers }, 512, 8)
        }
        _ => return None,
    };
    Some(ClipConfig {
        embed_dim,
        image: ImageConfig {
            size: 224,
            width,
            heads,
            family,
        },
        text: TextConfig {
            context: 77,
            vocab: 49408,
            width: text_width,
            heads: text_heads,
            layers: 12,
        },
        activation: Activation::QuickGelu,
        mean: OPENAI_MEAN,
        std: OPENAI_STD,
    })
}

/// Floating-point operations of the matrix products in a ViT per image, a multiplication and an addition counted as
/// two; `None` for a ModifiedResNet.
pub(super) fn image_operations(config: &ClipConfig) -> Option<f64> {
    let ImageFamily::Vit { layers, patch } = config.image.family else {
        return None;
    };
    let (width, positions) = (config.image.width as f64, config.image.positions() as f64);
    let tokens = positions + 1.0;
    let block = 12.0 * tokens * width * width + 2.0 * tokens * tokens * width;
    let patches = positions * width * 3.0 * (patch * patch) as f64;
    Some(2.0 * (layers as f64 * block + patches + width * config.embed_dim as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_released_sizes() {
        // 4.4, 17.6 and 81 billion multiply-adds.
        for (name, billions) in [("ViT-B-32", 8.8), ("ViT-B-16", 35.1), ("ViT-L-14", 162.0)] {
            let config = architecture(name).expect(name);
            let found = image_operations(&config).expect(name) * 1e-9;
            assert!((found / billions - 1.0).abs() < 0.03, "{name}: {found}");
        }
        assert!(architecture("RN50").is_some_and(|c| image_operations(&c).is_none()));
        assert!(architecture("ViT-B-8").is_none());
    }
}

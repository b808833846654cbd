//! Sizes of a model from the shapes of its tensors, for weight files without a configuration.

use std::collections::BTreeMap;

use super::other;
use crate::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use crate::error::{ClipError, Result};

/// Width of an attention head in every CLIP of OpenAI, and in all published ones of at most these widths; it cannot be seen
/// from shapes.
const HEAD_WIDTH: usize = 64;
/// Widest image tower with heads of [`HEAD_WIDTH`]: ViT-L.
const WIDEST_IMAGE: usize = 1024;
/// Widest text tower with heads of [`HEAD_WIDTH`]: that of ViT-bigG.
const WIDEST_TEXT: usize = 1280;
/// Widths of wider image towers and of their heads, by open_clip's configurations: ViT-H, ViT-g, ViT-bigG, ViT-e.
const WIDE_HEADS: [(usize, usize); 4] = [(1280, 80), (1408, 88), (1664, 104), (1792, 112)];

/// Shapes of a weight file, under OpenAI's names.
pub(super) struct Shapes<'a> {
    /// The file, for messages.
    pub(super) origin: &'a str,
    /// Name and sizes of each tensor.
    pub(super) tensors: BTreeMap<&'a str, &'a [usize]>,
}

/// The configuration of the model whose tensors have these shapes.
///
/// # Errors
/// The tensors are those of another architecture.
pub(super) fn infer(shapes: &Shapes<'_>, activation: Activation) -> Result<ClipConfig> {
    let [vocab, text_width] = sizes(shapes, "token_embedding.weight")?;
    let [context, _] = sizes(shapes, "positional_embedding")?;
    let [_, embed_dim] = sizes(shapes, "text_projection")?;
    let image = image_config(shapes)?;
    four_times(shapes, "transformer", text_width)?;
    let text_heads = match text_width {
        1..=WIDEST_TEXT if text_width % HEAD_WIDTH == 0 => text_width / HEAD_WIDTH,
        _ => return Err(unknown_heads(shapes, "a text", text_width)),
    };
    let config = ClipConfig {
        embed_dim,
        image,
        text: TextConfig {
            context,
            vocab,
            width: text_width,
            heads: text_heads,
            layers: blocks(shapes, "transformer"),
        },
        activation,
        mean: OPENAI_MEAN,
        std: OPENAI_STD,
    };
    config.check(shapes.origin)?;
    Ok(config)
}

/// Reads the sizes of an image tower of one family.
type Reader = fn(&Shapes<'_>) -> Result<ImageConfig>;

/// A tensor that only the image towers of one family have, and what reads their sizes; the first one found decides.
const FAMILIES: [(&str, Reader); 2] = [
    ("visual.proj", vit),
    ("visual.attnpool.positional_embedding", resnet),
];

fn image_config(shapes: &Shapes<'_>) -> Result<ImageConfig> {
    let found = FAMILIES
        .into_iter()
        .find(|(marker, _)| shapes.tensors.contains_key(marker));
    match found {
        Some((_, read)) => read(shapes),
        None => {
            let markers = FAMILIES.map(|(marker, _)| format!("`{marker}`"));
            let problem = format!("no image tower is known without {}", markers.join(" or "));
            Err(unknown(shapes, problem))
        }
    }
}

fn vit(shapes: &Shapes<'_>) -> Result<ImageConfig> {
    let [width, _, patch, _] = sizes(shapes, "visual.conv1.weight")?;
    let name = "visual.positional_embedding";
    let [positions, _] = sizes(shapes, name)?;
    four_times(shapes, "visual.transformer", width)?;
    let wide = WIDE_HEADS.iter().find(|(known, _)| *known == width);
    let heads = match wide {
        Some((_, head)) => width / head,
        None if width <= WIDEST_IMAGE && width % HEAD_WIDTH == 0 => width / HEAD_WIDTH,
        None => return Err(unknown_heads(shapes, "an image", width)),
    };
    Ok(ImageConfig {
        size: side(shapes, name, positions)?.saturating_mul(patch),
        width,
        heads,
        family: ImageFamily::Vit {
            layers: blocks(shapes, "visual.transformer"),
            patch,
        },
    })
}

fn resnet(shapes: &Shapes<'_>) -> Result<ImageConfig> {
    let [width, _, _, _] = sizes(shapes, "visual.layer1.0.conv1.weight")?;
    let name = "visual.attnpool.positional_embedding";
    let [positions, pooled] = sizes(shapes, name)?;
    let depth = |stage: usize| {
        count(|block| {
            shapes
                .tensors
                .contains_key(format!("visual.layer{stage}.{block}.conv1.weight").as_str())
        })
    };
    Ok(ImageConfig {
        size: side(shapes, name, positions)?.saturating_mul(32),
        width,
        // Of every ModifiedResNet that OpenAI and open_clip published.
        heads: pooled / HEAD_WIDTH,
        family: ImageFamily::Resnet {
            layers: [depth(1), depth(2), depth(3), depth(4)],
        },
    })
}

/// Refuses a transformer whose MLPs are not four times as wide as itself: no others are computed here.
fn four_times(shapes: &Shapes<'_>, prefix: &str, width: usize) -> Result<()> {
    let name = format!("{prefix}.resblocks.0.mlp.c_fc.weight");
    let [inner, _] = sizes(shapes, &name)?;
    if width.checked_mul(4) == Some(inner) {
        return Ok(());
    }
    Err(ClipError::Config {
        origin: shapes.origin.to_owned(),
        reason: format!(
            "`{name}` makes the MLP {inner} wide in a tower of width {width}, and only 4 times the width is computed here \
             (ViT-g and ViT-bigG have another ratio)"
        ),
    })
}

fn unknown_heads(shapes: &Shapes<'_>, tower: &str, width: usize) -> ClipError {
    ClipError::Config {
        origin: shapes.origin.to_owned(),
        reason: format!(
            "no published CLIP has {tower} tower of width {width}, so the width of its heads is not known, and tensors do \
             not show it: put the file as open_clip_model.safetensors or open_clip_pytorch_model.bin into a folder with its \
             open_clip_config.json, or as model.safetensors beside its config.json"
        ),
    }
}

/// Residual blocks of the transformer called `prefix`.
fn blocks(shapes: &Shapes<'_>, prefix: &str) -> usize {
    count(|block| {
        shapes
            .tensors
            .contains_key(format!("{prefix}.resblocks.{block}.ln_1.weight").as_str())
    })
}

/// How many of 0, 1, 2, ... are there.
fn count(is_there: impl Fn(usize) -> bool) -> usize {
    (0..).take_while(|number| is_there(*number)).count()
}

/// Side of the grid of `positions` cells and one class token.
fn side(shapes: &Shapes<'_>, name: &str, positions: usize) -> Result<usize> {
    let cells = positions.saturating_sub(1);
    let side = cells.isqrt();
    if side == 0 || side * side != cells {
        return Err(unknown(
            shapes,
            format!("`{name}` has {positions} rows, expected a square and 1"),
        ));
    }
    Ok(side)
}

/// The `N` sizes of a tensor.
fn sizes<const N: usize>(shapes: &Shapes<'_>, name: &str) -> Result<[usize; N]> {
    let Some(found) = shapes.tensors.get(name) else {
        return Err(unknown(shapes, format!("no tensor is `{name}`")));
    };
    <[usize; N]>::try_from(*found).map_err(|_| {
        unknown(
            shapes,
            format!("`{name}` has shape {found:?}, expected {N} sizes"),
        )
    })
}

fn unknown(shapes: &Shapes<'_>, problem: String) -> ClipError {
    let names: Vec<&str> = shapes.tensors.keys().copied().take(3).collect();
    let seems = other::kind(shapes.tensors.keys().copied())
        .map(|kind| format!("; it seems to be {kind}"))
        .unwrap_or_default();
    ClipError::Config {
        origin: shapes.origin.to_owned(),
        reason: format!(
            "neither a CLIP of OpenAI or open_clip nor a CLIPModel of Hugging Face: {problem} (the file holds {}, ...){seems}",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn infer_from(parameters: &[(String, Vec<usize>)]) -> Result<ClipConfig> {
        let shapes = Shapes {
            origin: "x.safetensors",
            tensors: parameters
                .iter()
                .map(|(name, shape)| (name.as_str(), shape.as_slice()))
                .collect(),
        };
        infer(&shapes, Activation::QuickGelu)
    }

    fn text(width: usize, heads: usize) -> TextConfig {
        TextConfig {
            context: 77,
            vocab: 49408,
            width,
            heads,
            layers: 12,
        }
    }

    /// Sizes as published with OpenAI's models: D, image side, width, heads, text width and heads, family.
    #[rustfmt::skip]
    fn published() -> Vec<(&'static str, ClipConfig)> {
        let vit = |layers, patch| ImageFamily::Vit { layers, patch };
        let resnet = |layers| ImageFamily::Resnet { layers };
        [
            ("ViT-B/32", 512, 224, 768, 12, 512, 8, vit(12, 32)),
            ("ViT-B/16", 512, 224, 768, 12, 512, 8, vit(12, 16)),
            ("ViT-L/14", 768, 224, 1024, 16, 768, 12, vit(24, 14)),
            ("ViT-L/14@336px", 768, 336, 1024, 16, 768, 12, vit(24, 14)),
            ("RN50", 1024, 224, 64, 32, 512, 8, resnet([3, 4, 6, 3])),
            ("RN101", 512, 224, 64, 32, 512, 8, resnet([3, 4, 23, 3])),
            ("RN50x4", 640, 288, 80, 40, 640, 10, resnet([4, 6, 10, 6])),
            ("RN50x16", 768, 384, 96, 48, 768, 12, resnet([6, 8, 18, 8])),
            ("RN50x64", 1024, 448, 128, 64, 1024, 16, resnet([3, 15, 36, 10])),
        ]
        .into_iter()
        .map(|(name, embed_dim, size, width, heads, text_width, text_heads, family)| {
            let config = ClipConfig {
                embed_dim,
                image: ImageConfig { size, width, heads, family },
                text: text(text_width, text_heads),
                activation: Activation::QuickGelu,
                mean: OPENAI_MEAN,
                std: OPENAI_STD,
            };
            (name, config)
        })
        .collect()
    }

    #[test]
    fn every_model_of_openai_is_known_by_its_shapes() {
        for (name, config) in published() {
            let found = infer_from(&config.parameters()).unwrap();
            assert_eq!(found, config, "{name}");
        }
    }

    /// Sizes from open_clip's `model_configs`: width, heads and patch of the image tower, width and heads of the text tower.
    #[test]
    fn heads_of_wide_towers_are_open_clips() {
        for (name, width, heads, text_width, text_heads) in [
            ("ViT-H-14", 1280, 16, 1024, 16),
            (
                "ViT-g-14 with MLPs of 4 times the width",
                1408,
                16,
                1024,
                16,
            ),
            (
                "ViT-bigG-14 with MLPs of 4 times the width",
                1664,
                16,
                1280,
                20,
            ),
            (
                "ViT-e-14 with MLPs of 4 times the width",
                1792,
                16,
                1280,
                20,
            ),
            ("ViT-B-32-plus-256", 896, 14, 640, 10),
        ] {
            let mut config = published()[0].1.clone();
            (config.image.width, config.image.heads) = (width, heads);
            config.text = text(text_width, text_heads);
            let found = infer_from(&config.parameters()).unwrap();
            assert_eq!(found, config, "{name}");
        }
        for (width, text_width, word) in [
            (1152, 512, "an image tower of width 1152"),
            (100, 512, "an image tower of width 100"),
            (768, 1408, "a text tower of width 1408"),
            (768, 500, "a text tower of width 500"),
        ] {
            let mut config = published()[0].1.clone();
            config.image.width = width;
            config.text.width = text_width;
            let message = infer_from(&config.parameters()).unwrap_err().to_string();
            for word in [word, "open_clip_config.json", "config.json"] {
                assert!(message.contains(word), "{message}");
            }
        }
    }

    #[test]
    fn mlps_of_another_width_are_refused_by_name() {
        // ViT-g-14: mlp_ratio 4.3637.
        let mut config = published()[0].1.clone();
        (config.image.width, config.image.heads) = (1408, 16);
        let mut parameters = config.parameters();
        for (name, shape) in &mut parameters {
            if name.starts_with("visual.") && name.ends_with("mlp.c_fc.weight") {
                shape[0] = 6144;
            }
        }
        let message = infer_from(&parameters).unwrap_err().to_string();
        for word in [
            "visual.transformer.resblocks.0.mlp.c_fc.weight",
            "6144",
            "1408",
        ] {
            assert!(message.contains(word), "{message}");
        }
    }

    /// Parameters that the papers' models are known to have: 149,620,737 of ViT-B/16 and 102,007,137 of RN50.
    #[test]
    fn numbers_of_parameters_are_the_published_ones() {
        for (name, parameters) in [("ViT-B/16", 149_620_737), ("RN50", 102_007_137)] {
            let (_, config) = published()
                .into_iter()
                .find(|(found, _)| *found == name)
                .unwrap();
            let count: usize = config
                .parameters()
                .iter()
                .filter(|(tensor, _)| !tensor.contains("running_"))
                .map(|(_, shape)| shape.iter().product::<usize>())
                .sum();
            assert_eq!(count, parameters, "{name}");
        }
    }

    #[test]
    fn an_image_tower_of_no_known_family_is_refused() {
        let mut parameters = published()[0].1.parameters();
        parameters.retain(|(name, _)| !name.starts_with("visual."));
        parameters.push(("visual.trunk.norm.weight".to_owned(), vec![1]));
        let message = infer_from(&parameters).unwrap_err().to_string();
        for word in ["`visual.proj`", "`visual.attnpool.positional_embedding`"] {
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn other_architectures_are_refused() {
        let parameters = [("visual.trunk.norm.weight".to_owned(), vec![1])];
        let message = infer_from(&parameters).unwrap_err().to_string();
        for word in ["x.safetensors", "token_embedding", "visual.trunk"] {
            assert!(message.contains(word), "{message}");
        }
    }
}

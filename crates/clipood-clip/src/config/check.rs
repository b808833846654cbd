//! Which values a configuration may have. They are checked before anything is computed from them, so that no size overflows
//! and nothing is allocated for a model that no weight file can hold.

use std::ops::RangeInclusive;

use super::{ClipConfig, ImageFamily};
use crate::error::{ClipError, Result};

/// Widths of towers and of the shared space. The widest released CLIP has 1792.
const WIDTHS: RangeInclusive<usize> = 1..=32_768;
/// Attention heads. The released CLIP with the most has 64.
const HEADS: RangeInclusive<usize> = 1..=1024;
/// Residual blocks of a transformer or of a ResNet stage. The deepest released CLIP has 56.
const LAYERS: RangeInclusive<usize> = 1..=512;
/// Side of the input in pixels.
const IMAGE_SIZES: RangeInclusive<usize> = 1..=8192;
/// Tokens of a text: at least its start and its end.
const CONTEXTS: RangeInclusive<usize> = 2..=65_536;
/// Rows of the token embedding: at least one for each token of CLIP's tokenizer.
const VOCABULARIES: RangeInclusive<usize> = crate::tokenizer::VOCAB_SIZE..=4_194_304;
/// Mean of pixel values in 0..=1.
const MEANS: RangeInclusive<f32> = 0.0..=1.0;
/// Deviation of pixel values in 0..=1, or 1 where pixels are not scaled; smaller ones magnify rounding.
const DEVIATIONS: RangeInclusive<f32> = 0.001..=10.0;

impl ClipConfig {
    /// Values in the range of what can be computed, and sizes that divide as the architecture needs. `origin` names the
    /// file in messages.
    pub(crate) fn check(&self, origin: &str) -> Result<()> {
        self.problem().map_or(Ok(()), |reason| {
            Err(ClipError::Config {
                origin: origin.to_owned(),
                reason,
            })
        })
    }

    /// What is wrong with the values, if anything is.
    fn problem(&self) -> Option<String> {
        let (image, text) = (&self.image, &self.text);
        let sizes = [
            ("embed_dim", self.embed_dim, WIDTHS),
            ("image size", image.size, IMAGE_SIZES),
            ("image width", image.width, WIDTHS),
            ("image heads", image.heads, HEADS),
            ("text context length", text.context, CONTEXTS),
            ("text vocabulary", text.vocab, VOCABULARIES),
            ("text width", text.width, WIDTHS),
            ("text heads", text.heads, HEADS),
            ("text layers", text.layers, LAYERS),
        ];
        let channels = |name, values: [f32; 3], allowed: RangeInclusive<f32>| {
            let found = values.into_iter().find(|value| !allowed.contains(value))?;
            // NaN is in no range either.
            let (least, most) = (allowed.start(), allowed.end());
            Some(format!(
                "pixel {name}: found {found:?}, allowed: {least} to {most}, for pixels in 0..=1"
            ))
        };
        sizes
            .into_iter()
            .find_map(|(name, found, allowed)| outside(name, found, &allowed))
            .or_else(|| self.family_problem())
            .or_else(|| {
                let pooled = image.family.attention_width(image.width);
                [
                    ("image", pooled, image.heads),
                    ("text", text.width, text.heads),
                ]
                .into_iter()
                .find(|(_, width, heads)| width % heads != 0)
                .map(|(tower, width, heads)| {
                    format!("{tower} width {width} does not divide into {heads} heads")
                })
            })
            .or_else(|| channels("mean", self.mean, MEANS))
            .or_else(|| channels("deviation", self.std, DEVIATIONS))
    }

    fn family_problem(&self) -> Option<String> {
        let size = self.image.size;
        match &self.image.family {
            ImageFamily::Vit { layers, patch } => outside("image layers", *layers, &LAYERS)
                .or_else(|| outside("patch size", *patch, &(1..=size)))
                .or_else(|| {
                    (!size.is_multiple_of(*patch)).then(|| {
                        format!("image size {size} is not a multiple of the patch size {patch}")
                    })
                }),
            ImageFamily::Resnet { layers } => layers
                .iter()
                .find_map(|depth| outside("layers of an image stage", *depth, &LAYERS))
                .or_else(|| {
                    (!size.is_multiple_of(32)).then(|| {
                        format!(
                            "image size {size} is not a multiple of 32, as a ModifiedResNet needs"
                        )
                    })
                })
                .or_else(|| {
                    let width = self.image.width;
                    (!width.is_multiple_of(2)).then(|| {
                        format!(
                            "image width {width} is odd: a ModifiedResNet starts with half of it"
                        )
                    })
                }),
        }
    }
}

/// A sentence if `found` is not allowed.
fn outside(name: &str, found: usize, allowed: &RangeInclusive<usize>) -> Option<String> {
    (!allowed.contains(&found)).then(|| {
        let (least, most) = (allowed.start(), allowed.end());
        format!("{name}: found {found}, allowed: {least} to {most}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, ImageConfig, OPENAI_MEAN, OPENAI_STD, TextConfig};
    use super::*;

    fn vit_b_32() -> ClipConfig {
        ClipConfig {
            embed_dim: 512,
            image: ImageConfig {
                size: 224,
                width: 768,
                heads: 12,
                family: ImageFamily::Vit {
                    layers: 12,
                    patch: 32,
                },
            },
            text: TextConfig {
                context: 77,
                vocab: 49408,
                width: 512,
                heads: 8,
                layers: 12,
            },
            activation: Activation::QuickGelu,
            mean: OPENAI_MEAN,
            std: OPENAI_STD,
        }
    }

    fn refusal(change: impl FnOnce(&mut ClipConfig)) -> String {
        let mut config = vit_b_32();
        change(&mut config);
        config.check("x.json").unwrap_err().to_string()
    }

    #[test]
    fn sizes_out_of_range_are_named_with_what_is_allowed() {
        vit_b_32().check("x.json").unwrap();
        let huge = 1_000_000_000_000;
        let vit = |layers, patch| ImageFamily::Vit { layers, patch };
        let resnet = |layers| ImageFamily::Resnet { layers };
        for (message, expected) in [
            (
                refusal(|c| c.embed_dim = 0),
                "embed_dim: found 0, allowed: 1 to 32768",
            ),
            (
                refusal(|c| c.image.size = huge),
                "image size: found 1000000000000, allowed: 1 to 8192",
            ),
            (
                refusal(|c| c.image.width = usize::MAX),
                "image width: found 18446744073709551615, allowed: 1 to 32768",
            ),
            (
                refusal(|c| c.image.heads = 0),
                "image heads: found 0, allowed: 1 to 1024",
            ),
            (
                refusal(|c| c.text.context = huge),
                "text context length: found 1000000000000, allowed: 2 to 65536",
            ),
            (
                refusal(|c| c.text.vocab = 49407),
                "text vocabulary: found 49407, allowed: 49408 to 4194304",
            ),
            (
                refusal(|c| c.text.layers = huge),
                "text layers: found 1000000000000, allowed: 1 to 512",
            ),
            (
                refusal(|c| c.text.heads = 7),
                "text width 512 does not divide into 7 heads",
            ),
            (
                refusal(|c| c.image.family = vit(huge, 32)),
                "image layers: found 1000000000000, allowed: 1 to 512",
            ),
            (
                refusal(|c| c.image.family = vit(12, 0)),
                "patch size: found 0, allowed: 1 to 224",
            ),
            (
                refusal(|c| c.image.family = vit(12, 15)),
                "image size 224 is not a multiple of the patch size 15",
            ),
            (
                refusal(|c| c.image.family = resnet([3, 0, 6, 3])),
                "layers of an image stage: found 0, allowed: 1 to 512",
            ),
            (
                refusal(|c| {
                    c.image.family = resnet([3, 4, 6, 3]);
                    c.image.width = 63;
                }),
                "image width 63 is odd",
            ),
        ] {
            assert!(message.starts_with("x.json: "), "{message}");
            assert!(message.contains(expected), "{message}, expected {expected}");
        }
    }

    #[test]
    fn pixel_values_that_make_no_features_are_refused() {
        for std in [0.0, 1e-45, -0.5, 58.4, f32::NAN, f32::INFINITY] {
            let message = refusal(|c| c.std[1] = std);
            let expected = format!("pixel deviation: found {std:?}, allowed: 0.001 to 10");
            assert!(message.contains(&expected), "{message}");
        }
        for mean in [1e38, -0.1, 123.7, f32::NAN] {
            let message = refusal(|c| c.mean[2] = mean);
            let expected = format!("pixel mean: found {mean:?}, allowed: 0 to 1");
            assert!(message.contains(&expected), "{message}");
        }
        let mut unscaled = vit_b_32();
        (unscaled.mean, unscaled.std) = ([0.0; 3], [1.0; 3]);
        unscaled.check("x.json").unwrap();
    }
}

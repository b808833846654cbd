//! Image towers on the CPU, by the kernels of [`clipood_kernels`] alone: weights are put in the order of their products once,
//! and shared by clones.

use std::sync::Arc;

use clipood_kernels::packed::Format;
use clipood_kernels::resnet::{
    BottleneckParameters, ConvParameters, ConvSizes, Features, PoolParameters, ResNet,
    ResNetBuilder,
};
use clipood_kernels::vit::{Vit, VitParameters};

use crate::config::{ClipConfig, ImageFamily};
use crate::device::no_bf16;
use crate::error::Result;
use crate::named::Named;
use crate::weights::Weights;

/// An image tower of any family.
#[derive(Debug, Clone)]
pub(crate) struct CpuTower {
    tower: Tower,
    side: usize,
    mean: [f32; 3],
    std: [f32; 3],
}

#[derive(Debug, Clone)]
enum Tower {
    Vit(Arc<Vit>),
    Resnet(Arc<ResNet>),
}

impl CpuTower {
    /// Reads the tower from `visual.*`.
    ///
    /// # Errors
    /// A tensor is missing or of another shape, or the CPU lacks the format.
    pub fn load(weights: &Weights, config: &ClipConfig, format: Format) -> Result<Self> {
        let parts = Parts {
            named: Named {
                weights,
                prefix: "visual.",
            },
            config,
        };
        let tower = match &config.image.family {
            ImageFamily::Vit { layers, patch } => {
                Tower::Vit(Arc::new(parts.vit(*layers, *patch, format)?))
            }
            ImageFamily::Resnet { layers } => {
                Tower::Resnet(Arc::new(parts.resnet(layers, format)?))
            }
        };
        Ok(Self {
            tower,
            side: config.image.size,
            mean: config.mean,
            std: config.std,
        })
    }

    /// Normalised pixels `[batch, 3, side, side]` -> features before normalisation.
    pub fn encode(&self, pixels: &[f32], local: bool) -> Features {
        let plane = self.side * self.side;
        let mut ordered = Vec::with_capacity(pixels.len());
        for image in pixels.chunks_exact(3 * plane) {
            let (red, rest) = image.split_at(plane);
            let (green, blue) = rest.split_at(plane);
            let channels = red.iter().zip(green).zip(blue);
            ordered.extend(channels.flat_map(|((r, g), b)| [*r, *g, *b]));
        }
        self.forward(&ordered, local)
    }

    /// Decoded pixels `[batch, side, side, 3]`, one byte per channel -> features before normalisation.
    pub fn encode_bytes(&self, pixels: &[u8], local: bool) -> Features {
        // Every byte has one value in each channel.
        let values: Vec<[f32; 3]> = (0..=u8::MAX)
            .map(|byte| {
                let channel = |c: usize| (f32::from(byte) / 255.0 - self.mean[c]) / self.std[c];
                [channel(0), channel(1), channel(2)]
            })
            .collect();
        let mut normalised = Vec::with_capacity(pixels.len());
        for pixel in pixels.as_chunks::<3>().0 {
            for (channel, byte) in pixel.iter().enumerate() {
                normalised.push(values[usize::from(*byte)][channel]);
            }
        }
        self.forward(&normalised, local)
    }

    fn forward(&self, pixels: &[f32], local: bool) -> Features {
        match &self.tower {
            Tower::Vit(tower) => tower.forward(pixels, local),
            Tower::Resnet(tower) => tower.forward(pixels, local),
        }
    }
}

/// What the tower is built from.
struct Parts<'a> {
    named: Named<'a>,
    config: &'a ClipConfig,
}

impl<'a> Parts<'a> {
    fn vit(&self, layers: usize, patch: usize, format: Format) -> Result<Vit> {
        let image = &self.config.image;
        let (named, width) = (&self.named, image.width);
        let parameters = VitParameters {
            side: image.size,
            patch,
            heads: image.heads,
            activation: self.config.activation.into(),
            patches: named.tensor("conv1.weight", &[width, 3, patch, patch])?,
            class_token: named.tensor("class_embedding", &[width])?,
            positions: named.tensor("positional_embedding", &[image.positions() + 1, width])?,
            ln_pre: named.norm("ln_pre", width)?,
            ln_post: named.norm("ln_post", width)?,
            projection: named.tensor("proj", &[width, self.config.embed_dim])?,
        };
        let mut vit = Vit::new(&parameters).ok_or_else(no_bf16)?;
        for i in 0..layers {
            let block = self.named.block(i, width)?;
            vit.block(&block, format).ok_or_else(no_bf16)?;
        }
        Ok(vit)
    }

    /// A convolution and its norm; `sizes` are input, output, kernel and stride.
    fn conv(&self, conv: &str, norm: &str, sizes: [usize; 4]) -> Result<ConvParameters<'a>> {
        let ([input, output, kernel, stride], named) = (sizes, &self.named);
        let part = |name: &str| named.tensor(&format!("{norm}.{name}"), &[output]);
        Ok(ConvParameters {
            sizes: ConvSizes {
                input,
                output,
                kernel,
                stride,
            },
            weight: named.tensor(&format!("{conv}.weight"), &[output, input, kernel, kernel])?,
            gamma: part("weight")?,
            beta: part("bias")?,
            mean: part("running_mean")?,
            variance: part("running_var")?,
        })
    }

    fn resnet(&self, layers: &[usize], format: Format) -> Result<ResNet> {
        let image = &self.config.image;
        let (named, width, half) = (&self.named, image.width, image.width / 2);
        let mut tower = ResNetBuilder::new(image.size, format);
        for (i, sizes) in [[3, half, 3, 2], [half, half, 3, 1], [half, width, 3, 1]]
            .into_iter()
            .enumerate()
        {
            let (conv, norm) = (format!("conv{}", i + 1), format!("bn{}", i + 1));
            let conv = self.conv(&conv, &norm, sizes)?;
            tower.stem(&conv).ok_or_else(no_bf16)?;
        }
        let mut input = width;
        for (stage, depth) in layers.iter().enumerate() {
            let planes = width << stage;
            for i in 0..*depth {
                let at = |name: &str| format!("layer{}.{i}.{name}", stage + 1);
                let part = |n: usize, sizes: [usize; 4]| {
                    self.conv(&at(&format!("conv{n}")), &at(&format!("bn{n}")), sizes)
                };
                let downsample = match i {
                    0 => Some(self.conv(
                        &at("downsample.0"),
                        &at("downsample.1"),
                        [input, planes * 4, 1, 1],
                    )?),
                    _ => None,
                };
                let block = BottleneckParameters {
                    convs: [
                        part(1, [input, planes, 1, 1])?,
                        part(2, [planes, planes, 3, 1])?,
                        part(3, [planes, planes * 4, 1, 1])?,
                    ],
                    downsample,
                    pool: if i == 0 && stage > 0 { 2 } else { 1 },
                };
                tower.block(&block).ok_or_else(no_bf16)?;
                input = planes * 4;
            }
        }
        let linear = |name: &str, output: usize| {
            let (weight, bias) = (
                format!("attnpool.{name}.weight"),
                format!("attnpool.{name}.bias"),
            );
            named.linear(&weight, &bias, [input, output])
        };
        let pool = PoolParameters {
            positions: named.tensor(
                "attnpool.positional_embedding",
                &[image.positions() + 1, input],
            )?,
            queries: linear("q_proj", input)?,
            keys: linear("k_proj", input)?.0,
            values: linear("v_proj", input)?,
            projection: linear("c_proj", self.config.embed_dim)?,
            heads: image.heads,
        };
        tower.finish(&pool).ok_or_else(no_bf16)
    }
}

//! Image towers on the CPU, by the kernels of [`clipood_kernels`] alone: weights are put in the order of their products once,
//! and shared by clones.

use std::sync::Arc;

use clipood_kernels::activation::Activation as KernelActivation;
use clipood_kernels::norm::Norm;
use clipood_kernels::packed::Format;
use clipood_kernels::resnet::{
    BottleneckParameters, ConvParameters, ConvSizes, Features, PoolParameters, ResNet,
    ResNetBuilder,
};
use clipood_kernels::vit::{BlockParameters, Linear, Vit, VitParameters};

use crate::config::{Activation, ClipConfig, ImageFamily};
use crate::device::no_bf16;
use crate::error::{ClipError, Result};
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
        let named = Named { weights, config };
        let tower = match &config.image.family {
            ImageFamily::Vit { layers, patch } => {
                Tower::Vit(Arc::new(named.vit(*layers, *patch, format)?))
            }
            ImageFamily::Resnet { layers } => {
                Tower::Resnet(Arc::new(named.resnet(layers, format)?))
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
                let channel =
                    |c: usize| (f32::from(byte) / 255.0 - self.mean[c]) / self.std[c];
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

/// The tensors of an image tower by their names.
struct Named<'a> {
    weights: &'a Weights,
    config: &'a ClipConfig,
}

impl<'a> Named<'a> {
    /// `visual.NAME`, checked against its shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
        self.weights.values(&format!("visual.{name}"), shape)
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm<'a>> {
        Ok(Norm {
            gamma: self.tensor(&format!("{name}.weight"), &[width])?,
            beta: self.tensor(&format!("{name}.bias"), &[width])?,
        })
    }

    /// A weight `[output, input]` and its bias.
    fn linear(&self, weight: &str, bias: &str, sizes: [usize; 2]) -> Result<Linear<'a>> {
        let [input, output] = sizes;
        Ok((
            self.tensor(weight, &[output, input])?,
            self.tensor(bias, &[output])?,
        ))
    }

    fn vit(&self, layers: usize, patch: usize, format: Format) -> Result<Vit> {
        let image = &self.config.image;
        let width = image.width;
        let activation = match self.config.activation {
            Activation::Gelu => KernelActivation::Gelu,
            Activation::QuickGelu => KernelActivation::QuickGelu,
        };
        let parameters = VitParameters {
            side: image.size,
            patch,
            heads: image.heads,
            activation,
            patches: self.tensor("conv1.weight", &[width, 3, patch, patch])?,
            class_token: self.tensor("class_embedding", &[width])?,
            positions: self.tensor("positional_embedding", &[image.positions() + 1, width])?,
            ln_pre: self.norm("ln_pre", width)?,
            ln_post: self.norm("ln_post", width)?,
            projection: self.tensor("proj", &[width, self.config.embed_dim])?,
        };
        let mut vit = Vit::new(&parameters).ok_or_else(no_bf16)?;
        for i in 0..layers {
            let at = |name: &str| format!("transformer.resblocks.{i}.{name}");
            let linear = |name: &str, sizes: [usize; 2]| {
                let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
                self.linear(&at(&weight), &at(&bias), sizes)
            };
            let block = BlockParameters {
                ln_1: self.norm(&at("ln_1"), width)?,
                in_proj: self.linear(
                    &at("attn.in_proj_weight"),
                    &at("attn.in_proj_bias"),
                    [width, 3 * width],
                )?,
                out_proj: linear("attn.out_proj", [width, width])?,
                ln_2: self.norm(&at("ln_2"), width)?,
                c_fc: linear("mlp.c_fc", [width, 4 * width])?,
                c_proj: linear("mlp.c_proj", [4 * width, width])?,
            };
            vit.block(&block, format).ok_or_else(no_bf16)?;
        }
        Ok(vit)
    }

    /// A convolution and its norm; `sizes` are input, output, kernel and stride.
    fn conv(&self, conv: &str, norm: &str, sizes: [usize; 4]) -> Result<ConvParameters<'a>> {
        let [input, output, kernel, stride] = sizes;
        let part = |name: &str| self.tensor(&format!("{norm}.{name}"), &[output]);
        Ok(ConvParameters {
            sizes: ConvSizes {
                input,
                output,
                kernel,
                stride,
            },
            weight: self.tensor(&format!("{conv}.weight"), &[output, input, kernel, kernel])?,
            gamma: part("weight")?,
            beta: part("bias")?,
            mean: part("running_mean")?,
            variance: part("running_var")?,
        })
    }

    fn resnet(&self, layers: &[usize], format: Format) -> Result<ResNet> {
        let image = &self.config.image;
        let (width, half) = (image.width, image.width / 2);
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
            let (weight, bias) = (format!("attnpool.{name}.weight"), format!("attnpool.{name}.bias"));
            self.linear(&weight, &bias, [input, output])
        };
        let pool = PoolParameters {
            positions: self.tensor(
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

impl Weights {
    /// The values of the tensor called `name`, row-major.
    ///
    /// # Errors
    /// Missing, or of another shape.
    fn values(&self, name: &str, expected: &[usize]) -> Result<&[f32]> {
        let found = self.get(name).ok_or_else(|| ClipError::MissingTensor {
            origin: self.origin.clone(),
            name: name.to_owned(),
            expected: expected.to_vec(),
        })?;
        if found.shape != expected {
            return Err(ClipError::Shape {
                origin: self.origin.clone(),
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: found.shape.clone(),
            });
        }
        Ok(&found.data)
    }
}

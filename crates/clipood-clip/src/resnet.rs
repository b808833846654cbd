//! OpenAI's ModifiedResNet: three stem convolutions, anti-aliased strides (average pooling before a convolution)
//! and attention pooling (`clip/model.py` of openai/CLIP; local features as LoCoOp's `clip_w_local`).

use burn::module::{Module, Param};
use burn::nn::BatchNorm;
use burn::tensor::backend::Backend;
use burn::tensor::module::{attention, avg_pool2d, conv2d};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{FloatDType, Tensor, activation};

use crate::config::{ClipConfig, ImageFamily};
use crate::error::Result;
use crate::image_features::ImageFeatures;
use crate::kernels::ClipBackend;
use crate::layers::{Linear, join_heads, load_batch_norm, primitive, save_batch_norm, split_heads};
use crate::weights::Weights;

/// A bias-free convolution and the batch norm after it.
#[derive(Module, Debug)]
struct ConvNorm<B: Backend> {
    weight: Param<Tensor<B, 4>>,
    norm: BatchNorm<B>,
    stride: usize,
}

/// Names of a [`ConvNorm`] in the state dict, and its sizes.
struct ConvSpec<'a> {
    conv: &'a str,
    norm: &'a str,
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
}

impl<B: ClipBackend> ConvNorm<B> {
    fn load(weights: &Weights, spec: &ConvSpec<'_>, device: &B::Device) -> Result<Self> {
        let shape = [spec.output, spec.input, spec.kernel, spec.kernel];
        Ok(Self {
            weight: weights.param(&format!("{}.weight", spec.conv), shape, device)?,
            norm: load_batch_norm(weights, spec.norm, spec.output, device)?,
            stride: spec.stride,
        })
    }

    fn save(&self, weights: &mut Weights, conv: &str, norm: &str) {
        weights.store(&format!("{conv}.weight"), self.weight.val());
        save_batch_norm(&self.norm, weights, norm);
    }

    /// With gradients: batch statistics. Without: the norm is folded into the convolution, which saves four passes
    /// over the activations.
    fn forward(&self, x: Tensor<B, 4>, relu: bool) -> Tensor<B, 4> {
        let kernel = self.weight.dims()[2];
        let padding = kernel / 2;
        let options = ConvOptions::new([self.stride; 2], [padding; 2], [1, 1], 1);
        if B::ad_enabled(&x.device()) {
            return self.forward_train(x, relu, options);
        }
        let output = self.weight.dims()[0];
        let scale =
            self.norm.gamma.val() / (self.norm.running_var.value() + self.norm.epsilon).sqrt();
        let bias = self.norm.beta.val() - self.norm.running_mean.value() * scale.clone();
        let weight = self.weight.val() * scale.reshape([output, 1, 1, 1]);
        // Folded in float32, applied in the format of the activations.
        let dtype = x.dtype();
        let y = conv2d(x, weight.cast(dtype), Some(bias.cast(dtype)), options);
        if relu { activation::relu(y) } else { y }
    }

    /// With batch statistics, which also update the running ones.
    fn forward_train(&self, x: Tensor<B, 4>, relu: bool, options: ConvOptions<2>) -> Tensor<B, 4> {
        if let Some(y) = self.forward_train_fused(x.clone(), relu) {
            return y;
        }
        let y = self
            .norm
            .forward(conv2d(x, self.weight.val(), None, options));
        if relu { activation::relu(y) } else { y }
    }

    /// [`ConvNorm::forward_train`] by the backend's own kernel, if it has one.
    fn forward_train_fused(&self, x: Tensor<B, 4>, relu: bool) -> Option<Tensor<B, 4>> {
        let device = x.device();
        let output = B::conv_norm_train(crate::kernels::ConvNormArgs {
            x: primitive(x),
            weight: primitive(self.weight.val()),
            gamma: primitive(self.norm.gamma.val()),
            beta: primitive(self.norm.beta.val()),
            stride: self.stride,
            relu,
        })?;
        for (running, batch) in [
            (&self.norm.running_mean, output.mean),
            (&self.norm.running_var, output.variance),
        ] {
            let batch = Tensor::<B, 1>::from_floats(batch.as_slice(), &device);
            let momentum = self.norm.momentum;
            let moved = running.value_sync() * (1.0 - momentum) + batch * momentum;
            running.update(moved.detach());
        }
        let y = burn::tensor::TensorPrimitive::Float(output.y);
        Some(Tensor::from_primitive(y))
    }
}

/// 1x1, 3x3, 1x1 with an expansion of four; strides are average pooling.
#[derive(Module, Debug)]
struct Bottleneck<B: Backend> {
    conv1: ConvNorm<B>,
    conv2: ConvNorm<B>,
    conv3: ConvNorm<B>,
    downsample: Option<ConvNorm<B>>,
    stride: usize,
}

impl<B: ClipBackend> Bottleneck<B> {
    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let pool = |x: Tensor<B, 4>| match self.stride {
            1 => x,
            s => avg_pool2d(x, [s; 2], [s; 2], [0, 0], true, false),
        };
        let h = self.conv1.forward(x.clone(), true);
        let h = self.conv2.forward(h, true);
        let h = self.conv3.forward(pool(h), false);
        let shortcut = match &self.downsample {
            Some(conv) => conv.forward(pool(x), false),
            None => x,
        };
        activation::relu(h + shortcut)
    }
}

/// Attention pooling: the mean of all positions is the query, all positions are keys and values.
#[derive(Module, Debug)]
struct AttentionPool<B: Backend> {
    positional_embedding: Param<Tensor<B, 2>>,
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    c_proj: Linear<B>,
    heads: usize,
}

impl<B: ClipBackend> AttentionPool<B> {
    /// `[batch, channels, height, width]` -> global `[batch, D]`, local `[batch, height * width, D]`.
    fn forward(&self, x: Tensor<B, 4>, local: bool) -> ImageFeatures<B> {
        let positions = x.flatten::<3>(2, 3).swap_dims(1, 2);
        let mean = positions.clone().mean_dim(1);
        let tokens = Tensor::cat(vec![mean, positions.clone()], 1)
            + self.positional_embedding.val().unsqueeze::<3>();
        let query = self.q_proj.forward(tokens.clone().narrow(1, 0, 1));
        let attended = attention(
            split_heads(query, self.heads),
            split_heads(self.k_proj.forward(tokens.clone()), self.heads),
            split_heads(self.v_proj.forward(tokens), self.heads),
            None,
            None,
            AttentionModuleOptions::default(),
        );
        let global = self.c_proj.forward(join_heads(attended)).squeeze_dim(1);
        let local = local.then(|| self.c_proj.forward(self.v_proj.forward(positions)));
        ImageFeatures { global, local }
    }
}

/// The image tower of OpenAI's RN models.
#[derive(Module, Debug)]
pub struct ModifiedResNet<B: Backend> {
    stem: Vec<ConvNorm<B>>,
    blocks: Vec<Bottleneck<B>>,
    pool: AttentionPool<B>,
    stages: Vec<usize>,
}

impl<B: ClipBackend> ModifiedResNet<B> {
    /// Reads the tower from `visual.*`; `layers` are the depths of the four stages.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        let width = config.image.width;
        let ImageFamily::Resnet { layers } = &config.image.family else {
            return Err(crate::error::ClipError::Config {
                origin: weights.origin.clone(),
                reason: "the image tower is not a ModifiedResNet".into(),
            });
        };
        let conv = |conv: &str, norm: &str, [input, output, kernel, stride]: [usize; 4]| {
            let spec = ConvSpec {
                conv,
                norm,
                input,
                output,
                kernel,
                stride,
            };
            ConvNorm::load(weights, &spec, device)
        };
        let half = width / 2;
        let stem = vec![
            conv("visual.conv1", "visual.bn1", [3, half, 3, 2])?,
            conv("visual.conv2", "visual.bn2", [half, half, 3, 1])?,
            conv("visual.conv3", "visual.bn3", [half, width, 3, 1])?,
        ];
        let mut input = width;
        let mut blocks = Vec::new();
        for (stage, depth) in layers.iter().enumerate() {
            let planes = width << stage;
            for i in 0..*depth {
                let name = format!("visual.layer{}.{i}", stage + 1);
                let part = |n: usize, sizes: [usize; 4]| {
                    conv(&format!("{name}.conv{n}"), &format!("{name}.bn{n}"), sizes)
                };
                blocks.push(Bottleneck {
                    conv1: part(1, [input, planes, 1, 1])?,
                    conv2: part(2, [planes, planes, 3, 1])?,
                    conv3: part(3, [planes, planes * 4, 1, 1])?,
                    downsample: if i == 0 {
                        Some(conv(
                            &format!("{name}.downsample.0"),
                            &format!("{name}.downsample.1"),
                            [input, planes * 4, 1, 1],
                        )?)
                    } else {
                        None
                    },
                    stride: if i == 0 && stage > 0 { 2 } else { 1 },
                });
                input = planes * 4;
            }
        }
        let linear = |name: &str, output: usize| {
            Linear::load(
                weights,
                &format!("visual.attnpool.{name}.weight"),
                &format!("visual.attnpool.{name}.bias"),
                [input, output],
                device,
            )
        };
        let pool = AttentionPool {
            positional_embedding: weights.param(
                "visual.attnpool.positional_embedding",
                [config.image.positions() + 1, input],
                device,
            )?,
            q_proj: linear("q_proj", input)?,
            k_proj: linear("k_proj", input)?,
            v_proj: linear("v_proj", input)?,
            c_proj: linear("c_proj", config.embed_dim)?,
            heads: config.image.heads,
        };
        Ok(Self {
            stem,
            blocks,
            pool,
            stages: layers.to_vec(),
        })
    }

    /// Writes the tower back under `visual.*`.
    pub fn save(&self, weights: &mut Weights) {
        for (i, conv) in self.stem.iter().enumerate() {
            let n = i + 1;
            conv.save(
                weights,
                &format!("visual.conv{n}"),
                &format!("visual.bn{n}"),
            );
        }
        let mut blocks = self.blocks.iter();
        for (stage, depth) in self.stages.iter().enumerate() {
            for (i, block) in blocks.by_ref().take(*depth).enumerate() {
                let name = format!("visual.layer{}.{i}", stage + 1);
                for (n, conv) in [&block.conv1, &block.conv2, &block.conv3]
                    .into_iter()
                    .enumerate()
                {
                    let n = n + 1;
                    conv.save(
                        weights,
                        &format!("{name}.conv{n}"),
                        &format!("{name}.bn{n}"),
                    );
                }
                if let Some(conv) = &block.downsample {
                    conv.save(
                        weights,
                        &format!("{name}.downsample.0"),
                        &format!("{name}.downsample.1"),
                    );
                }
            }
        }
        weights.store(
            "visual.attnpool.positional_embedding",
            self.pool.positional_embedding.val(),
        );
        for (name, layer) in [
            ("q_proj", &self.pool.q_proj),
            ("k_proj", &self.pool.k_proj),
            ("v_proj", &self.pool.v_proj),
            ("c_proj", &self.pool.c_proj),
        ] {
            layer.save(
                weights,
                &format!("visual.attnpool.{name}.weight"),
                &format!("visual.attnpool.{name}.bias"),
            );
        }
    }

    /// Normalised pixels `[batch, 3, size, size]` -> features before normalisation. The convolutions run in the format of
    /// the pixels, the attention pooling in float32.
    pub fn forward(&self, pixels: Tensor<B, 4>, local: bool) -> ImageFeatures<B> {
        let mut x = pixels;
        for conv in &self.stem {
            x = conv.forward(x, true);
        }
        x = avg_pool2d(x, [2, 2], [2, 2], [0, 0], true, false);
        for block in &self.blocks {
            x = block.forward(x);
        }
        self.pool.forward(x.cast(FloatDType::F32), local)
    }
}

//! Layers of both towers. Each has `load` (from OpenAI's names) and `save` (back to them).

use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, LayerNorm};
use burn::tensor::backend::Backend;
use burn::tensor::module::{attention, linear};
use burn::tensor::ops::{AttentionModuleOptions, FloatTensor};
use burn::tensor::{Bool, DType, FloatDType, Int, Tensor, TensorData, TensorPrimitive, activation};

use crate::config::Activation;
use crate::error::Result;
use crate::kernels::{BlockParameters, BlockPass, ClipBackend};
use crate::weights::Weights;

/// Affine map; the weight is kept as `[input, output]`, transposed from the file's `[output, input]`.
#[derive(Module, Debug)]
pub(crate) struct Linear<B: Backend> {
    /// `[input, output]`.
    pub(crate) weight: Param<Tensor<B, 2>>,
    /// `[output]`.
    pub(crate) bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Linear<B> {
    /// Reads `weight_name` `[output, input]` and `bias_name` `[output]`.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub(crate) fn load(
        weights: &Weights,
        weight_name: &str,
        bias_name: &str,
        [input, output]: [usize; 2],
        device: &B::Device,
    ) -> Result<Self> {
        let weight: Tensor<B, 2> = weights.tensor(weight_name, [output, input], device)?;
        Ok(Self {
            weight: Param::from_tensor(contiguous(weight.transpose())),
            bias: weights.param(bias_name, [output], device)?,
        })
    }

    /// Writes both tensors back under the given names.
    pub(crate) fn save(&self, weights: &mut Weights, weight_name: &str, bias_name: &str) {
        weights.store(weight_name, self.weight.val().transpose());
        weights.store(bias_name, self.bias.val());
    }

    /// The same map in another number format.
    #[must_use]
    pub(crate) fn cast(self, dtype: FloatDType) -> Self {
        Self {
            weight: cast(self.weight, dtype),
            bias: cast(self.bias, dtype),
        }
    }

    /// `[..., input]` -> `[..., output]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        linear(x, self.weight.val(), Some(self.bias.val()))
    }
}

/// A copy of `x` whose memory follows its shape, so that later products do not stride.
fn contiguous<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let device = x.device();
    Tensor::from_data(x.into_data(), &device)
}

/// A parameter in another number format.
pub(crate) fn cast<B: Backend, const D: usize>(
    parameter: Param<Tensor<B, D>>,
    dtype: FloatDType,
) -> Param<Tensor<B, D>> {
    parameter.map(|tensor| tensor.cast(dtype))
}

/// `norm` of `x`, computed in float32 and returned in the number format of `x`.
pub(crate) fn layer_norm<B: Backend, const D: usize>(
    norm: &LayerNorm<B>,
    x: Tensor<B, D>,
) -> Tensor<B, D> {
    match x.dtype() {
        DType::F32 => norm.forward(x),
        dtype => norm.forward(x.cast(FloatDType::F32)).cast(dtype),
    }
}

/// Reads a layer norm of `width` with epsilon 1e-5.
///
/// # Errors
/// A tensor is missing or of another shape.
pub(crate) fn load_layer_norm<B: Backend>(
    weights: &Weights,
    prefix: &str,
    width: usize,
    device: &B::Device,
) -> Result<LayerNorm<B>> {
    let mut norm = burn::nn::LayerNormConfig::new(width)
        .with_epsilon(1e-5)
        .init(device);
    norm.gamma = weights.param(&format!("{prefix}.weight"), [width], device)?;
    norm.beta = Some(weights.param(&format!("{prefix}.bias"), [width], device)?);
    Ok(norm)
}

/// Writes a layer norm back.
pub(crate) fn save_layer_norm<B: Backend>(
    norm: &LayerNorm<B>,
    weights: &mut Weights,
    prefix: &str,
) {
    weights.store(&format!("{prefix}.weight"), norm.gamma.val());
    if let Some(beta) = &norm.beta {
        weights.store(&format!("{prefix}.bias"), beta.val());
    }
}

/// Reads a batch norm of `width` with epsilon 1e-5 and its running statistics.
///
/// # Errors
/// A tensor is missing or of another shape.
pub(crate) fn load_batch_norm<B: Backend>(
    weights: &Weights,
    prefix: &str,
    width: usize,
    device: &B::Device,
) -> Result<BatchNorm<B>> {
    Ok(BatchNorm {
        gamma: weights.param(&format!("{prefix}.weight"), [width], device)?,
        beta: weights.param(&format!("{prefix}.bias"), [width], device)?,
        running_mean: RunningState::new(weights.tensor(
            &format!("{prefix}.running_mean"),
            [width],
            device,
        )?),
        running_var: RunningState::new(weights.tensor(
            &format!("{prefix}.running_var"),
            [width],
            device,
        )?),
        momentum: 0.1,
        epsilon: 1e-5,
    })
}

/// Writes a batch norm back.
pub(crate) fn save_batch_norm<B: Backend>(
    norm: &BatchNorm<B>,
    weights: &mut Weights,
    prefix: &str,
) {
    weights.store(&format!("{prefix}.weight"), norm.gamma.val());
    weights.store(&format!("{prefix}.bias"), norm.beta.val());
    weights.store(
        &format!("{prefix}.running_mean"),
        norm.running_mean.value_sync(),
    );
    weights.store(
        &format!("{prefix}.running_var"),
        norm.running_var.value_sync(),
    );
}

/// `[batch, tokens, width]` -> `[batch, heads, tokens, width / heads]`.
pub(crate) fn split_heads<B: Backend>(x: Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads])
        .swap_dims(1, 2)
}

/// `[batch, heads, tokens, head]` -> `[batch, tokens, heads * head]`.
pub(crate) fn join_heads<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 3> {
    let [batch, heads, tokens, head] = x.dims();
    x.swap_dims(1, 2).reshape([batch, tokens, heads * head])
}

/// Pre-norm residual block: attention, then an MLP four times as wide.
#[derive(Module, Debug)]
pub struct ResidualBlock<B: Backend> {
    ln_1: LayerNorm<B>,
    in_proj: Linear<B>,
    out_proj: Linear<B>,
    ln_2: LayerNorm<B>,
    c_fc: Linear<B>,
    c_proj: Linear<B>,
    heads: usize,
    quick_gelu: bool,
}

/// Keys and values of the leading tokens in one block, each `[batch, heads, tokens, head]`.
#[derive(Debug, Clone)]
pub(crate) struct KeysValues<B: Backend> {
    /// Keys.
    pub(crate) keys: Tensor<B, 4>,
    /// Values.
    pub(crate) values: Tensor<B, 4>,
}

impl<B: ClipBackend> ResidualBlock<B> {
    /// Reads the block called `prefix` (`...resblocks.3`).
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(
        weights: &Weights,
        prefix: &str,
        width: usize,
        heads: usize,
        activation: Activation,
        device: &B::Device,
    ) -> Result<Self> {
        let linear = |name: &str, sizes: [usize; 2]| {
            Linear::load(
                weights,
                &format!("{prefix}.{name}.weight"),
                &format!("{prefix}.{name}.bias"),
                sizes,
                device,
            )
        };
        Ok(Self {
            ln_1: load_layer_norm(weights, &format!("{prefix}.ln_1"), width, device)?,
            in_proj: Linear::load(
                weights,
                &format!("{prefix}.attn.in_proj_weight"),
                &format!("{prefix}.attn.in_proj_bias"),
                [width, 3 * width],
                device,
            )?,
            out_proj: linear("attn.out_proj", [width, width])?,
            ln_2: load_layer_norm(weights, &format!("{prefix}.ln_2"), width, device)?,
            c_fc: linear("mlp.c_fc", [width, 4 * width])?,
            c_proj: linear("mlp.c_proj", [4 * width, width])?,
            heads,
            quick_gelu: activation == Activation::QuickGelu,
        })
    }

    /// Writes the block back.
    pub fn save(&self, weights: &mut Weights, prefix: &str) {
        save_layer_norm(&self.ln_1, weights, &format!("{prefix}.ln_1"));
        self.in_proj.save(
            weights,
            &format!("{prefix}.attn.in_proj_weight"),
            &format!("{prefix}.attn.in_proj_bias"),
        );
        save_layer_norm(&self.ln_2, weights, &format!("{prefix}.ln_2"));
        for (name, layer) in [
            ("attn.out_proj", &self.out_proj),
            ("mlp.c_fc", &self.c_fc),
            ("mlp.c_proj", &self.c_proj),
        ] {
            layer.save(
                weights,
                &format!("{prefix}.{name}.weight"),
                &format!("{prefix}.{name}.bias"),
            );
        }
    }

    /// `[batch, tokens, width]` -> the same; with `causal` a token attends only to itself and to earlier tokens.
    pub fn forward(&self, x: Tensor<B, 3>, causal: bool) -> Tensor<B, 3> {
        let x = match self.by_kernel(x, causal, BlockPass::All) {
            Ok(y) => return y,
            Err(x) => x,
        };
        let (q, kv) = self.project(x.clone());
        let attended = attend(q, kv.keys, kv.values, None, causal);
        self.finish(x, attended)
    }

    /// As [`ResidualBlock::forward`], of which only token `at[i]` of row `i` is read: `[batch, width]`.
    pub fn forward_at(&self, x: Tensor<B, 3>, causal: bool, at: &[usize]) -> Tensor<B, 2> {
        match self.by_kernel(x, causal, BlockPass::At(at)) {
            Ok(y) => y,
            Err(x) => tokens_at(self.forward(x, causal), at),
        }
    }

    /// As [`ResidualBlock::forward`] with `causal`, and also the keys and values for tokens that follow.
    pub(crate) fn forward_prefix(&self, x: Tensor<B, 3>) -> (Tensor<B, 3>, KeysValues<B>) {
        let (q, kv) = self.project(x.clone());
        let attended = attend(q, kv.keys.clone(), kv.values.clone(), None, true);
        (self.finish(x, attended), kv)
    }

    /// Tokens `x` `[batch, tokens, width]` that follow a shared prefix: `prefix` comes from a batch of one,
    /// `mask` `[batch, heads, tokens, prefix + tokens]` is true where attention is forbidden.
    pub(crate) fn forward_suffix(
        &self,
        x: Tensor<B, 3>,
        prefix: &KeysValues<B>,
        mask: Tensor<B, 4, Bool>,
    ) -> Tensor<B, 3> {
        let batch = x.dims()[0];
        let (q, kv) = self.project(x.clone());
        let [_, heads, tokens, head] = prefix.keys.dims();
        let shape = [batch, heads, tokens, head];
        let keys = Tensor::cat(vec![prefix.keys.clone().expand(shape), kv.keys], 2);
        let values = Tensor::cat(vec![prefix.values.clone().expand(shape), kv.values], 2);
        let attended = attend(q, keys, values, Some(mask), false);
        self.finish(x, attended)
    }

    /// The block in another number format; its norms stay float32.
    #[must_use]
    pub fn cast(self, dtype: FloatDType) -> Self {
        Self {
            in_proj: self.in_proj.cast(dtype),
            out_proj: self.out_proj.cast(dtype),
            c_fc: self.c_fc.cast(dtype),
            c_proj: self.c_proj.cast(dtype),
            ..self
        }
    }

    /// Attention heads.
    pub(crate) fn heads(&self) -> usize {
        self.heads
    }

    /// Keys and values of tokens whose own output is not needed (in the last block of a shared prefix).
    pub(crate) fn keys_values(&self, x: Tensor<B, 3>) -> KeysValues<B> {
        self.project(x).1
    }

    /// The value path alone, as LoCoOp's local features take it: `v = x + out_proj(V(ln_1(x)))`, `v + mlp(ln_2(v))`.
    pub fn forward_values(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = match self.by_kernel(x, false, BlockPass::Values) {
            Ok(y) => return y,
            Err(x) => x,
        };
        let width = x.dims()[2];
        let h = layer_norm(&self.ln_1, x.clone());
        let weight = self
            .in_proj
            .weight
            .val()
            .slice([0..width, 2 * width..3 * width]);
        let bias = self.in_proj.bias.val().narrow(0, 2 * width, width);
        let v = linear(h, weight, Some(bias));
        self.mlp(x + self.out_proj.forward(v))
    }

    /// The block by the backend's own kernel. The error is `x` itself, where the backend has no such kernel.
    fn by_kernel<const D: usize>(
        &self,
        x: Tensor<B, 3>,
        causal: bool,
        pass: BlockPass<'_>,
    ) -> std::result::Result<Tensor<B, D>, Tensor<B, 3>> {
        if x.dtype() != DType::F32 {
            return Err(x);
        }
        let Some(parameters) = self.parameters() else {
            return Err(x);
        };
        let tensor = TensorPrimitive::Float;
        match B::residual_block(primitive(x), parameters, causal, pass) {
            Ok(y) => Ok(Tensor::from_primitive(tensor(y))),
            Err(x) => Err(Tensor::from_primitive(tensor(x))),
        }
    }

    /// For the backend's own kernels; `None` for a norm without an offset, which does not occur in CLIP.
    pub(crate) fn parameters(&self) -> Option<BlockParameters<B>> {
        let norm = |norm: &LayerNorm<B>| {
            let beta = norm.beta.as_ref()?;
            Some((primitive(norm.gamma.val()), primitive(beta.val())))
        };
        let affine =
            |layer: &Linear<B>| (primitive(layer.weight.val()), primitive(layer.bias.val()));
        Some(BlockParameters {
            ln_1: norm(&self.ln_1)?,
            in_proj: affine(&self.in_proj),
            out_proj: affine(&self.out_proj),
            ln_2: norm(&self.ln_2)?,
            c_fc: affine(&self.c_fc),
            c_proj: affine(&self.c_proj),
            heads: self.heads,
            quick_gelu: self.quick_gelu,
        })
    }

    fn project(&self, x: Tensor<B, 3>) -> (Tensor<B, 4>, KeysValues<B>) {
        let width = x.dims()[2];
        let qkv = self.in_proj.forward(layer_norm(&self.ln_1, x));
        let part = |i: usize| split_heads(qkv.clone().narrow(2, i * width, width), self.heads);
        (
            part(0),
            KeysValues {
                keys: part(1),
                values: part(2),
            },
        )
    }

    fn finish(&self, x: Tensor<B, 3>, attended: Tensor<B, 4>) -> Tensor<B, 3> {
        self.mlp(x + self.out_proj.forward(join_heads(attended)))
    }

    fn mlp(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let h = self.c_fc.forward(layer_norm(&self.ln_2, x.clone()));
        let h = if self.quick_gelu {
            h.clone() * activation::sigmoid(h * 1.702)
        } else {
            activation::gelu(h)
        };
        x + self.c_proj.forward(h)
    }
}

/// Attention of queries `[batch, heads, tokens, head]` over keys and values; `mask` is true where it is forbidden.
///
/// In float32, and at inference without a mask, Burn's own operation, whose fused kernels add up in float32. In half
/// precision under autodiff or with a mask Burn would take the softmax in half precision, so it is written out here.
fn attend<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Option<Tensor<B, 4, Bool>>,
    causal: bool,
) -> Tensor<B, 4> {
    let dtype = q.dtype();
    let device = q.device();
    if dtype == DType::F32 || (mask.is_none() && !B::ad_enabled(&device)) {
        return attention(q, k, v, mask, None, options(causal));
    }
    let [batch, heads, tokens, head] = q.dims();
    let total = k.dims()[2];
    // Scaled before the product, so that it stays inside the range of f16.
    let q = q * (1.0 / (head as f64).sqrt());
    let mut scores = q.matmul(k.transpose()).cast(FloatDType::F32);
    if let Some(mask) = mask {
        scores = scores.mask_fill(mask, f32::NEG_INFINITY);
    }
    if causal {
        let forbidden: Vec<bool> = (0..tokens)
            .flat_map(|i| (0..total).map(move |j| j + tokens > i + total))
            .collect();
        let mask =
            Tensor::<B, 2, Bool>::from_data(TensorData::new(forbidden, [tokens, total]), &device);
        let mask = mask.reshape([1, 1, tokens, total]);
        let mask = mask.expand([batch, heads, tokens, total]);
        scores = scores.mask_fill(mask, f32::NEG_INFINITY);
    }
    activation::softmax(scores, 3).cast(dtype).matmul(v)
}

fn options(is_causal: bool) -> AttentionModuleOptions {
    AttentionModuleOptions {
        is_causal,
        ..Default::default()
    }
}

pub(crate) fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

/// Token `at[i]` of row `i` of `[batch, tokens, width]`: `[batch, width]`.
pub(crate) fn tokens_at<B: Backend>(x: Tensor<B, 3>, at: &[usize]) -> Tensor<B, 2> {
    let [batch, tokens, width] = x.dims();
    let device = x.device();
    let index: Vec<i32> = (at.iter().enumerate())
        .map(|(row, at)| (row * tokens + at) as i32)
        .collect();
    let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [batch]), &device);
    x.reshape([batch * tokens, width]).select(0, index)
}

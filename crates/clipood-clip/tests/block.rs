//! The transformer block's kernel against the same block composed of stock operations, which is what autodiff runs.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use clipood_clip::config::Activation;
use clipood_clip::kernels::ClipBackend;
use clipood_clip::layers::ResidualBlock;
use clipood_clip::weights::{Weights, tensor_to_vec};
use common::{hash_uniform, relative_difference};
use proptest::prelude::*;

fn weights(width: usize) -> Weights {
    let mut weights = Weights::new("test");
    let mut add = |name: &str, shape: &[usize], scale: f32, offset: f32| {
        let values = hash_uniform("block", name, shape.iter().product());
        let values = values.iter().map(|v| v * scale + offset).collect();
        weights.insert(format!("b.{name}"), shape.to_vec(), values);
    };
    // Weights large enough for attention to prefer some tokens over others.
    let scale = 2.0 / (width as f32).sqrt();
    for norm in ["ln_1", "ln_2"] {
        add(&format!("{norm}.weight"), &[width], 0.3, 1.0);
        add(&format!("{norm}.bias"), &[width], 0.2, 0.0);
    }
    add("attn.in_proj_weight", &[3 * width, width], scale, 0.0);
    add("attn.in_proj_bias", &[3 * width], 0.2, 0.0);
    add("attn.out_proj.weight", &[width, width], scale, 0.0);
    add("attn.out_proj.bias", &[width], 0.2, 0.0);
    add("mlp.c_fc.weight", &[4 * width, width], scale, 0.0);
    add("mlp.c_fc.bias", &[4 * width], 0.2, 0.0);
    add("mlp.c_proj.weight", &[width, 4 * width], scale, 0.0);
    add("mlp.c_proj.bias", &[width], 0.2, 0.0);
    weights
}

/// All tokens, one token of each row, and the value path, of one block on backend `B`.
fn passes<B: ClipBackend>(
    [batch, tokens, width]: [usize; 3],
    heads: usize,
    activation: Activation,
    causal: bool,
    at: &[usize],
) -> [Vec<f32>; 3] {
    let device = <B as burn::tensor::backend::BackendTypes>::Device::default();
    let block =
        ResidualBlock::<B>::load(&weights(width), "b", width, heads, activation, &device).unwrap();
    let x = input::<B>([batch, tokens, width], &device);
    let kept = tensor_to_vec(x.clone());
    let found = [
        tensor_to_vec(block.forward(x.clone(), causal)),
        tensor_to_vec(block.forward_at(x.clone(), causal, at)),
        tensor_to_vec(block.forward_values(x.clone())),
    ];
    assert_eq!(
        tensor_to_vec(x),
        kept,
        "a tensor held elsewhere was changed"
    );
    found
}

/// A view into a larger tensor, so that its memory does not follow its shape.
fn input<B: Backend>([batch, tokens, width]: [usize; 3], device: &B::Device) -> Tensor<B, 3> {
    let n = batch * (tokens + 1) * width;
    let values = TensorData::new(hash_uniform("block", "x", n), [tokens + 1, batch, width]);
    let x = Tensor::<B, 3>::from_data(values, device);
    x.swap_dims(0, 1).narrow(1, 1, tokens)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn kernel_equals_stock(
        batch in 1usize..8, tokens in 1usize..70, heads in 1usize..4, head in 1usize..35,
        quick: bool, causal: bool, pick in 0usize..1000,
    ) {
        let activation = if quick { Activation::QuickGelu } else { Activation::Gelu };
        let at: Vec<usize> = (0..batch).map(|i| (pick * (i + 3)) % tokens).collect();
        let shape = [batch, tokens, heads * head];
        let found = passes::<Flex>(shape, heads, activation, causal, &at);
        let expected = passes::<Autodiff<Flex>>(shape, heads, activation, causal, &at);
        for (i, what) in ["all tokens", "one token a row", "value path"].into_iter().enumerate() {
            let off = relative_difference(&found[i], &expected[i]);
            prop_assert!(off < 2e-5, "{}: relative difference {}", what, off);
        }
    }
}

#[test]
fn groups_of_sequences_are_put_together_again() {
    // More rows than one group takes, and not a whole number of groups.
    let shape = [23, 90, 16];
    let at: Vec<usize> = (0..23).map(|i| (i * 7) % 90).collect();
    let found = passes::<Flex>(shape, 2, Activation::QuickGelu, true, &at);
    let expected = passes::<Autodiff<Flex>>(shape, 2, Activation::QuickGelu, true, &at);
    for (found, expected) in found.iter().zip(&expected) {
        assert!(relative_difference(found, expected) < 2e-5);
    }
}

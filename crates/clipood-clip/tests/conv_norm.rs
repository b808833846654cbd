//! The fused training kernel of convolutions against the same operations composed of stock Burn.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use burn::backend::{Autodiff, Flex};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, TensorData, TensorPrimitive, activation::relu};
use clipood_clip::kernels::{ClipBackend, ConvNormArgs};
use clipood_clip::weights::tensor_to_vec;
use common::{hash_uniform, relative_difference};
use proptest::prelude::*;

type B = Autodiff<Flex>;

fn leaf<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<B, D> {
    let values = hash_uniform("kernel", name, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), &Default::default()).require_grad()
}

/// Convolution, batch norm by its definition, ReLU.
fn stock(
    [x, weight]: [Tensor<B, 4>; 2],
    [gamma, beta]: [Tensor<B, 1>; 2],
    stride: usize,
    with_relu: bool,
) -> Tensor<B, 4> {
    let [output, _, kernel, _] = weight.dims();
    let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1, 1], 1);
    let z = conv2d(x, weight, None, options);
    let mean = z.clone().mean_dims(&[0, 2, 3]);
    let centred = z - mean;
    let variance = (centred.clone() * centred.clone()).mean_dims(&[0, 2, 3]);
    let y = centred / (variance + 1e-5).sqrt() * gamma.reshape([1, output, 1, 1])
        + beta.reshape([1, output, 1, 1]);
    if with_relu { relu(y) } else { y }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn fused_equals_stock(
        images in 2usize..9, input in 1usize..6, output in 1usize..7,
        height in 3usize..11, width in 3usize..11,
        kernel in prop::sample::select(vec![1usize, 3]), stride in 1usize..3, with_relu: bool,
    ) {
        // A strided 1x1 convolution does not occur in the model.
        let stride = if kernel == 1 { 1 } else { stride };
        let x = leaf("x", [images, input, height, width]);
        let weight = leaf("weight", [output, input, kernel, kernel]);
        let (gamma, beta) = (leaf("gamma", [output]), leaf("beta", [output]));
        let primitive = |t: &Tensor<B, 4>| t.clone().into_primitive().tensor();
        let fused = B::conv_norm_train(ConvNormArgs {
            x: primitive(&x),
            weight: primitive(&weight),
            gamma: gamma.clone().into_primitive().tensor(),
            beta: beta.clone().into_primitive().tensor(),
            stride,
            relu: with_relu,
        }).expect("the CPU autodiff backend has this kernel");
        let fused: Tensor<B, 4> = Tensor::from_primitive(TensorPrimitive::Float(fused.y));
        let plain = stock([x.clone(), weight.clone()], [gamma.clone(), beta.clone()], stride, with_relu);
        prop_assert_eq!(fused.dims(), plain.dims());
        let off = relative_difference(&tensor_to_vec(fused.clone()), &tensor_to_vec(plain.clone()));
        prop_assert!(off < 1e-4, "output differs by {}", off);

        let probe = Tensor::<B, 4>::from_data(
            TensorData::new(hash_uniform("kernel", "probe", plain.shape().num_elements()), plain.dims()),
            &Default::default(),
        );
        let by_fused = (fused * probe.clone()).sum().backward();
        let by_stock = (plain * probe).sum().backward();
        let close = |a: Vec<f32>, b: Vec<f32>| {
            // A norm makes some gradients vanish (that of a single weight, say); then rounding is all there is.
            let largest = b.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            worst < 2e-3 * largest + 2e-4
        };
        for (name, tensor) in [("x", &x), ("weight", &weight)] {
            let a = tensor_to_vec(tensor.grad(&by_fused).unwrap());
            let b = tensor_to_vec(tensor.grad(&by_stock).unwrap());
            prop_assert!(close(a, b), "gradient of {} differs", name);
        }
        for (name, tensor) in [("gamma", &gamma), ("beta", &beta)] {
            let a = tensor_to_vec(tensor.grad(&by_fused).unwrap());
            let b = tensor_to_vec(tensor.grad(&by_stock).unwrap());
            prop_assert!(close(a, b), "gradient of {} differs", name);
        }
    }
}

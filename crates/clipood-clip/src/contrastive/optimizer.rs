//! AdamW whose weight decay leaves out gains, biases and the logit scale.

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

/// Settings of AdamW. The defaults of `beta_1`, `beta_2` and `epsilon` are open_clip's for vision transformers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta_1: f32,
    /// Decay of the mean of squared gradients.
    pub beta_2: f32,
    /// Added to the root of the latter.
    pub epsilon: f32,
    /// Weight decay per step, as a factor on the learning rate.
    pub weight_decay: f32,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.98,
            epsilon: 1e-6,
            weight_decay: 0.1,
        }
    }
}

/// The optimizer of a module: matrices and larger tensors decay, vectors (gains, biases, the class token, the logit scale)
/// do not, as in open_clip.
pub(super) struct DecayGroups<B: AutodiffBackend, M: AutodiffModule<B>> {
    decayed: (Vec<ParamId>, OptimizerAdaptor<AdamW, M, B>),
    plain: (Vec<ParamId>, OptimizerAdaptor<AdamW, M, B>),
}

/// Parameters by whether they decay.
#[derive(Default)]
struct Ids {
    decayed: Vec<ParamId>,
    plain: Vec<ParamId>,
}

impl<B: Backend> ModuleVisitor<B> for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        match D {
            0 | 1 => self.plain.push(param.id),
            _ => self.decayed.push(param.id),
        }
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> DecayGroups<B, M> {
    pub fn new(module: &M, options: &AdamWOptions) -> Self {
        let mut ids = Ids::default();
        module.visit(&mut ids);
        let adamw = |decay: f32| {
            AdamWConfig::new()
                .with_beta_1(options.beta_1)
                .with_beta_2(options.beta_2)
                .with_epsilon(options.epsilon)
                .with_weight_decay(decay)
                .init()
        };
        Self {
            decayed: (ids.decayed, adamw(options.weight_decay)),
            plain: (ids.plain, adamw(0.0)),
        }
    }

    /// The module after one step with the gradients of its loss.
    pub fn step(&mut self, lr: f64, mut module: M, mut gradients: B::Gradients) -> M {
        for (ids, optimizer) in [&mut self.decayed, &mut self.plain] {
            let of_group = GradientsParams::from_params(&mut gradients, &module, ids);
            module = optimizer.step(lr, module, of_group);
        }
        module
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::module::Module;

    use super::*;
    use crate::weights::tensor_to_vec;

    type B = Autodiff<Flex>;

    #[derive(Module, Debug)]
    struct Affine<B: Backend> {
        weight: Param<Tensor<B, 2>>,
        bias: Param<Tensor<B, 1>>,
    }

    /// One parameter with its moments, in float64 (Loshchilov and Hutter 2019, algorithm 2, as PyTorch scales the decay).
    #[derive(Default)]
    struct Plain {
        value: f64,
        mean: f64,
        square: f64,
    }

    impl Plain {
        fn step(&mut self, t: i32, lr: f64, gradient: f64, decay: f64) {
            self.mean = 0.9 * self.mean + 0.1 * gradient;
            self.square = 0.98 * self.square + 0.02 * gradient * gradient;
            let (mean, square) = (
                self.mean / (1.0 - 0.9f64.powi(t)),
                self.square / (1.0 - 0.98f64.powi(t)),
            );
            self.value -= lr * decay * self.value;
            self.value -= lr * mean / (square.sqrt() + 1e-6);
        }
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let device = Default::default();
        let mut module = Affine::<B> {
            weight: Param::from_tensor(Tensor::from_floats([[0.5, -2.0]], &device)),
            bias: Param::from_tensor(Tensor::from_floats([1.5], &device)),
        };
        let options = AdamWOptions {
            weight_decay: 0.3,
            ..AdamWOptions::default()
        };
        let mut optimizer = DecayGroups::new(&module, &options);
        let at = |value: f64| Plain {
            value,
            ..Plain::default()
        };
        let mut expected = [at(0.5), at(-2.0), at(1.5)];
        for (t, lr) in (1..).zip([0.1, 0.02, 0.05]) {
            // The gradients of a^2 / 2 + b^2 / 2 + 3 c.
            let weight = module.weight.val();
            let loss = (weight.clone() * weight).sum() * 0.5 + module.bias.val().sum() * 3.0;
            module = optimizer.step(lr, module, loss.backward());
            for (i, plain) in expected.iter_mut().enumerate() {
                let (gradient, decay) = if i < 2 {
                    (plain.value, 0.3)
                } else {
                    (3.0, 0.0)
                };
                plain.step(t, lr, gradient, decay);
            }
            let found = [
                tensor_to_vec(module.weight.val()),
                tensor_to_vec(module.bias.val()),
            ];
            for (found, expected) in found.concat().iter().zip(&expected) {
                let expected = expected.value;
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-5,
                    "step {t}: {found} {expected}"
                );
            }
        }
    }
}

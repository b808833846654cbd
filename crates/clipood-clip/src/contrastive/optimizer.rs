//! AdamW whose weight decay leaves out gains, biases and the logit scale.

use std::collections::HashMap;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::record::AdaptorRecord;
use burn::optim::{
    AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, GradientsParams, Optimizer,
};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

use crate::error::{ClipError, Result};
use crate::safetensors_file::{ArrayFile, ArrayFileError, NamedArray};
use crate::weights::try_tensor_to_vec;

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

    /// The moments and the number of steps of every parameter that has been stepped, named by its number in the module.
    ///
    /// # Errors
    /// The device fails.
    pub fn moments(&self, module: &M) -> Result<Vec<NamedArray>> {
        let groups = [&self.decayed.1, &self.plain.1];
        let records = groups
            .into_iter()
            .flat_map(|optimizer| optimizer.to_record());
        let mut taken = Taken {
            records: records.collect(),
            number: 0,
            arrays: Ok(Vec::new()),
        };
        module.visit(&mut taken);
        taken.arrays
    }

    /// An optimizer that goes on with `moments` of the same module.
    ///
    /// # Errors
    /// An array has another size.
    pub fn with_moments(self, module: &M, moments: &ArrayFile<'_>) -> Result<Self> {
        let mut given = Given::<B> {
            moments,
            number: 0,
            records: Ok(HashMap::new()),
        };
        module.visit(&mut given);
        let mut records = given.records?;
        let mut with = |(ids, optimizer): (Vec<ParamId>, OptimizerAdaptor<AdamW, M, B>)| {
            let of_group = ids
                .iter()
                .filter_map(|id| records.remove(id).map(|record| (*id, record)));
            let of_group = of_group.collect();
            (ids, optimizer.load_record(of_group))
        };
        Ok(Self {
            decayed: with(self.decayed),
            plain: with(self.plain),
        })
    }
}

/// The error of arrays that a training cannot go on from.
pub(super) fn unusable(error: ArrayFileError) -> ClipError {
    ClipError::Tuning(error.to_string())
}

/// States of the optimizer by parameter.
type Records<B> = HashMap<ParamId, AdaptorRecord<AdamW, B>>;

/// Name of an array of the parameter with a number: its mean gradient, its mean squared gradient, or its steps.
fn name(number: usize, what: &str) -> String {
    format!("adamw.{number}.{what}")
}

/// Turns states into arrays.
struct Taken<B: AutodiffBackend> {
    records: Records<B>,
    number: usize,
    arrays: Result<Vec<NamedArray>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Taken<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let number = self.number;
        self.number += 1;
        let (Some(record), Ok(arrays)) = (self.records.remove(&param.id), &mut self.arrays) else {
            return;
        };
        let state = record.into_state::<D>().momentum;
        for (what, moment) in [("mean", state.moment_1), ("square", state.moment_2)] {
            let shape = moment.dims().to_vec();
            match try_tensor_to_vec(moment) {
                Ok(values) => arrays.push(NamedArray::f32(name(number, what), shape, &values)),
                Err(error) => {
                    self.arrays = Err(error);
                    return;
                }
            }
        }
        let steps = [state.time as f64];
        arrays.push(NamedArray::f64(name(number, "steps"), vec![1], &steps));
    }
}

/// Turns arrays into states.
struct Given<'a, B: AutodiffBackend> {
    moments: &'a ArrayFile<'a>,
    number: usize,
    records: Result<Records<B>>,
}

impl<B: AutodiffBackend> Given<'_, B> {
    /// The state of a parameter; `None` for one that had not been stepped.
    fn state<const D: usize>(
        &self,
        tensor: &Tensor<B, D>,
    ) -> Result<Option<AdamWState<B::InnerBackend, D>>> {
        let steps = name(self.number, "steps");
        if self.moments.shape(&steps).is_err() {
            return Ok(None);
        }
        let steps = self.moments.f64(&steps).map_err(unusable)?;
        let moment = |what: &str| {
            let name = name(self.number, what);
            let (shape, expected) = (
                self.moments.shape(&name).map_err(unusable)?,
                tensor.dims().to_vec(),
            );
            if shape != expected {
                return Err(ClipError::Tuning(format!(
                    "tensor `{name}` has shape {shape:?}, expected {expected:?}"
                )));
            }
            let values = self.moments.f32(&name).map_err(unusable)?;
            let data = TensorData::new(values, expected);
            Ok(Tensor::from_data(data, &tensor.device()))
        };
        let time = steps.first().map_or(0, |steps| *steps as usize);
        let momentum = AdaptiveMomentumState::new(time, moment("mean")?, moment("square")?);
        Ok(Some(AdamWState::new(momentum)))
    }
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Given<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let state = self.state(&param.val());
        self.number += 1;
        let Ok(records) = &mut self.records else {
            return;
        };
        match state {
            Ok(Some(state)) => {
                records.insert(param.id, AdaptorRecord::from_state(state));
            }
            Ok(None) => {}
            Err(error) => self.records = Err(error),
        }
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

//! What a tuning learns: both projections, or the whole model.

use burn::module::{AutodiffModule, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};

use super::projections::Projections;
use super::tuner::TuneInput;
use crate::config::ClipConfig;
use crate::encoder::Clip;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::text::cut;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// Largest logarithm of the logit scale, ln 100 (Radford et al. 2021, section 2.5).
const LARGEST_LOG_SCALE: f64 = 4.605_170_185_988_092;

/// A module that is learnt on pairs.
pub(super) trait Learner<B: AutodiffBackend>: AutodiffModule<B> {
    /// Features of the images and of the texts of a batch of `rows` pairs, `[rows, D]` each, before normalisation.
    fn features(&self, input: &TuneInput, rows: usize, parts: &Parts<B>) -> Result<Features<B>>;

    /// The logarithm of the logit scale.
    fn log_scale(&mut self) -> &mut Param<Tensor<B, 1>>;

    /// Reads what is learnt from the parameters of a checkpoint.
    fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self>;

    /// Writes what was learnt over the parameters of the checkpoint.
    fn save(&self, weights: &mut Weights);

    /// The module with a logit scale from 1 to 100.
    fn with_bounded_scale(mut self) -> Self {
        let param = self.log_scale();
        *param = param.clone().map(|log| {
            let bounded = log.inner().clamp(0.0, LARGEST_LOG_SCALE);
            Tensor::from_inner(bounded).require_grad()
        });
        self
    }
}

/// Features of images and of texts.
pub(super) type Features<B> = (Tensor<B, 2>, Tensor<B, 2>);

/// What a learner needs beside its parameters.
pub(super) struct Parts<B: AutodiffBackend> {
    pub config: ClipConfig,
    pub tokenizer: Tokenizer,
    pub device: B::Device,
}

impl<B: AutodiffBackend> Learner<B> for Projections<B> {
    fn features(&self, input: &TuneInput, rows: usize, parts: &Parts<B>) -> Result<Features<B>> {
        let TuneInput::Trunks { image, text } = input else {
            return Err(other_input("features of frozen towers"));
        };
        let width = super::projections::image_width(&parts.config);
        let image = matrix("features of images", image, [rows, width], &parts.device)?;
        let width = parts.config.text.width;
        let text = matrix("features of texts", text, [rows, width], &parts.device)?;
        let text = text.matmul(self.text.val());
        Ok((self.project_image(image), text))
    }

    fn log_scale(&mut self) -> &mut Param<Tensor<B, 1>> {
        &mut self.logit_scale
    }

    fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        Projections::load(weights, config, device)
    }

    fn save(&self, weights: &mut Weights) {
        Projections::save(self, weights);
    }
}

impl<B: AutodiffBackend + ClipBackend> Learner<B> for Clip<B> {
    fn features(&self, input: &TuneInput, rows: usize, parts: &Parts<B>) -> Result<Features<B>> {
        let TuneInput::Pairs { pixels, captions } = input else {
            return Err(other_input("pixels and captions"));
        };
        let size = parts.config.image.size;
        let expected = rows * 3 * size * size;
        if pixels.len() != expected || captions.len() != rows {
            return Err(ClipError::Input {
                what: "pixels of a batch, with as many captions",
                expected,
                found: pixels.len(),
            });
        }
        let planes = planes(pixels, &parts.config);
        let planes = TensorData::new(planes, [rows, 3, size, size]);
        let pixels = Tensor::from_data(planes, &parts.device);
        let context = parts.config.text.context;
        let mut ids = Vec::with_capacity(rows * context);
        for caption in captions {
            ids.extend(parts.tokenizer.tokenize_truncate(caption, context));
        }
        let image = self.image.forward(pixels, false).global;
        Ok((image, self.text.encode(&cut(&ids, context)?)?))
    }

    fn log_scale(&mut self) -> &mut Param<Tensor<B, 1>> {
        &mut self.logit_scale
    }

    fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        Clip::load(weights, config, device)
    }

    fn save(&self, weights: &mut Weights) {
        *weights = self.to_weights(&weights.origin);
    }
}

fn other_input(what: &'static str) -> ClipError {
    ClipError::Tuning(format!(
        "a batch of another kind was given, expected {what}"
    ))
}

fn matrix<B: AutodiffBackend>(
    what: &'static str,
    values: &[f32],
    shape: [usize; 2],
    device: &B::Device,
) -> Result<Tensor<B, 2>> {
    let expected = shape[0] * shape[1];
    if values.len() != expected {
        let found = values.len();
        return Err(ClipError::Input {
            what,
            expected,
            found,
        });
    }
    let data = TensorData::new(values.to_vec(), shape);
    Ok(Tensor::from_data(data, device))
}

/// `[batch, size, size, 3]` bytes -> `[batch, 3, size, size]`, `(pixel / 255 - mean) / std` of each channel.
fn planes(pixels: &[u8], config: &ClipConfig) -> Vec<f32> {
    let area = config.image.size * config.image.size;
    let mut planes = vec![0f32; pixels.len()];
    let images = planes
        .chunks_exact_mut(3 * area)
        .zip(pixels.chunks_exact(3 * area));
    for (planes, image) in images {
        for (channel, plane) in planes.chunks_exact_mut(area).enumerate() {
            let (mean, std) = (config.mean[channel], config.std[channel]);
            for (to, pixel) in plane.iter_mut().zip(image.chunks_exact(3)) {
                *to = (f32::from(pixel[channel]) / 255.0 - mean) / std;
            }
        }
    }
    planes
}

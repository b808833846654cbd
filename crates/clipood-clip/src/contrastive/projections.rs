//! The last linear map of each tower, on the features of the frozen rest.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::config::{ClipConfig, ImageFamily};
use crate::error::Result;
use crate::model::Model;
use crate::weights::Weights;

const TEXT: &str = "text_projection";
const VIT: &str = "visual.proj";
const RESNET_WEIGHT: &str = "visual.attnpool.c_proj.weight";
const RESNET_BIAS: &str = "visual.attnpool.c_proj.bias";

/// Projections of both towers into the shared space, and the logarithm of the logit scale.
#[derive(Module, Debug)]
pub(super) struct Projections<B: Backend> {
    /// `[image width, D]`.
    pub image: Param<Tensor<B, 2>>,
    /// `[D]`, of a ModifiedResNet.
    pub image_bias: Option<Param<Tensor<B, 1>>>,
    /// `[text width, D]`.
    pub text: Param<Tensor<B, 2>>,
    /// `[1]`.
    pub logit_scale: Param<Tensor<B, 1>>,
}

impl<B: Backend> Projections<B> {
    /// Reads the projections of a checkpoint.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        let (width, dim) = (image_width(config), config.embed_dim);
        let (image, image_bias) = match config.image.family {
            ImageFamily::Vit { .. } => (weights.tensor(VIT, [width, dim], device)?, None),
            ImageFamily::Resnet { .. } => {
                let weight: Tensor<B, 2> = weights.tensor(RESNET_WEIGHT, [dim, width], device)?;
                // A copy whose memory follows its shape.
                let weight = Tensor::from_data(weight.transpose().into_data(), device);
                (weight, Some(weights.param(RESNET_BIAS, [dim], device)?))
            }
        };
        Ok(Self {
            image: Param::from_tensor(image),
            image_bias,
            text: weights.param(TEXT, [config.text.width, dim], device)?,
            logit_scale: weights.param("logit_scale", [1], device)?,
        })
    }

    /// Writes them into `weights` in the place of the former ones.
    pub fn save(&self, weights: &mut Weights) {
        match &self.image_bias {
            None => weights.store(VIT, self.image.val()),
            Some(bias) => {
                weights.store(RESNET_WEIGHT, self.image.val().transpose());
                weights.store(RESNET_BIAS, bias.val());
            }
        }
        weights.store(TEXT, self.text.val());
        let scale = crate::weights::tensor_to_vec(self.logit_scale.val());
        weights.insert("logit_scale", vec![], scale);
    }

    /// Features `[batch, image width]` before the projection -> `[batch, D]`.
    pub fn project_image(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        let projected = features.matmul(self.image.val());
        match &self.image_bias {
            Some(bias) => projected + bias.val().unsqueeze::<2>(),
            None => projected,
        }
    }
}

/// Width of an image's features before the projection.
pub(super) fn image_width(config: &ClipConfig) -> usize {
    config.image.family.attention_width(config.image.width)
}

impl Model {
    /// The model with both projections replaced by the identity, so that its encoders return what comes before them: of an
    /// image the first [`Model::trunk_widths`].0 values, of a text the first `.1`; the rest are zeros.
    ///
    /// # Errors
    /// None for a model that could be opened.
    pub fn trunk(&self) -> Result<Model> {
        let (image, text) = self.trunk_widths();
        let dim = image.max(text);
        let mut config = self.config.clone();
        config.embed_dim = dim;
        let mut weights = (*self.weights).clone();
        let identity = |rows: usize| {
            let mut values = vec![0f32; rows * dim];
            values.iter_mut().step_by(dim + 1).for_each(|v| *v = 1.0);
            values
        };
        match config.image.family {
            ImageFamily::Vit { .. } => weights.insert(VIT, vec![image, dim], identity(image)),
            ImageFamily::Resnet { .. } => {
                // `[output, input]`: output i is input i.
                let mut values = vec![0f32; dim * image];
                values
                    .iter_mut()
                    .step_by(image + 1)
                    .take(image)
                    .for_each(|v| *v = 1.0);
                weights.insert(RESNET_WEIGHT, vec![dim, image], values);
                weights.insert(RESNET_BIAS, vec![dim], vec![0.0; dim]);
            }
        }
        weights.insert(TEXT, vec![text, dim], identity(text));
        Model::new(config, weights)
    }

    /// Widths of the features of images and of texts before the projections.
    pub fn trunk_widths(&self) -> (usize, usize) {
        (image_width(&self.config), self.config.text.width)
    }
}

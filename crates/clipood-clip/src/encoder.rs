//! A whole CLIP: image tower, text tower, logit scale.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData};

use crate::config::{ClipConfig, ImageFamily};
use crate::error::Result;
use crate::image_features::ImageFeatures;
use crate::kernels::ClipBackend;
use crate::resnet::ModifiedResNet;
use crate::text::TextTransformer;
use crate::vit::VisionTransformer;
use crate::weights::Weights;

/// An image tower of any family.
#[derive(Module, Debug)]
// A process holds two or three of these, and a box would only hide the fields from Burn's derive.
#[allow(clippy::large_enum_variant)]
pub enum ImageTower<B: Backend> {
    /// Vision transformer.
    Vit(VisionTransformer<B>),
    /// ModifiedResNet.
    Resnet(ModifiedResNet<B>),
}

impl<B: ClipBackend> ImageTower<B> {
    /// Reads the tower that `config` names.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        Ok(match config.image.family {
            ImageFamily::Vit { .. } => Self::Vit(VisionTransformer::load(weights, config, device)?),
            ImageFamily::Resnet { .. } => {
                Self::Resnet(ModifiedResNet::load(weights, config, device)?)
            }
        })
    }

    /// The tower in another number format, which the pixels must have as well. A ModifiedResNet is left unchanged: its
    /// convolutions run in the format of the pixels.
    #[must_use]
    pub fn cast(self, dtype: FloatDType) -> Self {
        match self {
            Self::Vit(tower) => Self::Vit(tower.cast(dtype)),
            Self::Resnet(tower) => Self::Resnet(tower),
        }
    }

    /// Normalised pixels `[batch, 3, size, size]` -> features, with the local ones if `local` is set.
    pub fn forward(&self, pixels: Tensor<B, 4>, local: bool) -> ImageFeatures<B> {
        match self {
            Self::Vit(tower) => tower.forward(pixels, local),
            Self::Resnet(tower) => tower.forward(pixels, local),
        }
    }

    fn save(&self, weights: &mut Weights) {
        match self {
            Self::Vit(tower) => tower.save(weights),
            Self::Resnet(tower) => tower.save(weights),
        }
    }
}

/// Image tower, text tower and the logarithm of the logit scale.
#[derive(Module, Debug)]
pub struct Clip<B: Backend> {
    /// Image tower.
    pub image: ImageTower<B>,
    /// Text tower.
    pub text: TextTransformer<B>,
    /// Natural logarithm of the factor on cosines, `[1]`; ln 100 in every released model.
    pub logit_scale: Param<Tensor<B, 1>>,
}

impl<B: ClipBackend> Clip<B> {
    /// Reads both towers.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(weights: &Weights, config: &ClipConfig, device: &B::Device) -> Result<Self> {
        Ok(Self {
            image: ImageTower::load(weights, config, device)?,
            text: TextTransformer::load(weights, config, device)?,
            logit_scale: weights.param("logit_scale", [1], device)?,
        })
    }

    /// The parameters under OpenAI's names, as a file would hold them.
    pub fn to_weights(&self, origin: &str) -> Weights {
        let mut weights = Weights::new(origin);
        self.image.save(&mut weights);
        self.text.save(&mut weights);
        let scale = crate::weights::tensor_to_vec(self.logit_scale.val());
        weights.insert("logit_scale", vec![], scale);
        weights
    }
}

/// Decoded pixels `[batch, size, size, 3]`, one byte per channel -> the tower's input `[batch, 3, size, size]` in float32,
/// `(pixel / 255 - mean) / std` of each channel. Only the bytes are copied to the device.
pub fn upload<B: Backend>(
    pixels: Vec<u8>,
    size: usize,
    mean: [f32; 3],
    std: [f32; 3],
    device: &B::Device,
) -> Tensor<B, 4> {
    let batch = pixels.len() / (3 * size * size);
    let mut data = TensorData::new(pixels, [batch, size, size, 3]);
    B::staging(std::iter::once(&mut data), device);
    let bytes = Tensor::<B, 4, Int>::from_data(data, (device, DType::U8));
    let values = bytes.float().cast(FloatDType::F32).permute([0, 3, 1, 2]);
    let channels =
        |values: [f32; 3]| Tensor::<B, 1>::from_floats(values, device).reshape([1, 3, 1, 1]);
    (values / 255.0 - channels(mean)) / channels(std)
}

/// `x / |x|` along the last dimension of `[rows, D]`.
pub fn normalise<B: Backend, const N: usize>(x: Tensor<B, N>) -> Tensor<B, N> {
    let norm = (x.clone() * x.clone()).sum_dim(N - 1).sqrt();
    x / norm
}

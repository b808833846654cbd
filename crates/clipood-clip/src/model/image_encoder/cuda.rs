//! The image tower on an NVIDIA GPU, by Burn.

use burn::tensor::{FloatDType, Tensor, TensorData};
use burn_cuda::{Cuda, CudaDevice};

use super::EncodedImages;
use crate::config::ClipConfig;
use crate::device::Dtype;
use crate::device::cuda::burn_device;
use crate::encoder::{ImageTower, upload};
use crate::error::Result;
use crate::image_features::ImageFeatures;
use crate::weights::{Weights, try_tensor_to_vec};

/// A tower on one GPU.
#[derive(Debug, Clone)]
pub(super) struct CudaTower {
    tower: Box<ImageTower<Cuda>>,
    device: CudaDevice,
    dtype: FloatDType,
    size: usize,
    mean: [f32; 3],
    std: [f32; 3],
}

impl CudaTower {
    /// Reads the tower from `visual.*`.
    ///
    /// # Errors
    /// The device does not exist, or a tensor is missing or of another shape.
    pub fn load(
        weights: &Weights,
        config: &ClipConfig,
        index: usize,
        dtype: Dtype,
    ) -> Result<Self> {
        let device = burn_device(index)?;
        let tower = ImageTower::<Cuda>::load(weights, config, &device)?;
        Ok(Self {
            tower: Box::new(tower.cast(dtype.float())),
            device,
            dtype: dtype.float(),
            size: config.image.size,
            mean: config.mean,
            std: config.std,
        })
    }

    /// Normalised pixels `[batch, 3, size, size]` -> features.
    ///
    /// # Errors
    /// The device failed.
    pub fn encode(&self, pixels: Vec<f32>, local: bool) -> Result<EncodedImages> {
        let batch = pixels.len() / (3 * self.size * self.size);
        let data = TensorData::new(pixels, [batch, 3, self.size, self.size]);
        let pixels = Tensor::<Cuda, 4>::from_data(data, &self.device);
        values_of(self.tower.forward(pixels.cast(self.dtype), local))
    }

    /// Starts encoding decoded pixels `[batch, size, size, 3]`.
    pub fn launch(&self, pixels: Vec<u8>, local: bool) -> ImageFeatures<Cuda> {
        let pixels = upload::<Cuda>(pixels, self.size, self.mean, self.std, &self.device);
        self.tower.forward(pixels.cast(self.dtype), local)
    }
}

/// Copies the features to the host.
///
/// # Errors
/// The device failed.
pub(super) fn values_of(features: ImageFeatures<Cuda>) -> Result<EncodedImages> {
    Ok(EncodedImages {
        global: try_tensor_to_vec(features.global)?,
        local: match features.local {
            Some(local) => try_tensor_to_vec(local)?,
            None => Vec::new(),
        },
    })
}

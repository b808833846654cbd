//! [`ImageEncoder`]: pixels to features.

use burn::backend::Flex;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::Model;
#[cfg(feature = "cuda")]
use super::gpu_tower::{GpuBatch, GpuTower};
use crate::device::{Device, Dtype, no_bf16};
use crate::encoder::{ImageTower, upload};
use crate::error::{ClipError, Result};
use crate::image_features::ImageFeatures;
use crate::kernels::ClipBackend;
use crate::packed_vit::PackedVit;
use crate::vit::VisionTransformer;
use crate::weights::try_tensor_to_vec;

/// Features of a batch of images, row-major, before normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedImages {
    /// `[batch, D]`.
    pub global: Vec<f32>,
    /// `[batch, positions, D]`; empty unless asked for.
    pub local: Vec<f32>,
}

impl Model {
    /// The image tower on `device` in float32.
    ///
    /// # Errors
    /// A parameter is not finite, or the device does not exist.
    pub fn image_encoder(&self, device: Device) -> Result<ImageEncoder> {
        self.image_encoder_as(device, Dtype::F32)
    }

    /// The image tower on `device` in a number format. In bf16 on the CPU only the matrix products of the blocks take bf16
    /// inputs, with weights packed here; sums and everything else stay float32.
    ///
    /// # Errors
    /// As [`Model::image_encoder`], and a format that the device or the model does not support.
    pub fn image_encoder_as(&self, device: Device, dtype: Dtype) -> Result<ImageEncoder> {
        self.check_dtype(device, dtype)?;
        let tower = match device {
            Device::Cpu if dtype == Dtype::Bf16 => {
                let device = Default::default();
                let tower = VisionTransformer::<Flex>::load(&self.weights, &self.config, &device)?;
                Towers::Packed(Box::new(PackedVit::new(tower).ok_or_else(no_bf16)?))
            }
            Device::Cpu => Towers::Cpu(Box::new(
                self.image_tower::<Flex>(&Default::default(), dtype)?,
            )),
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => Towers::Gpu(GpuTower::open(self, index, dtype)?),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(index) => return Err(crate::device::no_cuda(index)),
        };
        Ok(ImageEncoder {
            tower,
            size: self.config.image.size,
            mean: self.config.mean,
            std: self.config.std,
        })
    }

    pub(super) fn image_tower<B: ClipBackend>(
        &self,
        device: &B::Device,
        dtype: Dtype,
    ) -> Result<ImageTower<B>> {
        let tower = ImageTower::<B>::load(&self.weights, &self.config, device)?;
        Ok(tower.cast(dtype.float()))
    }
}

/// The image tower on each backend of this build.
#[derive(Debug, Clone)]
enum Towers {
    Cpu(Box<ImageTower<Flex>>),
    Packed(Box<PackedVit>),
    #[cfg(feature = "cuda")]
    Gpu(GpuTower),
}

/// The image tower, ready for batches. Clones share the parameters.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    tower: Towers,
    size: usize,
    mean: [f32; 3],
    std: [f32; 3],
}

impl ImageEncoder {
    /// Normalised pixels, row-major `[batch, 3, size, size]` -> features. On the CPU alone: a GPU reads bytes.
    ///
    /// # Errors
    /// The pixels are not whole images, or the encoder is on a GPU.
    pub fn encode(&self, pixels: Vec<f32>, local: bool) -> Result<EncodedImages> {
        let batch = self.images(pixels.len())?;
        let data = TensorData::new(pixels, [batch, 3, self.size, self.size]);
        match &self.tower {
            Towers::Cpu(tower) => {
                let pixels = Tensor::<Flex, 4>::from_data(data, &Default::default());
                self.features(tower, pixels, local)
            }
            Towers::Packed(tower) => {
                let pixels = Tensor::<Flex, 4>::from_data(data, &Default::default());
                values_of(tower.forward(pixels, local))
            }
            #[cfg(feature = "cuda")]
            Towers::Gpu(_) => Err(ClipError::Device(
                "an image encoder on a GPU takes the bytes of pixels, not normalised values".into(),
            )),
        }
    }

    /// Pixels as they decode, row-major `[batch, size, size, 3]`, one byte per channel -> features. They are normalised on
    /// the device; the values may differ from [`ImageEncoder::encode`]'s by rounding.
    ///
    /// # Errors
    /// The pixels are not whole images, or the device failed.
    pub fn encode_bytes(&self, pixels: Vec<u8>, local: bool) -> Result<EncodedImages> {
        self.launch_bytes(&pixels, local)?.wait()
    }

    /// Starts what [`ImageEncoder::encode_bytes`] does. A GPU works asynchronously, so that the next batch can be uploaded
    /// before this one is waited for; on the CPU the features are complete on return.
    ///
    /// # Errors
    /// The pixels are not whole images, or the device failed.
    pub fn launch_bytes(&self, pixels: &[u8], local: bool) -> Result<LaunchedImages> {
        self.images(pixels.len())?;
        let on_cpu = || {
            let device = Default::default();
            upload::<Flex>(pixels.to_vec(), self.size, self.mean, self.std, &device)
        };
        match &self.tower {
            Towers::Cpu(tower) => Ok(self.features(tower, on_cpu(), local)?.into()),
            Towers::Packed(tower) => Ok(values_of(tower.forward(on_cpu(), local))?.into()),
            #[cfg(feature = "cuda")]
            Towers::Gpu(tower) => Ok(LaunchedImages(Launched::Gpu(tower.launch(pixels, local)?))),
        }
    }

    /// Number of images in a buffer of `values` values.
    fn images(&self, values: usize) -> Result<usize> {
        let image = 3 * self.size * self.size;
        let batch = values / image;
        if batch == 0 || values != batch * image {
            return Err(ClipError::Input {
                what: "pixels of whole images",
                expected: batch.max(1) * image,
                found: values,
            });
        }
        Ok(batch)
    }

    fn features<B: ClipBackend>(
        &self,
        tower: &ImageTower<B>,
        pixels: Tensor<B, 4>,
        local: bool,
    ) -> Result<EncodedImages> {
        values_of(tower.forward(pixels, local))
    }
}

/// Features that a device may still be computing.
#[derive(Debug)]
pub struct LaunchedImages(Launched);

#[derive(Debug)]
enum Launched {
    Done(EncodedImages),
    #[cfg(feature = "cuda")]
    Gpu(GpuBatch),
}

impl From<EncodedImages> for LaunchedImages {
    fn from(images: EncodedImages) -> Self {
        Self(Launched::Done(images))
    }
}

impl LaunchedImages {
    /// Waits for the features.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(self) -> Result<EncodedImages> {
        match self.0 {
            Launched::Done(images) => Ok(images),
            #[cfg(feature = "cuda")]
            Launched::Gpu(batch) => batch.wait(),
        }
    }
}

/// Copies the features to the host.
pub(super) fn values_of<B: Backend>(features: ImageFeatures<B>) -> Result<EncodedImages> {
    Ok(EncodedImages {
        global: try_tensor_to_vec(features.global)?,
        local: match features.local {
            Some(local) => try_tensor_to_vec(local)?,
            None => Vec::new(),
        },
    })
}

//! [`ImageEncoder`]: pixels to features.

use clipood_kernels::packed::Format;
use clipood_kernels::resnet::Features;

use super::Model;
#[cfg(feature = "cuda")]
use super::gpu_tower::{GpuBatch, GpuTower};
use crate::cpu_tower::CpuTower;
use crate::device::{Device, Dtype};
use crate::error::{ClipError, Result};

/// Features of a batch of images, row-major, before normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedImages {
    /// `[batch, D]`.
    pub global: Vec<f32>,
    /// `[batch, positions, D]`; empty unless asked for.
    pub local: Vec<f32>,
}

impl From<Features> for EncodedImages {
    fn from(features: Features) -> Self {
        Self {
            global: features.global,
            local: features.local,
        }
    }
}

impl Model {
    /// The image tower on `device` in float32.
    ///
    /// # Errors
    /// A parameter is not finite, or the device does not exist.
    pub fn image_encoder(&self, device: Device) -> Result<ImageEncoder> {
        self.image_encoder_as(device, Dtype::F32)
    }

    /// The image tower on `device` in a number format. In bf16 on the CPU only the matrix products of a transformer's blocks
    /// and of a ModifiedResNet's 1x1 convolutions take bf16 inputs; sums and everything else stay float32.
    ///
    /// # Errors
    /// As [`Model::image_encoder`], and a format that the device or the model does not support.
    pub fn image_encoder_as(&self, device: Device, dtype: Dtype) -> Result<ImageEncoder> {
        self.check_dtype(device, dtype)?;
        let tower = match device {
            Device::Cpu => {
                let format = match dtype {
                    Dtype::Bf16 => Format::Bf16,
                    Dtype::F16 | Dtype::Tf32 | Dtype::F32 => Format::F32,
                };
                Towers::Cpu(CpuTower::load(&self.weights, &self.config, format)?)
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => Towers::Gpu(GpuTower::open(self, index, dtype)?),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(index) => return Err(crate::device::no_cuda(index)),
        };
        Ok(ImageEncoder {
            tower,
            size: self.config.image.size,
        })
    }
}

/// The image tower on each backend of this build.
#[derive(Debug, Clone)]
enum Towers {
    Cpu(CpuTower),
    #[cfg(feature = "cuda")]
    Gpu(GpuTower),
}

/// The image tower, ready for batches. Clones share the parameters.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    tower: Towers,
    size: usize,
}

impl ImageEncoder {
    /// Normalised pixels, row-major `[batch, 3, size, size]` -> features. On the CPU alone: a GPU reads bytes.
    ///
    /// # Errors
    /// The pixels are not whole images, or the encoder is on a GPU.
    pub fn encode(&self, pixels: Vec<f32>, local: bool) -> Result<EncodedImages> {
        self.check(pixels.len())?;
        match &self.tower {
            Towers::Cpu(tower) => Ok(tower.encode(&pixels, local).into()),
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
        self.check(pixels.len())?;
        match &self.tower {
            Towers::Cpu(tower) => Ok(EncodedImages::from(tower.encode_bytes(pixels, local)).into()),
            #[cfg(feature = "cuda")]
            Towers::Gpu(tower) => Ok(LaunchedImages(Launched::Gpu(tower.launch(pixels, local)?))),
        }
    }

    /// That a buffer of `values` values holds whole images.
    fn check(&self, values: usize) -> Result<()> {
        let image = 3 * self.size * self.size;
        let batch = values / image;
        if batch == 0 || values != batch * image {
            return Err(ClipError::Input {
                what: "pixels of whole images",
                expected: batch.max(1) * image,
                found: values,
            });
        }
        Ok(())
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

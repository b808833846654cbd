//! Image towers on NVIDIA GPUs: by the kernels of `clipood-cuda`, or by Burn's own operations.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn_cuda::{Cuda, CudaDevice};
use clipood_cuda::CudaError;
use clipood_cuda::image::{self, Features, ImageSizes, ResnetSizes, Tensors, Ticket, VitSizes};
use clipood_cuda::precision::Precision;
use clipood_cuda::rows;

use super::{EncodedImages, Model};
use crate::config::{Activation, ImageFamily};
use crate::device::{Dtype, cuda, stock};
use crate::encoder::{ImageTower, upload};
use crate::error::Result;
use crate::image_features::ImageFeatures;
use crate::weights::try_tensor_to_vec;

/// An image tower on a GPU. Clones share it.
#[derive(Debug, Clone)]
pub(super) enum GpuTower {
    /// By own kernels and cuBLASLt.
    Kernels(Arc<Mutex<image::ImageEncoder>>),
    /// By Burn's operations, for models without kernels and for GPUs that are too old for them.
    Stock(Arc<StockTower>),
}

/// A batch that a GPU may still be computing.
#[derive(Debug)]
pub(super) enum GpuBatch {
    Kernels(Arc<Mutex<image::ImageEncoder>>, Ticket),
    Stock(Box<ImageFeatures<Cuda>>, usize),
}

impl GpuTower {
    /// The tower of `model` on the GPU `index`.
    pub fn open(model: &Model, index: usize, dtype: Dtype) -> Result<Self> {
        match kernels(model, index, dtype) {
            Ok(encoder) => Ok(Self::Kernels(Arc::new(Mutex::new(encoder)))),
            Err(
                CudaError::Unsupported(_) | CudaError::OldGpu(_) | CudaError::SharedMemory { .. },
            ) => Ok(Self::Stock(Arc::new(StockTower::open(
                model, index, dtype,
            )?))),
            Err(problem) => Err(problem.into()),
        }
    }

    /// Starts to encode pixels `[batch, side, side, 3]`.
    pub fn launch(&self, pixels: &[u8], local: bool) -> Result<GpuBatch> {
        match self {
            Self::Kernels(encoder) => {
                let ticket = locked(encoder).launch(pixels, local)?;
                Ok(GpuBatch::Kernels(encoder.clone(), ticket))
            }
            Self::Stock(tower) => Ok(tower.launch(pixels, local)),
        }
    }
}

impl GpuBatch {
    /// Waits for the features.
    pub fn wait(self) -> Result<EncodedImages> {
        match self {
            Self::Kernels(encoder, ticket) => {
                let Features { global, local } = locked(&encoder).wait(&ticket)?;
                Ok(EncodedImages { global, local })
            }
            Self::Stock(features, images) => {
                let [padded, _] = features.global.dims();
                let mut found = values_of(*features)?;
                found.global.truncate(found.global.len() / padded * images);
                found.local.truncate(found.local.len() / padded * images);
                Ok(found)
            }
        }
    }
}

fn locked(encoder: &Mutex<image::ImageEncoder>) -> MutexGuard<'_, image::ImageEncoder> {
    encoder.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tower by kernels.
fn kernels(
    model: &Model,
    index: usize,
    dtype: Dtype,
) -> std::result::Result<image::ImageEncoder, CudaError> {
    let (tower, weights) = image_tower(model, precision(dtype))?;
    image::ImageEncoder::open(&cuda::opened(index)?, tower, &weights)
}

/// The number format as `clipood-cuda` names it.
pub(super) fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Tf32 => Precision::Tf32,
        Dtype::F16 => Precision::F16,
        Dtype::Bf16 => Precision::Bf16,
    }
}

/// The tower with its weights in the order and format of the GPU.
fn image_tower(
    model: &Model,
    precision: Precision,
) -> std::result::Result<(image::Tower, Vec<u8>), CudaError> {
    let config = &model.config;
    let image = ImageSizes {
        side: config.image.size,
        dim: config.embed_dim,
        heads: config.image.heads,
        precision,
        mean: config.mean,
        deviation: config.std,
    };
    let tensors: Tensors<'_> = model
        .weights
        .iter()
        .map(|(name, tensor)| (name.as_str(), &tensor.data[..]))
        .collect();
    let width = config.image.width;
    match &config.image.family {
        ImageFamily::Vit { layers, patch } => {
            let activation = match config.activation {
                Activation::QuickGelu => rows::Activation::QuickGelu,
                Activation::Gelu => rows::Activation::Gelu,
            };
            let sizes = VitSizes {
                image,
                patch: *patch,
                width,
                layers: *layers,
                activation,
            };
            let (tower, weights) = image::Vit::new(sizes, &tensors)?;
            Ok((image::Tower::Vit(tower), weights))
        }
        ImageFamily::Resnet { layers } => {
            let sizes = ResnetSizes {
                image,
                width,
                layers: *layers,
                column_bytes: image::COLUMN_BYTES,
            };
            let (tower, weights) = image::Resnet::new(sizes, &tensors)?;
            Ok((image::Tower::Resnet(tower), weights))
        }
    }
}

/// An image tower by Burn's operations.
#[derive(Debug)]
pub(super) struct StockTower {
    tower: ImageTower<Cuda>,
    device: CudaDevice,
    dtype: Dtype,
    size: usize,
    mean: [f32; 3],
    std: [f32; 3],
    /// The largest batch seen.
    largest: AtomicUsize,
}

impl StockTower {
    pub fn open(model: &Model, index: usize, dtype: Dtype) -> Result<Self> {
        let device = stock::burn_device(index)?;
        Ok(Self {
            tower: ImageTower::load(&model.weights, &model.config, &device)?.cast(dtype.float()),
            device,
            dtype,
            size: model.config.image.size,
            mean: model.config.mean,
            std: model.config.std,
            largest: AtomicUsize::new(0),
        })
    }

    /// Pads a short batch to a power of two, because Burn's kernels are tuned anew for each size.
    fn launch(&self, pixels: &[u8], local: bool) -> GpuBatch {
        let image = 3 * self.size * self.size;
        let images = pixels.len() / image;
        let largest = self
            .largest
            .fetch_max(images, Ordering::Relaxed)
            .max(images);
        let mut padded = pixels.to_vec();
        padded.resize(images.next_power_of_two().min(largest) * image, 0);
        let pixels = upload::<Cuda>(padded, self.size, self.mean, self.std, &self.device);
        let features = self.tower.forward(pixels.cast(self.dtype.float()), local);
        GpuBatch::Stock(Box::new(features), images)
    }
}

/// Copies the features to the host.
fn values_of(features: ImageFeatures<Cuda>) -> Result<EncodedImages> {
    Ok(EncodedImages {
        global: try_tensor_to_vec(features.global)?,
        local: match features.local {
            Some(local) => try_tensor_to_vec(local)?,
            None => Vec::new(),
        },
    })
}

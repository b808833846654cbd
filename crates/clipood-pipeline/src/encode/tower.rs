//! The model's image tower as a device that encodes batches.

use clipood_clip::config::ClipConfig;
use clipood_clip::model::{Device, Devices, ImageEncoder, LaunchedImages, Model};
use clipood_data::normalise;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::batch::Batch;
use super::device::EncodeDevice;
use super::simulated::SimulatedDevice;
use crate::error::{PipelineError, Result};

/// Creates the encoder of each device.
pub(super) struct Towers<'a> {
    model: &'a Model,
    devices: &'a Devices,
    local: bool,
    /// On the CPU all threads share one copy of the parameters.
    cpu: Option<ImageEncoder>,
}

impl<'a> Towers<'a> {
    /// Encoders of batches, with patch features if `local`.
    ///
    /// # Errors
    /// Parameters that are not finite, if the CPU is among the devices.
    pub(super) fn new(model: &'a Model, devices: &'a Devices, local: bool) -> Result<Self> {
        let real = devices.simulated.is_none();
        let cpu = match real && devices.workers.contains(&Device::Cpu) {
            true => Some(model.image_encoder_as(Device::Cpu, devices.dtype)?),
            false => None,
        };
        Ok(Self {
            model,
            devices,
            local,
            cpu,
        })
    }

    /// The tower on `device`.
    ///
    /// # Errors
    /// A device that does not exist or fails, parameters that are not finite.
    pub(super) fn open(&self, device: Device) -> Result<Box<dyn EncodeDevice + '_>> {
        let (config, local) = (&self.model.config, self.local);
        if let Some(rate) = self.devices.simulated {
            return Ok(Box::new(SimulatedDevice::new(config, local, rate)));
        }
        if let (Device::Cpu, Some(encoder)) = (device, &self.cpu) {
            return Ok(Box::new(CpuTower {
                encoder: encoder.clone(),
                pool: one_thread()?,
                config,
                local,
            }));
        }
        let encoder = self.model.image_encoder_as(device, self.devices.dtype)?;
        Ok(Box::new(GpuTower { encoder, local }))
    }
}

/// A pool of one thread, so that the matrix products of a worker on the CPU stay on one core: whole batches in parallel
/// are faster than splitting every product over all cores.
fn one_thread() -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|e| PipelineError::Usage(format!("cannot start a worker thread: {e}")))
}

/// Values of an image's pixels.
fn image_values(config: &ClipConfig) -> usize {
    3 * config.image.size * config.image.size
}

/// On one core of the CPU.
struct CpuTower<'a> {
    encoder: ImageEncoder,
    pool: ThreadPool,
    config: &'a ClipConfig,
    local: bool,
}

impl EncodeDevice for CpuTower<'_> {
    fn launch(&self, batch: &Batch) -> Result<LaunchedImages> {
        let config = self.config;
        let pixels: Vec<f32> = batch
            .pixels
            .chunks_exact(image_values(config))
            .flat_map(|pixels| normalise(pixels, config.mean, config.std))
            .collect();
        let encode = || self.encoder.encode(pixels, self.local);
        Ok(self.pool.install(encode)?.into())
    }
}

/// On a GPU, which copies the bytes of the pixels while it computes the batch before, and normalises them.
struct GpuTower {
    encoder: ImageEncoder,
    local: bool,
}

impl EncodeDevice for GpuTower {
    fn launch(&self, batch: &Batch) -> Result<LaunchedImages> {
        Ok(self.encoder.launch_bytes(&batch.pixels, self.local)?)
    }
}

//! Where a model runs and in which number format: [`Device`], [`Dtype`], and the list a user gives, [`Devices`].

use std::fmt;
use std::str::FromStr;

use burn::tensor::FloatDType;

use crate::config::{ClipConfig, ImageFamily};
use crate::error::{ClipError, Result};

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

/// One processor that a model runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The processor of the machine, float32.
    Cpu,
    /// An NVIDIA GPU by its CUDA index. Builds without the feature `cuda` refuse it.
    Cuda(usize),
}

/// Number format of parameters and activations. Layer norms, the softmax of trained prompts, logits and losses are
/// float32 in any case; on the CPU everything but the weights and inputs of a vision transformer's products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision. On GPUs the products' inputs may be rounded to TF32 (10 bits of mantissa), as autotuning
    /// chooses among kernels with and without tensor cores.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

/// The workers that a user requests, one per entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// One worker each, of one backend. A GPU that is named twice gets two workers, whose uploads and products overlap.
    pub workers: Vec<Device>,
    /// Number format.
    pub dtype: Dtype,
    /// Images per forward pass of the image tower, if the user sets it.
    pub batch: Option<usize>,
    /// Images per second of every worker if the workers only simulate computing, for tests and benchmarks of the code around
    /// the model. Their features are meaningless, so they have their own backend name in fingerprints and tables.
    pub simulated: Option<u32>,
    /// A remark about the choice: why `auto` took the CPU although there is a GPU, or that nothing is computed.
    pub note: Option<String>,
}

impl Device {
    /// Name of the backend as fingerprints hold it: another backend rounds differently.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }

    /// Name of the hardware, for display.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn hardware(self) -> Result<String> {
        match self {
            Self::Cpu => Ok(format!("CPU, {} threads", cores())),
            Self::Cuda(index) => Ok(cuda_gpu(index)?.0),
        }
    }

    /// Images that go through the image tower at once: 32 on the CPU, on a GPU as many as fill half its memory by a
    /// generous estimate, a power of two from 8 to 256.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn batch_for(self, config: &ClipConfig) -> Result<usize> {
        let Self::Cuda(index) = self else {
            return Ok(32);
        };
        let image = &config.image;
        let values = match image.family {
            // Residual, norm, queries, keys and values, four widths of the perceptron; scores of all heads.
            ImageFamily::Vit { .. } => {
                let tokens = image.positions() + 1;
                tokens * (16 * image.width + 4 * image.heads * tokens)
            }
            // The stem and the first stage, whose maps are the largest.
            ImageFamily::Resnet { .. } => image.size * image.size * image.width * 2,
        };
        let bytes = 4 * (values + 9 * image.size * image.size);
        let fitting = (cuda_gpu(index)?.1 / 2 / bytes as u64).clamp(8, 256) as usize;
        Ok(1 << fitting.ilog2())
    }

    /// Bytes in use on a GPU, by every program together; none on the CPU.
    ///
    /// # Errors
    /// A device that this build or machine lacks.
    pub fn memory_in_use(self) -> Result<Option<u64>> {
        match self {
            Self::Cpu => Ok(None),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Some(cuda::memory_in_use(index)?)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(index) => Err(no_cuda(index)),
        }
    }
}

impl Dtype {
    /// Name as fingerprints, tables and the command line hold it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The same format as Burn names it.
    pub(crate) fn float(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// Whether `device` computes in this format. On the CPU bf16 means the matrix products of a vision transformer; see
    /// [`Model::check_dtype`](crate::model::Model::check_dtype) for the formats of a model.
    ///
    /// # Errors
    /// f16 on the CPU, or bf16 on a CPU without instructions for it.
    pub fn check(self, device: Device) -> Result<()> {
        match (device, self) {
            (Device::Cuda(_), _) | (Device::Cpu, Self::F32) => Ok(()),
            (Device::Cpu, Self::Bf16) if clipood_kernels::bf16::is_supported() => Ok(()),
            (Device::Cpu, Self::Bf16) => Err(no_bf16()),
            (Device::Cpu, Self::F16) => Err(ClipError::Device(
                "the CPU does not compute in f16; use f32, bf16 where the CPU has AVX-512 BF16, or a GPU".into(),
            )),
        }
    }
}

/// The error of a CPU without bf16 instructions.
pub(crate) fn no_bf16() -> ClipError {
    ClipError::Device("bf16 on the CPU needs AVX-512 BF16; this CPU lacks it: use f32".into())
}

impl FromStr for Dtype {
    type Err = ClipError;

    fn from_str(text: &str) -> Result<Self> {
        [Self::F32, Self::F16, Self::Bf16]
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| {
                ClipError::Device(format!("unknown dtype `{text}`; known: f32, f16, bf16"))
            })
    }
}

impl Devices {
    /// The same workers in another number format.
    #[must_use]
    pub fn with_dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// The same workers with a given batch.
    #[must_use]
    pub fn with_batch(mut self, batch: Option<usize>) -> Self {
        self.batch = batch;
        self
    }

    /// The device of the first worker, for work that is not distributed.
    pub fn first(&self) -> Device {
        self.workers.first().copied().unwrap_or(Device::Cpu)
    }

    /// The devices of a recorded run, by the names of [`Devices::backend`] and [`Dtype::name`], for inspecting the run on a
    /// machine that may lack such a device. Nothing is opened.
    ///
    /// # Errors
    /// A backend or format that this version does not know.
    pub fn recorded(backend: &str, dtype: &str) -> Result<Self> {
        let (device, simulated) = match backend {
            "cpu" => (Device::Cpu, None),
            "cuda" => (Device::Cuda(0), None),
            "simulated" => (Device::Cpu, Some(1)),
            _ => {
                let unknown = format!("unknown backend `{backend}`; known: cpu, cuda, simulated");
                return Err(ClipError::Device(unknown));
            }
        };
        Ok(Self {
            simulated,
            ..Self::of(vec![device]).with_dtype(dtype.parse()?)
        })
    }

    /// Name of the backend as fingerprints and tables hold it.
    pub fn backend(&self) -> &'static str {
        match self.simulated {
            Some(_) => "simulated",
            None => self.first().backend(),
        }
    }

    /// Every device once, in the order given.
    pub fn distinct(&self) -> Vec<Device> {
        let mut seen = Vec::new();
        for device in &self.workers {
            if !seen.contains(device) {
                seen.push(*device);
            }
        }
        seen
    }

    fn of(workers: Vec<Device>) -> Self {
        Self {
            workers,
            dtype: Dtype::F32,
            batch: None,
            simulated: None,
            note: None,
        }
    }

    /// Every GPU, or the CPU where there is none; a GPU that cannot be used is named in the note.
    fn auto() -> Self {
        #[cfg(feature = "cuda")]
        {
            let checked = cuda::usable().and_then(|gpus| {
                (0..gpus).try_for_each(|index| cuda::gpu(index).map(drop))?;
                Ok(gpus)
            });
            match checked {
                Ok(gpus) => return Self::of((0..gpus).map(Device::Cuda).collect()),
                Err(problem) if !problem.means_no_gpu() => {
                    let note = format!("running on the CPU: {problem}");
                    return Self {
                        note: Some(note),
                        ..Self::of(vec![Device::Cpu; cores()])
                    };
                }
                Err(_) => {}
            }
        }
        Self::of(vec![Device::Cpu; cores()])
    }
}

impl FromStr for Devices {
    type Err = ClipError;

    /// `auto`, `cpu`, `cpu:4` (threads), `cuda:all`, or GPUs by number: `cuda:0,cuda:1`. `sim:100,sim:100` are two simulated
    /// workers of 100 images per second.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = |part: &str| {
            ClipError::Device(format!(
                "unknown device `{part}`; give auto, cpu, cpu:N, cuda:all or cuda:0,cuda:1,..."
            ))
        };
        match text {
            "auto" => return Ok(Self::auto()),
            "cpu" => return Ok(Self::of(vec![Device::Cpu; cores()])),
            "cuda" | "cuda:all" => return Ok(Self::of(all_gpus()?)),
            _ => {}
        }
        if let Some(threads) = text.strip_prefix("cpu:") {
            return match threads.parse::<usize>() {
                Ok(threads @ 1..=1024) => Ok(Self::of(vec![Device::Cpu; threads])),
                _ => Err(unknown(text)),
            };
        }
        if text.starts_with("sim:") {
            return simulated(text);
        }
        let mut workers = Vec::new();
        for part in text.split(',') {
            let index = part.trim().strip_prefix("cuda:");
            let index = index.and_then(|index| index.parse::<usize>().ok());
            let index = index.ok_or_else(|| unknown(part))?;
            cuda_gpu(index)?;
            workers.push(Device::Cuda(index));
        }
        Ok(Self::of(workers))
    }
}

/// `sim:RATE` once for each worker, all of one rate.
fn simulated(text: &str) -> Result<Devices> {
    let rates: Option<Vec<u32>> = text
        .split(',')
        .map(|part| part.trim().strip_prefix("sim:")?.parse().ok())
        .collect();
    let rates = rates.unwrap_or_default();
    match rates.first() {
        Some(rate) if *rate > 0 && rates.iter().all(|other| other == rate) => Ok(Devices {
            simulated: Some(*rate),
            note: Some("simulated devices: nothing is computed and no figure is a result".into()),
            ..Devices::of(vec![Device::Cpu; rates.len()])
        }),
        _ => Err(ClipError::Device(format!(
            "unknown device `{text}`; simulated workers are sim:RATE,sim:RATE,... of one rate in images a second"
        ))),
    }
}

impl FromStr for Device {
    type Err = ClipError;

    /// Parses as [`Devices`] and takes the first one; simulated devices are refused.
    fn from_str(text: &str) -> Result<Self> {
        let devices: Devices = text.parse()?;
        match devices.simulated {
            Some(_) => Err(ClipError::Device(format!(
                "`{text}` is simulated and computes nothing; give auto, cpu or cuda:0"
            ))),
            None => Ok(devices.first()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Folder of compiled kernels; none in a build without GPUs.
pub fn kernel_cache() -> Option<std::path::PathBuf> {
    #[cfg(feature = "cuda")]
    let folder = Some(cuda::cache_folder());
    #[cfg(not(feature = "cuda"))]
    let folder = None;
    folder
}

/// Number of hardware threads.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Name and bytes of memory of the GPU `index`, after a check that kernels run on it.
#[cfg(feature = "cuda")]
fn cuda_gpu(index: usize) -> Result<(String, u64)> {
    let gpu = cuda::gpu(index)?;
    Ok((gpu.name, gpu.memory))
}

#[cfg(not(feature = "cuda"))]
fn cuda_gpu(index: usize) -> Result<(String, u64)> {
    Err(no_cuda(index))
}

#[cfg(feature = "cuda")]
fn all_gpus() -> Result<Vec<Device>> {
    Ok((0..cuda::usable()?).map(Device::Cuda).collect())
}

#[cfg(not(feature = "cuda"))]
fn all_gpus() -> Result<Vec<Device>> {
    Err(no_cuda(0))
}

/// The error of a build without the feature when a GPU is requested.
#[cfg(not(feature = "cuda"))]
pub(crate) fn no_cuda(index: usize) -> ClipError {
    ClipError::Device(format!(
        "device `cuda:{index}`: this build runs on `cpu` (or `auto`) only; build with `--features cuda` for GPUs"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_was_made_with_needs_no_device() -> Result<()> {
        for (backend, dtype) in [("cpu", "f32"), ("cuda", "bf16"), ("simulated", "f32")] {
            let devices = Devices::recorded(backend, dtype)?;
            assert_eq!((devices.backend(), devices.dtype.name()), (backend, dtype));
        }
        assert!(Devices::recorded("tpu", "f32").is_err());
        Ok(())
    }

    #[test]
    fn lists_of_workers() -> Result<()> {
        let three: Devices = "cpu:3".parse()?;
        assert_eq!(three.workers, vec![Device::Cpu; 3]);
        assert_eq!(three.distinct(), vec![Device::Cpu]);
        assert_eq!("cpu".parse::<Devices>()?.workers.len(), cores());
        let half = three.with_dtype("bf16".parse()?).with_batch(Some(7));
        assert_eq!((half.dtype, half.batch), (Dtype::Bf16, Some(7)));
        Ok(())
    }

    #[test]
    fn simulated_workers_have_a_backend_of_their_own() -> Result<()> {
        let two: Devices = "sim:250,sim:250".parse()?;
        assert_eq!((two.workers.len(), two.simulated), (2, Some(250)));
        assert_eq!(two.backend(), "simulated");
        assert_eq!("cpu".parse::<Devices>()?.backend(), "cpu");
        assert!("sim:250".parse::<Device>().is_err());
        Ok(())
    }

    #[test]
    fn what_is_no_device_is_named() {
        for text in [
            "",
            "cpu:0",
            "cpu:x",
            "gpu",
            "cuda:-1",
            "cpu,cuda:x",
            "cuda:",
            "sim:0",
            "sim:10,sim:20",
            "sim:10,cpu",
        ] {
            let error = text.parse::<Devices>().map_err(|e| e.to_string());
            assert!(
                error.as_ref().is_err_and(|e| e.contains("unknown device")),
                "{text}: {error:?}"
            );
        }
        assert!("f64".parse::<Dtype>().is_err());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        for text in ["cuda", "cuda:all", "cuda:0", "cuda:3,cuda:4"] {
            let error = text.parse::<Devices>().map_err(|e| e.to_string());
            assert!(
                error.as_ref().is_err_and(|e| e.contains("--features cuda")),
                "{text}: {error:?}"
            );
        }
    }
}

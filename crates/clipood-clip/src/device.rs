//! Where a model runs and in which number format: [`Device`], [`Dtype`], and the list a user gives, [`Devices`].

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{ClipConfig, ImageFamily};
use crate::error::{ClipError, Result};

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod dtype;
#[cfg(feature = "cuda")]
pub(crate) mod stock;

pub use self::dtype::Dtype;
pub(crate) use self::dtype::no_bf16;

/// Backend name of the kernels of `clipood-cuda`.
const KERNELS_ON_GPU: &str = "cuda-kernels";
/// Backend name of Burn's own operations on a GPU.
const BURN_ON_GPU: &str = "cuda";

/// One processor that a model runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The processor of the machine, float32.
    Cpu,
    /// An NVIDIA GPU by its CUDA index. Builds without the feature `cuda` refuse it.
    Cuda(usize),
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
    /// Whether GPUs compute with Burn's own operations alone: those that are too old for the kernels of `clipood-cuda`, and
    /// those of runs that were made before there were such kernels. Their features have a backend name of their own.
    pub stock: bool,
    /// A remark about the choice: why `auto` took the CPU although there is a GPU, or that nothing is computed.
    pub note: Option<String>,
}

impl Device {
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
            BURN_ON_GPU | KERNELS_ON_GPU => (Device::Cuda(0), None),
            "simulated" => (Device::Cpu, Some(1)),
            _ => {
                let unknown = format!(
                    "unknown backend `{backend}`; known: cpu, {BURN_ON_GPU}, {KERNELS_ON_GPU}, simulated"
                );
                return Err(ClipError::Device(unknown));
            }
        };
        Ok(Self {
            simulated,
            stock: backend == BURN_ON_GPU,
            ..Self::of(vec![device]).with_dtype(dtype.parse()?)
        })
    }

    /// Name of the backend as fingerprints and tables hold it: another backend rounds differently. `cuda-kernels` also names
    /// the features of models without kernels, which are never mixed with others of the same model.
    pub fn backend(&self) -> &'static str {
        match (self.simulated, self.first()) {
            (Some(_), _) => "simulated",
            (None, Device::Cpu) => "cpu",
            (None, Device::Cuda(_)) if self.stock => BURN_ON_GPU,
            (None, Device::Cuda(_)) => KERNELS_ON_GPU,
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
            stock: false,
            note: None,
        }
    }

    /// One worker for each of these GPUs.
    fn of_gpus(indices: Vec<usize>) -> Self {
        Self {
            stock: indices.iter().any(|index| is_too_old(*index)),
            ..Self::of(indices.into_iter().map(Device::Cuda).collect())
        }
    }

    /// Every GPU, or the CPU where there is none; a GPU that cannot be used is named in the note.
    fn auto() -> Self {
        #[cfg(feature = "cuda")]
        {
            let checked = cuda::usable().and_then(|gpus| {
                (0..gpus).try_for_each(|index| cuda::checked(index).map(drop))?;
                Ok(gpus)
            });
            match checked {
                Ok(gpus) => return Self::of_gpus((0..gpus).collect()),
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
            "cuda" | "cuda:all" => return Ok(Self::of_gpus(all_gpus()?)),
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
            workers.push(index);
        }
        Ok(Self::of_gpus(workers))
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

/// Folder of compiled kernels; none in a build without GPUs.
pub fn kernel_cache() -> Option<std::path::PathBuf> {
    #[cfg(feature = "cuda")]
    let folder = Some(cuda::cache_folder());
    #[cfg(not(feature = "cuda"))]
    let folder = None;
    folder
}

/// Set once Burn's own operations run on a GPU.
static MAY_COMPILE: AtomicBool = AtomicBool::new(false);

/// Whether a call of this crate may be busy for minutes with compiling and tuning kernels, and does not look whether it should
/// stop: Burn's own operations on a GPU.
pub fn may_be_compiling() -> bool {
    MAY_COMPILE.load(Ordering::SeqCst)
}

/// From here on [`may_be_compiling`].
#[cfg(feature = "cuda")]
fn kernels_may_compile() {
    MAY_COMPILE.store(true, Ordering::SeqCst);
}

/// Number of hardware threads.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Name and bytes of memory of the GPU `index`, after a check that kernels run on it.
#[cfg(feature = "cuda")]
fn cuda_gpu(index: usize) -> Result<(String, u64)> {
    let gpu = cuda::checked(index)?;
    Ok((gpu.name.clone(), gpu.memory))
}

/// Whether the GPU is too old for the kernels of `clipood-cuda`.
#[cfg(feature = "cuda")]
fn is_too_old(index: usize) -> bool {
    matches!(cuda::opened(index), Err(clipood_cuda::CudaError::OldGpu(_)))
}

#[cfg(not(feature = "cuda"))]
fn is_too_old(_index: usize) -> bool {
    false
}

#[cfg(not(feature = "cuda"))]
fn cuda_gpu(index: usize) -> Result<(String, u64)> {
    Err(no_cuda(index))
}

#[cfg(feature = "cuda")]
fn all_gpus() -> Result<Vec<usize>> {
    let all: Vec<usize> = (0..cuda::usable()?).collect();
    for index in &all {
        cuda::checked(*index)?;
    }
    Ok(all)
}

#[cfg(not(feature = "cuda"))]
fn all_gpus() -> Result<Vec<usize>> {
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
        for (backend, dtype) in [
            ("cpu", "f32"),
            ("cuda", "bf16"),
            ("cuda-kernels", "tf32"),
            ("simulated", "f32"),
        ] {
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

//! Cluster manifests: how a run is submitted to Slurm or Kubernetes.

mod check;
mod quantities;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::document::parse;
use crate::error::CoreError;

pub use quantities::{Memory, TimeLimit};

/// A cluster manifest, `manifests/clusters/*.toml`.
///
/// It says nothing about what is computed, except for the number format and the kind of device, which round differently.
///
/// ```
/// use clipood_core::{ClusterManifest, Engine};
/// let text = r#"
/// engine = "slurm"
/// workers = 8
///
/// [resources]
/// gpus = 1
/// time = "04:00:00"
///
/// [slurm]
/// partition = "gpu"
/// "#;
/// let manifest = ClusterManifest::parse(text, "manifests/clusters/here.toml")?;
/// assert_eq!(manifest.engine, Engine::Slurm);
/// assert_eq!(manifest.devices(), "cuda:all");
/// # Ok::<(), clipood_core::CoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterManifest {
    /// What queues and starts the workers.
    pub engine: Engine,
    /// Largest number of workers of one job; a job with fewer open units gets fewer.
    pub workers: usize,
    /// Devices of each worker as `--devices` takes them; by default `cuda:all` if it has GPUs, otherwise `cpu`. `auto` is
    /// refused: the plan is made on a machine that may have other devices.
    #[serde(default)]
    pub devices: Option<String>,
    /// Number format of the image tower, as `--dtype` takes it.
    #[serde(default = "default_dtype")]
    pub dtype: String,
    /// Images per pass of the image tower, as `--batch` takes it.
    #[serde(default)]
    pub batch: Option<usize>,
    /// Folders that every node sees under the same path. If any is given, run, store, images and program must be below one
    /// of them; otherwise only folders that are known to be local to a machine are refused.
    #[serde(default)]
    pub shared: Vec<PathBuf>,
    /// The command on the nodes; by default the program that submits, or `clipood` in a container.
    #[serde(default)]
    pub program: Option<String>,
    /// The container image: a file or URL for `apptainer` on Slurm, an image reference on Kubernetes.
    #[serde(default)]
    pub container: Option<String>,
    /// How often a worker whose work has failed (exit code 1) is started again.
    #[serde(default = "default_retries")]
    pub retries: usize,
    /// Environment variables of the workers.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// What one worker gets.
    pub resources: Resources,
    /// What the workers of single jobs get instead.
    #[serde(default)]
    pub jobs: JobResources,
    /// Measured rates of one worker, to reject a time limit that is shorter than one unit.
    #[serde(default)]
    pub rates: Rates,
    /// Options of Slurm.
    #[serde(default)]
    pub slurm: SlurmSection,
    /// Options of Kubernetes.
    #[serde(default)]
    pub kubernetes: KubernetesSection,
}

/// What queues and starts the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Job arrays of Slurm.
    Slurm,
    /// Indexed Jobs of Kubernetes.
    Kubernetes,
}

/// `[resources]`: what one worker gets. Absent values are left to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// GPUs.
    #[serde(default)]
    pub gpus: Option<usize>,
    /// Processor cores.
    #[serde(default)]
    pub cpus: Option<usize>,
    /// Main memory: a whole number with `K`, `M`, `G` or `T`, such as `256G`.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// Time limit of one start of a job (Slurm only), as Slurm writes it: `04:00:00`, `2-00`, `90` for minutes.
    #[serde(default)]
    pub time: Option<TimeLimit>,
    /// The partition of this job, instead of that of `[slurm]`.
    #[serde(default)]
    pub partition: Option<String>,
}

/// `[jobs.NAME]`: resources of single jobs, which replace those of `[resources]` value by value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobResources {
    /// The job that extracts features.
    #[serde(default)]
    pub extract: Resources,
    /// The job that trains prompts.
    #[serde(default)]
    pub train: Resources,
    /// The job that fits detectors and scores.
    #[serde(default)]
    pub score: Resources,
    /// The job that computes metrics and writes the report.
    #[serde(default)]
    pub report: Resources,
}

/// `[rates]`: what one worker has been measured to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Views per second of the extraction, as `clipood bench extract --images FOLDER` prints it.
    #[serde(default)]
    pub images_per_second: Option<f64>,
    /// Seconds of one step of a prompt training, as `clipood bench prompt` prints it.
    #[serde(default)]
    pub step_seconds: Option<f64>,
    /// Images scored per second, all prompt sets counted.
    #[serde(default)]
    pub scores_per_second: Option<f64>,
}

/// `[slurm]`: options of `sbatch` and of the scripts. Absent options are left to the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmSection {
    /// `--account`.
    pub account: Option<String>,
    /// `--partition`.
    pub partition: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--constraint`.
    pub constraint: Option<String>,
    /// `--reservation`.
    pub reservation: Option<String>,
    /// `--gres`, per node, for clusters that do not know `--gpus-per-task`; it replaces the latter.
    pub gres: Option<String>,
    /// Workers per array task, which get a node of their own each time.
    pub workers_per_node: usize,
    /// `MaxArraySize` of the cluster (`scontrol show config`): indices of an array are below it, and a larger array is
    /// split.
    pub max_array_size: usize,
    /// Largest number of tasks of an array that run at the same time.
    pub max_running: Option<usize>,
    /// Seconds between the signal SIGUSR1 and the time limit, in which a worker writes its checkpoint and ends.
    pub signal_seconds: u64,
    /// Modules to load.
    pub modules: Vec<String>,
    /// Lines of shell to run before the worker.
    pub setup: Vec<String>,
    /// Further options of `sbatch`, such as `--exclude=node7`.
    pub options: Vec<String>,
    /// Further options of `apptainer exec`, such as `--bind=/scratch`.
    pub container_options: Vec<String>,
    /// Folder of the jobs' logs; by default `_run/jobs` of a run directory on disk.
    pub logs: Option<PathBuf>,
}

impl Default for SlurmSection {
    fn default() -> Self {
        Self {
            account: None,
            partition: None,
            qos: None,
            constraint: None,
            reservation: None,
            gres: None,
            workers_per_node: 1,
            // Slurm's own default is 1001, so that the largest index is 1000.
            max_array_size: 1001,
            max_running: None,
            signal_seconds: 90,
            modules: Vec::new(),
            setup: Vec::new(),
            options: Vec::new(),
            container_options: Vec::new(),
            logs: None,
        }
    }
}

/// `[kubernetes]`: options of the pods. Absent options are left to the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSection {
    /// Namespace of the jobs; by default that of the context of `kubectl`.
    pub namespace: Option<String>,
    /// Name of the `PersistentVolumeClaim` that holds run, store and images; absent if all of these are in object stores.
    pub claim: Option<String>,
    /// Where the claim is mounted, on the pods and on the machine that submits.
    pub mount: Option<PathBuf>,
    /// Secrets whose keys become environment variables, such as those of an object store.
    pub secrets: Vec<String>,
    /// Service account of the pods.
    pub service_account: Option<String>,
    /// Labels of the nodes to use.
    pub node_selector: BTreeMap<String, String>,
    /// Keys of taints to tolerate, such as `nvidia.com/gpu`.
    pub tolerations: Vec<String>,
    /// Priority class of the pods.
    pub priority_class: Option<String>,
    /// Name of the resource that counts GPUs.
    pub gpu_resource: String,
    /// Seconds between SIGTERM and the end of a pod, in which a worker writes its checkpoint and ends.
    pub grace_seconds: u64,
}

impl Default for KubernetesSection {
    fn default() -> Self {
        Self {
            namespace: None,
            claim: None,
            mount: None,
            secrets: Vec::new(),
            service_account: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class: None,
            gpu_resource: "nvidia.com/gpu".to_string(),
            grace_seconds: 90,
        }
    }
}

impl ClusterManifest {
    /// Reads and checks a manifest; `origin` (the file's path) names it in errors.
    ///
    /// # Errors
    /// The first mistake, with its line: TOML that does not parse, an unknown or a missing key, a value of the wrong
    /// type, or one that is not allowed.
    pub fn parse(toml: &str, origin: &str) -> Result<ClusterManifest, CoreError> {
        parse(toml, origin, ClusterManifest::check)
    }

    /// The devices of a worker that computes features or trains, as `--devices` takes them.
    pub fn devices(&self) -> &str {
        match &self.devices {
            Some(devices) => devices,
            None if self.resources.gpus.is_some_and(|gpus| gpus > 0) => "cuda:all",
            None => "cpu",
        }
    }
}

impl Resources {
    /// These values, and those of `other` where there is none.
    pub fn or(&self, other: &Resources) -> Resources {
        Resources {
            gpus: self.gpus.or(other.gpus),
            cpus: self.cpus.or(other.cpus),
            memory: self.memory.or(other.memory),
            time: self.time.or(other.time),
            partition: self.partition.clone().or_else(|| other.partition.clone()),
        }
    }
}

fn default_dtype() -> String {
    "f32".to_string()
}

fn default_retries() -> usize {
    2
}

#[cfg(test)]
mod tests;

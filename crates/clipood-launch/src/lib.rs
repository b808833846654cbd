//! Submission of a planned run to Slurm or Kubernetes: which jobs it needs, their scripts and manifests, the programs
//! `sbatch` and `kubectl`, and a record of what was submitted in the run directory. It computes nothing.
//!
//! # How to
//! Count the open units of each stage, let [`jobs`] group them, and render or submit the result:
//!
//! ```
//! use clipood_core::ClusterManifest;
//! use clipood_launch::{Campaign, OpenStage, jobs, slurm};
//!
//! let manifest = "engine = \"slurm\"\nworkers = 4\n[resources]\ngpus = 1\ntime = \"04:00:00\"\n";
//! let manifest = ClusterManifest::parse(manifest, "here.toml")?;
//! let campaign = Campaign {
//!     recipe: "demo".into(),
//!     fingerprint: "0123456789abcdef".into(),
//!     run: "/scratch/runs/demo".into(),
//!     store: "/scratch/store".into(),
//!     data: "/scratch/data".into(),
//!     program: "clipood".into(),
//!     number: 1,
//! };
//! let open = |stage: &str, units| OpenStage { stage: stage.into(), open: units };
//! let jobs = jobs(&manifest, &[open("extract", 40), open("score", 40), open("report", 1)]);
//! let scripts = slurm::scripts(&campaign, &manifest, &jobs);
//! assert_eq!(scripts.len(), 3);
//! assert!(scripts[0].text.contains("#SBATCH --array=0-3"));
//! assert!(scripts[0].text.contains("clipood worker /scratch/runs/demo"));
//! # Ok::<(), clipood_core::CoreError>(())
//! ```

pub mod builtin;
mod campaign;
mod command;
mod error;
mod jobs;
pub mod kubernetes;
mod limits;
pub mod places;
mod record;
mod shell;
pub mod slurm;

pub use campaign::Campaign;
pub use error::{LaunchError, Result};
pub use jobs::{GROUPS, Job, OpenStage, jobs};
pub use limits::{LongestUnit, check_time};
pub use record::{JobRecord, LOGS, Submission, next_number, read_submissions, write_submission};

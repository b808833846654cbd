//! Opening a run directory to look at it.

use std::path::PathBuf;

use anyhow::Result;
use clipood_pipeline::{Interrupt, Job, Reporting, RunOptions, Share};

use super::run_devices;

/// Options of commands that look at a run and compute nothing.
#[derive(clap::Args)]
pub struct LookArgs {
    /// Where the run's model ran, as in `clipood run`.
    #[arg(long, default_value = "auto")]
    devices: String,
    /// Number format of the run: f32, f16 or bf16.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Store of features and prompts, a path or URL.
    #[arg(long, default_value = "store")]
    pub store: String,
}

/// Opens the run directory `run`.
pub fn open(run: &str, args: &LookArgs) -> Result<Job> {
    Ok(Job::reopen(RunOptions {
        run: run.to_string(),
        data: PathBuf::new(),
        store: args.store.clone(),
        device: run_devices(&args.devices, &args.dtype)?,
        share: Share {
            index: 0,
            count: 1,
            backups: false,
        },
        backup_training: false,
        reporting: Reporting::Silent,
        interrupt: Interrupt::default(),
    })?)
}

//! Opening a run directory to look at it.

use std::path::PathBuf;

use anyhow::Result;
use clipood_pipeline::{Interrupt, Job, Reporting, RunOptions, Share};

/// Options of commands that look at a run and compute nothing.
#[derive(clap::Args)]
pub struct LookArgs {
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
        device: None,
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

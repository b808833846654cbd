//! Opening a run directory to inspect it.

use std::path::PathBuf;

use anyhow::Result;
use clipood_pipeline::{ChangedData, Interrupt, Job, Reporting, RunOptions, Share};

use super::args::StoreArg;

/// Opens the run directory `run` with the store of its features and prompts, without any device.
pub fn open(run: &str, store: &StoreArg) -> Result<Job> {
    open_with_data(run, store, PathBuf::new())
}

/// [`open`], with the folder that relative dataset roots start from.
pub fn open_with_data(run: &str, store: &StoreArg, data: PathBuf) -> Result<Job> {
    Ok(Job::reopen(RunOptions {
        run: run.to_string(),
        data,
        changed: ChangedData::AllowMoved,
        store: store.store.clone(),
        device: None,
        share: Share {
            index: 0,
            count: 1,
            backups: false,
        },
        patience: clipood_pipeline::PATIENCE,
        reporting: Reporting::Silent,
        interrupt: Interrupt::default(),
    })?)
}

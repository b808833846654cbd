//! `clipood worker`: one of several processes that work on a planned run together.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{
    ChangedData, Job, PipelineError, RunOptions, Share, run as run_job, run_only, stages_called,
};

use super::args::{ChangedDataArg, DataArg, JsonLogArg, RunDeviceArgs, StoreArg, WorkerRunArg};
use super::reporting;
use super::run::account;
use super::signals::listen;

/// Options of `clipood worker`.
#[derive(clap::Args)]
#[command(override_usage = "clipood worker [OPTIONS] <RUN>")]
pub struct Args {
    #[command(flatten)]
    run: WorkerRunArg,
    /// Number of this worker, from 0. A worker that is started again gets the same number.
    #[arg(long, default_value_t = 0)]
    index: usize,
    /// Number of workers. It only distributes the work, so it need not be exact.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Do these stages only, separated by commas, such as `extract,train`; the stages that they need must be done. By
    /// default a worker stays until the whole run is finished.
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    stages: Vec<String>,
    /// Train prompts that another worker has claimed instead of waiting for it.
    #[arg(long)]
    backup_training: bool,
    #[command(flatten)]
    device: RunDeviceArgs,
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    changed: ChangedDataArg,
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    log: JsonLogArg,
}

/// Works until the run, or the requested stages, are finished, by this worker or by others.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.index >= args.count {
        return Err(PipelineError::Usage(format!(
            "--index {} is not below --count {}",
            args.index, args.count
        ))
        .into());
    }
    let wanted = stages_called(&args.stages)?;
    let reporting = reporting(args.log.json_log);
    let mut job = Job::reopen(RunOptions {
        run: args.run.into_run(),
        data: args.data.data,
        changed: match args.changed.accept_changed_data {
            true => ChangedData::Accept,
            false => ChangedData::AllowMoved,
        },
        store: args.store.store,
        device: Some(args.device.open()?),
        share: Share {
            index: args.index,
            count: args.count,
            backups: true,
        },
        backup_training: args.backup_training,
        reporting,
        interrupt: listen(reporting)?,
    })?;
    job.worker.judge = std::env::current_exe().ok();
    if wanted.is_empty() {
        super::print(&account(&job, &run_job(&job)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<&str> = wanted.iter().map(|stage| stage.name).collect();
    match run_only(&job, &wanted)? {
        Some(outcome) => super::print(&account(&job, &outcome))?,
        None => super::print(&format!("done: {}\n", names.join(", ")))?,
    }
    Ok(ExitCode::SUCCESS)
}

//! `clipood worker`: one of several processes that work on a planned run together.

mod place;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clipood_pipeline::{
    ChangedData, Job, PATIENCE, RunOptions, Share, check_run, report_failure, run as run_job,
    run_only, stages_called,
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
    /// Number of this worker, from 0. A worker that is started again gets the same number. By default that of the task of
    /// a Slurm array or of a Kubernetes Indexed Job, otherwise 0.
    #[arg(long)]
    index: Option<usize>,
    /// Number of workers. It only distributes the work, so it need not be exact. By default the size of the Slurm array,
    /// otherwise 1.
    #[arg(long)]
    count: Option<usize>,
    /// Do these stages only, separated by commas, such as `extract,train`; the stages that they need must be done. By
    /// default a worker stays until the whole run is finished.
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    stages: Vec<String>,
    /// Wait for the stages that those of `--stages` need and that other workers do, instead of failing.
    #[arg(long, requires = "stages")]
    wait: bool,
    /// Refuse a run with another fingerprint than this one, as `clipood status RUN --json` prints it.
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// Take over the trainings of a worker that has not reported for this many seconds; a living one reports every ten. As
    /// `--backup-training`, without a number, repeat those of living workers too instead of waiting for them.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_value_t = PATIENCE.as_secs(), default_missing_value = "0")]
    backup_training: u64,
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
    let place = place::find(args.index, args.count, |name| std::env::var(name).ok())?;
    let wanted = stages_called(&args.stages)?;
    let reporting = reporting(args.log.json_log);
    if let Some(line) = place.line() {
        reporting.say(&line);
    }
    let interrupt = listen(reporting)?;
    let run = args.run.into_run();
    let devices = || match wanted.is_empty() || wanted.iter().any(|stage| stage.uses_devices) {
        true => args.device.open().map(Some),
        // Scores and metrics are computed alike on every machine, whatever has computed the features.
        false => Ok(None),
    };
    let opened = check_run(&run, args.fingerprint.as_deref()).and_then(|()| {
        Job::reopen(RunOptions {
            run: run.clone(),
            data: args.data.data,
            changed: match args.changed.accept_changed_data {
                true => ChangedData::Accept,
                false => ChangedData::AllowMoved,
            },
            store: args.store.store,
            device: devices()?,
            share: Share {
                index: place.index,
                count: place.count,
                backups: true,
            },
            patience: Duration::from_secs(args.backup_training),
            reporting,
            interrupt,
        })
    });
    report_failure(&run, place.index, &opened);
    let mut job = opened?;
    job.worker.waits = args.wait;
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

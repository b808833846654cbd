//! `clipood worker`: one of several processes that finish a planned run together.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{Job, PipelineError, RunOptions, Share, run as run_job};

use super::run::print_account;
use super::signals::listen;
use super::{reporting, run_devices};

/// Options of `clipood worker`.
#[derive(clap::Args)]
pub struct Args {
    /// Run directory that `clipood plan` made, a path or URL.
    #[arg(long)]
    run: String,
    /// Number of this worker, from 0. A worker that is started again gets the same number.
    #[arg(long, default_value_t = 0)]
    index: usize,
    /// Number of workers. It only spreads the work, so it need not be right.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Train prompts that another worker has claimed instead of waiting for it.
    #[arg(long)]
    backup_training: bool,
    /// Where the model runs, as in `clipood run`.
    #[arg(long, default_value = "auto")]
    devices: String,
    /// Number format: f32, f16 or bf16, as in `clipood run`; the same for all workers of a run.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Images that go through the image tower at once (default: 32 on the CPU, by memory on a GPU).
    #[arg(long)]
    batch: Option<usize>,
    /// Progress as JSON, one object a line on standard error.
    #[arg(long)]
    json_log: bool,
    /// Folder that relative dataset roots start from.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// Store of features and prompts, a path or URL.
    #[arg(long, default_value = "store")]
    store: String,
}

/// Works until the whole run is finished, whoever did what.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.index >= args.count {
        return Err(PipelineError::Usage(format!(
            "--index {} is not below --count {}",
            args.index, args.count
        ))
        .into());
    }
    let job = Job::reopen(RunOptions {
        run: args.run,
        data: args.data,
        store: args.store,
        device: Some(run_devices(&args.devices, &args.dtype)?.with_batch(args.batch)),
        share: Share {
            index: args.index,
            count: args.count,
            backups: true,
        },
        backup_training: args.backup_training,
        reporting: reporting(args.json_log),
        interrupt: listen()?,
    })?;
    let outcome = run_job(&job)?;
    print_account(&job, &outcome);
    Ok(ExitCode::SUCCESS)
}

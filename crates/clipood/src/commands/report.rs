//! `clipood report`: prints the tables of a finished run.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{PipelineError, Store, console, read_metrics};

use super::args::RunArg;

/// Options of `clipood report`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArg,
}

/// Prints the tables.
pub fn run(args: Args) -> Result<ExitCode> {
    let run = args.run.run;
    let store = Store::open(&run).map_err(PipelineError::from)?;
    let Some(metrics) = read_metrics(&store)? else {
        return Err(PipelineError::Usage(format!(
            "{run} has no metric tables: it is no run directory, or its run is not finished"
        ))
        .into());
    };
    super::print(&format!(
        "{}\ntables: {run}/metrics/*.parquet, {run}/scores/; page: {run}/report/index.html\n",
        console(&metrics)
    ))?;
    Ok(ExitCode::SUCCESS)
}

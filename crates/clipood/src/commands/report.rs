//! `clipood report`: the tables of a finished run, read and not made.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{PipelineError, Store, console, read_metrics};

/// Options of `clipood report`.
#[derive(clap::Args)]
pub struct Args {
    /// Run directory, a path or URL.
    run: String,
}

/// Prints the tables.
pub fn run(args: Args) -> Result<ExitCode> {
    let store = Store::open(&args.run).map_err(PipelineError::from)?;
    let Some(metrics) = read_metrics(&store)? else {
        return Err(PipelineError::Usage(format!(
            "{} has no metric tables: it is no run directory, or its run is not finished",
            args.run
        ))
        .into());
    };
    println!("{}", console(&metrics));
    println!(
        "tables: {0}/metrics/*.parquet, {0}/scores/; page: {0}/report/index.html",
        args.run
    );
    Ok(ExitCode::SUCCESS)
}

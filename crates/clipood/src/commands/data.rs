//! `clipood data`: what lies in a folder, whether a dataset is complete, and splits as files.

mod check;
mod inspect;
mod named;
mod split;

use std::process::ExitCode;

use anyhow::Result;

/// Options of `clipood data`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Say how the images of a folder, file, URL or dataset of the hub are stored, count them, and print the manifest to use.
    Inspect(inspect::Args),
    /// Compare what lies on this machine with what a recipe or manifest expects, and say what is missing.
    Check(check::Args),
    /// Show, compare, export and import splits: CoOp's JSON and pickle files, JSON and Parquet with a hash.
    Split(split::Args),
}

/// Runs the chosen subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.what {
        What::Inspect(args) => inspect::run(&args),
        What::Check(args) => check::run(&args),
        What::Split(args) => split::run(&args),
    }
}

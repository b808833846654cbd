//! `clipood judge-image`: decodes one image in a process of its own. Hidden; runs start it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_pipeline::decode_alone;

/// Options of `clipood judge-image`.
#[derive(clap::Args)]
pub struct Args {
    /// Side of the view in pixels.
    #[arg(long)]
    side: u32,
}

/// Decodes the image on standard input; the process dies if the image kills it.
pub fn run(args: Args) -> Result<ExitCode> {
    decode_alone(std::io::stdin().lock(), args.side).context("cannot read the image")?;
    Ok(ExitCode::SUCCESS)
}

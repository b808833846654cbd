//! `clipood compare`: two finished runs side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_pipeline::compare_runs;

use super::args::FormatArgs;
use super::arrays::check_output;

/// Options of `clipood compare`.
#[derive(clap::Args)]
pub struct Args {
    /// The first run directory, a path or URL.
    #[arg(value_name = "RUN_A")]
    first: String,
    /// The second one; differences are second less first.
    #[arg(value_name = "RUN_B")]
    second: String,
    /// The detector to compare under (default: the first that both runs have).
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
    /// Write the comparison as a page.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// Prints the comparison.
pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(path) = &args.page {
        check_output(path)?;
    }
    let found = compare_runs(&args.first, &args.second, args.detector.as_deref())?;
    if let Some(path) = &args.page {
        std::fs::write(path, &found.page)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(text) = args.format.format(&found.differences) {
        super::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let configuration = match found.configuration.rows.is_empty() {
        true => "the configurations are equal\n".to_string(),
        false => found.configuration.to_text(),
    };
    let page = match &args.page {
        Some(path) => format!("\npage: {}\n", path.display()),
        None => String::new(),
    };
    super::print(&format!(
        "{configuration}\nin percent, second run less first, with 95% intervals on the common images:\n\n{}\n{}\n{page}",
        found.differences.to_text(),
        found.verdict
    ))?;
    Ok(ExitCode::SUCCESS)
}

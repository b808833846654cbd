//! `clipood plan`: creates a run directory with its plan, for several workers.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::Planned;

use super::run::{Args, open};

/// Makes the plan of the recipe and prints the run directory to give to workers.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = open(args)?;
    let planned = Planned::make(&job)?;
    let plan = &planned.plan;
    let mut names: Vec<&str> = plan.datasets.iter().map(|d| d.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let overlaps: String = (plan.overlaps.iter())
        .map(|overlap| format!("overlap: {}\n", overlap.line()))
        .collect();
    super::print(&format!(
        "planned: {} test images, {} datasets, {} classes\n{overlaps}run: {}\n",
        plan.test_images(),
        names.len(),
        plan.classes.len(),
        job.places.run_location
    ))?;
    Ok(ExitCode::SUCCESS)
}

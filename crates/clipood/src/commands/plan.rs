//! `clipood plan`: makes a run directory that workers share.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::Planned;

use super::run::{Args, open};

/// Plans the recipe and prints the run directory that workers take.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = open(args)?;
    let plan = Planned::make(&job)?.plan;
    let mut names: Vec<&str> = plan.datasets.iter().map(|d| d.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    println!(
        "planned: {} test images, {} datasets, {} classes",
        plan.test_images(),
        names.len(),
        plan.classes.len()
    );
    println!("run: {}", job.places.run_location);
    Ok(ExitCode::SUCCESS)
}

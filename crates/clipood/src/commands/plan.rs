//! `clipood plan`: creates a run directory with its plan, for several workers.

use std::process::ExitCode;

use anyhow::Result;
use clipood_core::Rates;
use clipood_pipeline::Planned;

use super::args::{JsonLogArg, RunDeviceArgs};
use super::run::{PlanArgs, open};
use super::{clusters, estimate, reporting};

/// Options of `clipood plan`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    device: RunDeviceArgs,
    /// Also print what the run will take: images, hours, bytes of features, jobs. Rates that are not given are measured on
    /// this machine.
    #[arg(long, help_heading = ESTIMATE)]
    estimate: bool,
    /// Views that one worker encodes per second.
    #[arg(long, value_name = "RATE", value_parser = rate, requires = "estimate", help_heading = ESTIMATE)]
    images_per_second: Option<f64>,
    /// Seconds of one step of a prompt training.
    #[arg(long, value_name = "SECONDS", value_parser = rate, requires = "estimate", help_heading = ESTIMATE)]
    step_seconds: Option<f64>,
    /// Cluster manifest, whose jobs are counted and whose rates are used, as of `clipood submit`.
    #[arg(long, requires = "estimate", help_heading = ESTIMATE)]
    cluster: Option<String>,
    #[command(flatten)]
    log: JsonLogArg,
}

/// Heading of the options in the help.
const ESTIMATE: &str = "Estimate";

fn rate(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(rate) if f64::is_finite(rate) && rate > 0.0 => Ok(rate),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// Makes the plan of the recipe and prints the run directory to give to workers.
pub fn run(args: Args) -> Result<ExitCode> {
    let cluster = args.cluster.as_deref().map(clusters::find).transpose()?;
    let devices = args.device.open()?;
    let job = open(args.plan, devices.clone(), reporting(args.log.json_log))?;
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
    if args.estimate {
        let of_cluster = cluster.as_ref().map(|c| c.rates).unwrap_or_default();
        let rates = Rates {
            images_per_second: args.images_per_second.or(of_cluster.images_per_second),
            step_seconds: args.step_seconds.or(of_cluster.step_seconds),
            ..of_cluster
        };
        let text = estimate::text(&job, &planned, &devices, (&rates, cluster.as_ref()))?;
        super::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

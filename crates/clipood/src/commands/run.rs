//! `clipood run`: a recipe from plan to report.

use std::process::ExitCode;

use anyhow::Result;
use clipood_clip::model::Devices;
use clipood_core::{Method, Overrides, Recipe};
use clipood_pipeline::{Job, JobOptions, Outcome, Reporting, console, published, run as run_job};

use super::args::{ChangedDataArg, DataArgs, JsonLogArg, RunDeviceArgs, StoreArg, heading};
use super::recipes;
use super::reporting;
use super::signals::listen;

/// Options of `clipood run`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    device: RunDeviceArgs,
    #[command(flatten)]
    log: JsonLogArg,
}

/// What to run, and where: options of `run`, `plan` and `submit`.
#[derive(clap::Args)]
pub struct PlanArgs {
    /// Recipe: the path of a file, the name of one in `pipelines/`, or a built-in one (`clipood recipes` lists both).
    recipe: String,
    #[command(flatten)]
    changes: Changes,
    /// Images and manifests.
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    changed: ChangedDataArg,
    /// Features and prompts.
    #[command(flatten)]
    pub store: StoreArg,
    /// Run directory, a path or URL (default: `runs/RECIPE-FINGERPRINT`).
    #[arg(long, value_name = "RUN", help_heading = heading::FILES)]
    pub run: Option<String>,
}

/// Values that replace those of the recipe.
#[derive(clap::Args)]
struct Changes {
    /// Training images per class, separated by commas.
    #[arg(long, value_delimiter = ',', help_heading = heading::RECIPE)]
    shots: Option<Vec<usize>>,
    /// Seeds of split and training, separated by commas.
    #[arg(long, value_delimiter = ',', help_heading = heading::RECIPE)]
    seeds: Option<Vec<u64>>,
    /// Train a class on fewer images than shots if it has no more, instead of refusing.
    #[arg(long, help_heading = heading::RECIPE)]
    allow_fewer: bool,
    /// Methods, separated by commas: zero-shot, coop, locoop, sct, negprompt, linear-probe, dpcoop, dplocoop, dpsct.
    #[arg(long, value_delimiter = ',', help_heading = heading::RECIPE)]
    methods: Option<Vec<String>>,
    /// Detectors, separated by commas: `[alias=]kind[:key=value]...`; `clipood detectors` lists them.
    #[arg(long, value_delimiter = ',', help_heading = heading::RECIPE)]
    detectors: Option<Vec<String>>,
    /// Model: `demo`, a folder (open_clip or Hugging Face), a weight file, or a name on the Hugging Face hub.
    #[arg(long, help_heading = heading::RECIPE)]
    model: Option<String>,
}

/// Runs the recipe and prints its tables.
pub fn run(args: Args) -> Result<ExitCode> {
    let reporting = reporting(args.log.json_log);
    let job = open(args.plan, args.device.open()?, reporting)?;
    let outcome = run_job(&job)?;
    let run = &job.places.run_location;
    super::print(&format!(
        "{}\n{}{}",
        console(&outcome.metrics, &published(&job)?),
        account(&job, &outcome),
        where_it_is(run)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Where the results of a run are: lines for standard output.
pub fn where_it_is(run: &str) -> String {
    format!(
        "tables: {run}/metrics/*.parquet, {run}/scores/\nmore: clipood report {run} --detector all, --by dataset|seed|shots\n\
         report: {run}/report/index.html\n"
    )
}

/// Opens recipe, model, store and run directory, and listens for signals.
pub fn open(args: PlanArgs, devices: Devices, reporting: Reporting) -> Result<Job> {
    let mut job = Job::open(JobOptions {
        recipe: recipe(&args.recipe, args.changes)?,
        manifests: args.data.manifests,
        data: args.data.images.data,
        accept_changed_data: args.changed.accept_changed_data,
        store: args.store.store,
        run: args.run,
        device: devices,
        reporting,
        interrupt: listen(reporting)?,
    })?;
    job.worker.judge = std::env::current_exe().ok();
    Ok(job)
}

/// How many test images were scored, and how many are in quarantine: lines for standard output.
pub fn account(job: &Job, outcome: &Outcome) -> String {
    let mut text = format!(
        "test images: {} planned = {} scored + {} quarantined\n",
        outcome.planned,
        outcome.scored,
        outcome.planned - outcome.scored
    );
    if !outcome.quarantined.is_empty() {
        text += &format!(
            "{} images could not be read: {}/_run/quarantine/extract.parquet\n",
            outcome.quarantined.len(),
            job.places.run_location
        );
    }
    for overlap in &outcome.overlaps {
        text += &format!("overlap: {}\n", overlap.line());
    }
    if let Some(origin) = &outcome.origin {
        text += &format!("{origin}\n");
    }
    text
}

/// Reads the recipe called `name` and applies the command line to it.
fn recipe(name: &str, changes: Changes) -> Result<Recipe> {
    let found = recipes::find(name)?;
    let mut recipe = Recipe::parse(&found.text, &found.place())?;
    let methods = changes
        .methods
        .map(|names| {
            names
                .iter()
                .map(|n| n.parse::<Method>())
                .collect::<Result<Vec<_>, _>>()
        })
        .transpose()?;
    recipe.apply_overrides(&Overrides {
        model: changes.model,
        methods,
        shots: changes.shots,
        seeds: changes.seeds,
        detectors: changes.detectors,
        allow_fewer: changes.allow_fewer,
    });
    recipe.validate()?;
    Ok(recipe)
}

//! `clipood run`: a recipe from plan to report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_core::{Method, Overrides, Recipe, nearest};
use clipood_pipeline::{Job, JobOptions, Outcome, PipelineError, console, run as run_job};

use super::signals::listen;
use super::{reporting, run_devices};

/// Options of `clipood run`.
#[derive(clap::Args)]
pub struct Args {
    /// Recipe: a name in `pipelines/` or the path of a file.
    recipe: String,
    /// Training images a class, several apart by commas.
    #[arg(long, value_delimiter = ',')]
    shots: Option<Vec<usize>>,
    /// Seeds of split and training, several apart by commas.
    #[arg(long, value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Train a class on fewer images than shots if it has no more, instead of refusing.
    #[arg(long)]
    allow_fewer: bool,
    /// Methods, several apart by commas: zero-shot, coop, locoop, sct, linear-probe,
    /// dpcoop, dplocoop, dpsct.
    #[arg(long, value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Detectors, several apart by commas: `[alias=]kind[:key=value]...`.
    #[arg(long, value_delimiter = ',')]
    detectors: Option<Vec<String>>,
    /// Model: `demo`, a folder (open_clip or Hugging Face), a weight file, or a name on the Hugging Face hub.
    #[arg(long)]
    model: Option<String>,
    /// Where the model runs: auto, cpu, cpu:THREADS, cuda:all, or GPUs apart by commas as in cuda:0,cuda:1. A GPU that is
    /// named twice gets two workers.
    #[arg(long, default_value = "auto")]
    devices: String,
    /// Number format: f32; on GPUs also f16 or bf16, on a CPU with AVX-512 BF16 also bf16 (image tower, ViT only).
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
    /// Folder of the dataset manifests.
    #[arg(long, default_value = "manifests/datasets")]
    manifests: PathBuf,
    /// Store of features and prompts, a path or URL.
    #[arg(long, default_value = "store")]
    store: String,
    /// Run directory, a path or URL (default: `runs/RECIPE-FINGERPRINT`).
    #[arg(long)]
    run: Option<String>,
}

/// Runs the recipe and prints its tables.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = open(args)?;
    let outcome = run_job(&job)?;
    println!("{}", console(&outcome.metrics));
    print_account(&job, &outcome);
    println!(
        "tables: {0}/metrics/*.parquet, {0}/scores/; page: {0}/report/index.html",
        job.places.run_location
    );
    Ok(ExitCode::SUCCESS)
}

/// Opens recipe, model, store and run directory, and listens for signals.
pub fn open(args: Args) -> Result<Job> {
    let recipe = recipe(&args)?;
    Ok(Job::open(JobOptions {
        recipe,
        manifests: args.manifests,
        data: args.data,
        store: args.store,
        run: args.run,
        device: run_devices(&args.devices, &args.dtype)?.with_batch(args.batch),
        reporting: reporting(args.json_log),
        interrupt: listen()?,
    })?)
}

/// What became of every test image.
pub fn print_account(job: &Job, outcome: &Outcome) {
    println!(
        "test images: {} planned = {} scored + {} quarantined",
        outcome.planned,
        outcome.scored,
        outcome.planned - outcome.scored
    );
    if !outcome.quarantined.is_empty() {
        println!(
            "{} images could not be read: {}/_run/quarantine/extract.parquet",
            outcome.quarantined.len(),
            job.places.run_location
        );
    }
}

/// Reads the recipe and applies the command line to it.
fn recipe(args: &Args) -> Result<Recipe> {
    let path = recipe_path(&args.recipe)?;
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read the recipe {}", path.display()))?;
    let mut recipe = Recipe::parse(&text, &path.display().to_string())?;
    let methods = args
        .methods
        .as_ref()
        .map(|names| {
            names
                .iter()
                .map(|n| n.parse::<Method>())
                .collect::<Result<Vec<_>, _>>()
        })
        .transpose()?;
    recipe.apply_overrides(&Overrides {
        model: args.model.clone(),
        methods,
        shots: args.shots.clone(),
        seeds: args.seeds.clone(),
        detectors: args.detectors.clone(),
        allow_fewer: args.allow_fewer,
    });
    recipe.validate()?;
    Ok(recipe)
}

fn recipe_path(name: &str) -> Result<PathBuf> {
    let direct = PathBuf::from(name);
    if direct.is_file() {
        return Ok(direct);
    }
    let named = Path::new("pipelines").join(format!("{name}.toml"));
    if named.is_file() {
        return Ok(named);
    }
    let known: Vec<String> = std::fs::read_dir("pipelines")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".toml").map(String::from)
        })
        .collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(close) => format!("; did you mean `{close}`?"),
        None => String::new(),
    };
    Err(PipelineError::Usage(format!(
        "no recipe `{name}`: neither a file nor {}{hint}",
        named.display()
    ))
    .into())
}

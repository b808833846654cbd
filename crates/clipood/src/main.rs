//! The command `clipood`: a thin face over the crates.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Evaluates few-shot and zero-shot out-of-distribution detection with CLIP.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Tell what is done and how long it takes, on standard error: `info` for stages and prompt sets, `debug` for units,
    /// commits and retries, `trace` for batches; for some crates alone as in `clipood_store=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    trace: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a recipe: plan, extract, train, score, aggregate, report. Run it again to go on after an interruption.
    Run(commands::run::Args),
    /// Make a run directory with its plan, for workers to work on; nothing is computed.
    Plan(commands::run::Args),
    /// Work on a planned run beside other workers; started again, a worker goes on.
    Worker(commands::worker::Args),
    /// Print the tables of a finished run again.
    Report(commands::report::Args),
    /// Name what images show, from class names alone; accuracy and confusion where their classes are known.
    ZeroShot(commands::zero_shot::Args),
    /// Fit a threshold on in-distribution validation images and store it with what made its scores.
    Threshold(commands::threshold::Args),
    /// Say of images whether they belong to the classes of a fitted threshold.
    Detect(commands::detect::Args),
    /// Show how far each stage of a run is, and what is in quarantine.
    Status(commands::status::Args),
    /// Show what made a unit's fingerprint, and what differs from the units that are there.
    Explain(commands::explain::Args),
    /// List what no run needs in a store of features and prompts, and remove it with `--delete`.
    Gc(commands::gc::Args),
    /// Look into learned contexts, and exchange them with the CoOp repository.
    Prompt(commands::prompt::Args),
    /// Turn the texts on standard input, one a line, into JSON arrays of 77 token ids; a text too long is cut.
    Tokenize(commands::tokenize::Args),
    /// Resize, crop and normalise images as CLIP's own preprocessing does; an array a file into a safetensors file.
    Preprocess(commands::preprocess::Args),
    /// Compute the features of images and texts, not normalised, into a safetensors or Parquet file.
    Encode(commands::encode::Args),
    /// Compare images with texts: cosine, logit, and probability among the texts.
    Similarity(commands::similarity::Args),
    /// Score features that you bring with detectors, into a Parquet file with a row an image.
    Score(commands::score::Args),
    /// Compare two lists of scores: AUROC, AUPR, FPR95 and more.
    Metrics(commands::metrics::Args),
    /// List the detectors with their parameters and defaults.
    Detectors(commands::detectors::Args),
    /// Measure this machine: images a second, seconds of a prompt step, and whether a GPU computes what the CPU does.
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(filter) = &cli.trace
        && let Err(error) = listen(filter)
    {
        eprintln!("error: --trace {filter}: {error}");
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Run(args) => commands::run::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Worker(args) => commands::worker::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::ZeroShot(args) => commands::zero_shot::run(args),
        Command::Threshold(args) => commands::threshold::run(args),
        Command::Detect(args) => commands::detect::run(args),
        Command::Status(args) => commands::status::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Gc(args) => commands::gc::run(args),
        Command::Prompt(args) => commands::prompt::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Preprocess(args) => commands::preprocess::run(args),
        Command::Encode(args) => commands::encode::run(args),
        Command::Similarity(args) => commands::similarity::run(args),
        Command::Score(args) => commands::score::run(args),
        Command::Metrics(args) => commands::metrics::run(args),
        Command::Detectors(args) => commands::detectors::run(args),
        Command::Bench(args) => commands::bench::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

/// Prints spans when they end, with the time they took, and events.
fn listen(filter: &str) -> Result<(), ParseError> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false);
    let targets: Targets = filter.parse()?;
    tracing_subscriber::registry()
        .with(layer)
        .with(targets)
        .init();
    Ok(())
}

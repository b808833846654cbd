//! The command `clipood`: options, help, output and exit codes.

mod commands;
mod help;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::json;
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
    /// Log with times to standard error: stages (`info`), units and retries (`debug`), or batches (`trace`); for one
    /// crate as in `clipood_store=debug`.
    #[arg(long, global = true, value_name = "FILTER")]
    trace: Option<String>,
}

/// The commands; [`help::GROUPS`] contains their order in the overview.
#[derive(Subcommand)]
enum Command {
    /// Run a recipe from plan to report; run it again to continue after an interruption.
    Run(commands::run::Args),
    /// List the recipes, or print one.
    Recipes(commands::recipes::Args),
    /// Make a run directory with its plan for workers; nothing is computed.
    Plan(commands::run::Args),
    /// Work on a planned run together with other workers; restart one to continue.
    Worker(commands::worker::Args),
    /// Print the tables of a finished run again.
    Report(commands::report::Args),
    /// Classify images from class names alone, with accuracy and confusion where classes are known.
    ZeroShot(commands::zero_shot::Args),
    /// Fit a threshold on in-distribution validation images, for `detect`.
    Threshold(commands::threshold::Args),
    /// Decide for each image whether it belongs to the classes of a fitted threshold.
    Detect(commands::detect::Args),
    /// Show the progress of each stage of a run, what its workers do, and what is in quarantine.
    Status(commands::status::Args),
    /// Show the inputs of a unit, and how they differ from those of committed units.
    Explain(commands::explain::Args),
    /// List what no run needs in a store of features and prompts; `--delete` removes it.
    Gc(commands::gc::Args),
    /// Inspect learned contexts, and exchange them with the CoOp repository.
    Prompt(commands::prompt::Args),
    /// Turn lines of text on standard input into JSON arrays of 77 token ids (longer texts are cut).
    Tokenize(commands::tokenize::Args),
    /// Resize, crop and normalise images as CLIP does, into a safetensors file.
    Preprocess(commands::preprocess::Args),
    /// Compute the features of images and texts, not normalised, into a safetensors or Parquet file.
    Encode(commands::encode::Args),
    /// Compare images with texts: cosine, logit, and probability among the texts.
    Similarity(commands::similarity::Args),
    /// Score your own features with detectors, into a Parquet file with one row per image.
    Score(commands::score::Args),
    /// Compare two lists of scores: AUROC, AUPR, FPR95 and more.
    Metrics(commands::metrics::Args),
    /// List the detectors with their parameters and defaults.
    Detectors(commands::detectors::Args),
    /// Measure this machine: images per second, seconds per prompt step, agreement of GPU and CPU.
    Bench(commands::bench::Args),
}

fn main() -> ExitCode {
    let matches = help::grouped(Cli::command()).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let as_json = logs_json(&matches);
    if let Some(filter) = &cli.trace
        && let Err(error) = listen(filter)
    {
        print_error(&format!("--trace {filter}: {error}"), as_json);
        return ExitCode::from(2);
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            print_error(&format!("{error:#}"), as_json);
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(args),
        Command::Recipes(args) => commands::recipes::run(args),
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
    }
}

/// Whether `--json-log` was given, so that errors are JSON as well.
fn logs_json(matches: &ArgMatches) -> bool {
    let Some((_, options)) = matches.subcommand() else {
        return false;
    };
    // For commands without the option this is an error.
    options
        .try_get_one::<bool>("json_log")
        .is_ok_and(|given| given == Some(&true))
}

/// One line on standard error: `error: ...`, or `{"error": "..."}`.
fn print_error(message: &str, as_json: bool) {
    match as_json {
        true => eprintln!("{}", json!({ "error": message })),
        false => eprintln!("error: {message}"),
    }
}

/// Prints events, and spans with their duration when they end.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_all_commands_fit_together() {
        help::grouped(Cli::command()).debug_assert();
    }

    #[test]
    fn errors_are_json_where_the_log_is() {
        let json = |words: &[&str]| {
            let words = [&["clipood"], words].concat();
            logs_json(&Cli::command().try_get_matches_from(words).unwrap())
        };
        assert!(json(&["run", "demo", "--json-log"]));
        assert!(json(&["plan", "demo", "--json-log"]));
        assert!(json(&["worker", "runs/demo", "--json-log"]));
        assert!(!json(&["run", "demo"]));
        assert!(!json(&["report", "runs/demo"]));
    }
}

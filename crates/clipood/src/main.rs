//! The command `clipood`: options, help, output and exit codes.

mod commands;
mod help;
mod log;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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
    /// Print the JSON Schema of recipes, dataset manifests or cluster manifests, for editors.
    Schema(commands::schema::Args),
    /// Make a run directory with its plan for workers; nothing is computed.
    Plan(commands::plan::Args),
    /// Plan a run and queue its workers on Slurm or Kubernetes; submit again to do what is missing.
    Submit(commands::submit::Args),
    /// Work on a planned run together with other workers; restart one to continue.
    Worker(commands::worker::Args),
    /// Print tables of a finished run, or make its page again.
    Report(commands::report::Args),
    /// Compare two finished runs: their configuration, and their scores on the same images.
    Compare(commands::compare::Args),
    /// Classify images from class names alone, with accuracy and confusion where classes are known.
    ZeroShot(commands::zero_shot::Args),
    /// Fit a threshold on in-distribution validation images, for `detect`.
    Threshold(commands::threshold::Args),
    /// Decide for each image whether it belongs to the classes of a fitted threshold.
    Detect(commands::detect::Args),
    /// Look at datasets: inspect a folder, check what is complete, export and import splits.
    Data(commands::data::Args),
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
    /// Find the images nearest to a text or an image, among the features of a store, a folder or a file.
    Search(commands::search::Args),
    /// Draw what a model sees in patches: those that LoCoOp extracts, and their similarity to classes.
    Regions(commands::regions::Args),
    /// Fine-tune a model on images with captions, into a folder that every command takes as a model.
    Finetune(commands::finetune::Args),
    /// Score your own features with detectors, into a Parquet file with one row per image.
    Score(commands::score::Args),
    /// Compare two lists of scores: AUROC, AUPR, FPR95 and more.
    Metrics(commands::metrics::Args),
    /// List the detectors with their parameters and defaults.
    Detectors(commands::detectors::Args),
    /// Measure this machine: images per second, seconds per prompt step, agreement of GPU and CPU.
    Bench(commands::bench::Args),
    /// Print the completions of a shell: bash, zsh, fish, elvish or powershell.
    Completions(commands::completions::Args),
    /// Write manual pages, one for each command.
    Man(commands::completions::ManArgs),
    /// Decode the image on standard input and end; a run starts it to judge an image that may kill processes.
    #[command(hide = true)]
    JudgeImage(commands::judge_image::Args),
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let as_json = log::wants_json(&words);
    log::catch_panics(as_json);
    let parsed = help::grouped(Cli::command())
        .try_get_matches_from(words)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error, as_json),
    };
    if let Some(filter) = &cli.trace
        && let Err(problem) = log::listen(filter, as_json)
    {
        log::error(&format!("--trace {filter}: {problem}"), as_json);
        return ExitCode::from(2);
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            log::error(&format!("{error:#}"), as_json);
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

/// Prints what the parser of options says: help and version on standard output, anything else on standard error.
fn usage(error: &clap::Error, as_json: bool) -> ExitCode {
    if !error.use_stderr() {
        return match commands::written(error.print()) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                log::error(&format!("{error:#}"), as_json);
                ExitCode::from(1)
            }
        };
    }
    if as_json {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        log::error(text.trim_end(), true);
    } else {
        // Standard error that cannot be written is ignored.
        let _ = error.print();
    }
    ExitCode::from(2)
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(args),
        Command::Recipes(args) => commands::recipes::run(args),
        Command::Schema(args) => commands::schema::run(&args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Submit(args) => commands::submit::run(args),
        Command::Worker(args) => commands::worker::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Compare(args) => commands::compare::run(args),
        Command::ZeroShot(args) => commands::zero_shot::run(args),
        Command::Threshold(args) => commands::threshold::run(args),
        Command::Detect(args) => commands::detect::run(args),
        Command::Data(args) => commands::data::run(args),
        Command::Status(args) => commands::status::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Gc(args) => commands::gc::run(args),
        Command::Prompt(args) => commands::prompt::run(args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Preprocess(args) => commands::preprocess::run(args),
        Command::Encode(args) => commands::encode::run(args),
        Command::Similarity(args) => commands::similarity::run(args),
        Command::Search(args) => commands::search::run(args),
        Command::Regions(args) => commands::regions::run(args),
        Command::Finetune(args) => commands::finetune::run(args),
        Command::Score(args) => commands::score::run(args),
        Command::Metrics(args) => commands::metrics::run(args),
        Command::Detectors(args) => commands::detectors::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Completions(args) => commands::completions::run(&args, Cli::command()),
        Command::Man(args) => commands::completions::man(&args, Cli::command()),
        Command::JudgeImage(args) => commands::judge_image::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_all_commands_fit_together() {
        help::grouped(Cli::command()).debug_assert();
    }
}

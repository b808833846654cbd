//! The command `clipood`: a thin face over the crates.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Evaluates few-shot and zero-shot out-of-distribution detection with CLIP.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a recipe: plan, extract, train, score, aggregate, report. Run it again to go on after an interruption.
    Run(commands::run::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => commands::run::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

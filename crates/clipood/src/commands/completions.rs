//! `clipood completions` and `clipood man`: files for shells and for `man`, from the options themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

use super::print;

/// Options of `clipood completions`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell; source what is printed, or write it to the folder of completions of the shell.
    shell: Shell,
}

/// Options of `clipood man`.
#[derive(clap::Args)]
pub struct ManArgs {
    /// Folder to write `clipood.1` and `clipood-COMMAND.1` into; it is created.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the completions of `command`.
pub fn run(args: &Args, mut command: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "clipood", &mut script);
    print(&String::from_utf8(script).context("a completion script that is not UTF-8")?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes one page for the command and one for each of its subcommands.
pub fn man(args: &ManArgs, command: Command) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(command, &args.folder))
        .with_context(|| format!("cannot write the pages to {}", args.folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

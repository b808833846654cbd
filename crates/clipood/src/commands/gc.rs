//! `clipood gc`: removes features and prompts that no run needs.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{PipelineError, Store, collect_garbage, find_garbage};

use super::look;

/// Options of `clipood gc`.
#[derive(clap::Args)]
pub struct Args {
    /// Every run directory whose features and prompts are worth keeping.
    #[arg(required = true)]
    runs: Vec<String>,
    /// Remove what is listed. No run may be working on the store meanwhile.
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    look: look::LookArgs,
}

/// Lists, and with `--delete` removes.
pub fn run(args: Args) -> Result<ExitCode> {
    let jobs = args
        .runs
        .iter()
        .map(|run| look::open(run, &args.look))
        .collect::<Result<Vec<_>>>()?;
    let store = Store::open(&args.look.store).map_err(PipelineError::from)?;
    let garbage = find_garbage(&store, &jobs)?;
    let mut text = String::new();
    for object in &garbage.objects {
        text += &format!("{}\n", object.path);
    }
    if args.delete {
        collect_garbage(&store, &garbage)?;
    }
    text += &format!(
        "{} {} objects of {:.1} MB; {} are needed or not ours\n",
        if args.delete {
            "removed"
        } else {
            "would remove (--delete removes them)"
        },
        garbage.objects.len(),
        garbage.bytes() as f64 / 1e6,
        garbage.kept
    );
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

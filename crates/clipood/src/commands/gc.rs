//! `clipood gc`: removes features and prompts that no run needs.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{PipelineError, Store, collect_garbage, find_garbage};

use super::args::{RunsArg, StoreArg};
use super::look;

/// Options of `clipood gc`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    keep: RunsArg,
    /// Remove what is listed. No run may use the store meanwhile.
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    store: StoreArg,
}

/// Lists what no run needs, and with `--delete` removes it.
pub fn run(args: Args) -> Result<ExitCode> {
    let jobs = args
        .keep
        .runs
        .iter()
        .map(|run| look::open(run, &args.store))
        .collect::<Result<Vec<_>>>()?;
    let store = Store::open(&args.store.store).map_err(PipelineError::from)?;
    let garbage = find_garbage(&store, &jobs)?;
    let mut text = String::new();
    for object in &garbage.objects {
        text += &format!("{}\n", object.path);
    }
    if args.delete {
        collect_garbage(&store, &garbage)?;
    }
    text += &format!(
        "{} {} objects of {:.1} MB; {} are kept: a run needs them, or clipood has not written them\n",
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

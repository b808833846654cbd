//! `clipood explain`: the inputs of a unit, and their differences from committed units.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{Explanation, explain};

use super::args::{RunArg, StoreArg};
use super::look;

/// Options of `clipood explain`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArg,
    /// Unit: `extract/KEY`, `negative/texts`, `train/PROMPT`, `fit/PROMPT`, `score/PROMPT.DATASET.SHARD` or
    /// `aggregate/TABLE`.
    unit: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArg,
}

/// Prints the explanation.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = look::open(&args.run.run, &args.store)?;
    let found = explain(&job, &args.unit)?;
    let printed = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&found)?),
        false => clipood_core::without_controls(&text(&found)),
    };
    super::print(&printed)?;
    Ok(ExitCode::SUCCESS)
}

fn text(found: &Explanation) -> String {
    let mut text = format!("{}\nfingerprint {}\n", found.unit, found.fingerprint);
    text += &match (&found.done_by, found.rows) {
        (Some(worker), Some((rows, quarantined))) => {
            format!("done by {worker}: {rows} rows, {quarantined} quarantined\n")
        }
        _ => "not done\n".to_string(),
    };
    text += "made from:\n";
    for (name, value) in &found.inputs {
        text += &format!("  {name}: {value}\n");
    }
    if !found.differences.is_empty() {
        text += "differs from the nearest one that is done (there: that one, here: this one):\n";
        for difference in &found.differences {
            text += &format!("  {difference}\n");
        }
    }
    text
}

//! `clipood status`: how far a run is, and whether its tables hold what its plan says.

use std::process::ExitCode;

use anyhow::Result;
use clipood_pipeline::{Audit, Status, audit, status};

use super::look;

/// Options of `clipood status`.
#[derive(clap::Args)]
pub struct Args {
    /// Run directory, a path or URL.
    run: String,
    /// Read all tables and prove that every planned image is scored once or in quarantine once under every prompt set.
    #[arg(long)]
    audit: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    look: look::LookArgs,
}

/// Prints the status; exit code 1 if the audit was asked for and fails.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = look::open(&args.run, &args.look)?;
    let status = status(&job)?;
    let audit = match args.audit {
        true => Some(audit(&job)?),
        false => None,
    };
    if args.json {
        let mut object = serde_json::to_value(&status)?;
        if let Some(audit) = &audit {
            object["audit"] = serde_json::to_value(audit)?;
            object["audit"]["holds"] = audit.holds().into();
        }
        super::print(&format!("{object:#}\n"))?;
    } else {
        super::print(&text(&status, audit.as_ref()))?;
    }
    Ok(match audit {
        Some(audit) if !audit.holds() => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

fn text(status: &Status, audit: Option<&Audit>) -> String {
    let mut text = format!(
        "run {} of recipe {}: {}\n\n{:>10} {:>8} {:>8} {:>8} {:>8}\n",
        status.run,
        status.recipe,
        if status.finished {
            "finished"
        } else {
            "not finished"
        },
        "stage",
        "units",
        "done",
        "claimed",
        "missing"
    );
    for s in &status.stages {
        text += &format!(
            "{:>10} {:>8} {:>8} {:>8} {:>8}\n",
            s.stage, s.units, s.done, s.claimed, s.missing
        );
    }
    if status.stages.iter().any(|s| s.claimed > 0) {
        text +=
            "\nclaimed: a worker has started it; it is at work, or gone and to be started again\n";
    }
    for d in status.datasets.iter().filter(|d| d.quarantined > 0) {
        text += &format!(
            "\n{} ({}): {} of {} images could not be read{}",
            d.dataset,
            d.purpose,
            d.quarantined,
            d.planned,
            if d.over_limit {
                ", more than the recipe allows: the run fails"
            } else {
                ""
            }
        );
    }
    for reason in &status.quarantine {
        text += &format!(
            "\n  {} {}, the first {}",
            reason.images, reason.reason, reason.example
        );
    }
    if !status.quarantine.is_empty() {
        text += "\n";
    }
    if let Some(audit) = audit {
        text += &format!(
            "\naudit {}: {} planned (images x prompt sets), {} scored + {} quarantined; {} parts compared with their \
             records, {} problems\n",
            if audit.holds() { "holds" } else { "FAILS" },
            audit.planned,
            audit.scored,
            audit.quarantined,
            audit.parts,
            audit.problems
        );
        for example in &audit.examples {
            text += &format!("  {example}\n");
        }
    }
    text
}

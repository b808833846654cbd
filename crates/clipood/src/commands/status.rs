//! `clipood status`: the progress of a run, and whether its tables match its plan.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clipood_pipeline::{Audit, State, Status, WorkerStatus, audit, status};
use indicatif::HumanDuration;

use super::args::{RunArg, StoreArg};
use super::look;

/// Options of `clipood status`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArg,
    /// Read all tables and check that every planned image is scored once or in quarantine once under every prompt set.
    #[arg(long)]
    audit: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArg,
}

/// Prints the status; exit code 1 if an audit was requested and fails.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = look::open(&args.run.run, &args.store)?;
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
        let text = text(&status, audit.as_ref());
        super::print(&clipood_core::without_controls(&text))?;
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
        text += "\nclaimed: a worker has started it; that worker is still working on it, or has died and must be started again\n";
    }
    if !status.workers.is_empty() {
        text += "\nworkers, as last reported:\n";
    }
    for worker in &status.workers {
        text += &worker_line(worker, now());
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
        if audit.unsealed > 0 {
            text += &format!(
                "  {} records and files of an older version have no seal, so a change in them is not always seen\n",
                audit.unsealed
            );
        }
        for example in &audit.examples {
            text += &format!("  {example}\n");
        }
    }
    text
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// One line about a worker. The time since its report compares the clocks of two machines.
fn worker_line(worker: &WorkerStatus, now: u64) -> String {
    let ago = HumanDuration(Duration::from_secs(now.saturating_sub(worker.at)));
    let what = match (&worker.state, &worker.stage, &worker.error) {
        (State::Working, Some(stage), _) => format!(
            "{} {}/{} {}, {:.0}/s, {} left",
            stage.name,
            stage.done,
            stage.total,
            stage.unit,
            stage.rate,
            match stage.rate > 0.0 {
                true => HumanDuration(Duration::from_secs_f64(stage.left.min(1e9))).to_string(),
                false => "unknown time".to_string(),
            }
        ),
        (State::Failed, _, Some(error)) => format!("failed: {error}"),
        (State::Failed, ..) => "failed".to_string(),
        (State::Interrupted, ..) => "interrupted".to_string(),
        (State::Finished | State::Working, ..) => "finished".to_string(),
    };
    format!("  {}: {what} ({ago} ago)\n", worker.worker)
}

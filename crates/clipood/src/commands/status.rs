//! `clipood status`: the progress of a run, and whether its tables match its plan.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clipood_launch::{Submission, read_submissions};
use clipood_pipeline::{
    Audit, Job, Pace, Planned, State, Status, WorkerStatus, audit, status, status_of,
};
use indicatif::HumanDuration;

use super::args::{RunArg, StoreArg, count};
use super::look;
use super::submit::{job_line, launch_error};

/// Options of `clipood status`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArg,
    /// Read all tables and check that every planned image is scored once or in quarantine once under every prompt set.
    #[arg(long)]
    audit: bool,
    /// Print one JSON object; with `--watch` one per line.
    #[arg(long)]
    json: bool,
    /// Look again every so many seconds (5) until the run is finished.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5",
        value_parser = count::<86_400>,
        conflicts_with = "audit"
    )]
    watch: Option<usize>,
    #[command(flatten)]
    store: StoreArg,
}

/// Prints the status; exit code 1 if an audit was requested and fails.
pub fn run(args: Args) -> Result<ExitCode> {
    let job = look::open(&args.run.run, &args.store)?;
    if let Some(seconds) = args.watch {
        watch(&job, Duration::from_secs(seconds as u64), args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = status(&job)?;
    let audit = match args.audit {
        true => Some(audit(&job)?),
        false => None,
    };
    let submissions = submissions(&job)?;
    if args.json {
        let mut object = to_json(&status, &submissions)?;
        if let Some(audit) = &audit {
            object["audit"] = serde_json::to_value(audit)?;
            object["audit"]["holds"] = audit.holds().into();
        }
        super::print(&format!("{object:#}\n"))?;
    } else {
        let text = text(&status, audit.as_ref()) + &submitted(&submissions);
        super::print(&clipood_core::without_controls(&text))?;
    }
    Ok(match audit {
        Some(audit) if !audit.holds() => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

/// Prints the status again and again, over the last one on a terminal, until the run is finished.
fn watch(job: &Job, pause: Duration, json: bool) -> Result<()> {
    let on_terminal = std::io::stdout().is_terminal() && !json;
    // A plan does not change once it is there.
    let mut planned = None;
    loop {
        if planned.is_none() {
            planned = Planned::read(job)?;
        }
        let status = status_of(job, planned.as_ref())?;
        let submissions = submissions(job)?;
        if json {
            super::print(&format!("{}\n", to_json(&status, &submissions)?))?;
        } else {
            let text = text(&status, None) + &submitted(&submissions);
            let text = clipood_core::without_controls(&text);
            // Home, then everything below is erased.
            let clear = if on_terminal { "\x1b[H\x1b[J" } else { "" };
            super::print(&format!("{clear}{text}\n"))?;
        }
        if status.finished {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
}

fn submissions(job: &Job) -> Result<Vec<Submission>> {
    read_submissions(job.places.run.store()).map_err(launch_error)
}

fn to_json(status: &Status, submissions: &[Submission]) -> Result<serde_json::Value> {
    let mut object = serde_json::to_value(status)?;
    object["submissions"] = serde_json::to_value(submissions)?;
    Ok(object)
}

/// One line about the last submission: what was queued, not what has become of it.
fn submitted(submissions: &[Submission]) -> String {
    let Some(last) = submissions.last() else {
        return String::new();
    };
    let ago = HumanDuration(Duration::from_secs(now().saturating_sub(last.at)));
    let jobs = last
        .jobs
        .iter()
        .map(job_line)
        .collect::<Vec<_>>()
        .join(", ");
    format!("\nsubmitted to {} {ago} ago: {jobs}\n", last.engine)
}

/// One line per stage that workers are in.
fn pace_line(pace: &Pace) -> String {
    let left = match pace.left {
        Some(left) => HumanDuration(Duration::from_secs_f64(left.min(1e9))).to_string(),
        None => "unknown time".to_string(),
    };
    let workers = if pace.workers == 1 {
        "worker"
    } else {
        "workers"
    };
    format!(
        "\n{:>10} {} {} {workers}, {:.1}/s, about {} left to do in {left}\n",
        pace.stage, pace.unit, pace.workers, pace.rate, pace.open
    )
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
    for pace in &status.paces {
        text += &pace_line(pace);
    }
    if status.stages.iter().any(|s| s.claimed > 0) {
        text += "\nclaimed: a worker has started it; that worker is still working on it, or has died; then it does it when it is started again, or another worker does\n";
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
        (State::Waiting, Some(stage), _) => {
            format!("{} waiting for {} {}", stage.name, stage.total, stage.unit)
        }
        (State::Failed, _, Some(error)) => format!("failed: {error}"),
        (State::Failed, ..) => "failed".to_string(),
        (State::Interrupted, ..) => "interrupted".to_string(),
        (State::Finished | State::Working | State::Waiting, ..) => "finished".to_string(),
    };
    format!("  {}: {what} ({ago} ago)\n", worker.worker)
}

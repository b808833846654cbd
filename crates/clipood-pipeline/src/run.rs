//! A run: the plan, then all stages, or those that a worker was asked for.

use clipood_store::Error as StoreError;

use crate::damage::{check_tables, mending};
use crate::error::{PipelineError, Result};
use crate::extract::{GLOBAL, LOCAL};
use crate::job::Job;
use crate::panics::guarded;
use crate::plan::check_data;
use crate::planned::Planned;
use crate::report::{keep_published, to_keep, write_page};
use crate::stages::report::{Outcome, finished};
use crate::stages::{STAGES, Stage, run_stages};

/// Runs every stage of `job`; units that are committed in the store or the run directory are not done again.
///
/// # Errors
/// The first error of a stage. Committed units stay, and the same call resumes from there.
pub fn run(job: &Job) -> Result<Outcome> {
    let outcome = match run_only(job, &STAGES)? {
        Some(outcome) => outcome,
        None => {
            let problem = format!(
                "{}: its features or prompts in the store were removed meanwhile; start the same command again, which makes \
                 them again",
                job.places.run_location
            );
            return Err(PipelineError::Inconsistent(problem));
        }
    };
    Ok(outcome)
}

/// Runs the `wanted` stages of `job`, and returns the outcome if the whole run is finished afterwards.
///
/// # Errors
/// A stage before the wanted ones that is not done; as [`run`].
pub fn run_only(job: &Job, wanted: &[&Stage]) -> Result<Option<Outcome>> {
    let outcome = mending(job, || {
        match sweep(job) {
            // To show what is finished needs no permission to write.
            Err(PipelineError::Store(StoreError::Denied { .. })) if finished(job)?.is_some() => {}
            swept => swept?,
        }
        once(job, wanted)
    });
    // A run whose plan was refused has no directory to keep a journal in.
    if job.places.run.exists() {
        job.worker.journal.end(&outcome);
    }
    outcome
}

/// Runs the stages until they meet damage.
fn once(job: &Job, wanted: &[&Stage]) -> Result<Option<Outcome>> {
    guarded("run", || {
        check_tables(job)?;
        if let Some(outcome) = finished(job)? {
            check_data(job)?;
            show_published(job, &outcome)?;
            return Ok(Some(outcome));
        }
        let at = &job.places.run_location;
        let span = tracing::info_span!("run", at, worker = job.worker.share.index);
        let _span = span.entered();
        let planned = Planned::make(job)?;
        keep_published(job)?;
        run_stages(job, &planned, wanted)?;
        finished(job)
    })
}

/// Keeps published figures that were added to the recipe, or changed in it, after the run was finished.
fn show_published(job: &Job, outcome: &Outcome) -> Result<()> {
    let shown = || {
        if to_keep(job)?.is_some() {
            // The record last: a call that ends between the two makes the page again.
            write_page(job, Some(&outcome.metrics))?;
            keep_published(job)?;
        }
        Ok(())
    };
    match shown() {
        // To show what is finished needs no permission to write.
        Err(PipelineError::Store(StoreError::Denied { .. })) => Ok(()),
        other => other,
    }
}

/// Removes the temporary files of killed writers, which readers of a table's folder would take for parts.
fn sweep(job: &Job) -> Result<()> {
    let tables = [
        "images",
        "scores",
        "validation",
        "streams",
        "validation-streams",
        "metrics",
    ];
    job.places.run.ledger().sweep(&tables)?;
    job.places.features.ledger.sweep(&[GLOBAL, LOCAL])?;
    Ok(())
}

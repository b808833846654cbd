//! Definitions, provenance, and the progress of a run that is not finished.

use super::super::page::{Block, Section};
use super::super::table::{Cell, Table};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::status::Status;

/// What every figure means, folded.
pub fn definitions(job: &Job) -> Section {
    let recipe = &job.experiment.recipe;
    let mut section = Section::new("definitions", "Definitions");
    let mut lines = vec![
        "Scores: higher means more in-distribution, for every detector. ID is the positive class, except in columns with openood in their name.".to_string(),
        "AUROC: area under the ROC curve; equal scores count as one half.".to_string(),
        "FPR95: share of OOD images at or above the threshold whose recall of ID images is nearest to 95%; among equals the larger recall. fpr95_openood has OOD as the positive \
         class and the first threshold with at least 95%."
            .to_string(),
        "AUPR-in, AUPR-out: average precision with ID or OOD as the positive class. ECE: expected calibration error of the most likely class, 15 bins.".to_string(),
        "Average: the plain mean over the OOD sets.".to_string(),
        match recipe.metrics.bootstrap {
            0 => "No bootstrap: the recipe asks for none.".to_string(),
            n => format!(
                "Intervals: 95%, from {n} resamples of ID and of OOD images (seed {}), the same ones for every detector and prompt set; of an average, resample by resample. \
                 They tell the variation of the test images, not that of training; deviations over seeds tell that of split and training.",
                recipe.metrics.bootstrap_seed
            ),
        },
        "Selection: fixed, nothing was chosen; validation, chosen on images that are not tested, to maximise AUROC - FPR95; oracle, chosen on the tested images, an upper bound of that \
         difference and no result; transductive, the score of an image depends on the other test images."
            .to_string(),
        "Shots: training images per class. Splits are drawn over sorted keys by a seeded hash; a smaller number of shots is a prefix of a larger one.".to_string(),
    ];
    if recipe.methods.iter().any(|method| method.trains_prompt()) {
        lines.push(match recipe.train.views {
            0 => "Trained prompts see a fresh view of each image in every epoch.".to_string(),
            views => format!(
                "Trained prompts use {views} pre-drawn views of each image instead of fresh crops."
            ),
        });
    }
    section.folded("What the figures mean", vec![Block::List(lines)]);
    section
}

/// From what, by what and how the run was made.
///
/// # Errors
/// A recipe that cannot be serialised, which does not happen.
pub fn provenance(job: &Job) -> Result<Section> {
    let experiment = &job.experiment;
    let recipe = &experiment.recipe;
    let made_by = job
        .places
        .run
        .versions()
        .get("clipood")
        .and_then(|v| v.as_str())
        .unwrap_or("unknown")
        .to_string();
    let mut table = Table::new(&[("what", "what"), ("value", "value")]);
    let mut row =
        |what: &str, value: String| table.rows.push(vec![Cell::text(what), Cell::text(value)]);
    row("recipe", recipe.name.clone());
    row("run directory", job.places.run_location.clone());
    row("fingerprint", experiment.fingerprint.to_string());
    row("model", recipe.model.clone());
    row("hash of the weights", experiment.model.hash.clone());
    if let Some(revision) = &experiment.model_revision {
        row("revision on the hub", revision.clone());
    }
    row("features", job.places.features.fingerprint.to_string());
    row("preprocessing", experiment.preprocessing());
    row(
        "backend, number format",
        format!(
            "{}, {}",
            experiment.numerics.backend,
            experiment.numerics.dtype.name()
        ),
    );
    row("clipood that began the run", made_by);
    row(
        "clipood that wrote this page",
        env!("CARGO_PKG_VERSION").to_string(),
    );
    let command: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    row("command that wrote this page", command.join(" "));
    let mut section = Section::new("provenance", "Provenance");
    section.table("provenance", "From what this page was made", &table);
    let json = serde_json::to_string_pretty(recipe)
        .map_err(|e| PipelineError::Inconsistent(format!("recipe `{}`: {e}", recipe.name)))?;
    section.folded("The recipe with every default", vec![Block::Code(json)]);
    Ok(section)
}

/// The stages of a run that is not finished.
pub fn progress(status: &Status) -> Section {
    let mut section = Section::new("progress", "What is missing");
    let mut table = Table::new(&[
        ("stage", "stage"),
        ("units", "units"),
        ("done", "done"),
        ("claimed", "claimed"),
        ("missing", "missing"),
    ]);
    for s in &status.stages {
        table.rows.push(vec![
            Cell::text(s.stage),
            Cell::Count(s.units as u64),
            Cell::Count(s.done as u64),
            Cell::Count(s.claimed as u64),
            Cell::Count(s.missing as u64),
        ]);
    }
    section.table("stages", "Units of work by stage", &table);
    let open: Vec<&str> = status
        .stages
        .iter()
        .filter(|s| s.done < s.units)
        .map(|s| s.stage)
        .collect();
    section.text(format!(
        "Not finished: {}. `clipood run` with the same recipe and run directory, or `clipood worker`, goes on from here.",
        open.join(", ")
    ));
    section
}

//! `clipood threshold`: fits an operating point for `detect` on in-distribution images that are not used for results.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clipood_core::files::read_file;
use clipood_data::Split;
use clipood_ood::metrics::threshold_at_tpr;
use clipood_pipeline::{Engine, PipelineError, classify_files};
use serde::{Deserialize, Serialize};

use super::arrays::check_output;
use super::columns::read_scores;
use super::images::{none_readable, report_unreadable};
use super::print;
use super::zero_shot::inputs::Inputs;
use super::zero_shot::task::Task;

/// Version of the file format.
const FORMAT: u32 = 1;
/// Longest file of a threshold, in bytes: far more than the texts of a hundred thousand classes.
const LONGEST_THRESHOLD: u64 = 1 << 30;

/// Options of `clipood threshold`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    task: Task,
    /// Share of in-distribution images that the threshold accepts.
    #[arg(long, default_value_t = 0.95)]
    tpr: f64,
    /// Scores of OOD images by the same detector, to report how many of them the threshold accepts: a
    /// table, list or array as `clipood metrics` takes it.
    #[arg(long, value_name = "FILE")]
    ood_scores: Option<PathBuf>,
    /// Column of that table.
    #[arg(long, requires = "ood_scores")]
    column: Option<String>,
    /// The JSON file to write, which `detect` reads.
    #[arg(long)]
    out: PathBuf,
}

/// A fitted threshold with everything that determines its scores.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Version of the format, 1.
    pub format: u32,
    /// The detector, as `kind[:key=value]...`.
    pub detector: String,
    /// Images with at least this score are classified as in-distribution.
    pub threshold: f64,
    /// The requested share.
    pub tpr: f64,
    /// The share of the fitted images that the threshold accepts, at least `tpr`.
    pub tpr_reached: f64,
    /// Number of images that it was fitted on.
    pub n: usize,
    /// Source of these images.
    pub fitted_on: String,
    /// Share of the given OOD scores that the threshold accepts; absent without OOD scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fpr: Option<f64>,
    /// Name of the model.
    pub model: String,
    /// Hash of its weights.
    pub weights_hash: String,
    /// Number format of the image tower.
    pub dtype: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The texts of each class, whose features are averaged.
    pub texts: Vec<Vec<String>>,
}

/// Scores the images and writes the threshold.
pub fn run(args: Args) -> Result<ExitCode> {
    if !(args.tpr > 0.0 && args.tpr <= 1.0) {
        let problem = format!("--tpr {}: expected a share above 0, at most 1", args.tpr);
        return Err(PipelineError::Usage(problem).into());
    }
    check_output(&args.out)?;
    let ood = match &args.ood_scores {
        Some(path) => Some(read_ood_scores(path, args.column.as_deref())?),
        None => None,
    };
    let inputs = Inputs::gather(&args.task.labelled, Split::Val, None)?;
    let opened = args.task.open(&inputs.classes, 1, None)?;
    let mut scores = Vec::with_capacity(inputs.files.len());
    let engine = Engine::for_files(&opened.model, &opened.devices);
    classify_files(
        &engine,
        &inputs.files,
        &opened.classifier,
        |file, outcome| {
            match outcome {
                Ok(image) => scores.push(image.score),
                Err(reason) => report_unreadable(inputs.files[file].to_string(), &reason),
            }
            Ok(())
        },
    )?;
    if scores.is_empty() {
        return Err(none_readable(inputs.files.len()));
    }
    let threshold = threshold_at_tpr(&scores, args.tpr)?;
    let share = |passing: usize, all: usize| passing as f64 / all as f64;
    let passing = scores.iter().filter(|s| f64::from(**s) >= threshold);
    let fitted = Fitted {
        format: FORMAT,
        detector: opened.detector.to_string(),
        threshold,
        tpr: args.tpr,
        tpr_reached: share(passing.count(), scores.len()),
        n: scores.len(),
        fitted_on: inputs.source,
        fpr: ood.map(|ood| share(ood.iter().filter(|s| **s >= threshold).count(), ood.len())),
        model: args.task.model.name_or("demo").to_owned(),
        weights_hash: opened.model.hash.clone(),
        dtype: opened.devices.dtype.name().to_owned(),
        classes: inputs.classes,
        texts: opened.texts,
    };
    let text = serde_json::to_string_pretty(&fitted)?;
    std::fs::write(&args.out, text + "\n")
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    let mut line = format!(
        "{} at or above {threshold}: {:.2}% of {} images ({})",
        fitted.detector,
        100.0 * fitted.tpr_reached,
        fitted.n,
        fitted.fitted_on
    );
    if let Some(fpr) = fitted.fpr {
        line += &format!(", {:.2}% of the OOD scores", 100.0 * fpr);
    }
    print(&format!("{line}\n"))?;
    if fitted.fitted_on.starts_with("test images") {
        clipood_pipeline::tell(
            "note: it was fitted on test images: do not report its results on them",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The scores, at least one.
fn read_ood_scores(path: &Path, column: Option<&str>) -> Result<Vec<f64>> {
    let scores = read_scores(path, column)?;
    if scores.is_empty() {
        bail!("{}: expected OOD scores, found none", path.display());
    }
    Ok(scores)
}

/// Reads a file of `clipood threshold`.
///
/// # Errors
/// A file that is missing or not written by `clipood threshold`.
pub fn read(path: &Path) -> Result<Fitted> {
    let text = read_file(path, LONGEST_THRESHOLD)
        .with_context(|| format!("cannot read the threshold {}", path.display()))?;
    let fitted: Fitted = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no file of `clipood threshold`", path.display()))?;
    if fitted.format != FORMAT || fitted.classes.len() != fitted.texts.len() {
        bail!(
            "{}: expected format {FORMAT} with texts for every class, found format {} with {} classes and texts of {}",
            path.display(),
            fitted.format,
            fitted.classes.len(),
            fitted.texts.len()
        );
    }
    Ok(fitted)
}

//! `clipood zero-shot`: classifies images with nothing but a list of classes.

pub(super) mod inputs;
mod tables;
pub(super) mod task;
pub(super) mod texts;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_core::{distinct_names, shown};
use clipood_data::Split;
use clipood_ood::DetectorSpec;
use clipood_pipeline::tables::QuarantineRow;
use clipood_pipeline::{
    ClassCounts, Engine, PipelineError, Tally, Unreadable, ZeroShotPage, bars, classify_files,
};

use self::inputs::Inputs;
use self::tables::Predictions;
use self::task::{Opened, Task};
use super::images::{none_readable, report_unreadable};
use super::{print, written};

/// Options of `clipood zero-shot`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    task: Task,
    /// A prompt set instead of classes and templates: from a store (`prompts/FINGERPRINT/prompt.safetensors`), or
    /// imported.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["classes", "templates", "descriptions"])]
    prompt: Option<PathBuf>,
    /// Number of most likely classes to print for each image.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Folder to write `predictions.parquet`, `classes.parquet`, `confusion.parquet`, `quarantine.parquet` and
    /// `index.html` into.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Classifies every image, prints a line for each, and writes the tables.
pub fn run(args: Args) -> Result<ExitCode> {
    let task = &args.task;
    let prompt = match &args.prompt {
        Some(path) => Some((path.as_path(), super::prompt::read(path)?)),
        None => None,
    };
    let classes = prompt.as_ref().map(|(_, set)| set.classes.clone());
    let inputs = Inputs::gather(&task.labelled, Split::Test, classes)?;
    // The five most likely classes are needed for the accuracy, even if fewer are shown.
    let Opened {
        model,
        devices,
        detector,
        classifier,
        ..
    } = task.open(&inputs.classes, usize::from(args.top).max(5), prompt)?;
    let shown = usize::from(args.top).min(classifier.top());

    let mut tally = Tally::new(inputs.classes.len());
    let mut quarantine = Vec::new();
    let mut predictions = match &args.out {
        Some(folder) => Some(Predictions::create(
            folder,
            shown,
            &detector.name(),
            &inputs.classes,
        )?),
        None => None,
    };
    let mut lines = Lines::new();
    // The pipeline has no error for tables or the console, so such an error is kept here.
    let mut failure = None;
    let engine = Engine::for_files(&model, &devices);
    let done = classify_files(&engine, &inputs.files, &classifier, |file, outcome| {
        let mut row = || -> Result<()> {
            let path = inputs.files[file].to_string();
            match &outcome {
                Ok(image) => {
                    let label = inputs.labels[file];
                    tally.add(&image.top, label);
                    let top = &image.top[..shown];
                    lines.image(&path, top, image.score, &inputs.classes, &detector)?;
                    if let Some(table) = &mut predictions {
                        let known = inputs.known[file].as_deref();
                        table.add(path, label, known, top, image.score)?;
                    }
                }
                Err(reason) => {
                    tally.unreadable += 1;
                    report_unreadable(&path, reason);
                    quarantine.push(quarantine_row(path, reason));
                }
            }
            Ok(())
        };
        row().map_err(|error| {
            failure = Some(error);
            PipelineError::Interrupted
        })
    });
    lines.end()?;
    if let Some(error) = failure {
        return Err(error);
    }
    done?;
    if tally.classified == 0 {
        return Err(none_readable(inputs.files.len()));
    }
    print(&summary(&tally))?;
    if task.labelled.dataset.is_some() {
        print(&distribution(&inputs.classes, &tally))?;
    }
    if let (Some(folder), Some(table)) = (&args.out, predictions) {
        table.finish()?;
        tables::write_classes(folder, &inputs.classes, &tally)?;
        tables::write_confusion(folder, &inputs.classes, &tally)?;
        tables::write_quarantined(folder, &quarantine, &model.hash)?;
        let page = ZeroShotPage {
            images: &inputs.source,
            model: task.model.name_or("demo"),
            texts: &task.labelled.texts.origin(),
            classes: &distinct_names(&inputs.classes),
            tally: &tally,
        };
        let path = folder.join("index.html");
        std::fs::write(&path, page.html()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        print(&format!(
            "tables: {0}/*.parquet; page: {0}/index.html\n",
            folder.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn quarantine_row(path: String, reason: &Unreadable) -> QuarantineRow {
    QuarantineRow {
        image_key: path.clone(),
        uri: path,
        stage: "zero-shot".to_string(),
        error_kind: reason.kind.clone(),
        message: reason.message.clone(),
        content_hash: String::new(),
    }
}

fn summary(tally: &Tally) -> String {
    let mut text = format!(
        "images: {} = {} classified + {} that could not be read\n",
        tally.classified + tally.unreadable,
        tally.classified,
        tally.unreadable
    );
    if let Some((top1, top5)) = tally.accuracy() {
        text += &format!(
            "accuracy on {} images of a known class: top-1 {:.2}%, top-5 {:.2}%\n",
            tally.labelled,
            100.0 * top1,
            100.0 * top5
        );
    }
    text
}

/// How many images of each class there are, and how many were predicted.
fn distribution(classes: &[String], tally: &Tally) -> String {
    let names = distinct_names(classes);
    let counts = |of: fn(&ClassCounts) -> u64| -> Vec<(String, u64)> {
        let counts = names.iter().zip(&tally.classes);
        counts
            .map(|(name, counts)| (name.clone(), of(counts)))
            .collect()
    };
    let mut text = String::new();
    if tally.labelled > 0 {
        text += &bars("images of each class", &counts(|counts| counts.labelled));
    }
    text + &bars(
        "images predicted as each class",
        &counts(|counts| counts.predicted),
    )
}

/// One line per image on standard output.
struct Lines {
    out: io::BufWriter<io::StdoutLock<'static>>,
    /// Whether standard output still has a reader.
    read: bool,
}

impl Lines {
    fn new() -> Self {
        Self {
            out: io::BufWriter::new(io::stdout().lock()),
            read: true,
        }
    }

    /// Path, most likely classes, score.
    fn image(
        &mut self,
        path: &str,
        top: &[(u32, f32)],
        score: f32,
        classes: &[String],
        detector: &DetectorSpec,
    ) -> Result<()> {
        if !self.read {
            return Ok(());
        }
        let named: Vec<String> = top
            .iter()
            .map(|(class, probability)| {
                format!("{} {:.1}%", classes[*class as usize], 100.0 * probability)
            })
            .collect();
        let line = format!(
            "{}: {}; {} {score:.4}\n",
            shown(path),
            named.join(", "),
            detector.name()
        );
        self.read = written(self.out.write_all(line.as_bytes()))?;
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        if self.read {
            written(self.out.flush())?;
        }
        Ok(())
    }
}

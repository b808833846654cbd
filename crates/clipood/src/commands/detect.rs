//! `clipood detect`: whether images belong to the classes that a threshold was fitted for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use clipood_core::{shown, stored};
use clipood_data::Source;
use clipood_ood::DetectorSpec;
use clipood_pipeline::{Classifier, Engine, PipelineError, classify_files};
use serde_json::json;

use super::args::DevicesArg;
use super::arrays::{check_folder, write_parquet};
use super::images::{none_readable, report_unreadable};
use super::models::ModelArgs;
use super::print;
use super::threshold;
use super::zero_shot::inputs::files_of;

/// Options of `clipood detect`.
#[derive(clap::Args)]
pub struct Args {
    /// File of `clipood threshold`; it names model, classes, texts and detector.
    #[arg(long, value_name = "FILE")]
    threshold: PathBuf,
    /// Image files, or folders that are searched for them.
    #[arg(required = true, value_name = "PATH")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// A Parquet file to write as well: `image`, `in_distribution`, `score`, `pred_name`, `prob`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    devices: DevicesArg,
}

/// An image with its decision.
struct Row {
    image: String,
    inside: bool,
    score: f32,
    class: u32,
    probability: f32,
}

/// Prints a decision for every image.
pub fn run(args: Args) -> Result<ExitCode> {
    let fitted = threshold::read(&args.threshold)?;
    let file = args.threshold.display();
    let devices = args.devices.open(&fitted.dtype)?;
    if let Some(out) = &args.out {
        check_folder(out)?;
    }
    let files = files_of(&args.images)?;
    let sources: Vec<Source> = files.iter().map(|path| Source::found(path)).collect();
    if files.is_empty() {
        bail!("no image in the folders given");
    }
    let detector: DetectorSpec = fitted
        .detector
        .parse()
        .with_context(|| format!("{file}: detector"))?;
    let model = args.model.open_or(&fitted.model)?;
    if model.hash != fitted.weights_hash {
        return Err(PipelineError::Usage(format!(
            "{file} was fitted with weights {}, {} has {}: fit the threshold again",
            fitted.weights_hash,
            args.model.name_or(&fitted.model),
            model.hash
        ))
        .into());
    }
    let features = model
        .text_encoder(devices.first())?
        .ensembles(&fitted.texts)
        .with_context(|| format!("{file}: texts"))?;
    let classifier = Classifier::new(features, model.config.embed_dim, 1, &detector)
        .with_context(|| format!("{file}: detector {detector}"))?;
    let mut rows = Vec::new();
    let mut failure = None;
    let engine = Engine::for_files(&model, &devices);
    let done = classify_files(&engine, &sources, &classifier, |number, outcome| {
        let image = stored(&files[number]);
        match outcome {
            Ok(found) => {
                let (class, probability) = found.top[0];
                let row = Row {
                    image,
                    inside: f64::from(found.score) >= fitted.threshold,
                    score: found.score,
                    class,
                    probability,
                };
                let name = &fitted.classes[class as usize];
                let line = if args.json {
                    let verdict = json!({
                        "image": row.image,
                        "in_distribution": row.inside,
                        "score": row.score,
                        "pred_name": name,
                        "prob": row.probability,
                    });
                    format!("{verdict}\n")
                } else {
                    let verdict = if row.inside { "in " } else { "out" };
                    let percent = 100.0 * row.probability;
                    format!(
                        "{verdict} {:.6}  {}: {name} {percent:.1}%\n",
                        row.score,
                        shown(&row.image)
                    )
                };
                rows.push(row);
                print(&line).map_err(|error| {
                    failure = Some(error);
                    PipelineError::Interrupted
                })
            }
            Err(reason) => {
                report_unreadable(&files[number], &reason);
                Ok(())
            }
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    done?;
    if rows.is_empty() {
        return Err(none_readable(files.len()));
    }
    if let Some(out) = &args.out {
        write_table(out, &rows, &fitted.classes)?;
    }
    let inside = rows.iter().filter(|row| row.inside).count();
    clipood_pipeline::tell(&format!(
        "{inside} of {} images are in-distribution",
        rows.len()
    ));
    Ok(ExitCode::SUCCESS)
}

fn write_table(out: &std::path::Path, rows: &[Row], classes: &[String]) -> Result<()> {
    let text = |of: &dyn Fn(&Row) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let number = |of: fn(&Row) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(rows.iter().map(of)))
    };
    let inside = BooleanArray::from(rows.iter().map(|row| row.inside).collect::<Vec<_>>());
    let columns = vec![
        ("image", text(&|row| row.image.clone())),
        ("in_distribution", Arc::new(inside) as ArrayRef),
        ("score", number(|row| row.score)),
        (
            "pred_name",
            text(&|row| classes[row.class as usize].clone()),
        ),
        ("prob", number(|row| row.probability)),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, DataType::clone(column.data_type()), false))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    write_parquet(out, &schema, [Ok(batch)])
}

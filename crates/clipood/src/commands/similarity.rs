//! `clipood similarity`: the similarity of images and texts.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_pipeline::{Engine, PipelineError, encode_files};
use serde_json::{Value, json};

use super::args::DevicesArg;
use super::encode::read_texts;
use super::images::{exit_of, none_readable, report_unreadable};
use super::models::ModelArgs;
use super::print;

/// Options of `clipood similarity`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Image files. Those that cannot be read are listed on standard error and left out; the exit code is 1 then.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// A text; may be given several times.
    #[arg(long = "text", value_name = "TEXT")]
    text: Vec<String>,
    /// File with one text per line, after those of --text.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// A JSON array with one object per image instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    devices: DevicesArg,
}

/// An image compared with one text.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Nearness {
    /// Cosine of their features, -1 to 1.
    cosine: f64,
    /// The cosine times the model's scale, at most 100.
    logit: f64,
    /// Softmax of the logits over the texts; `None` for a single text.
    probability: Option<f64>,
}

/// Prints every image with every text.
pub fn run(args: Args) -> Result<ExitCode> {
    let devices = args.devices.open("f32")?;
    let mut texts = args.text.clone();
    if let Some(path) = &args.texts {
        texts.extend(read_texts(path)?);
    }
    if texts.is_empty() {
        return usage("nothing to compare with: give --text, --texts or both");
    }
    if let Some(place) = texts.iter().position(|text| text.trim().is_empty()) {
        return usage(&format!(
            "text {} of {} is empty, expected words",
            place + 1,
            texts.len()
        ));
    }
    let model = args.model.open()?;
    let dim = model.config.embed_dim;
    let text_features = model
        .text_encoder(devices.first())?
        .encode(&texts)
        .context("cannot encode the texts")?;
    let engine = Engine::for_files(&model, &devices).spread(args.images.len());
    let mut images: Vec<&PathBuf> = Vec::with_capacity(args.images.len());
    let mut rows: Vec<Vec<Nearness>> = Vec::with_capacity(args.images.len());
    encode_files(&engine, &args.images, |image, outcome| {
        let path = &args.images[image];
        match outcome {
            Ok(encoded) => {
                let cosines = text_features
                    .chunks_exact(dim)
                    .map(|text| cosine(&encoded.global, text));
                rows.push(nearness(cosines.collect(), model.logit_scale()));
                images.push(path);
            }
            Err(reason) => report_unreadable(path, &reason),
        }
        Ok(())
    })?;
    if images.is_empty() {
        return Err(none_readable(args.images.len()));
    }
    let output = if args.json {
        format!("{}\n", as_json(&images, &texts, &rows))
    } else {
        as_text(&images, &texts, &rows)
    };
    print(&output)?;
    Ok(exit_of(args.images.len() - images.len()))
}

fn usage(problem: &str) -> Result<ExitCode> {
    Err(PipelineError::Usage(problem.to_owned()).into())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// One image compared with all texts.
fn nearness(cosines: Vec<f64>, scale: f64) -> Vec<Nearness> {
    let largest = cosines.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |cosine: f64| (scale * (cosine - largest)).exp();
    let sum: f64 = cosines.iter().map(|c| weight(*c)).sum();
    let several = cosines.len() > 1;
    cosines
        .into_iter()
        .map(|cosine| Nearness {
            cosine,
            logit: scale * cosine,
            probability: several.then(|| weight(cosine) / sum),
        })
        .collect()
}

fn as_json(images: &[&PathBuf], texts: &[String], rows: &[Vec<Nearness>]) -> Value {
    let objects = images.iter().zip(rows).map(|(image, row)| {
        let beside = texts.iter().zip(row).map(|(text, near)| {
            json!({
                "text": text,
                "cosine": near.cosine,
                "logit": near.logit,
                "probability": near.probability,
            })
        });
        json!({
            "image": image.display().to_string(),
            "texts": beside.collect::<Vec<_>>(),
        })
    });
    Value::Array(objects.collect())
}

/// One block per image, its texts in the order given.
fn as_text(images: &[&PathBuf], texts: &[String], rows: &[Vec<Nearness>]) -> String {
    let mut out = String::new();
    for (image, row) in images.iter().zip(rows) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", clipood_core::shown(image));
        let _ = match texts.len() {
            1 => writeln!(out, "{:>8}  {:>8}  text", "cosine", "logit"),
            _ => writeln!(
                out,
                "{:>8}  {:>8}  {:>11}  text",
                "cosine", "logit", "probability"
            ),
        };
        for (text, near) in texts.iter().zip(row) {
            let _ = match near.probability {
                Some(probability) => writeln!(
                    out,
                    "{:>8.4}  {:>8.3}  {probability:>11.4}  {text}",
                    near.cosine, near.logit
                ),
                None => writeln!(out, "{:>8.4}  {:>8.3}  {text}", near.cosine, near.logit),
            };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_the_softmax_of_the_logits() {
        let row = nearness(vec![0.3, 0.3 + 2f64.ln() / 50.0, -0.2], 50.0);
        let sum: f64 = row.iter().filter_map(|near| near.probability).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        // A logit larger by ln 2 is twice as likely.
        let ratio = row[1].probability.unwrap() / row[0].probability.unwrap();
        assert!((ratio - 2.0).abs() < 1e-9, "{ratio}");
        assert!((row[2].logit + 10.0).abs() < 1e-12);
        assert_eq!(nearness(vec![0.25], 100.0)[0].probability, None);
        assert!((cosine(&[3.0, 4.0], &[8.0, 6.0]) - 0.96).abs() < 1e-12);
    }
}

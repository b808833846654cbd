//! `clipood search`: the images nearest to a text or to another image, among cached features, a folder or a file of features.

mod candidates;
mod pairs;
mod scripts;
mod sheet;
mod sources;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_clip::model::{Devices, Model};
use clipood_core::{shown, stored};
use clipood_pipeline::feature_checks::check_rows;
use clipood_pipeline::search::{SearchIndex, recall};
use clipood_pipeline::{Engine, PipelineError, encode_files};
use serde_json::json;

use self::candidates::Candidates;
use self::pairs::Pairs;
use self::sheet::Gallery;
use super::args::{DataArgs, DevicesArg, count};
use super::arrays::check_output;
use super::encode::read_texts;
use super::images::{exit_of, named_images, report_unreadable};
use super::models::ModelArgs;
use super::print;

/// Most hits per query.
const MOST_HITS: usize = 100_000;

/// Options of `clipood search`.
#[derive(clap::Args)]
pub struct Args {
    /// What to look for, in words; may be given several times.
    #[arg(value_name = "QUERY")]
    texts: Vec<String>,
    /// File with one query per line, after those of the command line.
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
    /// An image to look for images like it, or a folder of them; may be given several times.
    #[arg(long = "image", value_name = "PATH")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    candidates: Candidates,
    /// Number of hits per query.
    #[arg(long, default_value = "10", value_name = "K", value_parser = count::<MOST_HITS>)]
    top: usize,
    /// A CSV, JSON or Parquet file of images with their captions, as open_clip, Flickr and COCO have them: prints Recall@1, 5 and 10 of both
    /// directions instead of hits.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "queries", "images"])]
    pairs: Option<PathBuf>,
    /// One JSON object per query instead of text.
    #[arg(long)]
    json: bool,
    /// Write the hits as a page with their images, too: one HTML file. The images of a store are found through the manifests
    /// of their datasets, below `--data`; no dataset of the hub is downloaded for it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["classes", "pairs"])]
    page: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    devices: DevicesArg,
}

/// Kind of a query that is a text.
const TEXT: &str = "text";
/// Kind of a query that is an image.
const IMAGE: &str = "image";

/// A query with its features.
struct Query {
    /// [`TEXT`] or [`IMAGE`].
    kind: &'static str,
    /// The text, or the path of the image.
    name: String,
    /// `[dim]`, not normalised.
    features: Vec<f32>,
}

/// Prints the hits of every query, or the recall of pairs.
pub fn run(args: Args) -> Result<ExitCode> {
    let devices = args.devices.open("f32")?;
    let mut texts = args.texts.clone();
    if let Some(path) = &args.queries {
        texts.extend(read_texts(path)?);
    }
    if texts.is_empty() && args.images.is_empty() && args.pairs.is_none() {
        let problem = "nothing to look for: give a text, --queries, --image or --pairs";
        return Err(PipelineError::Usage(problem.to_owned()).into());
    }
    if let Some(place) = texts.iter().position(|text| text.trim().is_empty()) {
        let problem = format!(
            "query {} of {} is empty, expected words",
            place + 1,
            texts.len()
        );
        return Err(PipelineError::Usage(problem).into());
    }
    if let Some(page) = &args.page {
        check_output(page)?;
    }
    let pairs = match &args.pairs {
        Some(path) => Some(Pairs::read(path)?),
        None => None,
    };
    let (model, index) = args.candidates.open(&args.model, &devices)?;
    if let Some(pairs) = pairs {
        return print_recall(&args, &pairs, &model, &devices, &index);
    }
    for note in texts.iter().filter_map(|text| scripts::note(text)) {
        clipood_pipeline::tell(&note);
    }
    let mut queries = encode_texts(&model, &devices, &texts)?;
    let unreadable = encode_images(&model, &devices, &args.images, &mut queries)?;
    let keep = args.candidates.filter(&index)?;
    let mut gallery = Gallery::new(queries.len());
    for query in &queries {
        let hits = index.nearest(&query.features, args.top, |row| keep[row])?;
        let hits: Vec<(&str, f64)> = hits
            .iter()
            .map(|hit| (index.names()[hit.row].as_str(), hit.cosine))
            .collect();
        if args.page.is_some() {
            gallery.add(query, &hits);
        }
        print(&match args.json {
            true => as_json(query, &hits),
            false => as_text(query, &hits),
        })?;
    }
    if let Some(page) = &args.page {
        let (names, place) = args.candidates.names()?;
        let html = gallery.html(names, &args.data, &place, &model.hash)?;
        std::fs::write(page, html).with_context(|| format!("cannot write {}", shown(page)))?;
        clipood_pipeline::tell(&format!("page: {}", shown(page)));
    }
    Ok(exit_of(unreadable))
}

fn encode_texts(model: &Model, devices: &Devices, texts: &[String]) -> Result<Vec<Query>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let dim = model.config.embed_dim;
    let features = model
        .text_encoder(devices.first())?
        .encode(texts)
        .context("cannot encode the queries")?;
    check_rows(&features, dim, |row| format!("query `{}`", texts[row]))?;
    let rows = texts.iter().zip(features.chunks_exact(dim));
    Ok(rows
        .map(|(text, features)| Query {
            kind: TEXT,
            name: text.clone(),
            features: features.to_vec(),
        })
        .collect())
}

/// Appends the images that can be read; returns the number of the others.
fn encode_images(
    model: &Model,
    devices: &Devices,
    images: &[PathBuf],
    queries: &mut Vec<Query>,
) -> Result<usize> {
    if images.is_empty() {
        return Ok(0);
    }
    let files: Vec<PathBuf> = named_images(images)?
        .into_iter()
        .map(|image| image.path)
        .collect();
    let engine = Engine::for_files(model, devices).spread(files.len());
    let mut unreadable = 0;
    encode_files(&engine, &files, |image, outcome| {
        match outcome {
            Ok(encoded) => queries.push(Query {
                kind: IMAGE,
                name: stored(&files[image]),
                features: encoded.global,
            }),
            Err(reason) => {
                unreadable += 1;
                report_unreadable(&files[image], &reason);
            }
        }
        Ok(())
    })?;
    Ok(unreadable)
}

fn as_json(query: &Query, hits: &[(&str, f64)]) -> String {
    let hits: Vec<_> = (1..)
        .zip(hits)
        .map(|(rank, (name, cosine))| json!({ "rank": rank, "name": name, "cosine": cosine }))
        .collect();
    let line = json!({ (query.kind): query.name, "hits": hits });
    format!("{line}\n")
}

fn as_text(query: &Query, hits: &[(&str, f64)]) -> String {
    let mut out = format!("{}\n", shown(&query.name));
    for (rank, (name, cosine)) in (1..).zip(hits) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{rank:>6}  {cosine:.4}  {}", shown(name));
    }
    if hits.is_empty() {
        out += "  nothing fits the filter\n";
    }
    out
}

fn print_recall(
    args: &Args,
    pairs: &Pairs,
    model: &Model,
    devices: &Devices,
    index: &SearchIndex,
) -> Result<ExitCode> {
    let image_of = pairs.rows(index.names())?;
    let texts = encode_texts(model, devices, &pairs.texts)?;
    let dim = index.dim();
    let mut rows = Vec::with_capacity(texts.len() * dim);
    for text in &texts {
        rows.extend_from_slice(&text.features);
    }
    // Of unit length, as the rows of the index are.
    let texts = SearchIndex::new(dim, pairs.texts.clone(), rows)?;
    let all = |index: &SearchIndex| -> Vec<f32> {
        (0..index.names().len())
            .flat_map(|row| index.row(row))
            .copied()
            .collect()
    };
    let both = recall(&all(&texts), &all(index), dim, &image_of);
    let ways = [
        ("text to image", &both.text_to_image),
        ("image to text", &both.image_to_text),
    ];
    let mut out = String::new();
    if !args.json {
        out += &format!("{:<13}  {:>8}  {:>10}", "", "queries", "candidates");
        for (k, _) in &both.text_to_image.at {
            let _ = write!(out, "  {:>6}", format!("R@{k}"));
        }
        out.push('\n');
    }
    for (way, found) in ways {
        if args.json {
            let at: serde_json::Map<_, _> = found
                .at
                .iter()
                .map(|(k, share)| (format!("recall@{k}"), json!(share)))
                .collect();
            let line = json!({
                "direction": way,
                "queries": found.queries,
                "candidates": found.candidates,
                "recall": at,
            });
            let _ = writeln!(out, "{line}");
            continue;
        }
        let _ = write!(
            out,
            "{way:<13}  {:>8}  {:>10}",
            found.queries, found.candidates
        );
        for (_, share) in &found.at {
            let _ = write!(out, "  {:>6.2}", 100.0 * share);
        }
        out.push('\n');
    }
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

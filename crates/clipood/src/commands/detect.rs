//! `clipood detect`: whether images belong to known classes.

mod judge;
mod sheet;
mod table;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clipood_core::text_file::{decode_text, lines};
use clipood_core::{shown, stored};
use clipood_data::Source;
use clipood_pipeline::{Engine, PipelineError, classify_files};
use serde_json::json;

use self::judge::{Judge, JudgeArgs};
use self::sheet::Unread;
use super::args::DeviceArgs;
use super::arrays::check_output;
use super::images::{none_readable, report_unreadable};
use super::print;
use super::zero_shot::inputs::files_of;

/// Longest list of images on standard input, in bytes.
const LONGEST_LIST: u64 = 1 << 30;

/// Options of `clipood detect`.
#[derive(clap::Args)]
pub struct Args {
    /// Image files, or folders that are searched for them; `-` reads one path per line from standard input.
    #[arg(required = true, value_name = "PATH")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Number of nearest classes to print for each image.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// A Parquet file to write as well: `image`, `in_distribution`, `score`, `pred_name`, `prob`; its metadata holds the threshold and
    /// where it came from.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the decisions as a page with the images, too: one HTML file; of many images those whose scores are nearest to
    /// the threshold.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// An image with its decision.
pub struct Verdict {
    /// Its place in the list of images.
    pub number: usize,
    /// Its path.
    pub image: String,
    /// Whether its score reaches the threshold.
    pub inside: bool,
    /// The detector's score.
    pub score: f32,
    /// The most likely classes with `softmax(100 c)`, in descending order; at least one.
    pub top: Vec<(u32, f32)>,
}

/// Prints a decision for every image.
pub fn run(args: Args) -> Result<ExitCode> {
    for out in [&args.out, &args.page].into_iter().flatten() {
        check_output(out)?;
    }
    let files = listed(&args.images)?;
    let sources: Vec<Source> = files.iter().map(|path| Source::found(path)).collect();
    if files.is_empty() {
        bail!("no image in the folders given");
    }
    let judge = args.judge.open(&args.device, usize::from(args.top))?;
    let mut verdicts = Vec::new();
    let mut unread = Unread::default();
    let mut failure = None;
    let engine = Engine::for_files(&judge.model, &judge.devices);
    let done = classify_files(&engine, &sources, &judge.classifier, |number, outcome| {
        let found = match outcome {
            Ok(found) => found,
            Err(reason) => {
                report_unreadable(&files[number], &reason);
                unread.add(&files[number], reason);
                return Ok(());
            }
        };
        let verdict = Verdict {
            number,
            image: stored(&files[number]),
            inside: f64::from(found.score) >= judge.threshold,
            score: found.score,
            top: found.top,
        };
        let line = match args.json {
            true => as_json(&verdict, &judge),
            false => as_text(&verdict, &judge),
        };
        verdicts.push(verdict);
        print(&line).map_err(|error| {
            failure = Some(error);
            PipelineError::Interrupted
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    done?;
    if verdicts.is_empty() {
        return Err(none_readable(files.len()));
    }
    if let Some(out) = &args.out {
        table::write(out, &verdicts, &judge)?;
    }
    let inside = verdicts.iter().filter(|verdict| verdict.inside).count();
    let summary = format!(
        "{inside} of {} images are in-distribution: {} at or above {} ({})",
        verdicts.len(),
        judge.detector,
        judge.threshold,
        judge.origin
    );
    clipood_pipeline::tell(&summary);
    if let Some(page) = &args.page {
        let html = sheet::html(&summary, &verdicts, &sources, unread, &judge)?;
        std::fs::write(page, html).with_context(|| format!("cannot write {}", shown(page)))?;
        clipood_pipeline::tell(&format!("page: {}", shown(page)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of the command line, and those on standard input where `-` stands.
fn listed(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        if path.as_os_str() != "-" {
            all.extend(files_of(std::slice::from_ref(path))?);
            continue;
        }
        let mut bytes = Vec::new();
        let input = std::io::stdin().lock();
        input
            .take(LONGEST_LIST)
            .read_to_end(&mut bytes)
            .context("cannot read the list of images on standard input")?;
        let text = decode_text(bytes, "standard input")?;
        let named = lines(&text)
            .into_iter()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        // As lines of `find` and `ls`: a file that cannot be read costs nothing but itself.
        all.extend(named.map(PathBuf::from));
    }
    Ok(all)
}

fn as_json(verdict: &Verdict, judge: &Judge) -> String {
    let name = |class: u32| judge.classes[class as usize].as_str();
    let (class, probability) = verdict.top[0];
    let mut line = json!({
        "image": verdict.image,
        "in_distribution": verdict.inside,
        "score": verdict.score,
        "threshold": judge.threshold,
        "threshold_from": judge.origin,
        "pred_name": name(class),
        "prob": probability,
    });
    if verdict.top.len() > 1 {
        let classes = verdict.top.iter();
        line["classes"] = classes
            .map(|(class, probability)| json!({ "name": name(*class), "prob": probability }))
            .collect();
    }
    format!("{line}\n")
}

fn as_text(verdict: &Verdict, judge: &Judge) -> String {
    let classes = verdict.top.iter().map(|(class, probability)| {
        format!(
            "{} {:.1}%",
            judge.classes[*class as usize],
            100.0 * probability
        )
    });
    format!(
        "{} {:.6}  {}: {}\n",
        if verdict.inside { "in " } else { "out" },
        verdict.score,
        shown(&verdict.image),
        classes.collect::<Vec<_>>().join(", ")
    )
}

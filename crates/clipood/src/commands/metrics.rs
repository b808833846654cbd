//! `clipood metrics`: how well two lists of scores are separated.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_ood::metrics::{BootstrapOptions, ScorePair, bootstrap, ood_metrics};
use serde_json::{Map, Value};

use super::columns::read_scores;
use super::print;

/// Largest number of bootstrap resamples; intervals hardly change beyond 10,000.
const MOST_RESAMPLES: i64 = 1_000_000;

/// Options of `clipood metrics`.
#[derive(clap::Args)]
pub struct Args {
    /// In-distribution scores, higher = more in-distribution: a table (Parquet, CSV, TSV, JSON or JSON Lines),
    /// a list of numbers (text or JSON) or an array (.npy, .npz).
    #[arg(long)]
    id: PathBuf,
    /// Out-of-distribution scores, likewise.
    #[arg(long)]
    ood: PathBuf,
    /// Column of both tables, or array of both .npz files; needed only if there are several numeric ones.
    #[arg(long)]
    column: Option<String>,
    /// Add 95% intervals of AUROC and FPR95 from this many bootstrap resamples.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_RESAMPLES))]
    bootstrap: Option<u32>,
    /// Print one flat JSON object; an infinite threshold is null.
    #[arg(long)]
    json: bool,
}

/// A metric as it is printed.
enum Figure {
    Count(u64),
    Number(f64),
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Prints the metrics of the two lists.
pub fn run(args: Args) -> Result<ExitCode> {
    let id = read_scores(&args.id, args.column.as_deref())?;
    let ood = read_scores(&args.ood, args.column.as_deref())?;
    let figures = figures(&id, &ood, args.bootstrap).with_context(|| {
        format!(
            "cannot compare {} and {}",
            args.id.display(),
            args.ood.display()
        )
    })?;
    let text = if args.json {
        object(&figures)
    } else {
        aligned(&figures)
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn figures(id: &[f64], ood: &[f64], resamples: Option<u32>) -> Result<Vec<(&'static str, Figure)>> {
    let all = ood_metrics(id, ood)?;
    let mut figures = vec![
        ("n_id", Figure::Count(all.n_id)),
        ("n_ood", Figure::Count(all.n_ood)),
        ("auroc", Figure::Number(all.auroc)),
        ("aupr_in", Figure::Number(all.aupr_in)),
        ("aupr_out", Figure::Number(all.aupr_out)),
        ("fpr95", Figure::Number(all.fpr95)),
        ("fpr_at_tpr_ge_95", Figure::Number(all.fpr_at_tpr_ge_95)),
        ("fpr95_openood", Figure::Number(all.fpr95_openood)),
        ("aupr_in_openood", Figure::Number(all.aupr_in_openood)),
        ("aupr_out_openood", Figure::Number(all.aupr_out_openood)),
        ("threshold95", Figure::Number(all.threshold95)),
        ("detection_accuracy", Figure::Number(all.detection_accuracy)),
        (
            "detection_threshold",
            Figure::Number(all.detection_threshold),
        ),
        ("balanced_accuracy", Figure::Number(all.balanced_accuracy)),
        ("balanced_threshold", Figure::Number(all.balanced_threshold)),
        ("ties", Figure::Count(all.ties)),
        ("score_resolution", Figure::Number(all.resolution())),
    ];
    if all.has_low_resolution() {
        clipood_pipeline::tell(&format!(
            "warning: {} distinct scores among {} images ({:.2}%): ties count as half, so the figures may hide a \
             detector that saturates",
            all.distinct(),
            all.n_id + all.n_ood,
            100.0 * all.resolution()
        ));
    }
    if let Some(resamples) = resamples {
        let options = BootstrapOptions {
            resamples: resamples as usize,
            ..BootstrapOptions::default()
        };
        let (id, ood) = ranks(id, ood);
        let pair = ScorePair { id: &id, ood: &ood };
        for intervals in bootstrap(&[pair], &options)? {
            figures.extend([
                ("auroc_lo", Figure::Number(intervals.auroc.lo)),
                ("auroc_hi", Figure::Number(intervals.auroc.hi)),
                ("fpr95_lo", Figure::Number(intervals.fpr95.lo)),
                ("fpr95_hi", Figure::Number(intervals.fpr95.hi)),
            ]);
        }
    }
    Ok(figures)
}

/// Scores as f32 in the same order with the same ties, which is all that resampled AUROC and FPR95 depend on: rounding
/// f64 scores would make ties. The bits of positive f32 values order as integers do, so the rank is taken as the bits.
fn ranks(id: &[f64], ood: &[f64]) -> (Vec<f32>, Vec<f32>) {
    let mut distinct: Vec<f64> = id.iter().chain(ood).copied().collect();
    distinct.sort_by(f64::total_cmp);
    // -0 and 0 are equal here as well.
    distinct.dedup();
    let rank = |score: &f64| {
        let below = distinct.partition_point(|other| other < score);
        f32::from_bits(below as u32)
    };
    (
        id.iter().map(rank).collect(),
        ood.iter().map(rank).collect(),
    )
}

fn object(figures: &[(&str, Figure)]) -> String {
    let object: Map<String, Value> = figures
        .iter()
        .map(|(name, figure)| {
            let value = match figure {
                Figure::Count(count) => Value::from(*count),
                // Values that are not finite become null.
                Figure::Number(number) => Value::from(*number),
            };
            ((*name).to_owned(), value)
        })
        .collect();
    format!("{}\n", Value::Object(object))
}

fn aligned(figures: &[(&str, Figure)]) -> String {
    let width = figures
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    figures
        .iter()
        .map(|(name, figure)| format!("{name:width$}  {figure}\n"))
        .collect()
}

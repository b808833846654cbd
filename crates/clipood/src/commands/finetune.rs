//! `clipood finetune`: contrastive training of a checkpoint on images with captions, into an open_clip folder.

mod held_out;
mod result;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clipood_core::shown;
use clipood_data::PairColumns;
use clipood_pipeline::finetune::{
    AdamWOptions, Checkpoints, FineTuning, OutFolder, PairSet, Part, fine_tune,
};
use clipood_pipeline::{PipelineError, Reporting, tell};
use serde_json::{Value, json};

use self::held_out::{Accuracy, HeldOut, HeldOutArgs};
use self::result::{FILES, Finished, curve_table};
use super::args::{DevicesArg, count};
use super::models::ModelArgs;
use super::print;

/// Pairs that are listed on standard error when they are left out; `skipped.csv` has all.
const LISTED: usize = 10;
/// Most passes over the pairs.
const MOST_EPOCHS: usize = 100_000;
/// Most pairs per step: the logits of a batch are a square matrix.
const MOST_PAIRS: usize = 65_536;

/// Options of `clipood finetune`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Files of pairs: .csv or .tsv with a line of headings, .json (COCO's captions, Karpathy's splits, or objects with an image and captions), .parquet, or .tar shards of a WebDataset.
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    pairs: Vec<PathBuf>,
    /// Column of the images (default: filepath, image, path and other usual ones).
    #[arg(long, value_name = "NAME")]
    image_column: Option<String>,
    /// Column of the captions (default: title, caption, text and other usual ones); of shards a key of their JSON files or
    /// the ending of text files.
    #[arg(long, value_name = "NAME")]
    caption_column: Option<String>,
    /// Folder that relative paths of images start from (default: that of the file of pairs, then the current one).
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// New folder for the model, the loss curve and the account of pairs.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the folder if an earlier call has made it.
    #[arg(long)]
    overwrite: bool,
    /// What is learnt: `projections`, the last linear map of each tower on features that are computed once, or `all`
    /// parameters. The logit scale is always learnt.
    #[arg(long, value_name = "PART", default_value = "projections", value_parser = part)]
    train: Part,
    /// Passes over the pairs.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<MOST_EPOCHS>)]
    epochs: usize,
    /// Pairs per step; a last short batch of an epoch is left out.
    #[arg(long, value_name = "N", default_value = "64", value_parser = batch)]
    batch: usize,
    /// Peak learning rate of AdamW; 1e-5 suits whole towers, projections bear 1e-3.
    #[arg(long, default_value = "1e-5", value_parser = positive)]
    lr: f64,
    /// Weight decay; gains, biases and the logit scale have none.
    #[arg(long, default_value = "0.1", value_parser = not_negative)]
    wd: f64,
    /// Steps in which the learning rate rises; behind them it falls along half a cosine to 0.
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    warmup: usize,
    /// Seed of the order of the pairs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Least seconds from one checkpoint to the next, which are written after an epoch. The same call goes on from the last
    /// one where it was interrupted.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    checkpoint: u64,
    /// Largest share of pairs without caption or readable image that may be left out, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share)]
    max_skipped: f64,
    #[command(flatten)]
    held_out: HeldOutArgs,
    #[command(flatten)]
    devices: DevicesArg,
}

/// Trains, prints the curve and the accuracies, and writes the folder.
pub fn run(args: Args) -> Result<ExitCode> {
    let devices = args.devices.open("f32")?;
    let out = OutFolder::claim(&args.out, args.overwrite, &FILES)?;
    let settings = args.settings();
    let columns = PairColumns {
        image: args.image_column.clone(),
        caption: args.caption_column.clone(),
    };
    let mut set = PairSet::gather(&args.pairs, &columns, args.images.as_deref())?;
    let held_out = HeldOut::gather(args.held_out)?;
    let start = args.model.open_or("demo")?;
    let before = held_out
        .as_ref()
        .map(|held_out| held_out.accuracy(&start, &devices))
        .transpose()?;

    let options = FineTuning {
        part: args.train,
        epochs: args.epochs,
        batch: args.batch,
        lr: args.lr,
        warmup: args.warmup,
        optimizer: AdamWOptions {
            weight_decay: args.wd as f32,
            ..AdamWOptions::default()
        },
        seed: args.seed,
        most_skipped: args.max_skipped,
    };
    let every = Duration::from_secs(args.checkpoint);
    let mut checkpoints = Checkpoints::new(out.checkpoint(), every);
    let trained = fine_tune(
        &start,
        &devices,
        &mut set,
        &options,
        &mut checkpoints,
        Reporting::Human,
    );
    for skipped in set.skipped.iter().take(LISTED) {
        let (what, reason) = (shown(&skipped.what), &skipped.reason);
        tell(&format!("left out: {what}: {reason}"));
    }
    if let Some(more) = set
        .skipped
        .len()
        .checked_sub(LISTED)
        .filter(|more| *more > 0)
    {
        tell(&format!("left out: {more} more"));
    }
    let (model, curve) = trained?;
    let after = held_out
        .as_ref()
        .map(|held_out| held_out.accuracy(&model, &devices))
        .transpose()?;

    let finished = Finished {
        from: args.model.name_or("demo"),
        settings,
        start: &start,
        model: &model,
        set: &set,
        options: &options,
        curve: &curve,
        accuracies: before.zip(after),
    };
    out.write(&finished.files()?)?;
    checkpoints.remove()?;
    print(&report(&finished, held_out.as_ref(), &args.out))?;
    Ok(ExitCode::SUCCESS)
}

fn report(finished: &Finished<'_>, held_out: Option<&HeldOut>, out: &std::path::Path) -> String {
    let mut text = curve_table(finished.curve);
    text += &finished.account();
    if let (Some(held_out), Some((before, after))) = (held_out, finished.accuracies) {
        let percent = |of: fn(&Accuracy) -> f64| {
            let (before, after) = (100.0 * of(&before), 100.0 * of(&after));
            format!("{before:.2}% -> {after:.2}%")
        };
        text += &format!(
            "zero-shot accuracy on {} images of {}: top-1 {}, top-5 {}\n",
            before.images,
            held_out.source(),
            percent(|accuracy| accuracy.top1),
            percent(|accuracy| accuracy.top5),
        );
    }
    let out = shown(out);
    text + &format!("model: {out}; use it as --model {out}\n")
}

impl Args {
    /// The settings as they were given, for the account of the result.
    fn settings(&self) -> Value {
        let shown_path = |path: &PathBuf| shown(path);
        json!({
            "train": match self.train {
                Part::Projections => "projections",
                Part::All => "all",
            },
            "pairs": self.pairs.iter().map(shown_path).collect::<Vec<_>>(),
            "image_column": self.image_column,
            "caption_column": self.caption_column,
            "images": self.images.as_ref().map(shown_path),
            "max_skipped": self.max_skipped,
            "epochs": self.epochs,
            "batch": self.batch,
            "lr": self.lr,
            "weight_decay": self.wd,
            "warmup": self.warmup,
            "seed": self.seed,
        })
    }
}

/// A number of pairs: one alone has nothing to be told from.
fn batch(text: &str) -> Result<usize, String> {
    let pairs = count::<MOST_PAIRS>(text)?;
    match pairs {
        1 => Err("found 1, expected at least 2: a pair is learnt in contrast to others".to_owned()),
        _ => Ok(pairs),
    }
}

fn part(text: &str) -> Result<Part, String> {
    match text {
        "projections" => Ok(Part::Projections),
        "all" => Ok(Part::All),
        _ => Err("expected projections or all".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, "a number above 0", |value| value > 0.0)
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, "a number from 0", |value| value >= 0.0)
}

fn share(text: &str) -> Result<f64, String> {
    number(text, "a share from 0 to 1", |value| {
        (0.0..=1.0).contains(&value)
    })
}

fn number(text: &str, expected: &str, is_allowed: fn(f64) -> bool) -> Result<f64, String> {
    let value: Option<f64> = text.trim().parse().ok();
    value
        .filter(|value| value.is_finite() && is_allowed(*value))
        .ok_or_else(|| format!("expected {expected}"))
}

/// The error of an option that does not fit the others.
fn usage(problem: String) -> anyhow::Error {
    PipelineError::Usage(problem).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(positive("1e-5"), Ok(1e-5));
        for text in ["0", "-1", "nan", "inf", "x"] {
            assert!(positive(text).is_err(), "{text}");
        }
        assert_eq!(not_negative("0"), Ok(0.0));
        assert!(share("1.5").is_err_and(|error| error.contains("0 to 1")));
        assert!(part("tower").is_err_and(|error| error.contains("projections or all")));
    }
}

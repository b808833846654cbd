//! The files of a fine-tuned model, and what is printed about it.

use std::fmt::Write;

use anyhow::Result;
use clipood_clip::model::Model;
use clipood_pipeline::finetune::{CurvePoint, FineTuning, PairSet};
use serde_json::{Value, json};

use super::held_out::Accuracy;

/// Names of the files, in the order of [`Finished::files`].
pub const FILES: [&str; 5] = [
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "loss.csv",
    "skipped.csv",
    "finetune.json",
];

/// Lines of the printed curve.
const PRINTED: usize = 10;

/// A finished training.
pub struct Finished<'a> {
    /// Name of the model that it started from.
    pub from: &'a str,
    /// The settings as they were given.
    pub settings: Value,
    /// That model.
    pub start: &'a Model,
    /// The trained model.
    pub model: &'a Model,
    /// The pairs.
    pub set: &'a PairSet,
    /// The settings.
    pub options: &'a FineTuning,
    /// The loss curve.
    pub curve: &'a [CurvePoint],
    /// Zero-shot accuracies before and after.
    pub accuracies: Option<(Accuracy, Accuracy)>,
}

impl Finished<'_> {
    /// The files of the folder.
    ///
    /// # Errors
    /// As [`Model::to_safetensors`].
    pub fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let contents = [
            self.model.config.to_open_clip().into_bytes(),
            self.model.to_safetensors()?,
            curve_csv(self.curve).into_bytes(),
            self.skipped()?,
            format!("{:#}\n", self.summary()).into_bytes(),
        ];
        Ok(FILES.into_iter().zip(contents).collect())
    }

    fn left_out(&self) -> usize {
        self.set.skipped.iter().map(|skipped| skipped.pairs).sum()
    }

    fn summary(&self) -> serde_json::Value {
        let accuracy = |of: Accuracy| json!({ "top1": of.top1, "top5": of.top5 });
        let zero_shot = self.accuracies.map(|(before, after)| {
            json!({ "images": before.images, "before": accuracy(before), "after": accuracy(after) })
        });
        json!({
            "clipood": env!("CARGO_PKG_VERSION"),
            "from": self.from,
            "from_hash": self.start.hash,
            "hash": self.model.hash,
            "settings": self.settings,
            "pairs": self.set.pairs.len(),
            "skipped_pairs": self.left_out(),
            "steps": self.curve.len(),
            "zero_shot": zero_shot,
        })
    }

    /// `skipped.csv`: the row or the image, the reason, and the number of pairs that were left out with it.
    fn skipped(&self) -> Result<Vec<u8>> {
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["what", "reason", "pairs"])?;
        for skipped in &self.set.skipped {
            let pairs = skipped.pairs.to_string();
            table.write_record([&skipped.what, &skipped.reason, &pairs])?;
        }
        Ok(table.into_inner()?)
    }

    /// One sentence about the pairs.
    pub fn account(&self) -> String {
        let (usable, left_out) = (self.set.pairs.len(), self.left_out());
        let mut text = format!(
            "pairs: {} = {usable} usable + {left_out} left out",
            usable + left_out
        );
        if left_out > 0 {
            text += " (skipped.csv lists them)";
        }
        let short = match usable < self.options.batch {
            true => 0,
            false => usable % self.options.batch,
        };
        if short > 0 {
            text += &format!("; each epoch leaves out {short}, which fill no batch");
        }
        text + "\n"
    }
}

fn curve_csv(curve: &[CurvePoint]) -> String {
    let mut text = String::from("step,epoch,loss,accuracy,lr,scale\n");
    for point in curve {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{:.5},{:.4},{:.3e},{:.3}",
            point.step, point.epoch, point.loss, point.accuracy, point.lr, point.scale
        );
    }
    text
}

/// The curve in at most ten lines, each the mean over as many steps.
pub fn curve_table(curve: &[CurvePoint]) -> String {
    let mut text = format!(
        "{:>9}  {:>8}  {:>8}  {:>9}  {:>6}\n",
        "step", "loss", "accuracy", "lr", "scale"
    );
    for some in curve.chunks(curve.len().div_ceil(PRINTED).max(1)) {
        let mean =
            |of: fn(&CurvePoint) -> f64| some.iter().map(of).sum::<f64>() / some.len() as f64;
        let Some(last) = some.last() else {
            continue;
        };
        let _ = writeln!(
            text,
            "{:>9}  {:>8.4}  {:>7.2}%  {:>9.2e}  {:>6.2}",
            last.step,
            mean(|point| f64::from(point.loss)),
            100.0 * mean(|point| point.accuracy),
            last.lr,
            last.scale
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_printed_in_ten_lines() {
        let point = |step: usize| CurvePoint {
            step,
            epoch: 1,
            loss: step as f32,
            accuracy: 0.5,
            lr: 1e-3,
            scale: 14.29,
        };
        let curve: Vec<CurvePoint> = (1..=95).map(point).collect();
        let table = curve_table(&curve);
        assert_eq!(table.lines().count(), 11);
        // Steps 1 to 10, whose mean loss is 5.5.
        let first: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(first, ["10", "5.5000", "50.00%", "1.00e-3", "14.29"]);
        assert!(table.lines().last().unwrap().contains("95   93.0000"));
        assert_eq!(
            curve_csv(&curve[..1]).lines().nth(1),
            Some("1,1,1.00000,0.5000,1.000e-3,14.290")
        );
        assert_eq!(curve_table(&[]).lines().count(), 1);
    }
}

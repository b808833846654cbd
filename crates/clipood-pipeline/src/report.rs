//! The report of a run: tables on the console, and a page in the run directory.

mod bars;
mod chart;
mod page;
mod tables;
mod text_table;
mod zero_shot;

use bytes::Bytes;
use clipood_ood::metrics::LOW_RESOLUTION;

pub use self::bars::bars;
pub use self::zero_shot::ZeroShotPage;

use self::chart::{Series, shots_chart};
use self::page::page;
use self::tables::{
    accuracy_table, detector_table, detectors, has_oracles, has_transductive, left_columns,
    main_table, paired_table, percent, summary_table,
};
use self::text_table::escape;
use crate::error::Result;
use crate::job::Job;
use crate::metrics::{AVERAGE, DUAL_PATTERN, Metrics};
use crate::plan::overlaps;
use crate::tables::SummaryRow;

/// Largest number of prompt sets for which the console shows single rows; more are summarised over seeds.
const FEW_PROMPTS: usize = 8;

const ORACLE_NOTE: &str = "* chosen on the tested images themselves to maximise AUROC - FPR95: an upper bound of that difference to read beside the \
    other rows, not a result.";

const TRANSDUCTIVE_NOTE: &str = "† transductive: the score of an image depends on the other tested images (with streams: on their order, batch and mixture), so \
    such rows compare with each other, not with the inductive rows above them; ± is the standard deviation over the orders of a stream.";

/// The tables of a run as text. Few prompt sets: each with its OOD sets, first with its first detector, then with all
/// detectors. Many prompt sets: means and standard deviations over seeds.
pub fn console(metrics: &Metrics) -> String {
    let mut text = String::new();
    if metrics.accuracy.len() <= FEW_PROMPTS {
        for detector in main_detectors(metrics) {
            let table = main_table(metrics, detector);
            text += &format!(
                "detector {detector}, in percent (ID positive, FPR at the recall nearest to 95%):\n\n{}\n",
                table.to_text(left_columns(&table))
            );
        }
        text += "AUROC of every detector with its 95% interval, in percent:\n\n";
        text += &detector_table(metrics).to_text(3);
        text += "\naccuracy on the ID images, in percent:\n\n";
        text += &accuracy_table(metrics).to_text(1);
    } else {
        text += "averages over the OOD sets, mean ± standard deviation over seeds, in percent (ID positive, FPR at the recall \
                 nearest to 95%):\n\n";
        text += &summary_table(metrics).to_text(3);
    }
    if has_oracles(metrics) {
        text += &format!("\n{ORACLE_NOTE}\n");
    }
    if has_transductive(metrics) {
        text += &format!("\n{TRANSDUCTIVE_NOTE}\n");
    }
    for warning in resolution_warnings(metrics) {
        text += &format!("\nwarning: {warning}\n");
    }
    text
}

/// The detectors with a separate table on the console: the first, the fused score, and for every prompt set that has
/// neither, its first detector.
fn main_detectors(metrics: &Metrics) -> Vec<&str> {
    let all = detectors(&metrics.ood);
    let mut main: Vec<&str> = all.iter().take(1).copied().collect();
    main.extend(all.iter().skip(1).find(|d| **d == DUAL_PATTERN));
    for set in &metrics.accuracy {
        let mut own = metrics.ood.iter().filter(|row| row.prompt == set.prompt);
        let first = own.clone().next();
        if let Some(first) = first
            && !own.any(|row| main.contains(&row.detector.as_str()))
        {
            main.push(&first.detector);
        }
    }
    main
}

/// The detector of a method's lines in the charts: the first of the table, or the first of the method if it does not
/// have that one.
fn charted<'a>(metrics: &'a Metrics, method: &str) -> Option<&'a str> {
    let first = metrics.summary.first()?.detector.as_str();
    let mut own = metrics.summary.iter().filter(|row| row.method == method);
    match own.clone().any(|row| row.detector == first) {
        true => Some(first),
        false => own.next().map(|row| row.detector.as_str()),
    }
}

/// A warning for each detector with many equal scores, about the worst of its rows.
fn resolution_warnings(metrics: &Metrics) -> Vec<String> {
    let warning = |detector: &&str| {
        let own = metrics.ood.iter().filter(|row| row.detector == **detector);
        // Averages count no images.
        let coarse = own.filter(|row| row.score_resolution < LOW_RESOLUTION && row.n_id > 0);
        let worst = coarse
            .clone()
            .min_by(|a, b| a.score_resolution.total_cmp(&b.score_resolution))?;
        let others = match coarse.count() - 1 {
            0 => String::new(),
            others => format!(
                ", and below {}% in {others} more rows",
                100.0 * LOW_RESOLUTION
            ),
        };
        Some(format!(
            "{detector} of {} on {}: {}% of the scores are distinct{others}; ties count as half",
            worst.prompt,
            worst.ood_dataset,
            percent(worst.score_resolution)
        ))
    };
    detectors(&metrics.ood).iter().filter_map(warning).collect()
}

/// The lines of the charts: each method with its first detector, which is named if it is not the first of the table,
/// and the fused score with nothing chosen.
fn curves(metrics: &Metrics, figure: impl Fn(&SummaryRow) -> (f64, Option<f64>)) -> Vec<Series> {
    let Some(first) = metrics.summary.first().map(|row| row.detector.as_str()) else {
        return Vec::new();
    };
    let mut series: Vec<Series> = Vec::new();
    for row in metrics.summary.iter().filter(|r| r.ood_dataset == AVERAGE) {
        let fused = row.detector == DUAL_PATTERN && row.scaling.as_deref() == Some("calibrated");
        let is_dual = row.method.starts_with("dp");
        let shown = if is_dual {
            fused
        } else {
            charted(metrics, &row.method) == Some(row.detector.as_str())
        };
        if !shown || row.selection != "fixed" {
            continue;
        }
        let (mean, std) = figure(row);
        let point = (
            row.shots.unwrap_or(0),
            100.0 * mean,
            100.0 * std.unwrap_or(0.0),
        );
        let name = match is_dual || row.detector == first {
            true => row.method.clone(),
            false => format!("{} ({})", row.method, row.detector),
        };
        match series.iter_mut().find(|s| s.name == name) {
            Some(line) => line.points.push(point),
            None => series.push(Series {
                name,
                points: vec![point],
            }),
        }
    }
    series
        .iter_mut()
        .for_each(|s| s.points.sort_by_key(|p| p.0));
    series
}

/// Writes `report/index.html` into the run directory.
///
/// # Errors
/// The run directory cannot be written.
pub fn write_html(job: &Job, metrics: &Metrics) -> Result<()> {
    let mut body = format!(
        "<h1>{}</h1>\n<p>Model <code>{}</code>, run <code>{}</code>. All figures in percent; ID is the positive class; \
         FPR95 at the threshold whose recall is nearest to 95%. Selection <code>fixed</code>: nothing was chosen; \
         <code>validation</code>: chosen on images that are not tested, to maximise AUROC - FPR95. Trained prompts use {} an image.</p>\n",
        escape(&job.experiment.recipe.name),
        escape(&job.experiment.recipe.model),
        job.experiment.fingerprint.short(),
        match job.experiment.recipe.train.views {
            0 => "a fresh view in every epoch of".to_string(),
            views => format!("{views} pre-drawn views of"),
        },
    );
    if has_oracles(metrics) {
        body += &format!("<p>{}</p>\n", escape(ORACLE_NOTE));
    }
    if has_transductive(metrics) {
        body += &format!("<p>{}</p>\n", escape(TRANSDUCTIVE_NOTE));
    }
    for warning in resolution_warnings(metrics) {
        body += &format!("<p><strong>Warning:</strong> {}.</p>\n", escape(&warning));
    }
    let charts: Vec<String> = [
        shots_chart(
            "AUROC, average over the OOD sets",
            &curves(metrics, |r| (r.auroc, r.auroc_std)),
        ),
        shots_chart(
            "FPR95, average over the OOD sets",
            &curves(metrics, |r| (r.fpr95, r.fpr95_std)),
        ),
        shots_chart("ID top-1", &curves(metrics, |r| (r.top1, r.top1_std))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !charts.is_empty() {
        body += &format!(
            "<h2>Against the number of shots</h2>\n<p>{}; dual-pattern methods under their fused score with nothing chosen; \
             bars: one standard deviation over seeds; dashed: zero-shot.</p>\n<p>{}</p>\n",
            escape(&format!(
                "Detector {}, or the one named beside a method",
                metrics.summary.first().map_or("", |r| r.detector.as_str())
            )),
            charts.concat()
        );
    }
    let overlaps = overlaps(job)?;
    if !overlaps.is_empty() {
        body += "<h2>Images in two sets, or twice in one</h2>\n<ul>\n";
        for overlap in &overlaps {
            body += &format!("<li>{}</li>\n", escape(&overlap.line()));
        }
        body += "</ul>\n";
    }
    body += "<h2>Averages over the OOD sets, mean ± standard deviation over seeds</h2>\n";
    body += &summary_table(metrics).to_html(3);
    body += "<h2>ID accuracy</h2>\n";
    body += &accuracy_table(metrics).to_html(1);
    if !metrics.paired.is_empty() {
        body += "<h2>Differences from zero-shot, on the same bootstrap resamples</h2>\n";
        body += &paired_table(metrics).to_html(4);
    }
    for detector in detectors(&metrics.ood) {
        body += &format!("<h2>Detector {}</h2>\n", escape(detector));
        let table = main_table(metrics, detector);
        body += &table.to_html(left_columns(&table));
    }
    let page = page(&job.experiment.recipe.name, &body);
    let store = job.places.run.store();
    let path = "report/index.html";
    // The page is derived from the metrics; it is written only if it has changed.
    if store.get(path)?.as_deref() != Some(page.as_bytes()) {
        store.put(path, Bytes::from(page))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{AccuracyRow, OodRow};

    fn metrics() -> Metrics {
        let row = |detector: &str, selection: &str, ood: &str, auroc: f64| OodRow {
            prompt: "zero-shot".into(),
            detector: detector.into(),
            selection: selection.into(),
            ood_dataset: ood.into(),
            n_id: 10,
            auroc,
            score_resolution: 1.0,
            ..OodRow::default()
        };
        Metrics {
            ood: vec![
                row("mcm", "fixed", "a & b", 0.75),
                row("mcm", "fixed", AVERAGE, 0.75),
                row("msp", "fixed", "a & b", 0.5),
                row("msp", "fixed", AVERAGE, 0.5),
                row("msp", "oracle", "a & b", 0.625),
            ],
            accuracy: vec![AccuracyRow {
                prompt: "zero-shot".into(),
                top1: 0.625,
                ..AccuracyRow::default()
            }],
            ..Metrics::default()
        }
    }

    #[test]
    fn console_lists_sets_and_marks_oracles() {
        let text = console(&metrics());
        let line = |words: &[&str]| text.lines().any(|l| words.iter().all(|w| l.contains(w)));
        assert!(line(&["zero-shot", "a & b", "75.00"]), "{text}");
        assert!(line(&["msp", "oracle*", "62.50"]), "{text}");
        assert!(text.contains(ORACLE_NOTE));
        assert!(!text.contains("warning"));
    }

    #[test]
    fn coarse_scores_are_named() {
        let mut metrics = metrics();
        metrics.ood[2].score_resolution = 0.009;
        metrics.ood[4].score_resolution = 0.899;
        let text = console(&metrics);
        // One warning for each detector.
        assert_eq!(text.matches("warning: ").count(), 1, "{text}");
        let warning = "warning: msp of zero-shot on a & b: 0.90% of the scores are distinct, and below 90% in 1 more rows";
        assert!(text.contains(warning), "{text}");
    }

    #[test]
    fn a_prompt_set_without_the_first_detector_is_shown_with_its_own() {
        let mut metrics = metrics();
        let probe = |row: &OodRow| OodRow {
            prompt: "linear-probe-2shot-seed1".into(),
            method: "linear-probe".into(),
            auroc: 0.875,
            ..row.clone()
        };
        let rows: Vec<OodRow> = metrics.ood[2..4].iter().map(probe).collect();
        metrics.ood.extend(rows);
        metrics.accuracy.push(AccuracyRow {
            prompt: "linear-probe-2shot-seed1".into(),
            ..AccuracyRow::default()
        });
        assert_eq!(main_detectors(&metrics), ["mcm", "msp"]);
        let text = console(&metrics);
        assert_eq!(
            text.matches("detector msp, in percent").count(),
            1,
            "{text}"
        );

        let summary = |method: &str, detector: &str, auroc: f64| SummaryRow {
            method: method.into(),
            detector: detector.into(),
            ood_dataset: AVERAGE.into(),
            selection: "fixed".into(),
            auroc,
            ..SummaryRow::default()
        };
        metrics.summary = vec![
            summary("zero-shot", "mcm", 0.75),
            summary("zero-shot", "msp", 0.5),
            summary("linear-probe", "msp", 0.875),
            summary("linear-probe", "energy", 0.25),
        ];
        let lines = curves(&metrics, |row| (row.auroc, None));
        let lines: Vec<(&str, f64)> = lines
            .iter()
            .map(|line| (line.name.as_str(), line.points[0].1))
            .collect();
        assert_eq!(lines, [("zero-shot", 75.0), ("linear-probe (msp)", 87.5)]);
    }

    #[test]
    fn html_escapes_names() {
        let html = main_table(&metrics(), "mcm").to_html(2);
        assert!(html.contains("<td>a &amp; b</td>"));
    }
}

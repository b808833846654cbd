//! The metric tables as shown on the console and on the page. Values are in percent.

use clipood_ood::metrics::mean_std;

use super::text_table::TextTable;
use crate::metrics::{AVERAGE, Metrics};
use crate::tables::{AccuracyRow, OodRow, SummaryRow};

/// Marks every selection that has used the tested images.
pub const ORACLE_MARK: &str = "*";

/// Marks every row whose scores depend on the other tested images.
pub const TRANSDUCTIVE_MARK: &str = "†";

/// Scaling of such rows.
const TRANSDUCTIVE: &str = "transductive";

pub fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

/// `81.40 ± 0.52`, or the mean alone for one seed.
pub fn with_deviation(mean: f64, std: Option<f64>) -> String {
    match std {
        Some(std) => format!("{} ± {}", percent(mean), percent(std)),
        None => percent(mean),
    }
}

/// How the hyperparameters of a line were chosen, with oracles marked: `fixed`, `validation, calibrated`, `oracle*`.
fn rule(selection: &str, scaling: Option<&str>) -> String {
    let mark = match selection.starts_with("oracle") {
        true => ORACLE_MARK,
        false => "",
    };
    match scaling {
        Some(TRANSDUCTIVE) => {
            format!("{selection}{mark}, {TRANSDUCTIVE}{TRANSDUCTIVE_MARK}")
        }
        Some(scaling) => format!("{selection}{mark}, {scaling}"),
        None => format!("{selection}{mark}"),
    }
}

/// Whether any line was chosen on the tested images.
pub fn has_oracles(metrics: &Metrics) -> bool {
    let mut rows = metrics.ood.iter();
    rows.any(|row| row.selection.starts_with("oracle"))
}

/// Whether the scores of any line depend on the other tested images.
pub fn has_transductive(metrics: &Metrics) -> bool {
    let mut rows = metrics.ood.iter();
    rows.any(|row| row.scaling.as_deref() == Some(TRANSDUCTIVE))
}

/// Standard deviation of the AUROC of a row over the orders of its streams, if it has several.
fn stream_deviation(metrics: &Metrics, row: &OodRow) -> Option<f64> {
    let own = metrics.streams.iter().filter(|stream| {
        stream.prompt == row.prompt
            && stream.detector == row.detector
            && stream.selection == row.selection
            && stream.ood_dataset == row.ood_dataset
    });
    let values: Vec<f64> = own.map(|stream| stream.auroc).collect();
    mean_std(&values)?.std
}

/// What is known of the uncertainty of a row's AUROC: its interval, or its deviation over streams.
fn around(metrics: &Metrics, row: &OodRow) -> String {
    match stream_deviation(metrics, row) {
        Some(std) => format!("± {}", percent(std)),
        None => interval(row.auroc_lo, row.auroc_hi),
    }
}

/// Detectors in the order of the table.
pub fn detectors(rows: &[OodRow]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.detector.as_str()) {
            names.push(&row.detector);
        }
    }
    names
}

fn headings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_string()).collect()
}

/// One row per prompt set and OOD set, with the metrics of one detector, and what was chosen, if anything.
pub fn main_table(metrics: &Metrics, detector: &str) -> TextTable {
    let own: Vec<&OodRow> = metrics
        .ood
        .iter()
        .filter(|row| row.detector == detector)
        .collect();
    let chosen = own
        .iter()
        .any(|row| row.selection != "fixed" || row.scaling.is_some());
    let mut names = vec!["prompt", "OOD set"];
    if chosen {
        names.extend(["selection", "chosen"]);
    }
    names.extend(["AUROC", "95% interval", "FPR95", "AUPR-in", "AUPR-out"]);
    let rows = own
        .iter()
        .map(|row| {
            let mut cells = vec![row.prompt.clone(), row.ood_dataset.clone()];
            if chosen {
                cells.push(rule(&row.selection, row.scaling.as_deref()));
                cells.push(row.hyperparameters.clone().unwrap_or_default());
            }
            cells.extend([
                percent(row.auroc),
                around(metrics, row),
                percent(row.fpr95),
                percent(row.aupr_in),
                percent(row.aupr_out),
            ]);
            cells
        })
        .collect();
    TextTable {
        headings: headings(&names),
        rows,
    }
}

fn interval(lo: Option<f64>, hi: Option<f64>) -> String {
    match (lo, hi) {
        (Some(lo), Some(hi)) => format!("{}-{}", percent(lo), percent(hi)),
        _ => String::new(),
    }
}

/// Left-aligned columns of [`main_table`].
pub fn left_columns(table: &TextTable) -> usize {
    let figures = table.headings.iter().position(|name| name == "AUROC");
    figures.unwrap_or(table.headings.len())
}

/// One row per prompt set: accuracy on the ID images.
pub fn accuracy_table(metrics: &Metrics) -> TextTable {
    let row = |row: &AccuracyRow| {
        vec![
            row.prompt.clone(),
            percent(row.top1),
            percent(row.top5),
            percent(row.ece),
        ]
    };
    TextTable {
        headings: headings(&["prompt", "ID top-1", "top-5", "ECE"]),
        rows: metrics.accuracy.iter().map(row).collect(),
    }
}

/// One row per prompt set and line: AUROC with its interval on every OOD set, and the averages.
pub fn detector_table(metrics: &Metrics) -> TextTable {
    let mut sets: Vec<&str> = Vec::new();
    for row in &metrics.ood {
        if !sets.contains(&row.ood_dataset.as_str()) {
            sets.push(&row.ood_dataset);
        }
    }
    let mut names = vec!["prompt", "detector", "selection"];
    names.extend(&sets);
    let line = |row: &OodRow| {
        vec![
            row.prompt.clone(),
            row.detector.clone(),
            rule(&row.selection, row.scaling.as_deref()),
        ]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for row in &metrics.ood {
        let head = line(row);
        let place = match rows.iter().position(|cells| cells[..3] == head) {
            Some(place) => place,
            None => {
                let mut cells = head;
                cells.resize(3 + sets.len(), String::new());
                rows.push(cells);
                rows.len() - 1
            }
        };
        if let Some(set) = sets.iter().position(|set| *set == row.ood_dataset) {
            let around = around(metrics, row);
            rows[place][3 + set] = match (around.is_empty(), around.starts_with('±')) {
                (true, _) => percent(row.auroc),
                (false, true) => format!("{} {around}", percent(row.auroc)),
                (false, false) => format!("{} ({around})", percent(row.auroc)),
            };
        }
    }
    TextTable {
        headings: headings(&names),
        rows,
    }
}

/// One row per method, number of shots and line: mean and standard deviation over seeds of the averages over the OOD
/// sets.
pub fn summary_table(metrics: &Metrics) -> TextTable {
    let names = [
        "method",
        "detector",
        "selection",
        "shots",
        "seeds",
        "ID top-1",
        "AUROC",
        "FPR95",
    ];
    let row = |row: &SummaryRow| {
        vec![
            row.method.clone(),
            row.detector.clone(),
            rule(&row.selection, row.scaling.as_deref()),
            row.shots.map_or("0".to_string(), |shots| shots.to_string()),
            row.seeds.to_string(),
            with_deviation(row.top1, row.top1_std),
            with_deviation(row.auroc, row.auroc_std),
            with_deviation(row.fpr95, row.fpr95_std),
        ]
    };
    let averages = metrics.summary.iter().filter(|r| r.ood_dataset == AVERAGE);
    TextTable {
        headings: headings(&names),
        rows: averages.map(row).collect(),
    }
}

/// One row per trained prompt set and OOD set: the difference from zero-shot on the same resamples.
pub fn paired_table(metrics: &Metrics) -> TextTable {
    let names = [
        "prompt",
        "against",
        "OOD set",
        "detector",
        "AUROC",
        "95% interval",
        "FPR95",
        "95% interval",
    ];
    let rows = metrics
        .paired
        .iter()
        .map(|row| {
            vec![
                row.prompt.clone(),
                row.baseline.clone(),
                row.ood_dataset.clone(),
                row.detector.clone(),
                format!("{:+.2}", 100.0 * row.auroc_diff),
                signed(row.auroc_diff_lo, row.auroc_diff_hi),
                format!("{:+.2}", 100.0 * row.fpr95_diff),
                signed(row.fpr95_diff_lo, row.fpr95_diff_hi),
            ]
        })
        .collect();
    TextTable {
        headings: headings(&names),
        rows,
    }
}

fn signed(lo: f64, hi: f64) -> String {
    format!("{:+.2} to {:+.2}", 100.0 * lo, 100.0 * hi)
}

//! Stage `report`: the table on the console and a page in the run directory.

use bytes::Bytes;

use crate::aggregate::{AVERAGE, Metrics};
use crate::error::Result;
use crate::job::Job;
use crate::tables::{AccuracyRow, OodRow};

/// A table of text: headings and rows of the same length.
struct TextTable {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Columns padded to their widest cell, the first ones left-aligned, figures right-aligned.
    fn to_text(&self, left: usize) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|c| {
                let cells = self.rows.iter().map(|row| row[c].chars().count());
                cells
                    .chain([self.headings[c].chars().count()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(c, (cell, width))| match c < left {
                    true => format!("{cell:<width$}"),
                    false => format!("{cell:>width$}"),
                })
                .collect();
            format!("{}\n", padded.join("  ").trim_end())
        };
        let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        let mut text = line(&self.headings) + &line(&rule);
        for row in &self.rows {
            text += &line(row);
        }
        text
    }

    fn to_html(&self, left: usize) -> String {
        let cells = |tag: &str, row: &[String]| -> String {
            row.iter()
                .enumerate()
                .map(|(c, cell)| {
                    let class = if c < left { "" } else { " class=\"figure\"" };
                    format!("<{tag}{class}>{}</{tag}>", escape(cell))
                })
                .collect()
        };
        let body: String = self
            .rows
            .iter()
            .map(|row| format!("<tr>{}</tr>\n", cells("td", row)))
            .collect();
        format!(
            "<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n",
            cells("th", &self.headings)
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

/// One row a prompt set and OOD set, with AUROC and FPR95 of one detector, both in percent.
fn main_table(metrics: &Metrics, detector: &str) -> TextTable {
    let headings = [
        "prompt",
        "OOD set",
        "AUROC",
        "95% interval",
        "FPR95",
        "AUPR-in",
        "AUPR-out",
    ];
    let rows = metrics
        .ood
        .iter()
        .filter(|row| row.detector == detector)
        .map(|row| {
            vec![
                row.prompt.clone(),
                row.ood_dataset.clone(),
                percent(row.auroc),
                match (row.auroc_lo, row.auroc_hi) {
                    (Some(lo), Some(hi)) => format!("{}-{}", percent(lo), percent(hi)),
                    _ => String::new(),
                },
                percent(row.fpr95),
                percent(row.aupr_in),
                percent(row.aupr_out),
            ]
        })
        .collect();
    TextTable {
        headings: headings.map(String::from).to_vec(),
        rows,
    }
}

/// One row a prompt set: ID accuracy and the average AUROC of every detector, in percent.
fn summary_table(metrics: &Metrics) -> TextTable {
    let detectors = detectors(&metrics.ood);
    let mut headings: Vec<String> = ["prompt", "ID top-1", "top-5", "ECE"]
        .map(String::from)
        .to_vec();
    headings.extend(detectors.iter().map(|d| d.to_string()));
    let rows = metrics
        .accuracy
        .iter()
        .map(|accuracy| {
            let mut cells = vec![
                accuracy.prompt.clone(),
                percent(accuracy.top1),
                percent(accuracy.top5),
                percent(accuracy.ece),
            ];
            for detector in &detectors {
                let row = average_row(&metrics.ood, accuracy, detector);
                cells.push(row.map_or(String::new(), |row| percent(row.auroc)));
            }
            cells
        })
        .collect();
    TextTable { headings, rows }
}

fn average_row<'a>(
    rows: &'a [OodRow],
    accuracy: &AccuracyRow,
    detector: &str,
) -> Option<&'a OodRow> {
    rows.iter().find(|row| {
        row.prompt == accuracy.prompt && row.detector == detector && row.ood_dataset == AVERAGE
    })
}

/// Detectors in the order of the table.
fn detectors(rows: &[OodRow]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.detector.as_str()) {
            names.push(&row.detector);
        }
    }
    names
}

/// The tables of a run as text: each prompt set and OOD set under the first detector, then all detectors on average.
pub fn console(metrics: &Metrics) -> String {
    let mut text = String::new();
    if let Some(first) = detectors(&metrics.ood).first() {
        text += &format!(
            "detector {first}, in percent (ID positive, FPR at the recall nearest to 95%):\n\n"
        );
        text += &main_table(metrics, first).to_text(2);
    }
    text +=
        "\nID accuracy, and AUROC averaged over the OOD sets for every detector, in percent:\n\n";
    text += &summary_table(metrics).to_text(1);
    text
}

/// Writes `report/index.html` into the run directory.
///
/// # Errors
/// The run directory cannot be written.
pub fn write_html(job: &Job, metrics: &Metrics) -> Result<()> {
    let mut body = format!(
        "<h1>{}</h1>\n<p>Model <code>{}</code>, run <code>{}</code>. All figures in percent; ID is the positive class; \
         FPR95 at the threshold whose recall is nearest to 95%. Selection <code>fixed</code>: nothing was chosen on the test sets. \
         Trained prompts use {} pre-drawn views an image.</p>\n",
        escape(&job.recipe.name),
        escape(&job.recipe.model),
        job.fingerprint.short(),
        job.recipe.train.views,
    );
    body += "<h2>ID accuracy and average AUROC</h2>\n";
    body += &summary_table(metrics).to_html(1);
    for detector in detectors(&metrics.ood) {
        body += &format!("<h2>Detector {}</h2>\n", escape(detector));
        body += &main_table(metrics, detector).to_html(2);
    }
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>clipood: {}</title>\n<style>\n\
         body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }}\n\
         table {{ border-collapse: collapse; }} th, td {{ padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: left; }}\n\
         .figure {{ text-align: right; font-variant-numeric: tabular-nums; }}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(&job.recipe.name)
    );
    let store = job.run.store();
    let path = "report/index.html";
    // The page is derived from the metrics; it is written again only when it differs.
    if store.get(path)?.as_deref() != Some(page.as_bytes()) {
        store.put(path, Bytes::from(page))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        let row = |detector: &str, ood: &str, auroc: f64| OodRow {
            prompt: "zero-shot".into(),
            detector: detector.into(),
            ood_dataset: ood.into(),
            auroc,
            ..OodRow::default()
        };
        Metrics {
            ood: vec![
                row("mcm", "a & b", 0.75),
                row("mcm", AVERAGE, 0.75),
                row("msp", "a & b", 0.5),
                row("msp", AVERAGE, 0.5),
            ],
            accuracy: vec![AccuracyRow {
                prompt: "zero-shot".into(),
                top1: 0.625,
                ..AccuracyRow::default()
            }],
        }
    }

    #[test]
    fn console_lists_sets_and_detectors() {
        let text = console(&metrics());
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines
                .iter()
                .any(|l| l.contains("a & b") && l.contains("75.00"))
        );
        let last = lines.last().unwrap();
        assert!(last.starts_with("zero-shot") && last.contains("62.50"));
        assert!(last.contains("75.00") && last.ends_with("50.00"), "{last}");
    }

    #[test]
    fn html_escapes_names() {
        let html = main_table(&metrics(), "mcm").to_html(2);
        assert!(html.contains("<td>a &amp; b</td>"));
    }
}

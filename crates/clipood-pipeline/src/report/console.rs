//! The tables of a run on the console: a short one by default, more by detector, dataset, seed or number of shots.

use clipood_core::PublishedSection;

use super::headline::{
    Headline, ORACLE_NOTE, TRANSDUCTIVE_MARK, TRANSDUCTIVE_NOTE, headlines, is_oracle,
    is_transductive, known_detector, ood_sets, rule, spreads,
};
use super::published::{measured_beside, published_table};
use super::table::{Cell, Spread, Table};
use super::warnings::warnings;
use crate::error::Result;
use crate::metrics::{AVERAGE, Metrics};
use crate::tables::{OodRow, SummaryRow};

/// What the rows of a table are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// Methods and numbers of shots, averaged over OOD sets and seeds.
    #[default]
    Method,
    /// Each OOD set, averaged over seeds.
    Dataset,
    /// Each prompt set, averaged over OOD sets.
    Seed,
    /// Methods, with one column per number of shots.
    Shots,
}

/// Which table is wanted.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// A detector, or `all` for every detector and selection; absent: the headline detector of every method.
    pub detector: Option<String>,
    /// Its rows.
    pub by: By,
}

/// Asks for every detector and selection.
const ALL: &str = "all";

/// A row of the table of metrics to show, with the figures that are averages over seeds.
struct Shown<'a> {
    row: &'a SummaryRow,
    spreads: (Spread, Spread),
}

/// The table that `view` asks for.
///
/// # Errors
/// [`PipelineError::Usage`](crate::PipelineError::Usage) for a detector that is not in the tables.
pub fn report_table(metrics: &Metrics, view: &View) -> Result<Table> {
    let wanted = match view.detector.as_deref() {
        None => None,
        Some(ALL) => Some(ALL),
        Some(name) => Some(known_detector(metrics, name)?),
    };
    Ok(match view.by {
        By::Method => match wanted {
            None => short_table(metrics),
            Some(_) => line_table(metrics, wanted, |set| set == AVERAGE),
        },
        By::Dataset => line_table(metrics, wanted, |_| true),
        By::Seed => seed_table(metrics, wanted),
        By::Shots => shots_table(metrics, wanted),
    })
}

/// The rows of the summary that a table is about: `all`, one detector, or the headline of every method.
fn chosen<'a>(
    metrics: &'a Metrics,
    wanted: Option<&'a str>,
    set: impl Fn(&str) -> bool,
) -> Vec<Shown<'a>> {
    let headlines = headlines(metrics, None);
    let is_headline = |row: &SummaryRow| headlines.iter().any(|h| same_line(h.row, row));
    let rows = metrics.summary.iter().filter(|row| set(&row.ood_dataset));
    let rows = rows.filter(|row| match wanted {
        None => is_headline(row),
        Some(ALL) => true,
        Some(name) => row.detector == name,
    });
    rows.map(|row| Shown {
        row,
        spreads: spreads(metrics, row),
    })
    .collect()
}

/// Whether two rows are about one method, number of shots, detector and choice.
fn same_line(a: &SummaryRow, b: &SummaryRow) -> bool {
    (&a.method, a.shots, &a.detector, &a.selection, &a.scaling)
        == (&b.method, b.shots, &b.detector, &b.selection, &b.scaling)
}

fn shots_cell(shots: Option<u32>) -> Cell {
    Cell::Count(u64::from(shots.unwrap_or(0)))
}

fn deviation(std: Option<f64>) -> Spread {
    std.map_or(Spread::None, Spread::Deviation)
}

/// One row per method and number of shots: accuracy, the headline detector, and the best detector with nothing chosen.
pub fn short_table(metrics: &Metrics) -> Table {
    let all = headlines(metrics, None);
    let several = all
        .windows(2)
        .any(|pair| pair[0].row.detector != pair[1].row.detector);
    let mut columns = vec![
        ("method", "method"),
        ("shots", "shots"),
        ("seeds", "seeds"),
        ("ID top-1", "top1"),
    ];
    if several {
        columns.push(("detector", "detector"));
    }
    columns.extend([
        ("AUROC", "auroc"),
        ("FPR95", "fpr95"),
        ("best fixed detector", "best_detector"),
        ("its AUROC", "best_auroc"),
    ]);
    let mut table = Table::new(&columns);
    table.rows = all.iter().map(|one| short_row(one, several)).collect();
    table
}

fn short_row(one: &Headline<'_>, with_detector: bool) -> Vec<Cell> {
    let row = one.row;
    let (auroc, fpr95) = one.spreads();
    let mut cells = vec![
        Cell::text(&row.method),
        shots_cell(row.shots),
        Cell::Count(u64::from(row.seeds)),
        Cell::Rate(row.top1, deviation(row.top1_std)),
    ];
    if with_detector {
        cells.push(Cell::text(&row.detector));
    }
    cells.extend([Cell::Rate(row.auroc, auroc), Cell::Rate(row.fpr95, fpr95)]);
    cells.extend(match one.best {
        Some(best) => [
            Cell::text(&best.detector),
            Cell::Rate(best.auroc, deviation(best.auroc_std)),
        ],
        None => [Cell::Blank, Cell::Blank],
    });
    cells
}

/// One row per line of the summary.
fn line_table(metrics: &Metrics, wanted: Option<&str>, set: impl Fn(&str) -> bool) -> Table {
    let shown = chosen(metrics, wanted, set);
    let chooses = shown
        .iter()
        .any(|s| s.row.selection != "fixed" || s.row.scaling.is_some());
    let sets = shown.iter().any(|s| s.row.ood_dataset != AVERAGE);
    let mut columns = vec![
        ("method", "method"),
        ("shots", "shots"),
        ("seeds", "seeds"),
        ("detector", "detector"),
    ];
    if chooses {
        columns.push(("selection", "selection"));
    }
    if sets {
        columns.push(("OOD set", "ood_dataset"));
    }
    columns.extend([
        ("AUROC", "auroc"),
        ("FPR95", "fpr95"),
        ("AUPR-in", "aupr_in"),
        ("AUPR-out", "aupr_out"),
    ]);
    let mut table = Table::new(&columns);
    for Shown {
        row,
        spreads: (auroc, fpr95),
    } in &shown
    {
        let mut cells = vec![
            Cell::text(&row.method),
            shots_cell(row.shots),
            Cell::Count(u64::from(row.seeds)),
            Cell::text(&row.detector),
        ];
        if chooses {
            cells.push(Cell::text(rule(&row.selection, row.scaling.as_deref())));
        }
        if sets {
            cells.push(Cell::text(&row.ood_dataset));
        }
        cells.extend([
            Cell::Rate(row.auroc, *auroc),
            Cell::Rate(row.fpr95, *fpr95),
            Cell::Rate(row.aupr_in, deviation(row.aupr_in_std)),
            Cell::Rate(row.aupr_out, deviation(row.aupr_out_std)),
        ]);
        table.rows.push(cells);
    }
    table
}

/// One row per prompt set and line: the averages over the OOD sets with their intervals.
fn seed_table(metrics: &Metrics, wanted: Option<&str>) -> Table {
    let lines = chosen(metrics, wanted, |set| set == AVERAGE);
    let mut table = Table::new(&[
        ("prompt set", "prompt"),
        ("detector", "detector"),
        ("selection", "selection"),
        ("ID top-1", "top1"),
        ("ECE", "ece"),
        ("AUROC", "auroc"),
        ("FPR95", "fpr95"),
    ]);
    let is_shown = |row: &OodRow| {
        row.ood_dataset == AVERAGE
            && lines.iter().any(|line| {
                let s = line.row;
                (&s.method, s.shots, &s.detector, &s.selection, &s.scaling)
                    == (
                        &row.method,
                        row.shots,
                        &row.detector,
                        &row.selection,
                        &row.scaling,
                    )
            })
    };
    for row in metrics.ood.iter().filter(|row| is_shown(row)) {
        let accuracy = metrics.accuracy.iter().find(|a| a.prompt == row.prompt);
        let of = |figure: Option<f64>| figure.map_or(Cell::Blank, |f| Cell::Rate(f, Spread::None));
        table.rows.push(vec![
            Cell::text(&row.prompt),
            Cell::text(&row.detector),
            Cell::text(rule(&row.selection, row.scaling.as_deref())),
            of(accuracy.map(|a| a.top1)),
            of(accuracy.map(|a| a.ece)),
            Cell::Rate(row.auroc, Spread::interval(row.auroc_lo, row.auroc_hi)),
            Cell::Rate(row.fpr95, Spread::interval(row.fpr95_lo, row.fpr95_hi)),
        ]);
    }
    table
}

/// One row per method and metric, one column per number of shots; a method without shots has its figure in the column 0.
fn shots_table(metrics: &Metrics, wanted: Option<&str>) -> Table {
    let lines = chosen(metrics, wanted, |set| set == AVERAGE);
    let mut shots: Vec<u32> = lines.iter().map(|l| l.row.shots.unwrap_or(0)).collect();
    shots.sort_unstable();
    shots.dedup();
    let titles: Vec<(String, String)> = shots
        .iter()
        .map(|n| {
            let title = match n {
                1 => "1 shot".to_string(),
                n => format!("{n} shots"),
            };
            (title, format!("shots_{n}"))
        })
        .collect();
    let mut columns = vec![
        ("method", "method"),
        ("detector", "detector"),
        ("selection", "selection"),
        ("metric", "metric"),
    ];
    columns.extend(
        titles
            .iter()
            .map(|(title, key)| (title.as_str(), key.as_str())),
    );
    let mut table = Table::new(&columns);
    let mut groups: Vec<&SummaryRow> = Vec::new();
    for line in &lines {
        let known = groups.iter().any(|g| {
            (&g.method, &g.detector, &g.selection, &g.scaling)
                == (
                    &line.row.method,
                    &line.row.detector,
                    &line.row.selection,
                    &line.row.scaling,
                )
        });
        if !known {
            groups.push(line.row);
        }
    }
    type Figure = fn(&Shown<'_>) -> Cell;
    let figures: [(&str, Figure); 3] = [
        ("AUROC", |s| Cell::Rate(s.row.auroc, s.spreads.0)),
        ("FPR95", |s| Cell::Rate(s.row.fpr95, s.spreads.1)),
        ("ID top-1", |s| {
            Cell::Rate(s.row.top1, deviation(s.row.top1_std))
        }),
    ];
    for group in groups {
        for (metric, figure) in figures {
            let mut cells = vec![
                Cell::text(&group.method),
                Cell::text(&group.detector),
                Cell::text(rule(&group.selection, group.scaling.as_deref())),
                Cell::text(metric),
            ];
            for count in &shots {
                let own = lines.iter().find(|line| {
                    line.row.shots.unwrap_or(0) == *count
                        && (
                            &line.row.method,
                            &line.row.detector,
                            &line.row.selection,
                            &line.row.scaling,
                        ) == (
                            &group.method,
                            &group.detector,
                            &group.selection,
                            &group.scaling,
                        )
                });
                cells.push(own.map_or(Cell::Blank, figure));
            }
            table.rows.push(cells);
        }
    }
    table
}

/// The short table of a run with what it is about, published figures beside those of the run, and its warnings.
pub fn console(metrics: &Metrics, published: &[PublishedSection]) -> String {
    let sets = ood_sets(&metrics.ood);
    let over = match sets.as_slice() {
        [one] => format!("OOD set {one}"),
        several => format!("averages over {} OOD sets", several.len()),
    };
    let detector = metrics
        .summary
        .first()
        .map_or("", |row| row.detector.as_str());
    let seeds = metrics.summary.iter().any(|row| row.seeds > 1);
    let single = metrics.summary.iter().any(|row| row.seeds == 1);
    let spread = match (seeds, single) {
        (true, true) => {
            "one standard deviation over seeds, or the 95% interval of a single prompt set"
        }
        (true, false) => "one standard deviation over seeds",
        (false, _) => "95% intervals",
    };
    let mut text = format!(
        "detector {detector}, {over}, in percent (ID positive, FPR at the recall nearest to 95%; {spread}):\n\n{}",
        short_table(metrics).to_text()
    );
    text += "\nbest fixed detector: the largest AUROC of those with nothing chosen; which one it is was seen on the tested images\n";
    let streams = transductive_table(metrics);
    if !streams.rows.is_empty() {
        text += &format!("\n{}\n{TRANSDUCTIVE_NOTE}\n", streams.to_text());
    }
    text += &beside_published(metrics, published);
    for warning in warnings(metrics) {
        text += &format!("\nwarning: {warning}\n");
    }
    text
}

/// The published figures of which the run has a row, and how many others there are; nothing if the recipe names none.
fn beside_published(metrics: &Metrics, published: &[PublishedSection]) -> String {
    if published.is_empty() {
        return String::new();
    }
    let table = measured_beside(published_table(metrics, published));
    let others = published.len() - table.rows.len();
    let mut text = match table.rows.is_empty() {
        true => String::new(),
        false => format!(
            "\npublished beside measured, in percent:\n\n{}",
            table.to_text()
        ),
    };
    let sources = "`clipood report RUN --published` prints all with their sources";
    text += &match (table.rows.len(), others) {
        (0, _) => format!("\n{others} published figures, none of a row of this run; {sources}\n"),
        (_, 0) => format!("\n{sources}\n"),
        _ => format!("\n{others} more published figures have no row in this run; {sources}\n"),
    };
    text
}

/// One row per method, number of shots and detector whose scores depend on the other test images, averaged over the OOD sets, with
/// nothing chosen.
fn transductive_table(metrics: &Metrics) -> Table {
    let mut table = Table::new(&[
        ("method", "method"),
        ("shots", "shots"),
        ("transductive detector", "detector"),
        ("AUROC", "auroc"),
        ("FPR95", "fpr95"),
    ]);
    let rows = metrics.summary.iter().filter(|row| {
        row.ood_dataset == AVERAGE
            && row.selection == "fixed"
            && is_transductive(&row.selection, row.scaling.as_deref())
    });
    for row in rows {
        let (auroc, fpr95) = spreads(metrics, row);
        table.rows.push(vec![
            Cell::text(&row.method),
            shots_cell(row.shots),
            Cell::text(format!("{}{TRANSDUCTIVE_MARK}", row.detector)),
            Cell::Rate(row.auroc, auroc),
            Cell::Rate(row.fpr95, fpr95),
        ]);
    }
    table
}

/// What a table that lists selections needs below it.
pub fn notes(table: &Table) -> Vec<&'static str> {
    let has = |marked: &dyn Fn(&str) -> bool| {
        let mut cells = table.rows.iter().flatten();
        cells.any(|cell| matches!(cell, Cell::Text(text) if marked(text)))
    };
    let notes: [(bool, &str); 2] = [
        (has(&is_oracle), ORACLE_NOTE),
        (
            has(&|text| text.ends_with(TRANSDUCTIVE_MARK)),
            TRANSDUCTIVE_NOTE,
        ),
    ];
    notes
        .into_iter()
        .filter(|(shown, _)| *shown)
        .map(|(_, note)| note)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{AccuracyRow, StreamRow};

    fn metrics() -> Metrics {
        let row = |detector: &str, selection: &str, ood: &str, auroc: f64| OodRow {
            prompt: "zero-shot".into(),
            method: "zero-shot".into(),
            detector: detector.into(),
            selection: selection.into(),
            ood_dataset: ood.into(),
            n_id: 10,
            auroc,
            auroc_lo: Some(auroc - 0.125),
            auroc_hi: Some(auroc + 0.125),
            score_resolution: 1.0,
            ..OodRow::default()
        };
        let ood = vec![
            row("mcm", "fixed", "a & b", 0.75),
            row("mcm", "fixed", AVERAGE, 0.75),
            row("msp", "fixed", "a & b", 0.875),
            row("msp", "fixed", AVERAGE, 0.875),
            row("msp", "oracle", "a & b", 0.625),
        ];
        let summary = ood.iter().map(|r| SummaryRow {
            method: r.method.clone(),
            detector: r.detector.clone(),
            selection: r.selection.clone(),
            ood_dataset: r.ood_dataset.clone(),
            auroc: r.auroc,
            top1: 0.625,
            seeds: 1,
            ..SummaryRow::default()
        });
        Metrics {
            summary: summary.collect(),
            accuracy: vec![AccuracyRow {
                prompt: "zero-shot".into(),
                top1: 0.625,
                ..AccuracyRow::default()
            }],
            ood,
            ..Metrics::default()
        }
    }

    fn view(detector: Option<&str>, by: By) -> String {
        let view = View {
            detector: detector.map(str::to_string),
            by,
        };
        report_table(&metrics(), &view).unwrap().to_text()
    }

    #[test]
    fn the_default_is_one_row_per_method() {
        let text = console(&metrics(), &[]);
        let row = text
            .lines()
            .find(|line| line.starts_with("zero-shot"))
            .unwrap();
        for word in ["62.50", "75.00 (62.50-87.50)", "msp", "87.50"] {
            assert!(row.contains(word), "no {word} in: {row}");
        }
        assert_eq!(text.matches("\nzero-shot").count(), 1, "{text}");
        assert!(
            !text.contains("warning") && !text.contains("oracle"),
            "{text}"
        );
    }

    #[test]
    fn published_figures_stand_below_the_short_table() {
        let figure = |detector: &str| PublishedSection {
            method: Some(clipood_core::Method::ZeroShot),
            other: None,
            shots: None,
            detector: detector.into(),
            ood: AVERAGE.into(),
            auroc: Some(70.0),
            fpr95: None,
            fpr95_openood: None,
            transductive: false,
            source: "a paper".into(),
        };
        let text = console(&metrics(), &[figure("mcm"), figure("knn")]);
        let line = text.lines().find(|line| line.contains("70.00"));
        let line = line.unwrap();
        assert!(line.contains("75.00") && line.contains("+5.00"), "{text}");
        assert!(text.contains("\n1 more published figures have"), "{text}");
        assert!(!text.contains("a paper") && !text.contains("knn"), "{text}");
        let text = console(&metrics(), &[figure("knn")]);
        assert!(text.contains("\n1 published figures, none"), "{text}");
        assert!(!console(&metrics(), &[]).contains("published"));
    }

    #[test]
    fn rows_that_saw_other_images_stand_apart_with_their_deviation() {
        let mut metrics = metrics();
        let adapted = OodRow {
            detector: "oodd".into(),
            scaling: Some("transductive".into()),
            auroc: 0.9375,
            auroc_lo: None,
            auroc_hi: None,
            ..metrics.ood[1].clone()
        };
        metrics.summary.push(SummaryRow {
            detector: "oodd".into(),
            scaling: adapted.scaling.clone(),
            auroc: adapted.auroc,
            ..metrics.summary[1].clone()
        });
        metrics.ood.push(adapted);
        for (order_seed, auroc) in [(0, 0.9375 - 0.0625), (1, 0.9375), (2, 0.9375 + 0.0625)] {
            metrics.streams.push(StreamRow {
                prompt: "zero-shot".into(),
                detector: "oodd".into(),
                selection: "fixed".into(),
                ood_dataset: AVERAGE.into(),
                order_seed,
                auroc,
                ..StreamRow::default()
            });
        }
        let text = console(&metrics, &[]);
        let line = text.lines().find(|line| line.contains("oodd†"));
        assert!(
            line.is_some_and(|line| line.contains("93.75 ± 6.25")),
            "{text}"
        );
        assert!(text.contains(TRANSDUCTIVE_NOTE), "{text}");
        // Never the best of the detectors that judge an image by itself.
        assert!(text.contains("msp"), "{text}");
        assert_eq!(text.matches("oodd").count(), 1, "{text}");
    }

    #[test]
    fn more_is_shown_on_request() {
        let lines = |text: &str, words: &[&str]| {
            text.lines()
                .filter(|l| words.iter().all(|w| l.contains(w)))
                .count()
        };
        assert_eq!(
            lines(
                &view(Some("all"), By::Dataset),
                &["msp", "oracle*", "a & b", "62.50"]
            ),
            1
        );
        assert_eq!(lines(&view(Some("msp"), By::Method), &["zero-shot"]), 1);
        assert_eq!(lines(&view(None, By::Dataset), &["zero-shot", "mcm"]), 2);
        assert_eq!(
            lines(&view(None, By::Seed), &["zero-shot", "75.00 (62.50-87.50)"]),
            1
        );
        assert_eq!(lines(&view(Some("all"), By::Shots), &["AUROC"]), 2);
        let table = report_table(
            &metrics(),
            &View {
                detector: Some("all".into()),
                by: By::Dataset,
            },
        );
        assert_eq!(notes(&table.unwrap()), [ORACLE_NOTE]);
        let wrong = View {
            detector: Some("mmc".into()),
            by: By::Method,
        };
        assert_eq!(report_table(&metrics(), &wrong).unwrap_err().exit_code(), 2);
    }
}

//! Tables of a run by method, OOD set, seed or number of shots.

use super::console::{deviation, short_table, shots_cell};
use super::headline::{headlines, known_detector, rule, spreads};
use super::table::{Cell, Spread, Table};
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::console::notes;
    use crate::report::console::tests::metrics;
    use crate::report::headline::ORACLE_NOTE;

    fn view(detector: Option<&str>, by: By) -> String {
        let view = View {
            detector: detector.map(str::to_string),
            by,
        };
        report_table(&metrics(), &view).unwrap().to_text()
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

//! Figures from papers that a recipe names. They determine no result, so they are in no fingerprint and not in `run.json`; a file
//! beside it keeps them for the workers of the run and for later reports.

use bytes::Bytes;
use clipood_core::PublishedSection;
use clipood_store::{Store, seal_json};
use serde::{Deserialize, Serialize};

use super::headline::{TRANSDUCTIVE_MARK, is_transductive, spreads};
use super::table::{Cell, Spread, Table};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::metrics::Metrics;
use crate::tables::SummaryRow;

const PATH: &str = "_run/published.json";

/// The file: a JSON object with a seal.
#[derive(Serialize, Deserialize)]
struct Kept {
    published: Vec<PublishedSection>,
}

/// Writes the published figures of the recipe into the run directory, if it names any.
///
/// # Errors
/// A run directory that cannot be written.
pub fn keep_published(job: &Job) -> Result<()> {
    match to_keep(job)? {
        Some(json) => Ok(job.places.run.store().put(PATH, json)?),
        None => Ok(()),
    }
}

/// The contents of the file, if the recipe names figures that differ from those that an earlier call has kept.
///
/// # Errors
/// A run directory that cannot be read.
pub fn to_keep(job: &Job) -> Result<Option<Bytes>> {
    let own = &job.experiment.recipe.published;
    if own.is_empty() {
        return Ok(None);
    }
    let kept = Kept {
        published: own.clone(),
    };
    let json = serde_json::to_vec_pretty(&kept)
        .map_err(|e| PipelineError::Inconsistent(format!("{PATH}: {e}")))?;
    let json = seal_json(json);
    let kept = job.places.run.store().get(PATH)?;
    Ok((kept.as_deref() != Some(json.as_slice())).then(|| Bytes::from(json)))
}

/// The published figures of the recipe, or those that an earlier call has kept.
///
/// # Errors
/// A file that cannot be read.
pub fn published(job: &Job) -> Result<Vec<PublishedSection>> {
    let own = &job.experiment.recipe.published;
    if !own.is_empty() {
        return Ok(own.clone());
    }
    kept_published(job.places.run.store())
}

/// The published figures that a run directory keeps.
///
/// # Errors
/// A file that cannot be read.
pub fn kept_published(run: &Store) -> Result<Vec<PublishedSection>> {
    match run.get(PATH)? {
        None => Ok(Vec::new()),
        Some(bytes) => match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) => Ok(kept.published),
            Err(e) => {
                let file = run.display(PATH);
                Err(PipelineError::Inconsistent(format!(
                    "{file}: {e}; `clipood run` with the recipe writes it again"
                )))
            }
        },
    }
}

/// What a table of published figures needs below it.
pub const PUBLISHED_NOTE: &str = "Published figures are those that the recipe names, with their sources; where a source says `not verified`, nobody has compared \
    the figure with the paper. FPR95 is compared in the convention of its row: `fpr95` (ID positive) or `fpr95_openood` (OOD positive). A blank means that the \
    source gives no such figure, or that the run has no such row.";

/// One row per published figure, with the measured ones where the run has them.
pub fn published_table(metrics: &Metrics, published: &[PublishedSection]) -> Table {
    let mut table = Table::new(&[
        ("method", "method"),
        ("shots", "shots"),
        ("detector", "detector"),
        ("OOD set", "ood_dataset"),
        ("AUROC published", "auroc_published"),
        ("measured", "auroc"),
        ("difference", "auroc_diff"),
        ("FPR95 as", "fpr95_convention"),
        ("FPR95 published", "fpr95_published"),
        ("measured", "fpr95"),
        ("difference", "fpr95_diff"),
        ("source", "source"),
    ]);
    table.rows = published.iter().map(|one| row(metrics, one)).collect();
    table
}

/// The rows of a table of published figures that have a measured one, without their sources, for the console.
pub fn measured_beside(mut table: Table) -> Table {
    let columns = table.columns.iter().enumerate();
    let measured: Vec<usize> = columns
        .filter(|(_, column)| ["auroc", "fpr95"].contains(&column.key.as_str()))
        .map(|(at, _)| at)
        .collect();
    table
        .rows
        .retain(|row| measured.iter().any(|at| row[*at] != Cell::Blank));
    table.columns.pop();
    for row in &mut table.rows {
        row.pop();
    }
    table
}

fn row(metrics: &Metrics, one: &PublishedSection) -> Vec<Cell> {
    let own = measured(metrics, one);
    let (auroc_spread, fpr95_spread) =
        own.map_or((Spread::None, Spread::None), |row| spreads(metrics, row));
    let mark = match one.transductive {
        true => TRANSDUCTIVE_MARK,
        false => "",
    };
    let (convention, fpr95, own_fpr95) = match one.fpr95_openood {
        Some(fpr95) => {
            let spread = |row: &SummaryRow| {
                row.fpr95_openood_std
                    .map_or(Spread::None, Spread::Deviation)
            };
            let own = own.map(|row| (row.fpr95_openood, spread(row)));
            ("fpr95_openood", Some(fpr95), own)
        }
        None => {
            let own = own.map(|row| (row.fpr95, fpr95_spread));
            let convention = one.fpr95.map_or("", |_| "fpr95");
            (convention, one.fpr95, own)
        }
    };
    let mut cells = vec![
        Cell::text(one.name()),
        Cell::Count(one.shots.unwrap_or(0) as u64),
        Cell::text(format!("{}{mark}", one.detector)),
        Cell::text(&one.ood),
    ];
    cells.extend(pair(one.auroc, own.map(|row| (row.auroc, auroc_spread))));
    cells.push(Cell::text(convention));
    cells.extend(pair(fpr95, own_fpr95));
    cells.push(Cell::text(&one.source));
    cells
}

/// The row of the summary that a published figure is about.
fn measured<'a>(metrics: &'a Metrics, one: &PublishedSection) -> Option<&'a SummaryRow> {
    let method = one.method?;
    metrics.summary.iter().find(|row| {
        row.method == method.name()
            && row.shots == one.shots.map(|shots| shots as u32)
            && row.detector == one.detector
            && row.ood_dataset == one.ood
            && row.selection == "fixed"
            && is_transductive(&row.selection, row.scaling.as_deref()) == one.transductive
    })
}

/// A figure in percent, the measured one, and their difference; nothing measured beside a blank.
fn pair(published: Option<f64>, measured: Option<(f64, Spread)>) -> [Cell; 3] {
    let Some(published) = published.map(|percent| percent / 100.0) else {
        return [Cell::Blank, Cell::Blank, Cell::Blank];
    };
    let shown = Cell::Rate(published, Spread::None);
    match measured {
        None => [shown, Cell::Blank, Cell::Blank],
        Some((value, spread)) => [
            shown,
            Cell::Rate(value, spread),
            Cell::Difference(value - published, Spread::None),
        ],
    }
}

#[cfg(test)]
mod tests {
    use clipood_core::Method;

    use super::*;
    use crate::metrics::AVERAGE;

    fn figure(method: Option<Method>, detector: &str) -> PublishedSection {
        PublishedSection {
            method,
            other: None,
            shots: None,
            detector: detector.into(),
            ood: AVERAGE.into(),
            auroc: Some(90.0),
            fpr95: None,
            fpr95_openood: None,
            transductive: false,
            source: "a paper".into(),
        }
    }

    fn metrics() -> Metrics {
        let row = |detector: &str, scaling: Option<&str>| SummaryRow {
            method: "zero-shot".into(),
            detector: detector.into(),
            ood_dataset: AVERAGE.into(),
            selection: "fixed".into(),
            scaling: scaling.map(str::to_string),
            auroc: 0.925,
            fpr95: 0.25,
            fpr95_openood: 0.5,
            ..SummaryRow::default()
        };
        Metrics {
            summary: vec![row("mcm", None), row("oodd", Some("transductive"))],
            ..Metrics::default()
        }
    }

    fn texts(table: &Table) -> Vec<Vec<String>> {
        let rows = table.rows.iter();
        rows.map(|row| row.iter().map(Cell::shown).collect())
            .collect()
    }

    #[test]
    fn a_published_figure_stands_beside_the_measured_one_or_a_blank() {
        let zero_shot = Some(Method::ZeroShot);
        let openood = PublishedSection {
            auroc: None,
            fpr95_openood: Some(60.0),
            ..figure(zero_shot, "mcm")
        };
        let adapted = PublishedSection {
            transductive: true,
            fpr95: Some(20.0),
            ..figure(zero_shot, "oodd")
        };
        let other = PublishedSection {
            other: Some("Another".into()),
            ..figure(None, "")
        };
        let all = [
            figure(zero_shot, "mcm"),
            openood,
            adapted,
            // Not marked, so it is another figure than the transductive one that was measured.
            figure(zero_shot, "oodd"),
            figure(Some(Method::Sct), "mcm"),
            other,
        ];
        let table = published_table(&metrics(), &all);
        let rows = texts(&table);
        let expected = [
            ["90.00", "92.50", "+2.50", "", "", "", ""],
            ["", "", "", "fpr95_openood", "60.00", "50.00", "-10.00"],
            [
                "90.00", "92.50", "+2.50", "fpr95", "20.00", "25.00", "+5.00",
            ],
            ["90.00", "", "", "", "", "", ""],
            ["90.00", "", "", "", "", "", ""],
            ["90.00", "", "", "", "", "", ""],
        ];
        for (row, expected) in rows.iter().zip(expected) {
            assert_eq!(row[4..11], expected, "{row:?}");
        }
        assert_eq!(rows[2][2], "oodd†");
        assert_eq!(rows[5][..3], ["Another", "0", ""]);

        let short = measured_beside(table);
        assert_eq!((short.rows.len(), short.columns.len()), (3, 11));
        assert!(!short.to_text().contains("a paper"));
    }
}

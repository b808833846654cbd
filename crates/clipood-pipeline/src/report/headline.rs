//! What a reader looks at first: for every method and number of shots the row of the headline detector, and the best
//! detector with nothing chosen.

use clipood_core::nearest;
use clipood_ood::metrics::mean_std;

use super::table::{Cell, Spread, percent};
use crate::error::{PipelineError, Result};
use crate::metrics::{AVERAGE, DUAL_PATTERN, Metrics};
use crate::tables::{OodRow, PairedRow, SummaryRow};

/// Marks every selection that has used the tested images.
pub const ORACLE_MARK: &str = "*";

/// Explains [`ORACLE_MARK`].
pub const ORACLE_NOTE: &str = "* chosen on the tested images themselves to maximise AUROC - FPR95: an upper bound of that difference to read beside the \
    other rows, not a result.";

/// Marks every score that depends on the other test images.
pub const TRANSDUCTIVE_MARK: &str = "†";

/// Explains [`TRANSDUCTIVE_MARK`].
pub const TRANSDUCTIVE_NOTE: &str = "† transductive: the score of an image depends on the other test images (with streams: on their order, batch and mixture), so \
    such rows compare with each other, not with the inductive rows beside them; ± is the standard deviation over the orders of a stream.";

/// How the hyperparameters of a line were chosen, with oracles and transductive scores marked: `fixed`, `validation,
/// calibrated`, `oracle*`, `fixed, transductive†`.
pub fn rule(selection: &str, scaling: Option<&str>) -> String {
    let mark = match is_oracle(selection) {
        true => ORACLE_MARK,
        false => "",
    };
    match scaling {
        Some(scaling) if is_transductive(selection, Some(scaling)) => {
            format!("{selection}{mark}, {scaling}{TRANSDUCTIVE_MARK}")
        }
        Some(scaling) => format!("{selection}{mark}, {scaling}"),
        None => format!("{selection}{mark}"),
    }
}

/// Whether the selection has used the tested images.
pub fn is_oracle(selection: &str) -> bool {
    selection.starts_with("oracle")
}

/// Whether a score depends on the other test images.
pub fn is_transductive(selection: &str, scaling: Option<&str>) -> bool {
    selection.starts_with("transductive") || scaling.is_some_and(|s| s.starts_with("transductive"))
}

/// Whether nothing was chosen and every image was scored for itself.
fn is_plain(row: &SummaryRow) -> bool {
    row.selection == "fixed" && !is_transductive(&row.selection, row.scaling.as_deref())
}

/// Detectors of the table, in its order.
pub fn detectors(rows: &[OodRow]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.detector.as_str()) {
            names.push(&row.detector);
        }
    }
    names
}

/// The OOD sets of the table, in its order, without averages.
pub fn ood_sets(rows: &[OodRow]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| !is_average(&row.ood_dataset)) {
        if !names.contains(&row.ood_dataset.as_str()) {
            names.push(&row.ood_dataset);
        }
    }
    names
}

/// Whether a name in the column `ood_dataset` is an average over several sets.
pub fn is_average(set: &str) -> bool {
    set == AVERAGE
        || set
            .strip_prefix(AVERAGE)
            .is_some_and(|rest| rest.starts_with(':'))
}

/// Checks the name of a detector that a user gave.
///
/// # Errors
/// [`PipelineError::Usage`] if no row has it.
pub fn known_detector<'a>(metrics: &'a Metrics, name: &str) -> Result<&'a str> {
    let all = detectors(&metrics.ood);
    if let Some(found) = all.iter().find(|known| **known == name) {
        return Ok(found);
    }
    let hint = nearest(name, all.iter().copied());
    Err(PipelineError::Usage(format!(
        "detector `{name}` is not in the tables{}; found {}",
        hint.map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default(),
        all.join(", ")
    )))
}

/// The averages of one method and number of shots.
#[derive(Debug, Clone, Copy)]
pub struct Headline<'a> {
    /// The row of the headline detector.
    pub row: &'a SummaryRow,
    /// The detector with the largest AUROC of those with nothing chosen.
    pub best: Option<&'a SummaryRow>,
    /// Its row in the table by prompt set, if there is one seed.
    single: Option<&'a OodRow>,
}

impl Headline<'_> {
    /// Deviation over seeds of AUROC and FPR95 or, for one seed, their bootstrap intervals.
    pub fn spreads(&self) -> (Spread, Spread) {
        around(self.row, self.single)
    }
}

/// Deviation over seeds of AUROC and FPR95 or, for one seed, the bootstrap intervals of its row; of a stream, the deviation
/// over its orders of arrival.
pub fn spreads(metrics: &Metrics, row: &SummaryRow) -> (Spread, Spread) {
    let single = single_row(metrics, row);
    match single {
        Some(own) if row.auroc_std.is_none() && own.auroc_lo.is_none() => over_orders(metrics, own),
        _ => around(row, single),
    }
}

/// Deviation of a row over the orders of its streams, if it has several.
fn over_orders(metrics: &Metrics, row: &OodRow) -> (Spread, Spread) {
    let own = metrics.streams.iter().filter(|stream| {
        (
            &stream.prompt,
            &stream.detector,
            &stream.selection,
            &stream.ood_dataset,
        ) == (&row.prompt, &row.detector, &row.selection, &row.ood_dataset)
    });
    let (auroc, fpr95): (Vec<f64>, Vec<f64>) =
        own.map(|stream| (stream.auroc, stream.fpr95)).unzip();
    let deviation = |values: &[f64]| {
        let std = mean_std(values).and_then(|found| found.std);
        std.map_or(Spread::None, Spread::Deviation)
    };
    (deviation(&auroc), deviation(&fpr95))
}

fn around(row: &SummaryRow, single: Option<&OodRow>) -> (Spread, Spread) {
    match (row.auroc_std, row.fpr95_std, single) {
        (Some(auroc), Some(fpr95), _) => (Spread::Deviation(auroc), Spread::Deviation(fpr95)),
        (.., Some(own)) => (
            Spread::interval(own.auroc_lo, own.auroc_hi),
            Spread::interval(own.fpr95_lo, own.fpr95_hi),
        ),
        _ => (Spread::None, Spread::None),
    }
}

/// The only row of the table by prompt set that a summary row stands for; `None` for several seeds.
fn single_row<'a>(metrics: &'a Metrics, row: &SummaryRow) -> Option<&'a OodRow> {
    let mut own = metrics.ood.iter().filter(|r| {
        r.method == row.method
            && r.shots == row.shots
            && r.ood_dataset == row.ood_dataset
            && r.detector == row.detector
            && r.selection == row.selection
            && r.scaling == row.scaling
    });
    let first = own.next();
    first.filter(|_| own.next().is_none())
}

/// The headline detector: `wanted`, or the first of the recipe.
fn headline_detector<'a>(metrics: &'a Metrics, wanted: Option<&'a str>) -> Option<&'a str> {
    wanted.or_else(|| metrics.summary.first().map(|row| row.detector.as_str()))
}

/// One entry per method and number of shots. Its detector is `wanted`; without `wanted` the first of the recipe, for a
/// dual-pattern method its fused score with calibrated scaling, and for a method that has neither its own first.
pub fn headlines<'a>(metrics: &'a Metrics, wanted: Option<&'a str>) -> Vec<Headline<'a>> {
    let averages: Vec<&SummaryRow> = metrics
        .summary
        .iter()
        .filter(|row| row.ood_dataset == AVERAGE)
        .collect();
    let mut groups: Vec<(&str, Option<u32>)> = Vec::new();
    for row in &averages {
        let group = (row.method.as_str(), row.shots);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let first = headline_detector(metrics, wanted);
    let entries = groups.into_iter().filter_map(|(method, shots)| {
        let own = averages.iter().copied();
        let own: Vec<&SummaryRow> = own
            .filter(|row| row.method == method && row.shots == shots)
            .collect();
        let of = |name: &str| {
            own.iter()
                .find(|row| row.detector == name && row.selection == "fixed")
        };
        let fused = own.iter().find(|row| {
            row.detector == DUAL_PATTERN
                && row.selection == "fixed"
                && row.scaling.as_deref() == Some("calibrated")
        });
        let named =
            first.and_then(|name| of(name).or_else(|| own.iter().find(|row| row.detector == name)));
        let row = match wanted {
            Some(_) => named,
            None => fused.or(named).or(own.first()),
        };
        let plain = own.iter().copied().filter(|row| is_plain(row));
        let best = plain.max_by(|a, b| {
            a.auroc
                .total_cmp(&b.auroc)
                .then(b.fpr95.total_cmp(&a.fpr95))
        });
        let row: &SummaryRow = row?;
        Some(Headline {
            row,
            best,
            single: single_row(metrics, row),
        })
    });
    entries.collect()
}

/// `coop with 16 shots`; `zero-shot`.
pub fn name_of(method: &str, shots: Option<u32>) -> String {
    match shots {
        Some(1) => format!("{method} with 1 shot"),
        Some(shots) => format!("{method} with {shots} shots"),
        None => method.to_string(),
    }
}

/// What a run shows, in one or two sentences: the best method under the headline detector, and whether its difference from
/// the baseline lies beyond its intervals. `None` without rows.
pub fn verdict(metrics: &Metrics) -> Option<String> {
    let all = headlines(metrics, None);
    let best = all
        .iter()
        .max_by(|a, b| a.row.auroc.total_cmp(&b.row.auroc))?;
    let (auroc, fpr95) = best.spreads();
    let shown = |value: f64, spread: Spread| Cell::Rate(value, spread).shown();
    let sets = ood_sets(&metrics.ood).len();
    let over = match sets {
        1 => "on the OOD set".to_string(),
        sets => format!("on average over {sets} OOD sets"),
    };
    let mut text = format!(
        "Of {} {}, {} separates ID from OOD best {over} under {}: AUROC {}, FPR95 {} (percent).",
        all.len(),
        if all.len() == 1 {
            "method"
        } else {
            "combinations of method and shots"
        },
        name_of(&best.row.method, best.row.shots),
        best.row.detector,
        shown(best.row.auroc, auroc),
        shown(best.row.fpr95, fpr95)
    );
    if all.len() == 1 {
        text = format!(
            "{} has an AUROC of {} and an FPR95 of {} (percent) {over} under {}.",
            name_of(&best.row.method, best.row.shots),
            shown(best.row.auroc, auroc),
            shown(best.row.fpr95, fpr95),
            best.row.detector
        );
    }
    if let Some(sentence) = against_baseline(metrics, best.row) {
        text += " ";
        text += &sentence;
    }
    if let Some(other) = all
        .iter()
        .filter_map(|one| one.best)
        .max_by(|a, b| a.auroc.total_cmp(&b.auroc))
        && other.auroc > best.row.auroc
        && (&other.method, other.shots, &other.detector)
            != (&best.row.method, best.row.shots, &best.row.detector)
    {
        text += &format!(
            " Of all detectors with nothing chosen, {} of {} has the largest AUROC, {}.",
            other.detector,
            name_of(&other.method, other.shots),
            percent(other.auroc)
        );
    }
    if all.len() > 1 && overlap(&all) {
        text += " The intervals of all of them overlap.";
    }
    Some(text)
}

/// Whether one figure lies in the spreads of all entries.
fn overlap(all: &[Headline<'_>]) -> bool {
    let ends = all.iter().map(|one| match one.spreads().0 {
        Spread::None => None,
        Spread::Deviation(std) => Some((one.row.auroc - std, one.row.auroc + std)),
        Spread::Interval(lo, hi) => Some((lo, hi)),
    });
    let Some(ends) = ends.collect::<Option<Vec<_>>>() else {
        return false;
    };
    let lowest = ends.iter().map(|e| e.1).fold(f64::INFINITY, f64::min);
    ends.iter().all(|(lo, _)| *lo <= lowest)
}

/// How the prompt sets of a method compare with the baseline, from the table of paired differences.
fn against_baseline(metrics: &Metrics, best: &SummaryRow) -> Option<String> {
    let own: Vec<&PairedRow> = metrics
        .paired
        .iter()
        .filter(|row| row.method == best.method && row.shots == best.shots)
        .collect();
    let first = own.first()?;
    let averages: Vec<&&PairedRow> = own
        .iter()
        .filter(|row| row.ood_dataset == AVERAGE)
        .collect();
    let (rows, what) = match averages.is_empty() {
        false => (averages, "seeds"),
        // Tables of earlier versions have no averages.
        true => (own.iter().collect(), "comparisons with an OOD set"),
    };
    let beyond = rows.iter().filter(|row| row.auroc_diff_lo > 0.0).count();
    let below = rows.iter().filter(|row| row.auroc_diff_hi < 0.0).count();
    let mean = rows.iter().map(|row| row.auroc_diff).sum::<f64>() / rows.len() as f64;
    let difference = Cell::Difference(
        mean,
        match rows.as_slice() {
            [one] => Spread::Interval(one.auroc_diff_lo, one.auroc_diff_hi),
            _ => Spread::None,
        },
    );
    let certainty = match (rows.len(), beyond, below) {
        (1, 1, _) | (1, _, 1) => "and the 95% interval excludes zero".to_string(),
        (1, ..) => "and the 95% interval includes zero".to_string(),
        (all, beyond, below) => format!(
            "the mean over {all} {what}; the 95% interval lies above zero for {beyond} and below for {below} of them"
        ),
    };
    Some(format!(
        "Its AUROC under {} differs from {} by {} points, {certainty}.",
        first.detector,
        first.baseline,
        difference.shown()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(method: &str, detector: &str, selection: &str, auroc: f64) -> SummaryRow {
        SummaryRow {
            method: method.into(),
            detector: detector.into(),
            ood_dataset: AVERAGE.into(),
            selection: selection.into(),
            auroc,
            seeds: 1,
            ..SummaryRow::default()
        }
    }

    #[test]
    fn each_method_has_its_headline_and_the_best_with_nothing_chosen() {
        let mut fused = summary("dpcoop", DUAL_PATTERN, "fixed", 0.9);
        fused.scaling = Some("calibrated".into());
        let mut seen = fused.clone();
        (seen.scaling, seen.auroc) = (Some("transductive".into()), 0.99);
        let metrics = Metrics {
            summary: vec![
                summary("zero-shot", "mcm", "fixed", 0.7),
                summary("zero-shot", "energy", "fixed", 0.8),
                summary("zero-shot", "energy", "oracle", 0.95),
                summary("zero-shot", "oodd", "transductive", 0.97),
                summary("dpcoop", "mcm", "fixed", 0.75),
                seen,
                fused,
                summary("linear-probe", "msp", "fixed", 0.6),
            ],
            ..Metrics::default()
        };
        let found: Vec<(&str, &str, &str)> = headlines(&metrics, None)
            .iter()
            .map(|h| {
                let best = h.best.unwrap();
                (
                    h.row.method.as_str(),
                    h.row.detector.as_str(),
                    best.detector.as_str(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("zero-shot", "mcm", "energy"),
                ("dpcoop", DUAL_PATTERN, DUAL_PATTERN),
                ("linear-probe", "msp", "msp")
            ]
        );
        let dual = headlines(&metrics, None)[1].best.unwrap();
        assert_eq!(
            dual.auroc, 0.9,
            "a transductive score is not the best fixed one"
        );
        // A detector that was asked for is not replaced by another.
        let energy = headlines(&metrics, Some("energy"));
        assert_eq!(energy.len(), 1);
    }

    #[test]
    fn the_verdict_says_whether_the_difference_is_beyond_its_interval() {
        let mut metrics = Metrics {
            summary: vec![
                summary("zero-shot", "mcm", "fixed", 0.7),
                summary("coop", "mcm", "fixed", 0.8),
            ],
            paired: vec![PairedRow {
                method: "coop".into(),
                baseline: "zero-shot".into(),
                detector: "mcm".into(),
                ood_dataset: AVERAGE.into(),
                auroc_diff: 0.1,
                auroc_diff_lo: 0.02,
                auroc_diff_hi: 0.15,
                ..PairedRow::default()
            }],
            ..Metrics::default()
        };
        let text = verdict(&metrics).unwrap();
        assert!(
            text.contains("coop separates")
                && text.contains("+10.00 (+2.00 to +15.00) points, and the 95% interval excludes"),
            "{text}"
        );
        metrics.paired[0].auroc_diff_lo = -0.02;
        assert!(
            verdict(&metrics)
                .unwrap()
                .contains("interval includes zero")
        );
        assert_eq!(verdict(&Metrics::default()), None);
    }

    #[test]
    fn an_unknown_detector_is_answered_with_the_nearest() {
        let metrics = Metrics {
            ood: vec![OodRow {
                detector: "gl_mcm".into(),
                ..OodRow::default()
            }],
            ..Metrics::default()
        };
        let error = known_detector(&metrics, "glmcm").unwrap_err().to_string();
        assert!(error.contains("did you mean `gl_mcm`?"), "{error}");
    }
}

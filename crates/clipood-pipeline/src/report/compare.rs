//! Two runs on one page: what differs in their configuration, and the paired differences of their scores on the images that
//! both have scored. Only the run directories are read; neither model nor images are needed.

use std::collections::{BTreeMap, HashMap};

use clipood_core::nearest;
use clipood_ood::metrics::{BootstrapOptions, PairedDifference, Resamples, ScorePair, ood_metrics};
use clipood_store::{CommitRecord, Difference, Ledger, Run, Store, Unit, differences};

use super::figures::Figure;
use super::figures::intervals::{Entry, draw_differences};
use super::headline::detectors;
use super::page::{Block, Page, Section};
use super::table::{Cell, Spread, Table};
use crate::error::{PipelineError, Result};
use crate::metrics::{AVERAGE, Metrics, read_metrics};
use crate::stages::score::SCORE;
use crate::tables::read_scores;

/// Most prompt sets that are compared.
const PROMPTS: usize = 60;

/// Two runs compared.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The outcome in a sentence.
    pub verdict: String,
    /// What differs in the configuration: field, first run, second run.
    pub configuration: Table,
    /// The differences, the second run less the first: one row per prompt set and OOD set, and their averages.
    pub differences: Table,
    /// The same as a page.
    pub page: String,
}

/// A finished run.
struct Finished {
    location: String,
    run: Run,
    ledger: Ledger,
    metrics: Metrics,
    /// The records of the score tables by prompt set and dataset.
    parts: BTreeMap<String, BTreeMap<String, Vec<CommitRecord>>>,
}

/// One compared pair of score lists.
struct Compared {
    prompt: String,
    ood: String,
    images: (usize, usize),
    auroc: (f64, f64),
    fpr95: (f64, f64),
    difference: PairedDifference,
}

/// Scores by image key, with whether the image is in-distribution.
type Keyed = HashMap<String, f32>;

impl Finished {
    fn open(location: &str) -> Result<Self> {
        let store = Store::open(location)?;
        let run = Run::open(store.clone(), "reader")?;
        let ledger = Run::ledger_in(store.clone(), "reader");
        let Some(metrics) = read_metrics(&store)? else {
            return Err(PipelineError::Usage(format!(
                "{location} has no metric tables: its run is not finished"
            )));
        };
        let mut parts: BTreeMap<String, BTreeMap<String, Vec<CommitRecord>>> = BTreeMap::new();
        for record in ledger.records(SCORE)? {
            let Some((prompt, dataset)) = record.part.as_deref().and_then(names_in) else {
                continue;
            };
            let own = parts.entry(prompt).or_default().entry(dataset).or_default();
            // A unit that was committed under several fingerprints has one part.
            own.retain(|other| other.part != record.part);
            own.push(record);
        }
        Ok(Self {
            location: location.to_string(),
            run,
            ledger,
            metrics,
            parts,
        })
    }

    /// The scores of a dataset under a prompt set and detector; `None` if the detector is not defined for the prompt set.
    fn scores(&self, prompt: &str, dataset: &str, detector: &str) -> Result<Option<Keyed>> {
        let mut all = Keyed::new();
        let records = self.parts.get(prompt).and_then(|sets| sets.get(dataset));
        for record in records.into_iter().flatten() {
            let path = record.part.as_deref().unwrap_or_default();
            let unit = Unit {
                key: record.unit.clone(),
                fingerprint: record.fingerprint.clone(),
            };
            let bytes = self.ledger.read_part(SCORE, &unit, path)?;
            let scores = read_scores(bytes, path)?;
            let column = scores.detectors.iter().find(|d| d.detector == detector);
            let Some(values) = column.and_then(|d| d.values.as_deref()) else {
                return Ok(None);
            };
            all.extend(
                scores
                    .rows
                    .into_iter()
                    .map(|row| row.image_key)
                    .zip(values.iter().copied()),
            );
        }
        Ok(Some(all))
    }

    /// Its ID dataset and OOD sets.
    fn sets(&self) -> (Option<&str>, Vec<&str>) {
        let id = self
            .metrics
            .accuracy
            .first()
            .map(|row| row.id_dataset.as_str());
        (id, super::headline::ood_sets(&self.metrics.ood))
    }
}

/// Prompt set and dataset in the path of a part of the test scores.
fn names_in(path: &str) -> Option<(String, String)> {
    let rest = path.strip_prefix("scores/prompt=")?;
    let (prompt, rest) = rest.split_once("/dataset=")?;
    let (dataset, _) = rest.split_once('/')?;
    Some((prompt.to_string(), dataset.to_string()))
}

/// Compares the run at `first` with that at `second` under `detector`, by default the first that both have.
///
/// # Errors
/// [`PipelineError::Usage`] for runs that are not finished or have nothing in common; tables that are damaged.
pub fn compare_runs(first: &str, second: &str, detector: Option<&str>) -> Result<Comparison> {
    let (a, b) = (Finished::open(first)?, Finished::open(second)?);
    let detector = common_detector(&a, &b, detector)?;
    let pairs = prompt_pairs(&a, &b)?;
    let mut compared = Vec::new();
    for (one, other) in &pairs {
        compared.extend(compare_prompts(&a, &b, (one, other), &detector)?);
    }
    if compared.is_empty() {
        return Err(PipelineError::Usage(format!(
            "{first} and {second} have no scores of common images under {detector}"
        )));
    }
    let configuration = configuration(&a, &b);
    let table = difference_table(&compared);
    let verdict = verdict(&a, &b, &compared, &detector);
    let page = page(
        &a,
        &b,
        (&verdict, &detector),
        (&configuration, &table),
        &compared,
    )?;
    Ok(Comparison {
        verdict,
        configuration,
        differences: table,
        page,
    })
}

/// The detector to compare under.
fn common_detector(a: &Finished, b: &Finished, wanted: Option<&str>) -> Result<String> {
    let (own, other) = (detectors(&a.metrics.ood), detectors(&b.metrics.ood));
    let common: Vec<&str> = own
        .iter()
        .copied()
        .filter(|name| other.contains(name))
        .collect();
    match wanted {
        Some(name) if common.contains(&name) => Ok(name.to_string()),
        Some(name) => {
            let hint = nearest(name, common.iter().copied());
            let hint = hint
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            Err(PipelineError::Usage(format!(
                "detector `{name}` is not in both runs{hint}; both have {}",
                common.join(", ")
            )))
        }
        None => common
            .first()
            .map(|name| (*name).to_string())
            .ok_or_else(|| {
                PipelineError::Usage(format!(
                    "{} and {} have no detector in common: {} and {}",
                    a.location,
                    b.location,
                    own.join(", "),
                    other.join(", ")
                ))
            }),
    }
}

/// The prompt sets that both runs have or, if there are none, the first of each.
fn prompt_pairs(a: &Finished, b: &Finished) -> Result<Vec<(String, String)>> {
    let names = |run: &Finished| -> Vec<String> {
        run.metrics
            .accuracy
            .iter()
            .map(|row| row.prompt.clone())
            .collect()
    };
    let (own, other) = (names(a), names(b));
    let mut common: Vec<(String, String)> = own
        .iter()
        .filter(|name| other.contains(name))
        .map(|name| (name.clone(), name.clone()))
        .collect();
    common.truncate(PROMPTS);
    if common.is_empty() {
        let missing = || {
            PipelineError::Usage(format!(
                "{} or {} has no prompt set",
                a.location, b.location
            ))
        };
        let pair = (
            own.first().ok_or_else(missing)?,
            other.first().ok_or_else(missing)?,
        );
        common.push((pair.0.clone(), pair.1.clone()));
    }
    Ok(common)
}

/// The scores of the keys that both have, in the order of the keys.
fn aligned(a: &Keyed, b: &Keyed) -> (Vec<f32>, Vec<f32>) {
    let mut keys: Vec<&String> = a.keys().filter(|key| b.contains_key(*key)).collect();
    keys.sort_unstable();
    keys.into_iter()
        .filter_map(|key| Some((*a.get(key)?, *b.get(key)?)))
        .unzip()
}

/// Compares one prompt set of each run on every OOD set that both have, and on their average.
fn compare_prompts(
    a: &Finished,
    b: &Finished,
    (one, other): (&str, &str),
    detector: &str,
) -> Result<Vec<Compared>> {
    let ((Some(id_a), ood_a), (Some(id_b), ood_b)) = (a.sets(), b.sets()) else {
        return Ok(Vec::new());
    };
    let both = |set_a: &str, set_b: &str| -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        let Some(scores_a) = a.scores(one, set_a, detector)? else {
            return Ok(None);
        };
        let Some(scores_b) = b.scores(other, set_b, detector)? else {
            return Ok(None);
        };
        let pair = aligned(&scores_a, &scores_b);
        Ok((!pair.0.is_empty()).then_some(pair))
    };
    let Some(id) = both(id_a, id_b)? else {
        return Ok(Vec::new());
    };
    let options = BootstrapOptions::default();
    let prompt = match one == other {
        true => one.to_string(),
        false => format!("{one} and {other}"),
    };
    let (mut all, mut drawn) = (Vec::new(), Vec::new());
    for set in ood_a.iter().filter(|set| ood_b.contains(set)) {
        let Some(ood) = both(set, set)? else {
            continue;
        };
        let first = ScorePair {
            id: &id.0,
            ood: &ood.0,
        };
        let second = ScorePair {
            id: &id.1,
            ood: &ood.1,
        };
        let resamples = Resamples::draw(&[first, second], &options)?;
        let (x, y) = (
            ood_metrics(first.id, first.ood)?,
            ood_metrics(second.id, second.ood)?,
        );
        all.push(Compared {
            prompt: prompt.clone(),
            ood: (*set).to_string(),
            images: (id.0.len(), ood.0.len()),
            auroc: (x.auroc, y.auroc),
            fpr95: (x.fpr95, y.fpr95),
            difference: resamples.difference(1, 0),
        });
        drawn.push(resamples);
    }
    if let Some(average) = Resamples::average(&drawn.iter().collect::<Vec<_>>()) {
        let n = all.len() as f64;
        let mean = |figure: fn(&Compared) -> f64| all.iter().map(figure).sum::<f64>() / n;
        let row = Compared {
            prompt,
            ood: AVERAGE.to_string(),
            images: (id.0.len(), all.iter().map(|c| c.images.1).sum()),
            auroc: (mean(|c| c.auroc.0), mean(|c| c.auroc.1)),
            fpr95: (mean(|c| c.fpr95.0), mean(|c| c.fpr95.1)),
            difference: average.difference(1, 0),
        };
        all.insert(0, row);
    }
    Ok(all)
}

/// One row per prompt set and OOD set.
fn difference_table(compared: &[Compared]) -> Table {
    let mut table = Table::new(&[
        ("prompt set", "prompt"),
        ("OOD set", "ood_dataset"),
        ("ID images", "n_id"),
        ("OOD images", "n_ood"),
        ("AUROC first", "auroc_first"),
        ("second", "auroc_second"),
        ("difference", "auroc_diff"),
        ("FPR95 first", "fpr95_first"),
        ("second", "fpr95_second"),
        ("difference", "fpr95_diff"),
    ]);
    for c in compared {
        let rate = |value: f64| Cell::Rate(value, Spread::None);
        let (auroc, fpr95) = (c.difference.auroc, c.difference.fpr95);
        table.rows.push(vec![
            Cell::text(&c.prompt),
            Cell::text(&c.ood),
            Cell::Count(c.images.0 as u64),
            Cell::Count(c.images.1 as u64),
            rate(c.auroc.0),
            rate(c.auroc.1),
            Cell::Difference(c.auroc.1 - c.auroc.0, Spread::Interval(auroc.lo, auroc.hi)),
            rate(c.fpr95.0),
            rate(c.fpr95.1),
            Cell::Difference(c.fpr95.1 - c.fpr95.0, Spread::Interval(fpr95.lo, fpr95.hi)),
        ]);
    }
    table
}

/// The fields of the configuration that differ, and the version of the program if it does.
fn configuration(a: &Finished, b: &Finished) -> Table {
    let mut table = Table::new(&[
        ("field", "field"),
        ("first run", "first"),
        ("second run", "second"),
    ]);
    let cell = |value: Option<String>| value.map_or(Cell::Blank, Cell::Text);
    let mut found = differences(a.run.config(), b.run.config());
    found.extend(differences(a.run.versions(), b.run.versions()));
    for Difference {
        field,
        found,
        wanted,
    } in found
    {
        table
            .rows
            .push(vec![Cell::text(field), cell(found), cell(wanted)]);
    }
    table
}

fn verdict(a: &Finished, b: &Finished, compared: &[Compared], detector: &str) -> String {
    let averages: Vec<&Compared> = compared.iter().filter(|c| c.ood == AVERAGE).collect();
    let up = averages
        .iter()
        .filter(|c| c.difference.auroc.lo > 0.0)
        .count();
    let down = averages
        .iter()
        .filter(|c| c.difference.auroc.hi < 0.0)
        .count();
    let same = averages.iter().filter(|c| {
        let interval = c.difference.auroc;
        c.auroc.0 == c.auroc.1 && interval.lo == 0.0 && interval.hi == 0.0
    });
    if same.count() == averages.len() {
        return format!(
            "Under {detector}, {} and {} have equal figures on their common images.",
            a.location, b.location
        );
    }
    format!(
        "Under {detector}, on average over the OOD sets, {} has a larger AUROC than {} beyond the 95% interval for {up} of {} prompt sets, and a smaller one for {down}.",
        b.location,
        a.location,
        averages.len()
    )
}

fn page(
    a: &Finished,
    b: &Finished,
    (verdict, detector): (&str, &str),
    (configuration, differences): (&Table, &Table),
    compared: &[Compared],
) -> Result<String> {
    let mut config = Section::new("configuration", "What differs in the configuration");
    match configuration.rows.is_empty() {
        true => config.blocks.push(Block::Missing("Nothing.".to_string())),
        false => config.table(
            "configuration",
            "Fields with different values",
            configuration,
        ),
    }
    let mut results = Section::new("differences", "Differences on the common images");
    let entries: Vec<Entry> = compared
        .iter()
        .map(|c| Entry {
            name: format!("{} · {}", c.prompt, c.ood),
            value: c.auroc.1 - c.auroc.0,
            spread: Spread::Interval(c.difference.auroc.lo, c.difference.auroc.hi),
            hollow: false,
        })
        .collect();
    let title = "Difference of AUROC, second run less first";
    let caption = format!(
        "Percentage points under {detector}, with the 95% interval of the difference on the same resamples of the images that both runs have scored."
    );
    let figure = draw_differences(title, &entries)
        .map(|svg| Figure::new("run-differences", title, caption, svg));
    results.figure(figure, "No difference is finite.");
    results.table("run-differences", "Second run less first run", differences);
    let page = Page {
        title: "Two runs compared".to_string(),
        subtitle: format!(
            "First: {}. Second: {}. Figures in percent; ID is the positive class.",
            a.location, b.location
        ),
        verdict: verdict.to_string(),
        sections: vec![results, config],
    };
    page.html()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_common_images_are_compared() {
        let keyed = |pairs: &[(&str, f32)]| -> Keyed {
            pairs.iter().map(|(k, v)| ((*k).to_string(), *v)).collect()
        };
        let a = keyed(&[("c", 3.0), ("a", 1.0), ("x", 9.0)]);
        let b = keyed(&[("a", 10.0), ("c", 30.0), ("y", 9.0)]);
        assert_eq!(aligned(&a, &b), (vec![1.0, 3.0], vec![10.0, 30.0]));
    }

    #[test]
    fn paths_of_parts_name_prompt_set_and_dataset() {
        let found = names_in("scores/prompt=coop-1shot-seed1/dataset=demo-id/part-00000.parquet");
        assert_eq!(
            found,
            Some(("coop-1shot-seed1".to_string(), "demo-id".to_string()))
        );
        assert_eq!(
            names_in("validation/prompt=a/dataset=b/part-0.parquet"),
            None
        );
    }
}

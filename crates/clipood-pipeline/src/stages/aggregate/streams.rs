//! The rows of detectors that learn from the images they score: one row per stream, and means over the orders of arrival.
//!
//! Every row is transductive, whatever its selection: `fixed` chose nothing, `validation` a parameter on streams of images
//! that are not tested, `oracle` and `oracle-shared` on the tested streams themselves, by the mean of AUROC - FPR95 over the
//! orders.

use clipood_ood::DetectorSpec;
use clipood_ood::metrics::{OodMetrics, Selection, average, mean_std, ood_metrics, select_best};

use super::{Averages, ood_row_of};
use crate::columns::{Candidates, ColumnPurpose};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::plan::Purpose;
use crate::planned::Planned;
use crate::prompts::trainers::PlannedPrompt;
use crate::stages::stream::{STREAM, streams};
use crate::tables::{OodRow, StreamRow, read_score_values};

/// Scaling of all rows of streams in the metric tables.
pub const TRANSDUCTIVE: &str = "transductive";

/// The metrics of the streams of one prompt set and purpose.
struct Measured {
    /// OOD sets, in the plan's order.
    sets: Vec<String>,
    orders: Vec<u64>,
    /// Names of the columns.
    columns: Vec<String>,
    /// By set, order and column.
    figures: Vec<Vec<Vec<OodMetrics>>>,
}

impl Measured {
    /// Reads and measures the streams; `None` if there are none.
    fn read(
        job: &Job,
        planned: &Planned,
        prompt: &PlannedPrompt,
        purpose: Purpose,
    ) -> Result<Option<Self>> {
        let all = streams(job, planned);
        let own = all
            .iter()
            .filter(|s| s.prompt.key == prompt.key && s.ood.purpose == purpose);
        let mut measured = Self {
            sets: Vec::new(),
            orders: job.experiment.stream_orders(),
            columns: Vec::new(),
            figures: Vec::new(),
        };
        for stream in own {
            let path = stream.path();
            let unit = stream.unit(job)?;
            let bytes = job.places.run.ledger().read_part(STREAM, &unit, &path)?;
            let table = read_score_values(bytes, &path)?;
            let mut figures = Vec::new();
            let mut columns = Vec::new();
            for column in table.detectors {
                let Some(values) = column.values else {
                    continue;
                };
                let (mut id, mut ood) = (Vec::new(), Vec::new());
                for (score, label) in values.into_iter().zip(&table.labels) {
                    match label {
                        Some(_) => id.push(score),
                        None => ood.push(score),
                    }
                }
                figures.push(ood_metrics(&id, &ood)?);
                columns.push(column.detector);
            }
            if measured.sets.last() != Some(&stream.ood.name) {
                measured.sets.push(stream.ood.name.clone());
                measured.figures.push(Vec::new());
            }
            measured.columns = columns;
            if let Some(orders) = measured.figures.last_mut() {
                orders.push(figures);
            }
        }
        Ok((!measured.sets.is_empty()).then_some(measured))
    }

    fn column(&self, name: &str) -> Result<usize> {
        let place = self.columns.iter().position(|column| column == name);
        place.ok_or_else(|| {
            PipelineError::Inconsistent(format!("no stream has the column `score_{name}`"))
        })
    }

    /// Mean over the orders of a column on one set.
    fn over_orders(&self, set: usize, column: usize) -> Option<OodMetrics> {
        let orders = self.figures[set].iter().map(|columns| columns[column]);
        over_orders(&orders.collect::<Vec<_>>())
    }

    /// Mean over the orders and the sets.
    fn over_all(&self, column: usize) -> Option<OodMetrics> {
        let sets = (0..self.sets.len()).filter_map(|set| self.over_orders(set, column));
        average(&sets.collect::<Vec<_>>())
    }

    /// The candidate with the largest mean of AUROC - FPR95, over all sets or on one.
    fn best(&self, candidates: &Candidates, set: Option<usize>) -> Result<usize> {
        let mut figures = Vec::new();
        for (_, name) in &candidates.values {
            let column = self.column(name)?;
            let mean = match set {
                Some(set) => self.over_orders(set, column),
                None => self.over_all(column),
            };
            figures.extend(mean);
        }
        Ok(select_best(&figures)?)
    }
}

/// Mean of the metrics of one pair over its streams: counts are those of the pair.
fn over_orders(figures: &[OodMetrics]) -> Option<OodMetrics> {
    let first = figures.first()?;
    let mean = average(figures)?;
    Some(OodMetrics {
        n_ood: first.n_ood,
        ties: mean.ties / figures.len() as u64,
        ..mean
    })
}

/// One detector under one selection: a column for each set.
struct StreamLine {
    detector: String,
    selection: Selection,
    /// Column and what was chosen, by set.
    chosen: Vec<(usize, Option<String>)>,
}

/// The rows of the streams of one prompt set: means over the orders, and each stream.
///
/// # Errors
/// Streams that are missing or damaged, scores that are NaN.
pub fn stream_rows(
    job: &Job,
    planned: &Planned,
    prompt: &PlannedPrompt,
    blank: &OodRow,
    averages: &Averages,
) -> Result<(Vec<OodRow>, Vec<StreamRow>)> {
    let Some(test) = Measured::read(job, planned, prompt, Purpose::Test)? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let validation = Measured::read(job, planned, prompt, Purpose::Validation)?;
    let mut means = Vec::new();
    let mut single = Vec::new();
    for line in lines(job, &test, validation.as_ref())? {
        let rows = Rows {
            job,
            test: &test,
            line: &line,
            blank,
        };
        for (set, name) in test.sets.iter().enumerate() {
            rows.add(name, &[set], &mut means, &mut single)?;
        }
        for (name, sets) in averages {
            rows.add(name, sets, &mut means, &mut single)?;
        }
    }
    Ok((means, single))
}

fn lines(job: &Job, test: &Measured, validation: Option<&Measured>) -> Result<Vec<StreamLine>> {
    let experiment = &job.experiment;
    let mut all = Vec::new();
    let same =
        |column: usize, label: Option<&String>| vec![(column, label.cloned()); test.sets.len()];
    let listed = experiment.streams.iter();
    for column in listed.filter(|column| column.purpose == ColumnPurpose::Listed) {
        all.push(StreamLine {
            detector: column.name.clone(),
            selection: Selection::Fixed,
            chosen: same(test.column(&column.name)?, None),
        });
    }
    for candidates in &experiment.stream_selections {
        let shared = |place: usize, selection| -> Result<StreamLine> {
            let (label, column) = &candidates.values[place];
            Ok(StreamLine {
                detector: candidates.detector.clone(),
                selection,
                chosen: same(test.column(column)?, Some(label)),
            })
        };
        if let Some(validation) = validation {
            let place = validation.best(candidates, None)?;
            all.push(shared(place, Selection::Validation)?);
        }
        let mut chosen = Vec::new();
        for set in 0..test.sets.len() {
            let (label, column) = &candidates.values[test.best(candidates, Some(set))?];
            chosen.push((test.column(column)?, Some(label.clone())));
        }
        all.push(StreamLine {
            detector: candidates.detector.clone(),
            selection: Selection::Oracle,
            chosen,
        });
        let place = test.best(candidates, None)?;
        all.push(shared(place, Selection::OracleShared)?);
    }
    Ok(all)
}

/// What the rows of a line are made of.
struct Rows<'a> {
    job: &'a Job,
    test: &'a Measured,
    line: &'a StreamLine,
    blank: &'a OodRow,
}

impl Rows<'_> {
    /// Adds the rows of an average over `sets`, or of one set.
    fn add(
        &self,
        name: &str,
        sets: &[usize],
        means: &mut Vec<OodRow>,
        single: &mut Vec<StreamRow>,
    ) -> Result<()> {
        let (test, line) = (self.test, self.line);
        let mut by_order = Vec::new();
        for order in 0..test.orders.len() {
            let figures = sets
                .iter()
                .map(|set| test.figures[*set][order][line.chosen[*set].0]);
            by_order.extend(average(&figures.collect::<Vec<_>>()));
        }
        let Some(mut mean) = over_orders(&by_order) else {
            return Ok(());
        };
        if sets.len() == 1 {
            mean.n_ood = by_order[0].n_ood;
        }
        let first = &line.chosen[sets[0]];
        let alike = sets.iter().all(|set| line.chosen[*set].0 == first.0);
        let batch = match alike {
            true => self.batch(first.0)?,
            false => None,
        };
        let hyperparameters = first.1.clone().filter(|_| alike);
        let deviation = |figure: fn(&OodMetrics) -> f64| {
            let values: Vec<f64> = by_order.iter().map(figure).collect();
            mean_std(&values).and_then(|found| found.std)
        };
        let mut row = ood_row_of(self.blank, (&line.detector, line.selection), &mean);
        row.ood_dataset = name.to_string();
        row.scaling = Some(TRANSDUCTIVE.to_string());
        row.hyperparameters = hyperparameters.clone();
        // Every stream has its own threshold.
        row.threshold95 = None;
        let orders: Vec<String> = test.orders.iter().map(u64::to_string).collect();
        let batches = batch.map_or(String::new(), |batch| format!(", batches of {batch}"));
        let mut note = format!(
            "mean over streams in the orders of seeds {}{batches}",
            orders.join(", ")
        );
        if let (Some(auroc), Some(fpr95)) = (deviation(|m| m.auroc), deviation(|m| m.fpr95)) {
            note += &format!("; standard deviation of AUROC {auroc:.4}, of FPR95 {fpr95:.4}");
        }
        row.notes = Some(note);
        means.push(row);
        for (order_seed, figures) in test.orders.iter().zip(&by_order) {
            let blank = self.blank;
            single.push(StreamRow {
                prompt: blank.prompt.clone(),
                method: blank.method.clone(),
                shots: blank.shots,
                seed: blank.seed,
                id_dataset: blank.id_dataset.clone(),
                ood_dataset: name.to_string(),
                detector: line.detector.clone(),
                selection: line.selection.as_str().to_string(),
                hyperparameters: hyperparameters.clone(),
                order_seed: *order_seed,
                batch,
                classes_hash: blank.classes_hash.clone(),
                weights_hash: blank.weights_hash.clone(),
                n_id: figures.n_id,
                n_ood: figures.n_ood,
                auroc: figures.auroc,
                aupr_in: figures.aupr_in,
                aupr_out: figures.aupr_out,
                fpr95: figures.fpr95,
                fpr95_openood: figures.fpr95_openood,
            });
        }
        Ok(())
    }

    /// Images of a full batch of a column.
    fn batch(&self, column: usize) -> Result<Option<u32>> {
        let name = &self.test.columns[column];
        let streams = self.job.experiment.streams.iter();
        let Some(column) = streams.clone().find(|column| column.name == *name) else {
            return Ok(None);
        };
        let mut spec: Option<DetectorSpec> = None;
        for method in &self.job.experiment.recipe.methods {
            spec = spec.or(column.spec(*method)?);
        }
        Ok(spec.and_then(|spec| spec.batch()).map(|batch| batch as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_over_orders_counts_the_images_of_the_pair_once() {
        let one = ood_metrics(&[1.0, 0.9, 0.8], &[0.5, 0.95]).unwrap();
        let two = ood_metrics(&[1.0, 0.9, 0.3], &[0.5, 0.2]).unwrap();
        let mean = over_orders(&[one, two]).unwrap();
        assert_eq!((mean.n_id, mean.n_ood), (3, 2));
        assert!((mean.auroc - (one.auroc + two.auroc) / 2.0).abs() < 1e-12);
        assert!(over_orders(&[]).is_none());
    }
}

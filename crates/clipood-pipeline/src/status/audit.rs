//! Checks that every planned image is scored once or in quarantine once, under every prompt set.

use std::collections::BTreeMap;

use clipood_store::{CommitRecord, Ledger, PartState, Unit};
use serde::Serialize;

use crate::error::Result;
use crate::job::Job;
use crate::places::Shelf;
use crate::plan::{PlannedDataset, PlannedImage, Purpose};
use crate::planned::Planned;
use crate::prompts::key::PromptKey;
use crate::stages::{STAGES, Stage};
use crate::tables::{read_footer, read_scores};

/// Largest number of problems that are named; further ones are only counted.
const NAMED: usize = 20;

/// The contents of a run's tables compared with its plan. The audit holds if `planned = scored + quarantined` and there
/// is no problem.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Audit {
    /// Number of images to score times number of prompt sets.
    pub planned: usize,
    /// Planned images with a row in the score tables; repeated rows are not counted.
    pub scored: usize,
    /// Planned images that a score table lists as unreadable and that have no row.
    pub quarantined: usize,
    /// Parts whose bytes were compared with their commit records.
    pub parts: usize,
    /// Number of all problems.
    pub problems: usize,
    /// The first problems by name.
    pub examples: Vec<String>,
}

impl Audit {
    /// Whether every planned image is accounted for and nothing else is there.
    pub fn holds(&self) -> bool {
        self.problems == 0 && self.planned == self.scored + self.quarantined
    }

    fn problem(&mut self, text: String) {
        self.problems += 1;
        if self.examples.len() < NAMED {
            self.examples.push(text);
        }
    }
}

/// Reads every score table completely, and every part that has a commit record.
///
/// The tables are found by listing their directories, as a reader would, and not by the names that the plan expects.
///
/// # Errors
/// A run directory or store that cannot be read; problems inside the tables are in the result.
pub fn audit(job: &Job) -> Result<Audit> {
    let mut audit = Audit::default();
    let Some(planned) = Planned::read(job)? else {
        audit.problem("there is no plan yet".to_string());
        return Ok(audit);
    };
    let index = &planned.features;
    for (dataset, units) in planned.plan.datasets.iter().zip(&index.scored) {
        let mut images = Vec::with_capacity(dataset.images());
        for unit in units {
            images.extend_from_slice(&index.units[*unit].list(job)?);
        }
        for prompt in &planned.prompts {
            audit_dataset(job, &prompt.key, dataset, &images, &mut audit)?;
        }
    }
    for stage in STAGES {
        audit_parts(job, &planned, stage, &mut audit)?;
    }
    Ok(audit)
}

/// Compares the parts of a stage with their commit records. Missing features are a separate problem: images without
/// features appear in no score table.
fn audit_parts(job: &Job, planned: &Planned, stage: &Stage, audit: &mut Audit) -> Result<()> {
    // By shelf and stage there, the units by their keys: several prompt sets may share one unit.
    let mut commits: BTreeMap<&str, (Shelf, BTreeMap<String, Unit>)> = BTreeMap::new();
    let units = (stage.units)(job, planned)?;
    for (shelf, name) in (stage.ledgers)(planned) {
        let units = units.iter().map(|unit| (unit.key.clone(), unit.clone()));
        commits.insert(name, (*shelf, units.collect()));
    }
    for unit in (stage.explained)(job, planned)? {
        let entry = commits.entry(unit.stage);
        let (_, units) = entry.or_insert_with(|| (unit.shelf, BTreeMap::new()));
        units.insert(unit.unit.key.clone(), unit.unit);
    }
    for (name, (shelf, units)) in commits {
        let units: Vec<Unit> = units.into_values().collect();
        let ledger = job.places.ledger(shelf);
        for (unit, record) in units.iter().zip(ledger.records_of(name, &units)?) {
            match record {
                Some(record) if record.part.is_some() => check(ledger, &record, audit)?,
                Some(_) => {}
                None if shelf == Shelf::Features => {
                    audit.problem(format!("{name} features {}: not extracted", unit.key));
                }
                None => {}
            }
        }
    }
    Ok(())
}

fn check(ledger: &Ledger, record: &CommitRecord, audit: &mut Audit) -> Result<()> {
    audit.parts += 1;
    let state = match ledger.check_part(record)? {
        PartState::Whole => return Ok(()),
        PartState::Missing => "is missing",
        PartState::Changed => "has other bytes than its commit record says",
    };
    let path = record.part.as_deref().unwrap_or_default();
    audit.problem(format!("{} {state}", ledger.store().display(path)));
    Ok(())
}

fn audit_dataset(
    job: &Job,
    key: &PromptKey,
    dataset: &PlannedDataset,
    planned: &[PlannedImage],
    audit: &mut Audit,
) -> Result<()> {
    let folder = match dataset.purpose {
        Purpose::Test => "scores",
        Purpose::Validation => "validation",
    };
    let folder = format!("{folder}/prompt={}/dataset={}", key.name(), dataset.name);
    let store = job.places.run.store();
    // Rows and quarantine entries of each image.
    let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for object in store.list(&folder)? {
        let Some(bytes) = store.get(&object.path)? else {
            audit.problem(format!("{} vanished", object.path));
            continue;
        };
        let footer = match read_footer(&bytes, &object.path) {
            Ok(footer) => footer,
            Err(error) => {
                audit.problem(error.to_string());
                continue;
            }
        };
        let table = match read_scores(bytes, &object.path) {
            Ok(table) => table,
            Err(error) => {
                audit.problem(error.to_string());
                continue;
            }
        };
        for row in table.rows {
            seen.entry(row.image_key).or_default().0 += 1;
        }
        for row in footer.meta.quarantined {
            seen.entry(row.image_key).or_default().1 += 1;
        }
    }
    audit.planned += dataset.images();
    for image in planned {
        match seen.remove(&image.key) {
            Some((1, 0)) => audit.scored += 1,
            Some((0, 1)) => audit.quarantined += 1,
            Some((rows, reasons)) => audit.problem(format!(
                "{folder}: {} has {rows} rows and {reasons} quarantine entries",
                image.key
            )),
            None => audit.problem(format!(
                "{folder}: {} is neither scored nor in quarantine",
                image.key
            )),
        }
    }
    for key in seen.into_keys() {
        audit.problem(format!("{folder}: {key} is not planned"));
    }
    Ok(())
}

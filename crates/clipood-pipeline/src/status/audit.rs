//! Checks that every planned image is scored once or in quarantine once, under every prompt set.

use std::collections::BTreeMap;

use clipood_store::{
    CommitRecord, Error as StoreError, Ledger, Seal, Unit, check_json_seal, check_seal,
};
use serde::Serialize;

use crate::error::Result;
use crate::job::Job;
use crate::places::Shelf;
use crate::plan::{PARTS, PlannedDataset, PlannedImage, Purpose};
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
    /// Commit records and other files without a seal, which older versions wrote: that no byte of them has changed cannot
    /// be shown. Parts are compared with their records all the same.
    pub unsealed: usize,
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

/// Reads every score table completely, every part that has a commit record, and every file with a seal.
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
    audit_plan(job, &mut audit)?;
    audit_files(job, &planned, &mut audit)?;
    Ok(audit)
}

/// Compares the parts of a stage with their commit records, and the records with their seals. Missing features are a
/// separate problem: images without features appear in no score table.
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
        for (unit, record) in units.iter().zip(records(ledger, name, &units, audit)?) {
            match record {
                Some(record) => check(ledger, &record, audit)?,
                None if shelf == Shelf::Features => {
                    audit.problem(format!("{name} features {}: not extracted", unit.key));
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// The records of `units`. One that is damaged is a problem, and `None` here.
fn records(
    ledger: &Ledger,
    stage: &str,
    units: &[Unit],
    audit: &mut Audit,
) -> Result<Vec<Option<CommitRecord>>> {
    // All at once, or one at a time to find those that cannot be read.
    match ledger.records_of(stage, units) {
        Ok(records) => return Ok(records),
        Err(StoreError::Damaged(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut all = Vec::with_capacity(units.len());
    for unit in units {
        all.push(match ledger.record(stage, unit) {
            Ok(record) => record,
            Err(StoreError::Damaged(damage)) => {
                audit.problem(damage.to_string());
                None
            }
            Err(error) => return Err(error.into()),
        });
    }
    Ok(all)
}

fn check(ledger: &Ledger, record: &CommitRecord, audit: &mut Audit) -> Result<()> {
    audit.unsealed += usize::from(!record.sealed);
    if record.part.is_none() {
        return Ok(());
    }
    audit.parts += 1;
    if let Some(damage) = ledger.check_part(record)? {
        audit.problem(damage.to_string());
    }
    Ok(())
}

/// Checks the parts of the plan, which belong to no stage of their own.
fn audit_plan(job: &Job, audit: &mut Audit) -> Result<()> {
    let ledger = job.places.run.ledger();
    match ledger.records(PARTS) {
        Ok(records) => {
            for record in records {
                check(ledger, &record, audit)?;
            }
            Ok(())
        }
        Err(StoreError::Damaged(damage)) => {
            audit.problem(damage.to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks the seals of the files that are neither parts nor records: `run.json` and what is in `_run`, and the logs and
/// checkpoints of the trainings.
fn audit_files(job: &Job, planned: &Planned, audit: &mut Audit) -> Result<()> {
    let run = job.places.run.store();
    let mut files = vec![(run, "run.json".to_string())];
    for object in run.list("_run")? {
        // Records have been checked; claims, notes, and scripts and logs of clusters hold nothing that a result depends on.
        let skipped = ["commits", "claims", "damaged", "attempts", "jobs"];
        let folder = object.path.split('/').nth(1).unwrap_or_default();
        let folder = folder.split('@').next().unwrap_or_default();
        if !skipped.contains(&folder) {
            files.push((run, object.path));
        }
    }
    let prompts = job.places.prompts.store();
    for prompt in planned.trained_prompts() {
        for name in ["train_log.parquet", "checkpoint.safetensors"] {
            files.push((prompts, format!("{}/{name}", prompt.unit.fingerprint)));
        }
    }
    for (store, path) in files {
        let Some(bytes) = store.get(&path)? else {
            continue;
        };
        let seal = match path.ends_with(".json") {
            true => check_json_seal(&bytes),
            false => check_seal(&bytes),
        };
        match seal {
            Seal::Whole => {}
            Seal::Absent => audit.unsealed += 1,
            Seal::Broken { expected, found } => audit.problem(format!(
                "{} is damaged: expected blake3 {expected}, found {found}",
                store.display(&path)
            )),
        }
    }
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

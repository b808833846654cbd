//! Stage `plan`: lists the datasets, separates validation images, draws the few-shot splits, hashes every image that
//! will be used and divides the images to score into shards. The plan is a table in the run directory, so that a
//! resumed run uses the same images.
//!
//! The table has one part per shard. In memory, a plan holds only the number of images of each shard and a digest of
//! their contents; the part of a shard is read when the shard is processed. So the memory of the later stages does not
//! grow with the data.

mod changed;
mod check;
mod choose;
mod file_shots;
mod files;
mod form;
mod list;
mod make;
mod overlap;
mod sort;
mod spool;
mod texts;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clipood_core::FingerprintBuilder;
use clipood_data::{At, FewShotSplit, Roots, Source, Split, path_of};
use clipood_store::{CommitRecord, Seal, Unit, check_json_seal};

pub use self::changed::{check_data, data_records, origin};
pub use self::files::{DataRecord, Skipped};
pub use self::list::{draw_demo, find_sources, list_images, open_roots, report_left_out};
pub use self::overlap::SetOverlap;
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::manifests::DatasetRole;
use crate::tables::{ImageRow, read_footer, read_images};

/// Name of the stage in the ledger of the run: one unit per dataset.
pub const STAGE: &str = "plan";
/// Stage of the table's parts in the ledger of the run.
pub const PARTS: &str = "images";
/// Key of the [`DatasetIndex`] in the commit record of a dataset.
const INDEX: &str = "images";
/// File metadata of a part: the folder of the dataset on the machine that made the plan, with which its URIs begin.
const ROOT: &str = "clipood.root";

/// One image of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedImage {
    /// `dataset/split/relative/path`.
    pub key: String,
    /// Location of its bytes on the machine that made the plan.
    pub source: Source,
    /// How to find `source` on this machine.
    pub roots: Arc<Roots>,
    /// BLAKE3 hash of the file's bytes when it was planned, hexadecimal; empty if it could not be read.
    pub content_hash: String,
    /// `train`, `val` or `test`.
    pub split: String,
    /// Class, for in-distribution images.
    pub label: Option<u32>,
    /// Name of the class or folder.
    pub class_name: Option<String>,
}

impl PlannedImage {
    /// The file on this machine that contains the image.
    pub fn path(&self) -> PathBuf {
        self.roots.path(&self.source.uri)
    }
}

/// Images that are scored together, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedShard {
    /// Number of images.
    pub images: usize,
    /// Digest of their (content, key) list.
    pub digest: String,
    /// The part of the plan that lists them, relative to the run directory.
    pub part: String,
}

/// What the scored images of a dataset are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The metrics in the tables.
    Test,
    /// Choosing hyperparameters; scored separately from the test images.
    Validation,
}

/// The images of one dataset.
#[derive(Debug, Clone)]
pub struct PlannedDataset {
    /// Name of the dataset.
    pub name: String,
    /// Its role in the run.
    pub role: DatasetRole,
    /// What its scored images are used for.
    pub purpose: Purpose,
    /// Images to score.
    pub shards: Vec<PlannedShard>,
    /// Training images that are in a few-shot split, in key order.
    pub train: Vec<PlannedImage>,
}

impl PlannedDataset {
    /// Whether it is in-distribution.
    pub fn is_id(&self) -> bool {
        self.role == DatasetRole::Id
    }

    /// Number of images to score.
    pub fn images(&self) -> usize {
        self.shards.iter().map(|shard| shard.images).sum()
    }
}

/// Everything the later stages work on.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The in-distribution dataset first, then the OOD sets in the recipe's order; then, if the recipe validates, the
    /// ID validation images and the validation OOD sets.
    pub datasets: Vec<PlannedDataset>,
    /// Readable class names, by label.
    pub classes: Vec<String>,
    /// Few-shot split of each seed, with the largest number of shots the recipe asks for.
    pub splits: BTreeMap<u64, FewShotSplit>,
    /// Images that are in two sets, or twice in one.
    pub overlaps: Vec<SetOverlap>,
}

impl Plan {
    /// The datasets whose images are used for `purpose`, the in-distribution one first.
    pub fn datasets_for(&self, purpose: Purpose) -> impl Iterator<Item = &PlannedDataset> {
        self.datasets.iter().filter(move |d| d.purpose == purpose)
    }

    /// Number of test images of all datasets.
    pub fn test_images(&self) -> usize {
        let tested = self.datasets_for(Purpose::Test);
        tested.map(PlannedDataset::images).sum()
    }

    /// The in-distribution dataset.
    pub fn id(&self) -> &PlannedDataset {
        &self.datasets[0]
    }

    /// The few-shot split of a seed.
    ///
    /// # Errors
    /// A seed that the recipe does not have.
    pub fn split(&self, seed: u64) -> Result<&FewShotSplit> {
        let split = self.splits.get(&seed);
        split.ok_or_else(|| {
            PipelineError::Inconsistent(format!("the plan has no few-shot split of seed {seed}"))
        })
    }
}

/// The contents of `classes.json`, small enough to be read whole.
#[derive(serde::Serialize, serde::Deserialize)]
struct ClassesFile {
    classes: Vec<String>,
    splits: BTreeMap<u64, FewShotSplit>,
    /// Digest of everything else in the plan, so that two planners who have found other images do not share this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
}

const CLASSES_FILE: &str = "_run/classes.json";
/// Key of the digest of the classes file in the commit record of every dataset.
const CLASSES: &str = "classes";

fn parse_classes(bytes: &[u8]) -> Result<ClassesFile> {
    serde_json::from_slice(bytes)
        .map_err(|e| PipelineError::Inconsistent(format!("{CLASSES_FILE}: {e}")))
}

fn classes_digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_string()
}
/// What to do about a damaged plan. It is not made again, because the images may have changed since.
pub const CANNOT_PLAN_AGAIN: &str = "a plan is not made again in the same run directory: restore the file from a backup, or \
                                     use another run directory, which finds features and prompts in the store";

/// The description of a dataset's parts in its commit record.
#[derive(serde::Serialize, serde::Deserialize)]
struct DatasetIndex {
    test: Vec<ShardIndex>,
    val: Vec<ShardIndex>,
    /// Number of training images, which share one part.
    train: usize,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct ShardIndex {
    images: usize,
    digest: String,
}

/// Makes the plan, or reads it if this run has one; then the folders are compared with it.
///
/// # Errors
/// A dataset that is missing or empty, a class with fewer images than shots, a text that is too long, more unreadable
/// images than the recipe allows, folders that are not those of the plan.
pub fn plan(job: &Job) -> Result<Plan> {
    let units = plan_units(job)?;
    match is_made(job, &units)? {
        true => check_data(job)?,
        false => make::make(job, &units)?,
    }
    read(job, &units)
}

/// The plan, if this run has one.
///
/// # Errors
/// A plan that cannot be read.
pub fn standing_plan(job: &Job) -> Result<Option<Plan>> {
    let units = plan_units(job)?;
    match is_made(job, &units)? {
        true => read(job, &units).map(Some),
        false => Ok(None),
    }
}

/// The units of the plan, one per dataset.
///
/// # Errors
/// None for a job that was opened.
pub fn plan_units(job: &Job) -> Result<Vec<Unit>> {
    let units = plan_inputs(job)?.into_iter();
    units
        .map(|(name, inputs)| {
            Ok(Unit {
                key: name,
                fingerprint: inputs.finish()?.to_string(),
            })
        })
        .collect()
}

/// Name of each dataset, and the inputs of the fingerprint of its plan.
///
/// # Errors
/// None for a job that was opened.
pub fn plan_inputs(job: &Job) -> Result<Vec<(String, FingerprintBuilder)>> {
    let datasets = job.experiment.manifests.all();
    let inputs = datasets.map(|(_, manifest)| {
        let builder = FingerprintBuilder::new(STAGE)
            .field("run", &job.experiment.fingerprint)
            .field("dataset", &manifest.name);
        Ok((manifest.name.clone(), builder))
    });
    inputs.collect()
}

/// Whether this run has a plan.
///
/// # Errors
/// Records that cannot be listed.
pub fn is_planned(job: &Job) -> Result<bool> {
    is_made(job, &plan_units(job)?)
}

fn is_made(job: &Job, units: &[Unit]) -> Result<bool> {
    let done = job.places.run.ledger().committed(STAGE)?;
    let mut all_done = true;
    for unit in units {
        all_done &= done.contains(unit)?;
    }
    Ok(all_done)
}

fn dataset_folder(dataset: &str) -> String {
    format!("images/dataset={dataset}/")
}

fn part_path(dataset: &str, split: Split, number: usize) -> String {
    let folder = dataset_folder(dataset);
    format!("{folder}part-{}-{number:05}.parquet", split.name())
}

/// Digest of a list of images, each a content hash and a key.
pub fn images_digest<'a>(images: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (content_hash, key) in images {
        for text in [content_hash, key] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    let mut digest = hasher.finalize().to_hex().to_string();
    digest.truncate(32);
    digest
}

/// Reads the images that a part of the plan lists.
///
/// # Errors
/// A part that is missing or damaged.
pub fn planned_images(job: &Job, part: &str) -> Result<Vec<PlannedImage>> {
    let unit = part_unit(job, part)?.ok_or_else(|| missing(job, part))?;
    let bytes = job.places.run.ledger().read_part(PARTS, &unit, part)?;
    let footer = read_footer(&bytes, part)?;
    let planned_root = footer.meta.extra.get(ROOT).cloned().unwrap_or_default();
    let rows = read_images(bytes, part)?;
    // The dataset may be in another folder than on the machine that made the plan.
    let mut manifests = job.experiment.manifests.all();
    let manifest = manifests.find(|(_, m)| part.starts_with(&dataset_folder(&m.name)));
    let roots = Arc::new(manifest.map_or_else(Roots::default, |(_, manifest)| Roots {
        data: job.places.data.clone(),
        dataset: manifest.place().to_path_buf(),
        recorded: path_of(&planned_root),
    }));
    let image = |row: ImageRow| {
        Ok(PlannedImage {
            source: source_of(&row)?,
            roots: roots.clone(),
            key: row.image_key,
            content_hash: row.content_hash,
            split: row.split,
            label: row.label,
            class_name: row.class_name,
        })
    };
    rows.into_iter().map(image).collect()
}

/// The unit of a part of the plan in stage [`PARTS`]; `None` if the recipe has no dataset of that name.
fn part_unit(job: &Job, part: &str) -> Result<Option<Unit>> {
    let unit = plan_units(job)?.into_iter().find_map(|unit| {
        let name = part.strip_prefix(&dataset_folder(&unit.key))?;
        // `part-test-00000.parquet`
        let piece = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
        let key = format!("{}.{}", unit.key, piece.replacen('-', ".", 1));
        Some(Unit { key, ..unit })
    });
    Ok(unit)
}

/// The source that a row of the plan names.
///
/// # Errors
/// A form that a later version has written.
fn source_of(row: &ImageRow) -> Result<Source> {
    let start = row.offset.unwrap_or(0);
    let at = match row.form.as_deref() {
        Some(form) => form::at(form, start).ok_or_else(|| {
            PipelineError::Inconsistent(format!(
                "{}: its images are stored as `{form}`, which this version does not know",
                row.uri
            ))
        })?,
        None if row.offset.is_none() => At::Whole,
        None => At::Bytes(start..start.saturating_add(row.length.unwrap_or(0))),
    };
    Ok(Source {
        uri: row.uri.clone(),
        at,
    })
}

fn missing(job: &Job, what: &str) -> PipelineError {
    PipelineError::Inconsistent(format!("{what} is missing in {}", job.places.run_location))
}

fn read(job: &Job, units: &[Unit]) -> Result<Plan> {
    let bytes = job.places.run.store().get(CLASSES_FILE)?;
    let bytes = bytes.ok_or_else(|| missing(job, CLASSES_FILE))?;
    if let Seal::Broken { expected, found } = check_json_seal(&bytes) {
        return Err(PipelineError::Inconsistent(format!(
            "{} is damaged: expected blake3 {expected}, found {found}; {CANNOT_PLAN_AGAIN}",
            job.places.run.store().display(CLASSES_FILE)
        )));
    }
    let file = parse_classes(&bytes)?;
    let digest = classes_digest(&bytes);
    let mut datasets = Vec::new();
    let mut held_out = None;
    for ((role, manifest), unit) in job.experiment.manifests.all().zip(units) {
        let name = &manifest.name;
        let record = plan_record(job, unit)?;
        // Records of earlier builds have no digest.
        if record
            .extra
            .get(CLASSES)
            .is_some_and(|planned| *planned != *digest)
        {
            return Err(PipelineError::Inconsistent(format!(
                "{}: its classes are not those that {name} was planned with",
                job.places.run.store().display(CLASSES_FILE)
            )));
        }
        let index = read_index(job, &record)?;
        let shards = |split: Split, shards: Vec<ShardIndex>| -> Vec<PlannedShard> {
            let shard = |(number, shard): (usize, ShardIndex)| PlannedShard {
                images: shard.images,
                digest: shard.digest,
                part: part_path(name, split, number),
            };
            shards.into_iter().enumerate().map(shard).collect()
        };
        let dataset = |purpose, shards| PlannedDataset {
            name: name.clone(),
            role,
            purpose,
            shards,
            train: Vec::new(),
        };
        let mut test = dataset(Purpose::Test, shards(Split::Test, index.test));
        let validation = dataset(Purpose::Validation, shards(Split::Val, index.val));
        if index.train > 0 {
            test.train = planned_images(job, &part_path(name, Split::Train, 0))?;
        }
        match role {
            DatasetRole::Id => {
                datasets.push(test);
                held_out = Some(validation);
            }
            DatasetRole::Ood => datasets.push(test),
            DatasetRole::ValidationOod => {
                // The first of the validation datasets is in-distribution.
                datasets.extend(held_out.take());
                datasets.push(validation);
            }
        }
    }
    Ok(Plan {
        datasets,
        classes: file.classes,
        splits: file.splits,
        overlaps: overlaps(job)?,
    })
}

/// The commit record of a dataset's plan.
fn plan_record(job: &Job, unit: &Unit) -> Result<CommitRecord> {
    let record = job.places.run.ledger().record(STAGE, unit)?;
    record.ok_or_else(|| missing(job, &format!("the plan of {}", unit.key)))
}

fn read_index(job: &Job, record: &CommitRecord) -> Result<DatasetIndex> {
    let index = record.extra.get(INDEX).cloned().unwrap_or_default();
    serde_json::from_value(index).map_err(|e| {
        PipelineError::Inconsistent(format!(
            "the plan of {} in {}: {e}; was it made by another version?",
            record.unit, job.places.run_location
        ))
    })
}

/// The overlaps of the sets of images that were found when the run was planned.
///
/// # Errors
/// Records that cannot be read.
pub fn overlaps(job: &Job) -> Result<Vec<SetOverlap>> {
    for unit in plan_units(job)? {
        if let Some(record) = job.places.run.ledger().record(STAGE, &unit)?
            && let Some(found) = record.extra.get(overlap::OVERLAPS)
        {
            return serde_json::from_value(found.clone()).map_err(|e| {
                PipelineError::Inconsistent(format!("the plan of {}: overlaps: {e}", unit.key))
            });
        }
    }
    Ok(Vec::new())
}

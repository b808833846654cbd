//! Stage `plan`: lists the datasets, sets validation images apart, draws the few-shot splits, hashes every image that will
//! be used and cuts the images to score into shards. The plan is a table in the run directory, so that a resumed run sees
//! the same images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clipood_core::{DatasetManifest, FingerprintBuilder, SubsampleClasses};
use clipood_data::{
    FewShotSplit, ImageRecord, Split, few_shot_split, list_dataset, subsample_classes,
};
use clipood_store::{Part, Unit};
use rayon::prelude::*;

use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::progress::Reporting;
use crate::tables::{FileMeta, ImageRow, read_images, store_footer, write_images};

/// Name of the stage in the ledger of the run.
pub const STAGE: &str = "plan";

/// One image of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedImage {
    /// `dataset/split/relative/path`.
    pub key: String,
    /// The file.
    pub path: PathBuf,
    /// blake3 of the file's bytes when it was planned, hexadecimal.
    pub content_hash: String,
    /// `train`, `val` or `test`: what it serves for.
    pub split: String,
    /// Class, for in-distribution images.
    pub label: Option<u32>,
    /// Name of the class or folder.
    pub class_name: Option<String>,
    /// Shard of an image that is scored.
    pub shard: u32,
}

/// What the scored images of a dataset serve for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The figures of the tables.
    Test,
    /// Choosing hyperparameters; scored apart from the test images.
    Validation,
}

/// The images of one dataset, in key order.
#[derive(Debug, Clone)]
pub struct PlannedDataset {
    /// Name of the dataset.
    pub name: String,
    /// Whether it is in-distribution.
    pub is_id: bool,
    /// What its scored images serve for.
    pub purpose: Purpose,
    /// Images to score.
    pub scored: Vec<PlannedImage>,
    /// Training images that some few-shot split takes.
    pub train: Vec<PlannedImage>,
}

/// Everything the later stages work on.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The in-distribution dataset first, then the OOD sets in the recipe's order; then, if the recipe validates, the ID
    /// validation images and the validation OOD sets.
    pub datasets: Vec<PlannedDataset>,
    /// Readable class names, by label.
    pub classes: Vec<String>,
    /// Few-shot split of each seed, with the largest number of shots the recipe asks for.
    pub splits: BTreeMap<u64, FewShotSplit>,
}

impl Plan {
    /// The datasets whose images serve `purpose`, the in-distribution one first.
    pub fn datasets_for(&self, purpose: Purpose) -> impl Iterator<Item = &PlannedDataset> {
        self.datasets.iter().filter(move |d| d.purpose == purpose)
    }

    /// Number of test images of all datasets.
    pub fn test_images(&self) -> usize {
        let tested = self.datasets_for(Purpose::Test);
        tested.map(|d| d.scored.len()).sum()
    }

    /// The in-distribution dataset.
    pub fn id(&self) -> &PlannedDataset {
        &self.datasets[0]
    }
}

/// What `classes.json` and the splits hold; small enough to be read whole.
#[derive(serde::Serialize, serde::Deserialize)]
struct ClassesFile {
    classes: Vec<String>,
    splits: BTreeMap<u64, FewShotSplit>,
}

const CLASSES_FILE: &str = "_run/classes.json";

/// Makes the plan, or reads it if this run has one.
///
/// # Errors
/// A dataset that is missing or empty, a class with fewer images than shots.
pub fn plan(job: &Job) -> Result<Plan> {
    let manifests = manifests(job);
    let units = plan_units(job)?;
    if !is_made(job, &units)? {
        make(job, &manifests, &units)?;
    }
    read(job, &manifests)
}

/// The plan, if this run has one.
///
/// # Errors
/// A plan that cannot be read.
pub fn standing_plan(job: &Job) -> Result<Option<Plan>> {
    if !is_made(job, &plan_units(job)?)? {
        return Ok(None);
    }
    read(job, &manifests(job)).map(Some)
}

/// The units of the plan, one a dataset.
///
/// # Errors
/// None for a job that was opened.
pub fn plan_units(job: &Job) -> Result<Vec<Unit>> {
    manifests(job)
        .iter()
        .map(|manifest| plan_unit(job, manifest))
        .collect()
}

fn manifests(job: &Job) -> Vec<&DatasetManifest> {
    std::iter::once(&job.id)
        .chain(&job.ood)
        .chain(&job.validation_ood)
        .collect()
}

fn is_made(job: &Job, units: &[Unit]) -> Result<bool> {
    let done = job.run.ledger().committed(STAGE)?;
    let mut all_done = true;
    for unit in units {
        all_done &= done.contains(unit)?;
    }
    Ok(all_done)
}

fn plan_unit(job: &Job, manifest: &DatasetManifest) -> Result<Unit> {
    Ok(Unit {
        key: manifest.name.clone(),
        fingerprint: FingerprintBuilder::new(STAGE)
            .field("run", &job.fingerprint)
            .field("dataset", &manifest.name)
            .finish()?
            .to_string(),
    })
}

fn part_path(dataset: &str) -> String {
    format!("images/dataset={dataset}/part-00000.parquet")
}

fn make(job: &Job, manifests: &[&DatasetManifest], units: &[Unit]) -> Result<()> {
    let lists = manifests
        .iter()
        .map(|manifest| list_images(manifest, &job.data, job.reporting))
        .collect::<Result<Vec<_>>>()?;
    let Chosen {
        classes,
        splits,
        validation,
    } = choose(job, &lists[0])?;
    let shots: HashSet<&str> = splits.values().flat_map(|split| split.keys()).collect();
    let mut chosen: Vec<Vec<(&ImageRecord, Option<u32>, Split)>> = Vec::new();
    for (i, records) in lists.iter().enumerate() {
        let mut rows = Vec::new();
        for record in records {
            let label = match (i, &record.class_name) {
                (0, Some(name)) => match classes.iter().position(|c| c == name) {
                    Some(label) => Some(label as u32),
                    None => continue,
                },
                _ => None,
            };
            let key = record.image_key.as_str();
            let split = if validation.contains(key) {
                Split::Val
            } else if record.split == Split::Test {
                // The images of a validation OOD set choose hyperparameters, whatever their folder is called.
                if i > job.ood.len() {
                    Split::Val
                } else {
                    Split::Test
                }
            } else if shots.contains(key) {
                Split::Train
            } else {
                continue;
            };
            rows.push((record, label, split));
        }
        if !rows.iter().any(|(record, ..)| record.split == Split::Test) {
            return Err(PipelineError::Usage(format!(
                "dataset `{}` has no test image under {}",
                manifests[i].name,
                manifests[i].root.display()
            )));
        }
        chosen.push(rows);
    }
    let total: usize = chosen.iter().map(Vec::len).sum();
    let mut progress = job.reporting.stage(STAGE, "images hashed", total as u64);
    let file = ClassesFile { classes, splits };
    let json = serde_json::to_vec_pretty(&file)
        .map_err(|e| PipelineError::Inconsistent(format!("{CLASSES_FILE}: {e}")))?;
    job.run.store().put(CLASSES_FILE, Bytes::from(json))?;
    let shard_rows = shard_rows(job);
    let mut all: Vec<Vec<ImageRow>> = Vec::new();
    for rows in &chosen {
        let mut images = Vec::with_capacity(rows.len());
        for block in rows.chunks(1024) {
            job.interrupt.check()?;
            let hashed = block
                .par_iter()
                .map(|(record, label, split)| image_row(record, *label, *split))
                .collect::<Vec<_>>();
            images.extend(hashed);
            progress.add(block.len() as u64);
        }
        for split in [Split::Val, Split::Test] {
            let own = images
                .iter_mut()
                .filter(|image| image.split == split.name());
            for (position, image) in own.enumerate() {
                image.shard = (position / shard_rows) as u32;
            }
        }
        all.push(images);
    }
    check_disjoint(&all)?;
    for ((manifest, unit), images) in manifests.iter().zip(units).zip(&all) {
        let meta = FileMeta {
            fingerprint: unit.fingerprint.clone(),
            recipe: job.recipe.name.clone(),
            quarantined: Vec::new(),
            extra: BTreeMap::new(),
        };
        let part = Part {
            path: part_path(&manifest.name),
            bytes: Bytes::from(write_images(images, &meta)?),
            extra: BTreeMap::new(),
        };
        job.run
            .ledger()
            .commit_part(STAGE, unit, part, &store_footer)?;
    }
    progress.finish();
    Ok(())
}

/// Lists a dataset whose root may be relative to `data`, drawing it first if it is the demo's.
///
/// # Errors
/// Images that cannot be drawn; as [`list_dataset`].
pub fn list_images(
    manifest: &DatasetManifest,
    data: &Path,
    reporting: Reporting,
) -> Result<Vec<ImageRecord>> {
    if manifest.generator.as_deref() == Some("demo") {
        let root = data.join(&manifest.root);
        if let Some(trees) = root.parent() {
            if !trees.exists() {
                reporting.say("drawing the demo images");
            }
            clipood_demo::ensure_dataset(trees)?;
        }
    }
    let listing = list_dataset(manifest, data)?;
    if let Some(first) = listing.ignored.first() {
        reporting.say(&format!(
            "{}: {} files are not images and are left out, the first is {}",
            manifest.name,
            listing.ignored.len(),
            first.display()
        ));
    }
    Ok(listing.records)
}

/// No image may both choose a hyperparameter and be tested. Files are compared by their bytes.
fn check_disjoint(datasets: &[Vec<ImageRow>]) -> Result<()> {
    let images = || datasets.iter().flatten();
    let tested: HashMap<&str, &str> = images()
        .filter(|image| image.split == Split::Test.name() && !image.content_hash.is_empty())
        .map(|image| (image.content_hash.as_str(), image.uri.as_str()))
        .collect();
    for image in images().filter(|image| image.split == Split::Val.name()) {
        if let Some(other) = tested.get(image.content_hash.as_str()) {
            return Err(PipelineError::Usage(format!(
                "{} serves validation, but {other} is the same image and is tested; take it out of one of them",
                image.uri
            )));
        }
    }
    Ok(())
}

/// What is drawn from the in-distribution dataset.
struct Chosen {
    classes: Vec<String>,
    splits: BTreeMap<u64, FewShotSplit>,
    /// Keys of the validation images.
    validation: HashSet<String>,
}

/// Seed of the draw of validation images: one set for all seeds, so that all prompt sets choose on the same images.
const VALIDATION_SEED: u64 = u64::MAX;

/// Class names, the validation images, and the few-shot splits that the recipe's methods need.
fn choose(job: &Job, records: &[ImageRecord]) -> Result<Chosen> {
    let mut by_label: BTreeMap<u32, &str> = BTreeMap::new();
    for record in records {
        if let (Some(label), Some(name)) = (record.label, &record.class_name) {
            by_label.insert(label, name);
        }
    }
    let all: Vec<String> = by_label.values().map(|name| (*name).to_string()).collect();
    let classes = match job.recipe.data.subsample_classes {
        SubsampleClasses::All => all,
        which => subsample_classes(&all, which).to_vec(),
    };
    if classes.len() < 2 {
        return Err(PipelineError::Usage(format!(
            "dataset `{}` has {} classes, at least two are needed",
            job.id.name,
            classes.len()
        )));
    }
    let of = |split: Split| -> Vec<ImageRecord> {
        let taken = records.iter().filter(|r| r.split == split);
        taken
            .filter(|r| r.class_name.as_ref().is_some_and(|n| classes.contains(n)))
            .cloned()
            .collect()
    };
    let trains = job.recipe.methods.iter().any(|m| m.uses_shots());
    let largest = job.recipe.shots.iter().copied().max().filter(|_| trains);
    let validates = !job.validation_ood.is_empty();
    let mut train = of(Split::Train);
    let mut validation = HashSet::new();
    if validates {
        validation.extend(of(Split::Val).into_iter().map(|record| record.image_key));
    }
    let hold_out = validates && validation.is_empty();
    if train.is_empty() && (hold_out || largest.is_some()) {
        let purpose = match largest {
            Some(shots) => format!("trains with {shots} shots"),
            None => "validates".to_string(),
        };
        return Err(PipelineError::Usage(format!(
            "dataset `{}` has no training images, but the recipe {purpose}; give its manifest a train split or a train_fraction",
            job.id.name
        )));
    }
    let few_shot = |train: &[ImageRecord], images: usize, seed: u64| {
        let allow_fewer = job.recipe.train.allow_fewer;
        few_shot_split(&job.id.name, train, images, seed, allow_fewer)
    };
    if hold_out {
        let images = job.recipe.data.validation_per_class;
        let held_out = few_shot(&train, images, VALIDATION_SEED)?;
        validation.extend(held_out.keys().map(String::from));
        train.retain(|record| !validation.contains(&record.image_key));
    }
    let mut splits = BTreeMap::new();
    if let Some(shots) = largest {
        for seed in &job.recipe.seeds {
            splits.insert(*seed, few_shot(&train, shots, *seed)?);
        }
    }
    Ok(Chosen {
        classes,
        splits,
        validation,
    })
}

/// A file that cannot be read keeps an empty hash: extraction will try again and put it into quarantine with its reason.
fn image_row(record: &ImageRecord, label: Option<u32>, split: Split) -> ImageRow {
    let bytes = std::fs::read(&record.path).ok();
    ImageRow {
        image_key: record.image_key.clone(),
        uri: record.path.display().to_string(),
        offset: None,
        length: bytes.as_ref().map(|b| b.len() as u64),
        content_hash: bytes.map_or(String::new(), |b| blake3::hash(&b).to_hex().to_string()),
        split: split.name().to_string(),
        label,
        class_name: record.class_name.clone(),
        shard: 0,
    }
}

/// Rows of a shard, so that its global and local features stay near `engine.shard_bytes`.
pub fn shard_rows(job: &Job) -> usize {
    let config = &job.model.config;
    let row = config.embed_dim * (4 + 2 * config.image.positions());
    (job.recipe.engine.shard_bytes as usize / row).max(1)
}

fn read(job: &Job, manifests: &[&DatasetManifest]) -> Result<Plan> {
    let missing = |what: &str| {
        PipelineError::Inconsistent(format!("{} is missing in {}", what, job.run_location))
    };
    let bytes = job
        .run
        .store()
        .get(CLASSES_FILE)?
        .ok_or_else(|| missing(CLASSES_FILE))?;
    let file: ClassesFile = serde_json::from_slice(&bytes)
        .map_err(|e| PipelineError::Inconsistent(format!("{CLASSES_FILE}: {e}")))?;
    let mut datasets = Vec::new();
    let mut held_out = None;
    for (i, manifest) in manifests.iter().enumerate() {
        let path = part_path(&manifest.name);
        let bytes = job.run.store().get(&path)?.ok_or_else(|| missing(&path))?;
        let dataset = |purpose| PlannedDataset {
            name: manifest.name.clone(),
            is_id: i == 0,
            purpose,
            scored: Vec::new(),
            train: Vec::new(),
        };
        let mut test = dataset(Purpose::Test);
        let mut validation = dataset(Purpose::Validation);
        for row in read_images(bytes, &path)? {
            let image = PlannedImage {
                key: row.image_key,
                path: PathBuf::from(row.uri),
                content_hash: row.content_hash,
                split: row.split,
                label: row.label,
                class_name: row.class_name,
                shard: row.shard,
            };
            if image.split == Split::Train.name() {
                test.train.push(image);
            } else if image.split == Split::Val.name() {
                validation.scored.push(image);
            } else {
                test.scored.push(image);
            }
        }
        if i > job.ood.len() {
            // The first of the validation datasets is the in-distribution one.
            datasets.extend(held_out.take());
            datasets.push(validation);
        } else {
            datasets.push(test);
            if i == 0 {
                held_out = Some(validation);
            }
        }
    }
    Ok(Plan {
        datasets,
        classes: file.classes,
        splits: file.splits,
    })
}

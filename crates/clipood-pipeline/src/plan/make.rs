//! Making a plan: listing, choosing, hashing, cutting into shards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use clipood_core::{DatasetManifest, SubsampleClasses};
use clipood_data::{
    FewShotSplit, ImageRecord, Split, few_shot_split, list_dataset, subsample_classes,
};
use clipood_store::{CommitOutcome, Part, Unit};
use rayon::prelude::*;
use serde_json::json;

use super::{
    CLASSES_FILE, ClassesFile, DatasetIndex, INDEX, PARTS, STAGE, ShardIndex, images_digest,
    part_path,
};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::memory::give_back;
use crate::progress::Reporting;
use crate::tables::{FileMeta, ImageRow, read_images, store_footer, write_images};

/// Images that are hashed between two looks at the interrupt.
const BLOCK: usize = 1024;

/// An image of the plan before it is written.
struct Row {
    record: ImageRecord,
    label: Option<u32>,
    split: Split,
    /// blake3 and size of the file; `None` if it cannot be read: extraction will try again and put it into quarantine
    /// with its reason.
    content: Option<(blake3::Hash, u64)>,
}

/// Lists and hashes all images, then writes the plan.
///
/// Nothing is written before everything is hashed and checked, so that a plan that is interrupted, or refused, leaves
/// nothing that images changed meanwhile could contradict.
pub(super) fn make(job: &Job, manifests: &[&DatasetManifest], units: &[Unit]) -> Result<()> {
    let _span = tracing::info_span!("plan").entered();
    let mut lists = manifests
        .iter()
        .map(|manifest| list_images(manifest, &job.data, job.reporting))
        .collect::<Result<Vec<_>>>()?;
    let chosen = choose(job, &lists[0])?;
    let labels: HashMap<&str, u32> = chosen.classes.iter().map(String::as_str).zip(0..).collect();
    let shots: HashSet<&str> = chosen.splits.values().flat_map(|s| s.keys()).collect();
    let mut datasets: Vec<Vec<Row>> = Vec::new();
    for (i, records) in lists.drain(..).enumerate() {
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let label = match (i, &record.class_name) {
                (0, Some(name)) => match labels.get(name.as_str()) {
                    Some(label) => Some(*label),
                    None => continue,
                },
                _ => None,
            };
            let key = record.image_key.as_str();
            let split = if chosen.validation.contains(key) {
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
            rows.push(Row {
                record,
                label,
                split,
                content: None,
            });
        }
        if !rows.iter().any(|row| row.record.split == Split::Test) {
            return Err(PipelineError::Usage(format!(
                "dataset `{}` has no test image under {}",
                manifests[i].name,
                manifests[i].root.display()
            )));
        }
        rows.shrink_to_fit();
        datasets.push(rows);
    }
    let total: usize = datasets.iter().map(Vec::len).sum();
    let mut progress = job.reporting.stage(STAGE, "images hashed", total as u64);
    for block in datasets.iter_mut().flat_map(|rows| rows.chunks_mut(BLOCK)) {
        job.interrupt.check()?;
        block.par_iter_mut().for_each(|row| {
            let bytes = std::fs::read(&row.record.path).ok();
            row.content = bytes.map(|bytes| (blake3::hash(&bytes), bytes.len() as u64));
        });
        progress.add(block.len() as u64);
    }
    progress.finish();
    check_disjoint(&datasets)?;
    let file = ClassesFile {
        classes: chosen.classes,
        splits: chosen.splits,
    };
    let json = serde_json::to_vec_pretty(&file)
        .map_err(|e| PipelineError::Inconsistent(format!("{CLASSES_FILE}: {e}")))?;
    job.run.store().put(CLASSES_FILE, Bytes::from(json))?;
    for ((manifest, unit), rows) in manifests.iter().zip(units).zip(datasets) {
        write_dataset(job, &manifest.name, unit, &rows)?;
    }
    job.run.ledger().sweep(&["images"])?;
    give_back();
    Ok(())
}

/// Writes the images of a dataset, a part a shard, and then that it is planned.
fn write_dataset(job: &Job, name: &str, unit: &Unit, rows: &[Row]) -> Result<()> {
    let of = |split: Split| -> Vec<&Row> { rows.iter().filter(|r| r.split == split).collect() };
    let shards = |split: Split| -> Result<Vec<ShardIndex>> {
        of(split)
            .chunks(shard_rows(job))
            .enumerate()
            .map(|(number, rows)| write_part(job, name, unit, split, number, rows))
            .collect()
    };
    let train = of(Split::Train);
    let index = DatasetIndex {
        test: shards(Split::Test)?,
        val: shards(Split::Val)?,
        train: train.len(),
    };
    if !train.is_empty() {
        write_part(job, name, unit, Split::Train, 0, &train)?;
    }
    let extra = BTreeMap::from([(INDEX.to_string(), json!(index))]);
    job.run.ledger().commit_without_part(STAGE, unit, extra)?;
    Ok(())
}

fn write_part(
    job: &Job,
    dataset: &str,
    unit: &Unit,
    split: Split,
    number: usize,
    rows: &[&Row],
) -> Result<ShardIndex> {
    let images: Vec<ImageRow> = rows.iter().map(|row| image_row(row, number)).collect();
    let digest = |images: &[ImageRow]| {
        images_digest(images.iter().map(|i| (&*i.content_hash, &*i.image_key)))
    };
    let meta = FileMeta {
        fingerprint: unit.fingerprint.clone(),
        recipe: job.recipe.name.clone(),
        quarantined: Vec::new(),
        extra: BTreeMap::new(),
    };
    let path = part_path(dataset, split, number);
    let part = Part {
        path: path.clone(),
        bytes: Bytes::from(write_images(&images, &meta)?),
        extra: BTreeMap::new(),
    };
    let shard = Unit {
        key: format!("{dataset}.{}.{number:05}", split.name()),
        fingerprint: unit.fingerprint.clone(),
    };
    let ours = digest(&images);
    let outcome = job
        .run
        .ledger()
        .commit_part(PARTS, &shard, part, &store_footer)?;
    // Another worker may see the same files under other paths, but not other files.
    if let CommitOutcome::LostRace { published, .. } = outcome
        && digest(&read_images(published, &path)?) != ours
    {
        return Err(PipelineError::Usage(format!(
            "{}: planned from other images than are there now; start another run directory, or remove this one",
            job.run.store().display(&path)
        )));
    }
    Ok(ShardIndex {
        images: images.len(),
        digest: ours,
    })
}

fn image_row(row: &Row, shard: usize) -> ImageRow {
    let hash = |(hash, _): (blake3::Hash, u64)| hash.to_hex().to_string();
    ImageRow {
        image_key: row.record.image_key.clone(),
        uri: row.record.path.display().to_string(),
        offset: None,
        length: row.content.map(|(_, length)| length),
        content_hash: row.content.map(hash).unwrap_or_default(),
        split: row.split.name().to_string(),
        label: row.label,
        class_name: row.record.class_name.clone(),
        shard: shard as u32,
    }
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
fn check_disjoint(datasets: &[Vec<Row>]) -> Result<()> {
    let of = |split| {
        datasets
            .iter()
            .flatten()
            .filter(move |r: &&Row| r.split == split)
    };
    let validated: HashMap<blake3::Hash, &Row> = of(Split::Val)
        .filter_map(|row| Some((row.content?.0, row)))
        .collect();
    for row in of(Split::Test) {
        let twin = row.content.and_then(|(hash, _)| validated.get(&hash));
        if let Some(twin) = twin {
            return Err(PipelineError::Usage(format!(
                "{} serves validation, but {} is the same image and is tested; take it out of one of them",
                twin.record.path.display(),
                row.record.path.display()
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

/// Rows of a shard, so that its global and local features stay near `engine.shard_bytes`.
pub fn shard_rows(job: &Job) -> usize {
    let config = &job.model.config;
    let row = config.embed_dim * (4 + 2 * config.image.positions());
    (job.recipe.engine.shard_bytes as usize / row).max(1)
}

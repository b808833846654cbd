//! Making a plan: listing, choosing, hashing, writing. The rows are passed between the steps in temporary files, so
//! that memory does not grow with the number of images.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use clipood_data::{ImageRecord, Roots, Split, read};
use clipood_store::{Unit, seal_json};
use rayon::prelude::*;

use super::choose::{Chosen, choose, draws};
use super::list::{Listed, Serves, image_row, list};
use super::spool::{Rows, Spool};
use super::write::write_dataset;
use super::{CLASSES_FILE, ClassesFile, STAGE, source_of};
use crate::error::{PipelineError, Result};
use crate::heap::trim_heap;
use crate::job::Job;
use crate::manifests::DatasetRole;
use crate::progress::StageProgress;
use crate::tables::ImageRow;

/// Images that are hashed between two checks for an interruption.
const BLOCK: usize = 1024;

/// Lists and hashes all images, then writes the plan.
///
/// Nothing is written to the run directory before everything is hashed and checked, so that an interrupted or rejected
/// plan leaves nothing behind that could contradict images that change afterwards.
pub(super) fn make(job: &Job, units: &[Unit]) -> Result<()> {
    let _span = tracing::info_span!("plan").entered();
    let manifests = &job.experiment.manifests;
    let of_id = list(job, &manifests.id, &Serves::Id(draws(job)))?;
    let chosen = choose(job, &of_id)?;
    let mut of_id = Some(take_chosen(of_id, &chosen)?);
    let mut datasets = Vec::new();
    for (role, manifest) in manifests.all() {
        let serves = match role {
            DatasetRole::Id => {
                datasets.extend(of_id.take());
                continue;
            }
            DatasetRole::Ood => Serves::Ood,
            DatasetRole::ValidationOod => Serves::OodValidation,
        };
        let listed = list(job, manifest, &serves)?;
        datasets.push(Rows {
            test: listed.test,
            val: listed.val,
            train: Vec::new(),
        });
    }
    let datasets = hash_all(job, datasets)?;
    let file = ClassesFile {
        classes: chosen.classes,
        splits: chosen.splits,
    };
    let json = serde_json::to_vec_pretty(&file)
        .map_err(|e| PipelineError::Inconsistent(format!("{CLASSES_FILE}: {e}")))?;
    job.places
        .run
        .store()
        .put(CLASSES_FILE, Bytes::from(seal_json(json)))?;
    for (((_, manifest), unit), rows) in manifests.all().zip(units).zip(datasets) {
        write_dataset(job, manifest, unit, rows)?;
    }
    job.places.run.ledger().sweep(&["images"])?;
    trim_heap();
    Ok(())
}

/// The images of the chosen classes, those held out for validation, and those that are shots.
fn take_chosen(listed: Listed, chosen: &Chosen) -> Result<Rows> {
    let labels: HashMap<&str, u32> = chosen.classes.iter().map(String::as_str).zip(0..).collect();
    let relabel = |row: &mut ImageRow| {
        let label = row.class_name.as_deref().and_then(|name| labels.get(name));
        row.label = label.copied();
        label.is_some()
    };
    let of_chosen = |images: Spool| -> Result<Spool> {
        if labels.len() == listed.classes.len() {
            // With all classes the labels of the rows are right already.
            return Ok(images);
        }
        let mut taken = Spool::new();
        for row in images.into_rows()? {
            let mut row = row?;
            if relabel(&mut row) {
                taken.push(row)?;
            }
        }
        Ok(taken)
    };
    let mut rows = Rows {
        test: of_chosen(listed.test)?,
        val: of_chosen(listed.val)?,
        train: Vec::new(),
    };
    let shots: HashSet<&str> = chosen.splits.values().flat_map(|s| s.keys()).collect();
    let mut candidates: Vec<ImageRecord> = listed.train;
    candidates.sort_by(|a, b| a.image_key.cmp(&b.image_key));
    for record in candidates {
        let is_shot = shots.contains(record.image_key.as_str());
        let is_held_out = chosen.held_out.contains(&record.image_key);
        let mut row = image_row(record);
        if !relabel(&mut row) {
            continue;
        }
        if is_held_out {
            row.split = Split::Val.name().to_string();
            rows.val.push(row)?;
        } else if is_shot {
            rows.train.push(row);
        }
    }
    Ok(rows)
}

/// Hashes every image, those for validation first: no image may be used both for validation and for testing. Files are
/// compared by their bytes.
fn hash_all(job: &Job, datasets: Vec<Rows>) -> Result<Vec<Rows>> {
    let count = |rows: &Rows| rows.test.len() + rows.val.len() + rows.train.len();
    let total: usize = datasets.iter().map(count).sum();
    let mut progress = job
        .worker
        .reporting
        .stage(STAGE, "images hashed", total as u64);
    let mut validated: HashMap<String, String> = HashMap::new();
    let mut checked = Vec::new();
    for mut rows in datasets {
        rows.val = hash_spool(job, rows.val, &mut progress, |row| {
            validated.insert(row.content_hash.clone(), row.uri.clone());
            Ok(())
        })?;
        checked.push(rows);
    }
    // Images that cannot be read do not count as equal. Extraction will put them into quarantine.
    validated.remove("");
    for rows in &mut checked {
        let test = std::mem::replace(&mut rows.test, Spool::new());
        rows.test = hash_spool(job, test, &mut progress, |row| {
            match validated.get(&row.content_hash) {
                None => Ok(()),
                Some(twin) => Err(PipelineError::Usage(format!(
                    "{twin} is used for validation, but {} is the same image and is tested; remove it from one of the two",
                    row.uri
                ))),
            }
        })?;
        for block in rows.train.chunks_mut(BLOCK) {
            hash_block(job, block, &mut progress)?;
        }
    }
    progress.finish();
    Ok(checked)
}

fn hash_spool(
    job: &Job,
    images: Spool,
    progress: &mut StageProgress,
    mut check: impl FnMut(&ImageRow) -> Result<()>,
) -> Result<Spool> {
    let mut hashed = Spool::new();
    let mut rows = images.into_rows()?;
    loop {
        let mut block: Vec<ImageRow> = rows.by_ref().take(BLOCK).collect::<Result<_>>()?;
        if block.is_empty() {
            return Ok(hashed);
        }
        hash_block(job, &mut block, progress)?;
        for row in block {
            check(&row)?;
            hashed.push(row)?;
        }
    }
}

/// Sets BLAKE3 hash and size of the files; those that cannot be read keep an empty hash.
fn hash_block(job: &Job, block: &mut [ImageRow], progress: &mut StageProgress) -> Result<()> {
    job.worker.interrupt.check()?;
    let unread: Vec<String> = block
        .par_iter_mut()
        .filter_map(|row| match read(&source_of(row), &Roots::default()) {
            Ok(bytes) => {
                row.content_hash = blake3::hash(&bytes).to_hex().to_string();
                row.length = Some(bytes.len() as u64);
                None
            }
            Err(error) => Some(format!("{} cannot be read: {error}", row.uri)),
        })
        .collect();
    for line in unread {
        progress.note(&line);
    }
    progress.add(block.len() as u64);
    Ok(())
}

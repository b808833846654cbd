//! Writing a plan: one part per shard, then the record that the dataset is planned.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_core::DatasetManifest;
use clipood_data::{Split, uri_of};
use clipood_store::{CommitOutcome, Part, Unit};
use serde_json::{Value, json};

use super::spool::{Rows, Spool};
use super::{
    CLASSES, DatasetIndex, INDEX, PARTS, ROOT, STAGE, ShardIndex, images_digest, part_path,
};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::tables::{FileMeta, ImageRow, read_images, store_footer, write_images};

/// Writes the images of a dataset, and then the record that it is planned, which holds `extra` as well.
pub(super) fn write_dataset(
    job: &Job,
    manifest: &DatasetManifest,
    unit: &Unit,
    rows: Rows,
    mut extra: BTreeMap<String, Value>,
) -> Result<()> {
    let index = DatasetIndex {
        train: rows.train.len(),
        test: write_shards(job, manifest, unit, Split::Test, rows.test)?,
        val: write_shards(job, manifest, unit, Split::Val, rows.val)?,
    };
    if !rows.train.is_empty() {
        write_part(job, manifest, unit, Split::Train, 0, rows.train)?;
    }
    extra.insert(INDEX.to_string(), json!(index));
    let ledger = job.places.run.ledger();
    let outcome = ledger.commit_without_part(STAGE, unit, extra.clone())?;
    // Another planner with other images was refused before; this is the last look.
    let theirs = &outcome.record().extra;
    let differs = |key: &str| {
        theirs
            .get(key)
            .is_some_and(|found| extra.get(key) != Some(found))
    };
    match differs(INDEX) || differs(CLASSES) {
        true => Err(PipelineError::Usage(format!(
            "{}: another process has planned {} from other images than are here; start another run directory, or remove \
             this one",
            job.places.run_location, manifest.name
        ))),
        false => Ok(()),
    }
}

fn write_shards(
    job: &Job,
    manifest: &DatasetManifest,
    unit: &Unit,
    split: Split,
    images: Spool,
) -> Result<Vec<ShardIndex>> {
    let mut shards = Vec::new();
    let mut rows = images.into_rows()?;
    loop {
        let shard: Vec<ImageRow> = rows
            .by_ref()
            .take(job.experiment.shard_rows())
            .collect::<Result<_>>()?;
        if shard.is_empty() {
            return Ok(shards);
        }
        shards.push(write_part(job, manifest, unit, split, shards.len(), shard)?);
    }
}

fn write_part(
    job: &Job,
    manifest: &DatasetManifest,
    unit: &Unit,
    split: Split,
    number: usize,
    mut images: Vec<ImageRow>,
) -> Result<ShardIndex> {
    let dataset = &manifest.name;
    for image in &mut images {
        image.shard = number as u32;
    }
    let digest = |images: &[ImageRow]| {
        images_digest(images.iter().map(|i| (&*i.content_hash, &*i.image_key)))
    };
    let meta = FileMeta {
        fingerprint: unit.fingerprint.clone(),
        recipe: job.experiment.recipe.name.clone(),
        quarantined: Vec::new(),
        extra: BTreeMap::from([(
            ROOT.to_string(),
            uri_of(&manifest.root_in(&job.places.data)),
        )]),
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
        .places
        .run
        .ledger()
        .commit_part(PARTS, &shard, part, &store_footer)?;
    // Another worker may have the same files under other paths, but it must not have other files.
    if let CommitOutcome::LostRace { published, .. } = outcome
        && digest(&read_images(published, &path)?) != ours
    {
        return Err(PipelineError::Usage(format!(
            "{}: planned from other images than are there now; start another run directory, or remove this one",
            job.places.run.store().display(&path)
        )));
    }
    Ok(ShardIndex {
        images: images.len(),
        digest: ours,
    })
}

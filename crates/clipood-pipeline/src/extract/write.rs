//! The consumer of the engine in stage `extract`: collects the batches of each unit and commits complete units.

use std::collections::BTreeMap;

use bytes::Bytes;
use clipood_store::{CommitOutcome, Part, Unit};
use half::f16;

use super::source::UnitEnd;
use super::units::ExtractUnit;
use crate::agreement::compare_features;
use crate::encode::{Clock, EncodeEvent};
use crate::error::Result;
use crate::feature_checks::{Variation, check_rows};
use crate::heap::trim_heap;
use crate::inputs::recorded;
use crate::job::Job;
use crate::progress::StageProgress;
use crate::tables::{
    FileMeta, GlobalFeatures, GlobalType, LocalFeatures, store_footer, write_global, write_local,
};

/// Stage names of the two tables of a unit. The global table is written last, so its commit implies the local one.
pub const GLOBAL: &str = "global";
/// See [`GLOBAL`].
pub const LOCAL: &str = "local";

/// Path of a unit's part, relative to the features' folder.
pub fn part_path(table: &str, unit: &ExtractUnit) -> String {
    format!("{table}/part-{}.parquet", unit.key)
}

/// The unit in the ledger of the features.
pub fn ledger_unit(job: &Job, unit: &ExtractUnit) -> Unit {
    Unit {
        key: unit.key.clone(),
        fingerprint: job.places.features.fingerprint.to_string(),
    }
}

/// Rows (image and view), global and local features of one batch.
type Encoded = (Vec<(usize, i16)>, Vec<f32>, Vec<f32>);

/// What has arrived of one unit: its batches by their place.
#[derive(Default)]
struct Arrived {
    batches: BTreeMap<usize, Encoded>,
    /// Set at the end of the unit, with the number of batches.
    end: Option<(UnitEnd, usize)>,
}

/// Collects batches and commits every complete unit.
pub(super) struct UnitWriter<'a> {
    job: &'a Job,
    pending: &'a [&'a ExtractUnit],
    local: bool,
    progress: StageProgress,
    arrived: BTreeMap<usize, Arrived>,
    /// Units whose features do not vary.
    flat: usize,
}

impl<'a> UnitWriter<'a> {
    /// Begins the stage's progress; the numbers of units are positions in `pending`.
    pub(super) fn new(job: &'a Job, pending: &'a [&'a ExtractUnit], local: bool) -> Self {
        let total: usize = pending.iter().map(|unit| unit.rows()).sum();
        Self {
            job,
            pending,
            local,
            progress: job.worker.progress("extract", "views", total as u64),
            arrived: BTreeMap::new(),
            flat: 0,
        }
    }

    /// Handles an event of the engine; commits the unit if it is complete now.
    pub(super) fn take(&mut self, event: EncodeEvent<UnitEnd>, clock: &Clock) -> Result<()> {
        let (to_encode, to_write) = clock.backlog();
        self.progress.remark(format!(
            "queues: {to_encode} batches to encode, {to_write} to write"
        ));
        let unit = match event {
            EncodeEvent::Encoded {
                unit,
                sequence,
                rows,
                global,
                local,
                busy: _,
            } => {
                self.progress.add(rows.len() as u64);
                let arrived = self.arrived.entry(unit).or_default();
                arrived.batches.insert(sequence, (rows, global, local));
                unit
            }
            EncodeEvent::End { unit, batches, end } => {
                for row in &end.quarantined {
                    self.progress.note(&format!(
                        "quarantined {} ({}): {}",
                        row.image_key, row.error_kind, row.message
                    ));
                }
                self.arrived.entry(unit).or_default().end = Some((end, batches));
                unit
            }
        };
        let is_whole = self.arrived.get(&unit).is_some_and(|arrived| {
            let end = arrived.end.as_ref();
            end.is_some_and(|(_, batches)| arrived.batches.len() == *batches)
        });
        if is_whole
            && let Some(Arrived {
                batches,
                end: Some((end, _)),
            }) = self.arrived.remove(&unit)
        {
            if let Some(problem) = commit(self.job, self.pending[unit], self.local, batches, end)? {
                self.flat += 1;
                // A model that is broken is so in every shard.
                if self.flat == 1 {
                    self.progress.note(&format!(
                        "warning: {problem} of shard {}: check the images and the weights of the model",
                        self.pending[unit].key
                    ));
                }
            }
            trim_heap();
        }
        Ok(())
    }

    /// Ends the stage's progress.
    pub(super) fn finish(self) {
        if self.flat > 1 {
            let text = format!("warning: so are {} more shards", self.flat - 1);
            self.progress.note(&text);
        }
        self.progress.finish();
    }
}

/// Commits a unit; returns what does not vary in its features, in words.
fn commit(
    job: &Job,
    unit: &ExtractUnit,
    local: bool,
    batches: BTreeMap<usize, Encoded>,
    end: UnitEnd,
) -> Result<Option<String>> {
    let config = &job.experiment.model.config;
    let (dim, patches) = (config.embed_dim, config.image.positions());
    let mut global = GlobalFeatures {
        keys: Vec::new(),
        views: Vec::new(),
        content_hashes: Vec::new(),
        dim,
        values: Vec::new(),
    };
    let mut values: Vec<f16> = Vec::new();
    for (rows, features, patch_features) in batches.into_values() {
        for (image, view) in rows {
            global.keys.push(end.images[image].key.clone());
            global.views.push(view);
            let hash = end.images[image].content_hash.clone();
            global.content_hashes.push(hash);
        }
        global.values.extend(features);
        values.extend(patch_features.into_iter().map(f16::from_f32));
    }
    check_rows(&global.values, dim, |row| global.keys[row].clone())?;
    let meta = FileMeta {
        fingerprint: job.places.features.fingerprint.to_string(),
        recipe: job.experiment.recipe.name.clone(),
        quarantined: end.quarantined,
        extra: BTreeMap::from([
            (
                "clipood.model".to_string(),
                job.experiment.recipe.model.clone(),
            ),
            (
                "clipood.model_hash".to_string(),
                job.experiment.model.hash.clone(),
            ),
            (
                "clipood.preprocessing".to_string(),
                job.experiment.preprocessing(),
            ),
            (
                "clipood.dtype".to_string(),
                job.worker.devices.dtype.name().to_string(),
            ),
            (
                "clipood.backend".to_string(),
                job.worker.devices.backend().to_string(),
            ),
        ]),
    };
    if local {
        let table = LocalFeatures {
            keys: global.keys.clone(),
            views: global.views.clone(),
            patches,
            dim,
            values,
        };
        publish(job, LOCAL, unit, write_local(&table, &meta)?)?;
    }
    let bytes = write_global(&global, GlobalType::F32, &meta)?;
    let outcome = publish(job, GLOBAL, unit, bytes)?;
    compare_features(job, &part_path(GLOBAL, unit), &global, &outcome)?;
    let mut variation = Variation::default();
    // The views of one image may be equal.
    for (row, features) in global.values.chunks_exact(dim).enumerate() {
        if row == 0 || global.keys[row] != global.keys[row - 1] {
            variation.add(features, dim);
        }
    }
    Ok(variation.problem())
}

fn publish(job: &Job, table: &str, unit: &ExtractUnit, bytes: Vec<u8>) -> Result<CommitOutcome> {
    let part = Part {
        path: part_path(table, unit),
        bytes: Bytes::from(bytes),
        extra: recorded(&job.places.features.inputs),
    };
    let key = ledger_unit(job, unit);
    let ledger = &job.places.features.ledger;
    Ok(ledger.commit_part(table, &key, part, &store_footer)?)
}

//! The consumer of the engine in stage `extract`: collects the batches of each unit and commits complete units.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use clipood_store::{CommitOutcome, Part, Unit};
use half::f16;

use super::source::UnitEnd;
use super::staged::{Rows, Schedule, Staging};
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

/// What has arrived of one unit.
struct Arrived {
    /// Its rows.
    rows: Rows,
    /// Those that are in no staged file yet.
    fresh: Vec<(usize, i16)>,
    /// Number of its batches that have arrived.
    batches: usize,
    schedule: Schedule,
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
    began: Instant,
    /// Units of which a part is staged by this process.
    staged: BTreeSet<usize>,
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
            began: Instant::now(),
            staged: BTreeSet::new(),
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
                sequence: _,
                rows,
                global,
                local,
                busy: _,
            } => {
                self.progress.add(rows.len() as u64);
                self.keep(unit, &rows, &global, &local)?;
                unit
            }
            EncodeEvent::End { unit, batches, end } => {
                for row in &end.quarantined {
                    self.progress.note(&format!(
                        "quarantined {} ({}): {}",
                        row.image_key, row.error_kind, row.message
                    ));
                }
                self.progress.add(end.staged.len() as u64);
                self.unit(unit).end = Some((end, batches));
                unit
            }
        };
        let is_whole = self.arrived.get(&unit).is_some_and(|arrived| {
            let end = arrived.end.as_ref();
            end.is_some_and(|(_, batches)| arrived.batches == *batches)
        });
        if is_whole
            && let Some(Arrived {
                mut rows,
                end: Some((mut end, _)),
                ..
            }) = self.arrived.remove(&unit)
        {
            let had_staged = !end.staged.is_empty();
            for (row, features) in std::mem::take(&mut end.staged) {
                rows.entry(row).or_insert(features);
            }
            if let Some(problem) = commit(self.job, self.pending[unit], self.local, rows, end)? {
                self.flat += 1;
                // A model that is broken is so in every shard.
                if self.flat == 1 {
                    self.progress.note(&format!(
                        "warning: {problem} of shard {}: check the images and the weights of the model",
                        self.pending[unit].key
                    ));
                }
            }
            if had_staged || self.staged.remove(&unit) {
                self.staging(unit).remove()?;
            }
            trim_heap();
        }
        Ok(())
    }

    fn unit(&mut self, unit: usize) -> &mut Arrived {
        let began = self.began;
        self.arrived.entry(unit).or_insert_with(|| Arrived {
            rows: Rows::new(),
            fresh: Vec::new(),
            batches: 0,
            schedule: Schedule::begin(began),
            end: None,
        })
    }

    fn staging(&self, unit: usize) -> Staging<'a> {
        Staging {
            job: self.job,
            unit: self.pending[unit],
            local: self.local,
        }
    }

    /// Keeps the features of a batch, and now and then stages those of the unit.
    fn keep(
        &mut self,
        number: usize,
        rows: &[(usize, i16)],
        global: &[f32],
        local: &[f32],
    ) -> Result<()> {
        let count = rows.len().max(1);
        let global = global.chunks_exact(global.len() / count);
        let mut local = local.chunks_exact((local.len() / count).max(1));
        let arrived = self.unit(number);
        arrived.batches += 1;
        for (row, features) in rows.iter().zip(global) {
            let patches = local.next().unwrap_or_default();
            let patches = patches.iter().copied().map(f16::from_f32).collect();
            arrived.rows.insert(*row, (features.to_vec(), patches));
            arrived.fresh.push(*row);
        }
        if !arrived.schedule.is_due() {
            return Ok(());
        }
        let fresh = std::mem::take(&mut arrived.fresh);
        let rows = &arrived.rows;
        let fresh: Rows = fresh
            .into_iter()
            .filter_map(|row| Some((row, rows.get(&row)?.clone())))
            .collect();
        let unit = self.pending[number];
        self.staging(number).write(&unit.list(self.job)?, &fresh)?;
        self.staged.insert(number);
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
    rows: Rows,
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
    // Views are numbered in the order in which units list them.
    for ((image, view), (features, patch_features)) in rows {
        global.keys.push(end.images[image].key.clone());
        global.views.push(view);
        let hash = end.images[image].content_hash.clone();
        global.content_hashes.push(hash);
        global.values.extend(features);
        values.extend(patch_features);
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

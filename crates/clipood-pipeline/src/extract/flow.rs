//! Fetching, decoding, encoding and writing, joined by bounded channels.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use bytes::Bytes;
use clipood_store::{CommitOutcome, Part, Unit, passes};
use crossbeam_channel::{Receiver, Sender, bounded};
use half::f16;

use super::attempts::{Attempts, Piece, process_killed};
use super::decode::{Views, panic_message, views_of};
use super::filling::Filling;
use super::in_order::in_order;
use super::units::{ExtractUnit, FeatureIndex};
use super::workers::{Batch, Clock, encode_batches};
use crate::agreement::compare_features;
use crate::error::{PipelineError, Result};
use crate::inputs::recorded;
use crate::job::Job;
use crate::heap::trim_heap;
use crate::plan::{PlannedImage, open_roots};
use crate::tables::{
    FileMeta, GlobalFeatures, GlobalType, LocalFeatures, QuarantineRow, store_footer, write_global,
    write_local,
};

/// Stage names of the two tables of a unit. The global one is written last: it stands for both.
pub const GLOBAL: &str = "global";
/// See [`GLOBAL`].
pub const LOCAL: &str = "local";

/// What the writer receives.
pub(super) enum News {
    Encoded {
        unit: usize,
        sequence: usize,
        rows: Vec<(usize, i16)>,
        global: Vec<f32>,
        local: Vec<f32>,
    },
    /// All batches of the unit have been sent.
    End {
        unit: usize,
        images: Arc<[PlannedImage]>,
        batches: usize,
        quarantined: Vec<QuarantineRow>,
    },
}

/// Path of a unit's part, relative to the features' folder.
pub fn part_path(table: &str, unit: &ExtractUnit) -> String {
    format!("{table}/part-{}.parquet", unit.key)
}

/// The unit as the ledger of the features knows it.
pub fn ledger_unit(job: &Job, unit: &ExtractUnit) -> Unit {
    Unit {
        key: unit.key.clone(),
        fingerprint: job.places.features.fingerprint.to_string(),
    }
}

/// Encodes the units of `index` whose features are not in the store yet; `local` asks for patch features too. Units that
/// other workers hold come last, so at the end all of them are there, whoever made them.
///
/// # Errors
/// An interruption (units in work are dropped), a store that cannot be written, a panic of a worker.
pub fn extract(job: &Job, index: &FeatureIndex, local: bool) -> Result<()> {
    let tables: &[&str] = if local { &[LOCAL, GLOBAL] } else { &[GLOBAL] };
    let mut done = BTreeMap::new();
    for table in tables {
        done.insert(*table, job.places.features.ledger.committed(table)?);
    }
    let mut pending = Vec::new();
    let mut keys = Vec::new();
    for unit in &index.units {
        let key = ledger_unit(job, unit);
        let mut missing = false;
        for table in tables {
            if !done[table].contains(&key)? {
                let path = part_path(table, unit);
                let ledger = &job.places.features.ledger;
                missing |= ledger
                    .recover_part(table, &key, &path, &store_footer)?
                    .is_none();
            }
        }
        if missing {
            pending.push(unit);
            keys.push(key);
        }
    }
    if pending.is_empty() {
        return Ok(());
    }
    open_roots(job)?;
    let _span = tracing::info_span!("extract", units = pending.len()).entered();
    let workers = job.worker.devices.workers.len();
    let full = match job.worker.devices.batch {
        Some(views) => views.max(1),
        None => job.worker.device().batch_for(&job.experiment.model.config)?,
    };
    let clock = Clock::default();
    let start = Instant::now();
    let (send_batch, batches) = bounded::<Batch>(2 * workers + 2);
    let (send_news, news) = bounded::<News>(2 * workers + 2);
    std::thread::scope(|scope| {
        let clock = &clock;
        let decoder = {
            let (pending, keys, send_news) = (&pending, &keys, send_news.clone());
            let span = tracing::Span::current();
            scope.spawn(move || {
                let _span = span.enter();
                let turns = turns(job, tables, keys);
                decode_units(job, pending, turns, full, &send_batch, &send_news, clock)
            })
        };
        // Only the threads hold senders and receivers, so that the end of one step ends the next.
        let encoder =
            scope.spawn(move || encode_batches(job, local, full, batches, &send_news, clock));
        let written = write_units(job, &pending, local, news, clock);
        let decoded = join("decode", decoder);
        let encoded = join("encode", encoder);
        // The first cause counts: a writer's error ends the others.
        written.and(encoded).and(decoded)
    })?;
    if let Some(line) = clock.line(start.elapsed(), workers) {
        job.worker.reporting.say(&format!("{:>9} {line}", "extract"));
    }
    // A killed writer leaves a staging file, which readers of the directory would trip over.
    job.places.features.ledger.sweep(tables)?;
    Ok(())
}

fn join(stage: &'static str, handle: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    handle.join().unwrap_or_else(|panic| {
        Err(PipelineError::Panicked {
            stage,
            message: panic_message(&*panic),
        })
    })
}

/// The pending units that this worker should do, one at a time. A unit of two tables is done when both stand.
fn turns<'a>(
    job: &'a Job,
    tables: &'a [&'a str],
    units: &'a [Unit],
) -> impl Iterator<Item = Result<usize>> {
    let mut given = HashSet::new();
    tables
        .iter()
        .flat_map(move |table| passes(&job.places.features.ledger, table, units, job.worker.share))
        .filter_map(move |turn| match turn {
            Ok(turn) => given.insert(turn.unit).then_some(Ok(turn.unit)),
            Err(error) => Some(Err(PipelineError::from(error))),
        })
}

/// Decodes images in parallel and sends batches in key order.
fn decode_units(
    job: &Job,
    pending: &[&ExtractUnit],
    turns: impl Iterator<Item = Result<usize>>,
    full: usize,
    batches: &Sender<Batch>,
    news: &Sender<News>,
    clock: &Clock,
) -> Result<()> {
    let attempts = Attempts::read(job)?;
    for turn in turns {
        let number = turn?;
        let unit = pending[number];
        let _span = tracing::debug_span!("decode", unit = unit.key, images = unit.images).entered();
        let images = unit.list(job)?;
        let mut filling = Filling::new(number, full, batches, clock);
        for piece in attempts.pieces(&unit.key, images.len()) {
            let range = match piece {
                Piece::Decode(range) => range,
                Piece::Leave(image) => {
                    let row = process_killed(&images[image]);
                    filling.quarantined.push(row);
                    continue;
                }
            };
            let note = attempts.begin(&unit.key, &images[range.clone()], &range)?;
            let goes_on = if range.len() == 1 {
                // Waiting for a slow device must not look like a death on this image.
                let image = &images[range.start];
                let decoded = decode_one(job, unit, image, fetch(image));
                attempts.end(&note)?;
                hand_over(range.start, unit, decoded?, &mut filling)
            } else {
                let decoded = decode_piece(job, unit, &images, range, &mut filling);
                attempts.end(&note)?;
                decoded?
            };
            if !goes_on {
                return Ok(());
            }
        }
        let Some(end) = filling.end(images) else {
            return Ok(());
        };
        if news.send(end).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn fetch(image: &PlannedImage) -> std::io::Result<Vec<u8>> {
    clipood_data::read(&image.source, &image.roots)
}

fn decode_one(
    job: &Job,
    unit: &ExtractUnit,
    image: &PlannedImage,
    read: std::io::Result<Vec<u8>>,
) -> Result<Views> {
    let crop_scale = job.experiment.recipe.train.crop_scale;
    views_of(image, read, &unit.views, crop_scale, &job.experiment.model.config)
}

/// Fetches and decodes some images of a unit; `false` once nobody receives any more.
fn decode_piece(
    job: &Job,
    unit: &ExtractUnit,
    images: &[PlannedImage],
    range: Range<usize>,
    filling: &mut Filling<'_>,
) -> Result<bool> {
    // What fills two batches: one that is being filled and one ahead of it.
    let ahead = (2 * filling.full() / unit.views.len()).max(2);
    let mut image = range.start;
    let decode = |image: &PlannedImage, read| decode_one(job, unit, image, read);
    in_order(&images[range], ahead, fetch, decode, |decoded| {
        job.worker.interrupt.check()?;
        let goes_on = hand_over(image, unit, decoded?, filling);
        image += 1;
        Ok(goes_on)
    })
}

/// Puts the views of an image of `unit`, by its position, into batches; `false` once nobody receives any more.
fn hand_over(image: usize, unit: &ExtractUnit, decoded: Views, filling: &mut Filling<'_>) -> bool {
    match decoded {
        Err(row) => {
            filling.quarantined.push(*row);
            true
        }
        Ok(pixels) => {
            let mut views = unit.views.iter().zip(pixels);
            views.all(|(view, pixels)| filling.add((image, *view), pixels))
        }
    }
}

/// Rows (image and view), global and local features of one batch.
type Encoded = (Vec<(usize, i16)>, Vec<f32>, Vec<f32>);

/// What has arrived of one unit, its batches by sequence.
#[derive(Default)]
struct Arrived {
    batches: BTreeMap<usize, Encoded>,
    end: Option<End>,
}

/// What a unit consists of.
struct End {
    images: Arc<[PlannedImage]>,
    batches: usize,
    quarantined: Vec<QuarantineRow>,
}

/// Collects batches and commits every unit that is whole.
fn write_units(
    job: &Job,
    pending: &[&ExtractUnit],
    local: bool,
    news: Receiver<News>,
    clock: &Clock,
) -> Result<()> {
    let total: usize = pending.iter().map(|unit| unit.rows()).sum();
    let mut progress = job.worker.progress("extract", "views", total as u64);
    let mut arrived: BTreeMap<usize, Arrived> = BTreeMap::new();
    while let Ok(piece) = news.recv() {
        progress.remark(format!(
            "queues: {} batches to encode, {} to write",
            clock.queued.load(Ordering::Relaxed),
            news.len()
        ));
        let unit = match piece {
            News::Encoded {
                unit,
                sequence,
                rows,
                global,
                local,
            } => {
                progress.add(rows.len() as u64);
                let entry = arrived.entry(unit).or_default();
                entry.batches.insert(sequence, (rows, global, local));
                unit
            }
            News::End {
                unit,
                images,
                batches,
                quarantined,
            } => {
                for row in &quarantined {
                    progress.note(&format!(
                        "quarantined {} ({}): {}",
                        row.image_key, row.error_kind, row.message
                    ));
                }
                arrived.entry(unit).or_default().end = Some(End {
                    images,
                    batches,
                    quarantined,
                });
                unit
            }
        };
        let whole = arrived[&unit]
            .end
            .as_ref()
            .is_some_and(|end| arrived[&unit].batches.len() == end.batches);
        if whole
            && let Some(Arrived {
                batches,
                end: Some(end),
            }) = arrived.remove(&unit)
        {
            commit(job, pending[unit], local, batches, end)?;
            trim_heap();
        }
    }
    progress.finish();
    Ok(())
}

fn commit(
    job: &Job,
    unit: &ExtractUnit,
    local: bool,
    batches: BTreeMap<usize, Encoded>,
    end: End,
) -> Result<()> {
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
    let meta = FileMeta {
        fingerprint: job.places.features.fingerprint.to_string(),
        recipe: job.experiment.recipe.name.clone(),
        quarantined: end.quarantined,
        extra: BTreeMap::from([
            ("clipood.model".to_string(), job.experiment.recipe.model.clone()),
            ("clipood.model_hash".to_string(), job.experiment.model.hash.clone()),
            ("clipood.preprocessing".to_string(), job.experiment.preprocessing()),
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
    compare_features(job, &part_path(GLOBAL, unit), &global, &outcome)
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

//! Finds the units that are missing and computes them with the engine.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use clipood_store::{Unit, passes};

use super::source::decode_units;
use super::staged::sweep;
use super::write::{GLOBAL, LOCAL, UnitWriter, ledger_unit, part_path};
use crate::encode::{Clock, Engine};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::plan::open_roots;
use crate::planned::Planned;
use crate::quarantine::Tally;
use crate::tables::store_footer;

/// Encodes the units of the plan whose features are not in the store yet; if it needs them, also their patch features. Units
/// that other workers have claimed come last. On return all units are committed, by this worker or by others.
///
/// # Errors
/// An interruption (units in work are dropped), more unreadable images than the recipe allows, a store that cannot be written, a panic of a worker.
pub fn extract(job: &Job, planned: &Planned) -> Result<()> {
    let (index, local) = (&planned.features, planned.patches);
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
    sweep(job.places.run.store(), &pending)?;
    if pending.is_empty() {
        return Ok(());
    }
    open_roots(job)?;
    let _span = tracing::info_span!("extract", units = pending.len()).entered();
    let full = match job.worker.devices.batch {
        Some(views) => views.max(1),
        None => job
            .worker
            .device()
            .batch_for(&job.experiment.model.config)?,
    };
    let engine = Engine {
        model: &job.experiment.model,
        devices: &job.worker.devices,
        local,
        full,
        reporting: job.worker.reporting,
        interrupt: job.worker.interrupt.clone(),
    };
    let clock = Clock::default();
    let start = Instant::now();
    let mut writer = UnitWriter::new(job, &pending, local);
    let tally = Tally::begin(job, planned)?;
    let ran = engine.run(
        &clock,
        |sink| {
            let turns = turns(job, tables, &keys);
            decode_units(job, (&pending, local), (turns, tally), sink)
        },
        |event| writer.take(event, &clock),
    );
    writer.finish();
    ran?;
    if let Some(line) = clock.line(start.elapsed(), job.worker.devices.workers.len()) {
        job.worker
            .reporting
            .say(&format!("{:>9} {line}", "extract"));
    }
    // A killed writer leaves a staging file, which readers of the directory would take for a part.
    job.places.features.ledger.sweep(tables)?;
    Ok(())
}

/// The pending units that this worker should do, one at a time. A unit with two tables is done when both are committed.
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

//! What a run does about files that have changed on the disk since they were written.
//!
//! Readers only notice damage: what they read is compared with its commit record or its seal, and the error
//! ([`clipood_store::Damage`]) ends the stage. Here the damaged file is set aside, its unit is opened again, and the
//! stages run once more; they do what is open and nothing else. The plan is the exception: the images may have changed
//! since it was made.

use clipood_store::{Damage, Error as StoreError};

use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::metrics::{AGGREGATE, TABLES};
use crate::places::Shelf;
use crate::plan::{CANNOT_PLAN_AGAIN, PARTS, STAGE as PLAN, is_planned};
use crate::stages::report::FINISH;
use crate::stages::score::{SCORE, SHARDS};
use crate::stages::stream::STREAM;

/// Largest number of files that one call sets aside. A disk that damages more should not be written to any longer.
const MOST: usize = 100;

/// Calls `work` until it meets no damage. Each time, the damaged file is set aside and named.
///
/// # Errors
/// Other errors of `work`; damage of a plan, and more than [`MOST`] damaged files.
pub fn mending<T>(job: &Job, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let mut mended = 0;
    loop {
        let error = match work() {
            Err(PipelineError::Store(error)) => error,
            other => return other,
        };
        if mended == MOST {
            return Err(error.into());
        }
        mended += 1;
        match &error {
            StoreError::Damaged(damage) => mend(job, damage)?,
            // Another worker is doing the same.
            StoreError::NotCommitted { .. } => job.worker.reporting.say(&error.to_string()),
            _ => return Err(error.into()),
        }
    }
}

/// Sets a damaged file aside, and opens its unit and the summaries of that unit again.
fn mend(job: &Job, damage: &Damage) -> Result<()> {
    let shelves = [Shelf::Run, Shelf::Features, Shelf::Prompts];
    let shelf = shelves
        .into_iter()
        .find(|shelf| job.places.ledger(*shelf).location() == damage.ledger)
        .ok_or_else(|| PipelineError::Inconsistent(damage.to_string()))?;
    let ledger = job.places.ledger(shelf);
    if shelf == Shelf::Run {
        let of_plan = [PLAN, PARTS].contains(&damage.stage.as_str());
        if of_plan && damage.is_committed() && is_planned(job)? {
            let problem = format!("{damage}; {CANNOT_PLAN_AGAIN}");
            return Err(PipelineError::Inconsistent(problem));
        }
        // From the top, so that a crash in between leaves a unit that looks undone rather than one that looks done.
        if damage.stage != FINISH {
            ledger.reopen(FINISH)?;
        }
        if damage.stage == SCORE {
            ledger.reopen(SHARDS)?;
        }
    }
    let kept = match ledger.set_aside(damage)? {
        Some(kept) => format!("moved to {kept}"),
        None => "nothing left to set aside".to_string(),
    };
    let then = match damage.is_committed() {
        true => "it is made again",
        false => "it was not committed yet and is made again",
    };
    let word = format!("{damage}; {kept}; {then}");
    job.worker.reporting.say(&word);
    Ok(())
}

/// Compares the tables of the run directory that no stage will read any more with their commit records: the plan if
/// there is one, and the scores if the metrics are made.
///
/// # Errors
/// The first damaged table or record.
pub fn check_tables(job: &Job) -> Result<()> {
    let ledger = job.places.run.ledger();
    let mut stages = Vec::new();
    if is_planned(job)? {
        stages.extend([PLAN, PARTS]);
    }
    if ledger.committed(AGGREGATE)?.len() >= TABLES.len() {
        stages.extend([SHARDS, SCORE, STREAM, AGGREGATE]);
    }
    for stage in stages {
        let records = ledger.records(stage)?;
        if let Some(damage) = ledger.check_parts(&records)? {
            return Err(StoreError::from(damage).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run;
    use crate::status::audit;
    use crate::testing::World;
    use clipood_store::Store;

    /// Flips a bit in the middle of the first object under `prefix`; returns its path and the bytes before.
    fn flip(store: &Store, prefix: &str, suffix: &str) -> (String, bytes::Bytes) {
        let mut listed = store.list(prefix).unwrap().into_iter();
        let object = listed.find(|o| o.path.ends_with(suffix)).unwrap();
        let before = store.get(&object.path).unwrap().unwrap();
        let mut bytes = before.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        store.put(&object.path, bytes.into()).unwrap();
        (object.path, before)
    }

    #[test]
    fn damage_of_every_shelf_is_mended_and_a_damaged_plan_is_refused() {
        let world = World::new();
        let job = world.job(0, 1);
        run(&job).unwrap();
        for (prefix, suffix) in [("metrics", ".parquet"), ("scores", ".parquet")] {
            let (path, before) = flip(&world.run, prefix, suffix);
            assert!(!audit(&job).unwrap().holds(), "{path}");
            run(&job).unwrap();
            assert_eq!(world.run.get(&path).unwrap(), Some(before), "{path}");
            assert!(audit(&job).unwrap().holds(), "{path}");
        }
        assert!(!world.run.list("_run/damaged").unwrap().is_empty());
        // What a run that scores again reads: a prompt set and features.
        for (prefix, suffix) in [("features", ".parquet"), ("prompts", "prompt.safetensors")] {
            let (path, _) = flip(&world.shared, prefix, suffix);
            assert!(!audit(&job).unwrap().holds(), "{path}");
            for stage in [SCORE, SHARDS, AGGREGATE, FINISH, "fit"] {
                job.places.run.ledger().reopen(stage).unwrap();
            }
            for table in ["scores", "validation", "metrics"] {
                for object in world.run.list(table).unwrap() {
                    world.run.delete(&object.path).unwrap();
                }
            }
            run(&job).unwrap();
            let audit = audit(&job).unwrap();
            assert!(audit.holds(), "{path}: {:?}", audit.examples);
        }
        let (path, _) = flip(&world.run, "images", ".parquet");
        let error = run(&job).unwrap_err().to_string();
        assert!(
            error.contains(&path) && error.contains(CANNOT_PLAN_AGAIN),
            "{error}"
        );
        assert!(world.run.exists(&path).unwrap(), "it stays where it is");
    }
}

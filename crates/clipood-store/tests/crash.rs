//! A crash at every operation of a worker, and the loss of every reply; the end state is always the same.
#![allow(
    clippy::unwrap_used,
    reason = "a failing helper of a test should panic"
)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clipood_store::{CommitOutcome, Error, Ledger, Share, Store, Unit};
use common::faults::{Faults, Moment, Plan};
use common::{alone, assert_finished, impatient, part_path, read_footer, result_of, units, work};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use proptest::prelude::*;

type Objects = Arc<dyn ObjectStore>;

/// A worker's ledger whose store fails by `plan`.
fn ledger(objects: &Objects, plan: Plan, worker: &str) -> (Ledger, Arc<Faults>) {
    let faults = Arc::new(Faults::new(Arc::clone(objects), plan));
    let store =
        Store::from_object_store(Arc::clone(&faults) as Objects, "test:").with_retry(impatient());
    (Ledger::new(store, "_run", worker), faults)
}

/// Runs `scenario` on new stores of both kinds with a fault at every operation, until the fault comes after its end.
fn at_every_operation(scenario: impl Fn(&Objects, usize, Moment) -> bool) -> usize {
    let mut stories = 0;
    for moment in [Moment::Before, Moment::After] {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let disk: Objects = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
            let memory: Objects = Arc::new(InMemory::new());
            let went_on = scenario(&memory, at, moment);
            assert_eq!(
                scenario(&disk, at, moment),
                went_on,
                "both stores see the same operations"
            );
            stories += 2;
            if !went_on {
                break;
            }
        }
    }
    stories
}

#[test]
fn a_crash_at_every_operation_is_resumed() {
    let units = units(3);
    let stories = at_every_operation(|objects, at, moment| {
        let before = AtomicUsize::new(0);
        let (dying, _) = ledger(objects, Plan::Crash(at, moment), "worker-0");
        let crashed = work(&dying, &units, alone(), &before).is_err();
        let (raw, _) = ledger(objects, Plan::Never, "worker-0");
        let parts = units
            .iter()
            .filter(|unit| raw.store().exists(&part_path(unit)).unwrap())
            .count();
        let after = AtomicUsize::new(0);
        work(&raw, &units, alone(), &after).unwrap();
        assert_finished(&raw, &units);
        // No part that exists is ever computed again.
        assert_eq!(
            after.load(Ordering::SeqCst),
            units.len() - parts,
            "{moment:?} {at}"
        );
        crashed
    });
    // Listing, and for each unit claim, part look-up, part and record, on two stores and at two moments.
    assert!(stories > 2 * 2 * 13, "{stories} stories");
}

#[test]
fn another_worker_takes_over_at_every_crash() {
    let units = units(2);
    at_every_operation(|objects, at, moment| {
        let (dying, _) = ledger(objects, Plan::Crash(at, moment), "worker-0");
        let share = |index, backups| Share {
            index,
            count: 2,
            backups,
        };
        let crashed = work(&dying, &units, share(0, true), &AtomicUsize::new(0)).is_err();
        let (other, _) = ledger(objects, Plan::Never, "worker-1");
        work(&other, &units, share(1, true), &AtomicUsize::new(0)).unwrap();
        assert_finished(&other, &units);
        crashed
    });
}

#[test]
fn a_transient_fault_is_not_noticed() {
    let units = units(2);
    at_every_operation(|objects, at, moment| {
        let (ledger, faults) = ledger(objects, Plan::Once(at, moment), "worker-0");
        let outcomes = work(&ledger, &units, alone(), &AtomicUsize::new(0)).unwrap();
        // After a lost reply the retried write finds its own object, which it recognises by the nonce.
        assert_eq!(outcomes.len(), units.len());
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, CommitOutcome::Committed(_)))
        );
        let injected = faults.injected.load(Ordering::SeqCst);
        assert_finished(&ledger, &units);
        injected == 1
    });
}

#[test]
fn a_full_disk_leaves_nothing_and_names_the_file() {
    let objects: Objects = Arc::new(InMemory::new());
    let units = units(2);
    let (full, _) = ledger(
        &objects,
        Plan::Writes(std::io::ErrorKind::StorageFull),
        "worker-0",
    );
    let error = full
        .commit_part("score", &units[0], result_of(&units[0]), &read_footer)
        .unwrap_err();
    assert!(matches!(error, Error::OutOfSpace { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("test:/scores/dataset=a/part-a-00000.toy"),
        "{error}"
    );
    assert!(full.store().list("").unwrap().is_empty());
    let (freed, _) = ledger(&objects, Plan::Never, "worker-0");
    work(&freed, &units, alone(), &AtomicUsize::new(0)).unwrap();
    assert_finished(&freed, &units);
}

#[test]
fn refused_writes_are_not_retried() {
    let objects: Objects = Arc::new(InMemory::new());
    let (refused, faults) = ledger(
        &objects,
        Plan::Writes(std::io::ErrorKind::ReadOnlyFilesystem),
        "w",
    );
    let error = refused.claim("score", "0").unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert_eq!(faults.injected.load(Ordering::SeqCst), 1);
}

#[test]
fn retries_are_bounded() {
    let objects: Objects = Arc::new(InMemory::new());
    let (failing, faults) = ledger(&objects, Plan::Writes(std::io::ErrorKind::TimedOut), "w");
    let error = failing.claim("score", "0").unwrap_err();
    assert!(error.to_string().contains("(12 attempt(s))"), "{error}");
    assert_eq!(faults.injected.load(Ordering::SeqCst), 12);
}

fn storm(objects: Objects, units: &[Unit], seed: u64) -> u64 {
    let worked = AtomicUsize::new(0);
    let injected = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|index| {
                let (objects, worked) = (Arc::clone(&objects), &worked);
                scope.spawn(move || {
                    let plan = Plan::Random {
                        one_in: 10,
                        seed: seed + index,
                    };
                    let (ledger, faults) = ledger(&objects, plan, &format!("worker-{index}"));
                    let share = Share {
                        index: index as usize,
                        count: 4,
                        backups: true,
                    };
                    work(&ledger, units, share, worked).unwrap();
                    faults.injected.load(Ordering::SeqCst)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    let (raw, _) = ledger(&objects, Plan::Never, "reader");
    assert_finished(&raw, units);
    injected
}

#[test]
fn four_workers_finish_with_a_tenth_of_all_operations_failing() {
    let units = units(60);
    let dir = tempfile::tempdir().unwrap();
    let disk: Objects = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    for objects in [Arc::new(InMemory::new()) as Objects, disk] {
        let injected = storm(objects, &units, 7);
        assert!(injected > 20, "only {injected} faults");
    }
}

#[test]
fn leftovers_of_killed_writers_are_swept_and_never_seen() {
    let (_dir, store) = common::awkward_disk();
    let ledger = Ledger::new(store.clone(), "_run", "worker-0");
    let units = units(2);
    // The leftovers of writers killed while writing the part, the record and a claim.
    let leftovers = [
        format!("{}#1", part_path(&units[0])),
        "_run/commits/score/a~2F00000.001122334455.json#1".to_owned(),
        "_run/claims/score/a~2F00000.json#3".to_owned(),
    ];
    for leftover in &leftovers {
        let path = store.local_path(leftover).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "TOY half").unwrap();
    }
    assert!(
        ledger.sweep(&["scores"]).unwrap().is_empty(),
        "their objects may still be written"
    );
    assert!(
        ledger.committed("score").unwrap().is_empty()
            && ledger.claimed("score").unwrap().is_empty()
    );
    work(&ledger, &units, alone(), &AtomicUsize::new(0)).unwrap();
    assert_finished(&ledger, &units);
    let mut swept = ledger.sweep(&["scores"]).unwrap();
    swept.sort();
    let mut expected = leftovers.to_vec();
    expected.sort();
    assert_eq!(swept, expected);
    assert!(
        leftovers
            .iter()
            .all(|path| !Path::exists(&store.local_path(path).unwrap()))
    );
    assert_finished(&ledger, &units);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any number of crashes of any workers, one after the other, and then one worker that survives.
    #[test]
    fn any_history_ends_the_same(
        crashes in prop::collection::vec((0usize..25, any::<bool>(), 0usize..3), 0..8),
        count in 0usize..6,
    ) {
        let objects: Objects = Arc::new(InMemory::new());
        let units = units(count);
        for (at, after, index) in crashes {
            let moment = if after { Moment::After } else { Moment::Before };
            let (dying, _) = ledger(&objects, Plan::Crash(at, moment), &format!("worker-{index}"));
            let share = Share { index, count: 3, backups: index != 1 };
            // Crashes, or finishes if the fault comes after the end.
            let _ = work(&dying, &units, share, &AtomicUsize::new(0));
        }
        let (last, _) = ledger(&objects, Plan::Never, "worker-0");
        work(&last, &units, Share { index: 0, count: 3, backups: true }, &AtomicUsize::new(0)).unwrap();
        assert_finished(&last, &units);
    }
}

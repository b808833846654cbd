//! Commits that must be rejected, the passes of workers, and run directories.
#![allow(
    clippy::unwrap_used,
    reason = "a failing helper of a test should panic"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use clipood_store::{
    CommitOutcome, Error, Ledger, Part, Pass, Run, Share, Store, Turn, Unit, passes,
};
use common::{
    FINGERPRINT, STAGE, alone, assert_finished, part_path, read_footer, result_of, toy, units, work,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const OTHER: &str = "ffeeddccbbaa99887766554433221100";

fn ledger() -> Ledger {
    Ledger::new(Store::memory(), "_run", "worker-0")
}

fn commit(ledger: &Ledger, unit: &Unit, bytes: Bytes) -> clipood_store::Result<CommitOutcome> {
    let part = Part {
        bytes,
        ..result_of(unit)
    };
    ledger.commit_part(STAGE, unit, part, &read_footer)
}

#[test]
fn a_part_of_another_fingerprint_is_kept_and_named() {
    let (ledger, unit) = (ledger(), &units(1)[0]);
    let stale = toy(OTHER, 3, "stale\n");
    ledger.store().put(&part_path(unit), stale.clone()).unwrap();
    for error in [
        commit(&ledger, unit, result_of(unit).bytes).unwrap_err(),
        ledger
            .recover_part(STAGE, unit, &part_path(unit), &read_footer)
            .unwrap_err(),
    ] {
        assert!(matches!(error, Error::OtherFingerprint { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&part_path(unit)) && text.contains(OTHER) && text.contains(FINGERPRINT)
        );
    }
    assert_eq!(ledger.store().get(&part_path(unit)).unwrap(), Some(stale));
    assert!(!ledger.is_done(STAGE, unit).unwrap());
}

#[test]
fn a_foreign_or_truncated_file_is_kept_and_named() {
    let (ledger, unit) = (ledger(), &units(1)[0]);
    let whole = result_of(unit).bytes;
    let foreign = Bytes::from_static(b"notes of somebody");
    for (file, is_ours) in [(foreign, false), (whole.slice(..whole.len() - 1), true)] {
        ledger.store().put(&part_path(unit), file.clone()).unwrap();
        let error = commit(&ledger, unit, whole.clone()).unwrap_err();
        match is_ours {
            false => assert!(matches!(error, Error::ForeignPart { .. }), "{error}"),
            // Its seal shows that it once was a part.
            true => assert!(matches!(error, Error::Damaged(_)), "{error}"),
        }
        assert_eq!(ledger.store().get(&part_path(unit)).unwrap(), Some(file));
        assert!(!ledger.is_done(STAGE, unit).unwrap());
    }
}

#[test]
fn a_part_without_its_fingerprint_is_not_published() {
    let (ledger, unit) = (ledger(), &units(1)[0]);
    for wrong in [toy(OTHER, 1, ""), Bytes::from_static(b"no footer")] {
        let error = commit(&ledger, unit, wrong).unwrap_err();
        assert!(matches!(error, Error::Footer { .. }), "{error}");
    }
    assert!(ledger.store().list("").unwrap().is_empty());
}

#[test]
fn a_part_without_record_is_recovered_with_its_figures() {
    let (ledger, unit) = (ledger(), &units(1)[0]);
    assert!(
        ledger
            .recover_part(STAGE, unit, &part_path(unit), &read_footer)
            .unwrap()
            .is_none()
    );
    let bytes = toy(FINGERPRINT, 42, "from before the crash\n");
    ledger.store().put(&part_path(unit), bytes.clone()).unwrap();
    let record = ledger
        .recover_part(STAGE, unit, &part_path(unit), &read_footer)
        .unwrap()
        .unwrap();
    assert_eq!(
        (record.rows, record.quarantined, record.bytes),
        (42, 1, bytes.len() as u64)
    );
    assert_eq!(
        record.blake3.as_deref(),
        Some(&*blake3::hash(&bytes).to_hex())
    );
    assert_eq!(ledger.record(STAGE, unit).unwrap(), Some(record));
}

#[test]
fn a_replaced_part_is_found_out() {
    let (ledger, unit) = (ledger(), &units(1)[0]);
    let record = commit(&ledger, unit, result_of(unit).bytes)
        .unwrap()
        .record()
        .clone();
    assert_eq!(ledger.check_part(&record).unwrap(), None);
    let mut changed = result_of(unit).bytes.to_vec();
    changed[50] ^= 1;
    let found = blake3::hash(&changed).to_hex().to_string();
    ledger
        .store()
        .put(&part_path(unit), changed.into())
        .unwrap();
    let damage = ledger.check_part(&record).unwrap().unwrap();
    assert_eq!(Some(&damage.expected), record.blake3.as_ref());
    assert_eq!(damage.found, found);
    let error = commit(&ledger, unit, result_of(unit).bytes).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    ledger.store().delete(&part_path(unit)).unwrap();
    let damage = ledger.check_part(&record).unwrap().unwrap();
    assert_eq!(damage.found, "no such file");
}

#[test]
fn fingerprints_that_share_their_first_digits_are_told_apart() {
    let ledger = ledger();
    let unit = &units(1)[0];
    let twin = &Unit {
        fingerprint: format!("{}{OTHER}", &FINGERPRINT[..12]),
        ..unit.clone()
    };
    ledger
        .commit_without_part(STAGE, unit, BTreeMap::new())
        .unwrap();
    let error = ledger
        .commit_without_part(STAGE, twin, BTreeMap::new())
        .unwrap_err();
    assert!(matches!(error, Error::RecordMismatch { .. }), "{error}");
    assert!(matches!(
        ledger.record(STAGE, twin),
        Err(Error::RecordMismatch { .. })
    ));
}

#[test]
fn units_without_parts_commit_once_and_keep_their_extras() {
    let (ledger, unit) = (ledger(), &units(1)[0]);
    let extra = BTreeMap::from([("versions".to_owned(), json!({"clipood": "0.1.0"}))]);
    let first = ledger
        .commit_without_part("plan", unit, extra.clone())
        .unwrap();
    let again = ledger
        .commit_without_part("plan", unit, BTreeMap::new())
        .unwrap();
    assert!(matches!(&first, CommitOutcome::Committed(record) if record.extra == extra));
    assert_eq!(
        again,
        CommitOutcome::AlreadyCommitted(first.record().clone())
    );
    assert_eq!(ledger.check_part(first.record()).unwrap(), None);
    // Stages are independent.
    assert!(!ledger.is_done("score", unit).unwrap());
}

#[test]
fn bookkeeping_names_are_told_apart() {
    let ledger = ledger();
    assert!(ledger.claim("a@b", "c").unwrap());
    let paths: Vec<String> = (ledger.store().list("").unwrap().into_iter())
        .map(|object| object.path)
        .collect();
    assert_eq!(paths, ["_run/claims/a~40b/c.json"]);
    // Stage `a` of run `b` keeps its claims beside it, in `a@b`.
    let of_run = ledger.clone().with_claims_of("b").unwrap();
    assert!(of_run.claimed("a").unwrap().is_empty());
    assert!(ledger.claim("", "c").is_err() && ledger.claim("a", "").is_err());
}

#[test]
fn a_broken_claim_counts_as_another_workers() {
    let ledger = ledger();
    ledger
        .store()
        .put("_run/claims/score/7.json", "{".into())
        .unwrap();
    assert!(!ledger.claim("score", "7").unwrap());
    assert!(ledger.claimed("score").unwrap().contains("7"));
}

fn turns(ledger: &Ledger, units: &[Unit], share: Share) -> Vec<(usize, Pass)> {
    let turns: Result<Vec<Turn>, _> = passes(ledger, STAGE, units, share).collect();
    turns
        .unwrap()
        .into_iter()
        .map(|turn| (turn.unit, turn.pass))
        .collect()
}

#[test]
fn the_three_passes_come_in_order() {
    let units = units(7);
    let of = |worker: &str, store: &Store| Ledger::new(store.clone(), "_run", worker);
    let store = Store::memory();
    // Worker 1 of 3 died after it had claimed its own unit 1 and unit 3 of worker 0; unit 0 is done.
    let dead = of("worker-1", &store);
    assert!(dead.claim(STAGE, &units[1].key).unwrap() && dead.claim(STAGE, &units[3].key).unwrap());
    commit(&dead, &units[0], result_of(&units[0]).bytes).unwrap();
    let share = |index, backups| Share {
        index,
        count: 3,
        backups,
    };
    let given = turns(&of("worker-0", &store), &units, share(0, true));
    use Pass::{Backup, Own, Unclaimed};
    assert_eq!(
        given,
        [
            (6, Own),
            (2, Unclaimed),
            (4, Unclaimed),
            (5, Unclaimed),
            (1, Backup),
            (3, Backup)
        ]
    );
    // After a restart it does what it had claimed itself; without backups it leaves the rest.
    let given = turns(&of("worker-1", &store), &units, share(1, false));
    assert_eq!(given, [(1, Own), (3, Backup)]);
    // A third worker starts its backups at another position.
    let given = turns(&of("worker-2", &store), &units, share(2, true));
    assert_eq!(
        given.iter().map(|turn| turn.0).collect::<Vec<_>>(),
        [5, 6, 1, 2, 3, 4]
    );
    assert!(given.iter().all(|turn| turn.1 == Backup));
    // An index beyond the count or a count of 0 is a mistake of the user and must not panic.
    assert_eq!(
        turns(
            &of("x", &store),
            &units,
            Share {
                index: 5,
                count: 0,
                backups: true
            }
        )
        .len(),
        6
    );
}

#[test]
fn a_finished_stage_yields_no_units() {
    let (ledger, units) = (ledger(), units(5));
    work(&ledger, &units, alone(), &AtomicUsize::new(0)).unwrap();
    assert_finished(&ledger, &units);
    assert!(turns(&ledger, &units, alone()).is_empty());
    // A unit with another fingerprint is a different unit.
    let changed: Vec<Unit> = units
        .iter()
        .map(|unit| Unit {
            fingerprint: OTHER.to_owned(),
            ..unit.clone()
        })
        .collect();
    assert_eq!(turns(&ledger, &changed, alone()).len(), 5);
}

#[test]
fn eight_workers_at_once_finish_every_unit() {
    let (store, units, worked) = (Store::memory(), units(200), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (store, units, worked) = (store.clone(), &units, &worked);
            scope.spawn(move || {
                let ledger = Ledger::new(store, "_run", &format!("worker-{index}"));
                work(
                    &ledger,
                    units,
                    Share {
                        index,
                        count: 8,
                        backups: true,
                    },
                    worked,
                )
                .unwrap();
            });
        }
    });
    assert_finished(&Ledger::new(store, "_run", "reader"), &units);
    // Only units in progress when the last pass began are done twice: per worker at most one of each other worker.
    assert!(worked.load(Ordering::SeqCst) <= 200 + 7 * 8, "{worked:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Workers take turns in any order and any of them may die with a claim; no unit is computed twice.
    #[test]
    fn claims_waste_nothing_and_lose_nothing(
        steps in prop::collection::vec((0usize..4, prop::bool::weighted(0.15)), 0..80),
        count in 0usize..30,
    ) {
        let (store, units) = (Store::memory(), units(count));
        let ledgers: Vec<Ledger> =
            (0..4).map(|index| Ledger::new(store.clone(), "_run", &format!("worker-{index}"))).collect();
        let begin = |index: usize| passes(&ledgers[index], STAGE, &units, Share { index, count: 4, backups: true });
        let mut workers: Vec<_> = (0..4).map(begin).collect();
        let mut times_done = vec![0; count];
        for (index, dies) in steps.into_iter().chain((0..4).flat_map(|w| [(w, false); 31])) {
            let Some(turn) = workers[index].next() else { continue };
            let unit = turn.unwrap().unit;
            if dies {
                workers[index] = begin(index);
                continue;
            }
            times_done[unit] += 1;
            commit(&ledgers[index], &units[unit], result_of(&units[unit]).bytes).unwrap();
        }
        prop_assert_eq!(times_done, vec![1; count]);
        assert_finished(&ledgers[0], &units);
    }
}

fn config() -> Value {
    json!({
        "model": "ViT-B-16",
        "methods": [{"name": "coop", "shots": 16}, {"name": "mcm"}],
        "lr": 0.1 + 0.2,
        "tiny": 5e-324,
        "scale": 6.62607015e-34,
    })
}

#[test]
fn a_run_opens_again_only_with_its_configuration() {
    let store = Store::memory();
    let run = Run::open_or_create(store.clone(), &config(), &json!({"clipood": "1"}), "w").unwrap();
    assert_eq!(run.store().list("").unwrap()[0].path, "run.json");
    // Versions may differ; those of the first caller are kept.
    let again =
        Run::open_or_create(store.clone(), &config(), &json!({"clipood": "2"}), "w").unwrap();
    assert_eq!(again.versions(), &json!({"clipood": "1"}));
    assert_eq!(
        Run::open(store.clone(), "w").unwrap().config(),
        again.config()
    );

    let mut other = config();
    other["methods"][0]["shots"] = json!(4);
    other["methods"].as_array_mut().unwrap().pop();
    other["note"] = json!("x".repeat(500));
    let error = Run::open_or_create(store, &other, &json!({}), "w").unwrap_err();
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("memory:/run.json was made from another configuration"),
        "{text}"
    );
    assert_eq!(lines[1], "  methods[0].shots: 16 there, 4 here");
    assert_eq!(
        lines[2],
        "  methods[1]: {\"name\":\"mcm\"} there, absent here"
    );
    assert!(lines[3].starts_with("  note: absent there, \"xxx") && lines[3].ends_with("... here"));
    assert_eq!(lines.len(), 4);
}

#[test]
fn many_workers_may_create_a_run_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap()).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let store = store.clone();
            scope.spawn(move || {
                let versions = json!({"started_by": worker});
                Run::open_or_create(store, &config(), &versions, "w").unwrap();
            });
        }
    });
    assert_eq!(store.list("").unwrap().len(), 1);
}

#[test]
fn a_directory_without_a_run_is_reported() {
    let store = Store::memory();
    let error = Run::open(store.clone(), "w").unwrap_err();
    assert!(
        matches!(&error, Error::NoRun { path } if path == "memory:/run.json"),
        "{error}"
    );
    store
        .put("run.json", "{\"format_version\": 99}".into())
        .unwrap();
    assert!(matches!(
        Run::open(store.clone(), "w"),
        Err(Error::Version { found: 99, .. })
    ));
    store
        .put("run.json", "{\"format_version\": 1, \"conf".into())
        .unwrap();
    assert!(matches!(
        Run::open(store, "w"),
        Err(Error::RunFileDamaged { .. })
    ));
}

proptest! {
    #[test]
    fn configurations_equal_themselves_through_text(numbers in prop::collection::vec(any::<f64>(), 0..20)) {
        prop_assume!(numbers.iter().all(|number| number.is_finite()));
        let (store, config) = (Store::memory(), json!({"numbers": numbers}));
        Run::open_or_create(store.clone(), &config, &json!({}), "w").unwrap();
        let again = Run::open_or_create(store.clone(), &config, &json!({"other": 1}), "w");
        prop_assert!(again.is_ok());
        let opened = Run::open(store, "w").unwrap();
        prop_assert_eq!(opened.config(), &config);
    }
}

#[test]
fn claims_among_the_workers_of_one_run_are_not_seen_by_another() {
    let store = Store::memory();
    let ledger = |run: &str, worker: &str| {
        let ledger = Ledger::new(store.clone(), "_commits", worker);
        ledger.with_claims_of(run).unwrap()
    };
    assert!(ledger("a", "worker-0").claim("train", "x").unwrap());
    assert!(!ledger("a", "worker-1").claim("train", "x").unwrap());
    assert!(ledger("b", "worker-1").claim("train", "x").unwrap());
    assert!(
        ledger("b", "worker-0")
            .claimed("train")
            .unwrap()
            .contains("x")
    );
    assert!(ledger("c", "worker-0").claimed("train").unwrap().is_empty());
}

//! The requirements of the protocol on a store, as one suite over `&Store`. Every kind of store must pass it.
#![allow(
    clippy::unwrap_used,
    reason = "a failing helper of a test should panic"
)]

mod common;

use std::sync::Barrier;

use bytes::Bytes;
use clipood_store::{CommitOutcome, Created, Error, Ledger, Store};
use common::{awkward_disk, part_path, read_footer, result_of, toy, units};

const RACERS: usize = 16;

/// Runs `racer` on 16 threads that start together.
fn race<T: Send>(racer: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(RACERS);
    let (start, racer) = (&start, &racer);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RACERS)
            .map(|index| {
                scope.spawn(move || {
                    start.wait();
                    racer(index)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// The suite. Does not remove its objects: `store` should be empty and used by nothing else.
fn conformance(store: &Store) {
    objects(&store.child("objects").unwrap());
    ranges(&store.child("ranges").unwrap());
    listing(&store.child("listing").unwrap());
    names_of_all_kinds(&store.child("names").unwrap());
    created_once(&store.child("races").unwrap());
    committed_once(&store.child("commits").unwrap());
    claimed_once(&store.child("claims").unwrap());
}

fn objects(store: &Store) {
    assert_eq!(store.get("a/b").unwrap(), None);
    assert!(!store.exists("a/b").unwrap());
    assert_eq!(store.create("a/b", "one".into()).unwrap(), Created::New);
    assert_eq!(
        store.create("a/b", "one".into()).unwrap(),
        Created::Identical
    );
    assert_eq!(
        store.create("a/b", "two".into()).unwrap(),
        Created::Existed("one".into())
    );
    assert_eq!(store.get("a/b").unwrap().unwrap(), "one");
    store.put("a/b", "three".into()).unwrap();
    assert_eq!(store.get("a/b").unwrap().unwrap(), "three");
    assert_eq!(store.size("a/b").unwrap(), Some(5));
    store.put("a/c", Bytes::new()).unwrap();
    assert_eq!(store.get("a/c").unwrap().unwrap(), "");
    let paths = ["a/c", "a/x", "a/b"].map(str::to_owned);
    let many = store.get_many(&paths).unwrap();
    assert_eq!(many, [Some("".into()), None, Some("three".into())]);
    store.delete("a/b").unwrap();
    store.delete("a/b").unwrap();
    assert!(!store.exists("a/b").unwrap());
    assert_eq!(store.create("a/b", "four".into()).unwrap(), Created::New);
}

fn ranges(store: &Store) {
    store.put("o", "0123456789".into()).unwrap();
    assert_eq!(store.get_range("o", 0..10).unwrap().unwrap(), "0123456789");
    assert_eq!(store.get_range("o", 3..5).unwrap().unwrap(), "34");
    assert_eq!(store.get_range("o", 10..10).unwrap().unwrap(), "");
    #[allow(clippy::reversed_empty_ranges)]
    for beyond in [9..11, 11..11, 5..4] {
        let error = store.get_range("o", beyond).unwrap_err();
        assert!(matches!(error, Error::Range { size: 10, .. }), "{error}");
    }
    assert_eq!(store.get_range("absent", 0..1).unwrap(), None);
}

fn listing(store: &Store) {
    assert!(store.list("").unwrap().is_empty() && store.names("d").unwrap().is_empty());
    // More than a page of the usual listings.
    let paths: Vec<String> = (0..1100).map(|n| format!("d/{n:04}")).collect();
    race(|racer| {
        for path in paths.iter().skip(racer).step_by(RACERS) {
            store.put(path, path.clone().into()).unwrap();
        }
    });
    store.put("d/deep/er", "x".into()).unwrap();
    store.put("dd", "x".into()).unwrap();
    let listed = store.list("d").unwrap();
    let expected: Vec<&str> = paths.iter().map(|p| &**p).chain(["d/deep/er"]).collect();
    assert_eq!(
        listed.iter().map(|o| &*o.path).collect::<Vec<_>>(),
        expected
    );
    assert!(listed[..1100].iter().all(|object| object.size == 6));
    assert_eq!(store.list("").unwrap().len(), 1102);
    let mut names = store.names("d").unwrap();
    names.sort();
    assert_eq!(
        names,
        paths.iter().map(|path| &path[2..]).collect::<Vec<_>>()
    );
    assert_eq!(store.names("").unwrap(), ["dd"]);
    let child = store.child("d/deep").unwrap();
    assert_eq!(child.list("").unwrap()[0].path, "er");
    assert_eq!(child.get("er").unwrap().unwrap(), "x");
}

fn names_of_all_kinds(store: &Store) {
    let paths = [
        "a b/c d",
        "ü/日本",
        "50%/%20",
        "x#y/z#w.jpg",
        "q#7/k",
        "k=v/p+q,r@s~t",
        "-",
    ];
    for path in paths {
        assert_eq!(
            store.create(path, path.to_owned().into()).unwrap(),
            Created::New,
            "{path}"
        );
    }
    let mut expected = paths.to_vec();
    expected.sort();
    let listed = store.list("").unwrap();
    assert_eq!(
        listed.iter().map(|o| &*o.path).collect::<Vec<_>>(),
        expected
    );
    for path in paths {
        assert_eq!(store.get(path).unwrap().unwrap(), path);
    }
    for bad in ["../x", "a/./b", "a//b", "a\nb"] {
        assert!(
            matches!(store.get(bad), Err(Error::InvalidPath { .. })),
            "{bad:?}"
        );
        assert!(
            matches!(store.child(bad), Err(Error::InvalidPath { .. })),
            "{bad:?}"
        );
    }
}

fn created_once(store: &Store) {
    for round in 0..20 {
        let path = format!("round/{round}");
        let answers = race(|racer| {
            store
                .create(&path, format!("racer {racer}").into())
                .unwrap()
        });
        let stands = store.get(&path).unwrap().unwrap();
        let winners: Vec<usize> = (0..RACERS)
            .filter(|&racer| answers[racer] == Created::New)
            .collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert_eq!(stands, format!("racer {}", winners[0]));
        let lost = Created::Existed(stands);
        assert_eq!(
            answers.iter().filter(|&answer| *answer == lost).count(),
            RACERS - 1
        );
    }
}

fn committed_once(store: &Store) {
    for (round, unit) in units(10).iter().enumerate() {
        let bytes = |racer: usize| toy(&unit.fingerprint, 10, &format!("of racer {racer}\n"));
        let outcomes = race(|racer| {
            let ledger = Ledger::new(store.clone(), "_run", &format!("racer-{racer}"));
            // In odd rounds all racers have the same bytes.
            let bytes = bytes(if round % 2 == 0 { racer } else { 0 });
            let part = clipood_store::Part {
                bytes,
                ..result_of(unit)
            };
            ledger
                .commit_part("score", unit, part, &read_footer)
                .unwrap()
        });
        let ledger = Ledger::new(store.clone(), "_run", "reader");
        let record = ledger.record("score", unit).unwrap().unwrap();
        assert_eq!(ledger.check_part(&record).unwrap(), None);
        assert!(outcomes.iter().all(|outcome| *outcome.record() == record));
        let stands = store.get(&part_path(unit)).unwrap().unwrap();
        let mut lost = 0;
        for (racer, outcome) in outcomes.iter().enumerate() {
            if let CommitOutcome::LostRace { published, .. } = outcome {
                assert_eq!(*published, stands);
                assert_ne!(bytes(racer), stands);
                lost += 1;
            }
        }
        assert_eq!(lost, if round % 2 == 0 { RACERS - 1 } else { 0 });
        let ours = outcomes
            .iter()
            .filter(|o| matches!(o, CommitOutcome::Committed(_)))
            .count();
        assert!(ours <= 1 && (round % 2 == 0 || ours == 1), "{ours}");
    }
    let ledger = Ledger::new(store.clone(), "_run", "reader");
    assert_eq!(ledger.committed("score").unwrap().len(), 10);
    assert_eq!(store.list("").unwrap().len(), 20);
}

fn claimed_once(store: &Store) {
    for unit in &units(10) {
        let answers = race(|racer| {
            let ledger = Ledger::new(store.clone(), "_run", &format!("racer-{racer}"));
            ledger.claim("score", &unit.key).unwrap()
        });
        assert_eq!(answers.iter().filter(|&&yes| yes).count(), 1);
        let winner = answers.iter().position(|&yes| yes).unwrap();
        let restarted = Ledger::new(store.clone(), "_run", &format!("racer-{winner}"));
        assert!(restarted.claim("score", &unit.key).unwrap());
    }
    let claimed = Ledger::new(store.clone(), "_run", "reader")
        .claimed("score")
        .unwrap();
    assert_eq!(
        claimed,
        units(10).into_iter().map(|unit| unit.key).collect()
    );
}

#[test]
fn memory_conforms() {
    conformance(&Store::memory());
}

#[test]
fn local_disk_conforms() {
    let (dir, store) = awkward_disk();
    conformance(&store);
    let below = store.local_path("names/50%/%20").unwrap();
    assert_eq!(std::fs::read_to_string(&below).unwrap(), "50%/%20");
    assert!(below.starts_with(dir.path().canonicalize().unwrap().join("a run#1")));
}

/// `CLIPOOD_TEST_STORE=s3://bucket/empty/prefix`, with the server's options in the environment; `make test-cloud` sets both.
#[test]
#[ignore = "needs a server: make test-cloud"]
fn the_named_store_conforms() {
    let url = std::env::var("CLIPOOD_TEST_STORE").expect("CLIPOOD_TEST_STORE names an empty store");
    let store = Store::open(&url).unwrap();
    assert!(store.list("").unwrap().is_empty(), "{url} is not empty");
    conformance(&store);
}

#[test]
fn urls_and_paths_open_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x y");
    Store::open(path.to_str().unwrap())
        .unwrap()
        .put("o", "1".into())
        .unwrap();
    let url = format!("file://{}", path.to_str().unwrap().replace(' ', "%20"));
    assert_eq!(Store::open(&url).unwrap().get("o").unwrap().unwrap(), "1");
    assert!(
        Store::open("memory:///p")
            .unwrap()
            .list("")
            .unwrap()
            .is_empty()
    );
    assert_eq!(Store::memory().local_path("o"), None);
    for bad in ["", "gopher://x/y", "file://host/x", "://"] {
        let error = Store::open(bad).unwrap_err();
        assert!(matches!(error, Error::Location { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
    }
}

#[test]
fn local_names_that_look_like_staging_files_are_refused() {
    let (_dir, store) = awkward_disk();
    let error = store.put("a/img#12", "x".into()).unwrap_err();
    assert!(error.to_string().contains("\"a/img#12\""), "{error}");
    assert!(store.child("a#12").is_ok(), "directories may be called so");
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_cannot_be_written_is_named() {
    // The kernel refuses new directories here, to the superuser too.
    let error = Store::open("/sys/clipood")
        .unwrap()
        .put("o", "x".into())
        .unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(error.to_string().contains("/sys/clipood/o"), "{error}");
}

#[test]
fn a_file_in_the_place_of_a_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let store = Store::open(file.join("run").to_str().unwrap()).unwrap();
    let error = store.put("o", "x".into()).unwrap_err();
    assert!(
        error.to_string().contains("file/run/o (1 attempt(s))"),
        "{error}"
    );
}

#[test]
fn calls_from_a_runtime_are_refused_not_panics() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let answer = runtime.block_on(async { Store::memory().get("o") });
    assert!(matches!(answer, Err(Error::InsideRuntime)));
}

//! Toy units and parts, impatient stores, and a worker loop, shared by the test files. No file uses all of it.
#![allow(dead_code)]

pub mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clipood_store::{
    CommitOutcome, Ledger, Part, PartFooter, Result, RetryPolicy, Share, Store, Unit, blank_seal,
    passes, stamp,
};

pub const STAGE: &str = "score";
pub const PARTS: &str = "scores/dataset=a";
pub const FINGERPRINT: &str = "00112233445566778899aabbccddeeff";

/// Many short attempts: tests wait milliseconds, not seconds.
pub fn impatient() -> RetryPolicy {
    RetryPolicy {
        attempts: 12,
        first: Duration::from_micros(100),
        longest: Duration::from_millis(2),
    }
}

pub fn units(count: usize) -> Vec<Unit> {
    (0..count)
        .map(|index| Unit {
            key: format!("a/{index:05}"),
            fingerprint: FINGERPRINT.to_owned(),
        })
        .collect()
}

pub fn part_path(unit: &Unit) -> String {
    format!("{PARTS}/part-{}.toy", unit.key.replace('/', "-"))
}

/// A part: header `TOY fingerprint rows quarantined`, then `body`, a seal and `END`, so that a truncated part is
/// recognised.
pub fn toy(fingerprint: &str, rows: u64, body: &str) -> Bytes {
    let seal = blank_seal();
    let mut part = format!("TOY {fingerprint} {rows} 1\n{body}{seal}\nEND").into_bytes();
    stamp(&mut part);
    Bytes::from(part)
}

pub fn read_footer(part: &Bytes) -> Option<PartFooter> {
    let text = std::str::from_utf8(part).ok()?.strip_prefix("TOY ")?;
    let (header, _) = text.strip_suffix("END")?.split_once('\n')?;
    let mut fields = header.split(' ');
    Some(PartFooter {
        fingerprint: fields.next()?.to_owned(),
        rows: fields.next()?.parse().ok()?,
        quarantined: fields.next()?.parse().ok()?,
    })
}

pub fn result_of(unit: &Unit) -> Part {
    Part {
        path: part_path(unit),
        bytes: toy(&unit.fingerprint, 10, &format!("rows of {}\n", unit.key)),
        extra: BTreeMap::new(),
    }
}

/// The loop of a worker over its units; `worked` counts the units that were computed, not recovered.
pub fn work(
    ledger: &Ledger,
    units: &[Unit],
    share: Share,
    worked: &AtomicUsize,
) -> Result<Vec<CommitOutcome>> {
    let mut outcomes = Vec::new();
    for turn in passes(ledger, STAGE, units, share) {
        let unit = &units[turn?.unit];
        if ledger
            .recover_part(STAGE, unit, &part_path(unit), &read_footer)?
            .is_some()
        {
            continue;
        }
        worked.fetch_add(1, Ordering::SeqCst);
        outcomes.push(ledger.commit_part(STAGE, unit, result_of(unit), &read_footer)?);
    }
    Ok(outcomes)
}

pub fn alone() -> Share {
    Share {
        index: 0,
        count: 1,
        backups: true,
    }
}

/// The end state that every history must reach: exactly one complete part and one correct record per unit, and no other
/// objects except claims.
pub fn assert_finished(ledger: &Ledger, units: &[Unit]) {
    let store = ledger.store();
    let listed: BTreeSet<String> = store
        .list("")
        .unwrap()
        .into_iter()
        .map(|object| object.path)
        .filter(|path| !path.starts_with("_run/claims/"))
        .collect();
    let records = ledger.records(STAGE).unwrap();
    assert_eq!(records.len(), units.len());
    let mut expected = BTreeSet::new();
    for (unit, record) in units.iter().zip(&records) {
        assert_eq!(
            (&record.unit, &record.fingerprint),
            (&unit.key, &unit.fingerprint)
        );
        let path = part_path(unit);
        assert_eq!(record.part.as_ref(), Some(&path));
        assert_eq!((record.rows, record.quarantined), (10, 1));
        assert_eq!(ledger.check_part(record).unwrap(), None);
        assert_eq!(store.get(&path).unwrap().unwrap(), result_of(unit).bytes);
        let encoded = unit.key.replace('/', "~2F");
        expected.insert(format!(
            "_run/commits/{STAGE}/{encoded}.{}.json",
            &FINGERPRINT[..12]
        ));
        expected.insert(path);
    }
    assert_eq!(listed, expected);
    let committed = ledger.committed(STAGE).unwrap();
    assert!(units.iter().all(|unit| committed.contains(unit).unwrap()));
}

/// A store on local disk in a directory with an awkward name.
pub fn awkward_disk() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a run#1/50% of ünï/%20 b");
    let store = Store::open(path.to_str().unwrap())
        .unwrap()
        .with_retry(impatient());
    (dir, store)
}

//! Parts and records that change after they were written: they are noticed, set aside and made again, whoever looks.
#![allow(
    clippy::unwrap_used,
    reason = "a failing helper of a test should panic"
)]

mod common;

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use clipood_store::{Damage, Error, Ledger, Store, Unit};
use common::{
    FINGERPRINT, STAGE, alone, assert_finished, part_path, read_footer, result_of, toy, units, work,
};

fn ledger() -> Ledger {
    Ledger::new(Store::memory(), "_run", "worker-0")
}

/// The object with one bit flipped.
fn flip(ledger: &Ledger, path: &str, bit: usize) {
    let mut bytes = ledger.store().get(path).unwrap().unwrap().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    ledger.store().put(path, bytes.into()).unwrap();
}

fn record_path(unit: &Unit) -> String {
    let key = unit.key.replace('/', "~2F");
    format!("_run/commits/{STAGE}/{key}.{}.json", &FINGERPRINT[..12])
}

fn damage(error: Error) -> Damage {
    match error {
        Error::Damaged(damage) => *damage,
        other => panic!("{other}"),
    }
}

/// The copies of what was set aside.
fn kept(ledger: &Ledger) -> Vec<String> {
    let kept = ledger.store().list("_run/damaged").unwrap();
    kept.into_iter().map(|object| object.path).collect()
}

/// Removes the copies, so that only what a whole run leaves is left.
fn clear(ledger: &Ledger) {
    for path in kept(ledger) {
        ledger.store().delete(&path).unwrap();
    }
}

fn finish(ledger: &Ledger, units: &[Unit]) {
    work(ledger, units, alone(), &AtomicUsize::new(0)).unwrap();
}

#[test]
fn every_flipped_bit_of_a_part_is_noticed_set_aside_and_made_again() {
    let (ledger, units) = (ledger(), units(1));
    let path = part_path(&units[0]);
    for bit in 0..8 * result_of(&units[0]).bytes.len() {
        finish(&ledger, &units);
        flip(&ledger, &path, bit);
        let bad = ledger.store().get(&path).unwrap().unwrap();
        let found = damage(ledger.read_part(STAGE, &units[0], &path).unwrap_err());
        assert!(found.is_committed());
        assert_eq!(found.found, blake3::hash(&bad).to_hex().to_string());
        assert!(found.to_string().contains(&found.expected));
        ledger.set_aside(&found).unwrap().unwrap();
        assert!(!ledger.is_done(STAGE, &units[0]).unwrap());
        let copies = kept(&ledger);
        assert_eq!(copies.len(), 1, "{copies:?}");
        assert_eq!(ledger.store().get(&copies[0]).unwrap(), Some(bad));
        clear(&ledger);
        finish(&ledger, &units);
        assert_finished(&ledger, &units);
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_noticed_and_the_part_is_adopted_again() {
    let (ledger, units) = (ledger(), units(1));
    finish(&ledger, &units);
    let path = record_path(&units[0]);
    let length = ledger.store().get(&path).unwrap().unwrap().len();
    for bit in 0..8 * length {
        flip(&ledger, &path, bit);
        let found = damage(ledger.record(STAGE, &units[0]).unwrap_err());
        assert_eq!(damage(ledger.records(STAGE).unwrap_err()), found);
        flip(&ledger, &path, bit);
    }
    assert_finished(&ledger, &units);
    flip(&ledger, &path, 200);
    let found = damage(ledger.record(STAGE, &units[0]).unwrap_err());
    ledger.set_aside(&found).unwrap().unwrap();
    clear(&ledger);
    let worked = AtomicUsize::new(0);
    work(&ledger, &units, alone(), &worked).unwrap();
    assert_eq!(worked.into_inner(), 0, "the part is whole by its seal");
    assert_finished(&ledger, &units);
}

#[test]
fn a_part_without_record_is_adopted_only_if_its_seal_is_whole() {
    let (ledger, unit) = (ledger(), &units(1)[0]);
    let path = part_path(unit);
    let recover = || ledger.recover_part(STAGE, unit, &path, &read_footer);
    let whole = result_of(unit).bytes;
    for bit in 0..8 * whole.len() {
        ledger.store().put(&path, whole.clone()).unwrap();
        flip(&ledger, &path, bit);
        match recover() {
            Err(Error::Damaged(found)) => {
                assert!(!found.is_committed());
                ledger.set_aside(&found).unwrap().unwrap();
                assert!(recover().unwrap().is_none(), "it is made again");
            }
            // In the word that marks the seal, so that there is none, and no text any more: it could be any file.
            Err(Error::ForeignPart { .. }) => {
                assert_eq!(bit % 8, 7, "bit {bit}");
                ledger.store().delete(&path).unwrap();
            }
            other => panic!("bit {bit}: {other:?}"),
        }
    }
    // An older version left it.
    let text = format!("TOY {FINGERPRINT} 3 1\nno sealEND");
    ledger.store().put(&path, Bytes::from(text)).unwrap();
    let found = damage(recover().unwrap_err());
    assert!(
        found
            .expected
            .contains("neither a commit record nor a seal")
    );
    ledger.set_aside(&found).unwrap().unwrap();
    clear(&ledger);
    finish(&ledger, &units(1));
    assert_finished(&ledger, &units(1));
}

#[test]
fn a_missing_part_opens_its_unit_again() {
    let (ledger, units) = (ledger(), units(1));
    finish(&ledger, &units);
    let path = part_path(&units[0]);
    ledger.store().delete(&path).unwrap();
    let found = damage(ledger.read_part(STAGE, &units[0], &path).unwrap_err());
    assert_eq!(found.found, "no such file");
    assert_eq!(ledger.set_aside(&found).unwrap(), None);
    let error = ledger.read_part(STAGE, &units[0], &path).unwrap_err();
    assert!(matches!(error, Error::NotCommitted { .. }), "{error}");
    finish(&ledger, &units);
    assert_finished(&ledger, &units);
}

#[test]
fn two_workers_that_find_the_same_damage_keep_what_one_of_them_has_made_again() {
    let (ledger, units) = (ledger(), units(1));
    finish(&ledger, &units);
    let path = part_path(&units[0]);
    flip(&ledger, &path, 77);
    let slow = damage(ledger.read_part(STAGE, &units[0], &path).unwrap_err());
    let fast = slow.clone();
    ledger.set_aside(&fast).unwrap().unwrap();
    // Between the two removals and the new part, and after it.
    assert_eq!(ledger.set_aside(&slow).unwrap(), None);
    finish(&ledger, &units);
    assert_eq!(ledger.set_aside(&slow).unwrap(), None);
    clear(&ledger);
    assert_finished(&ledger, &units);
}

#[test]
fn a_worker_that_dies_while_it_sets_a_part_aside_leaves_an_open_or_a_noticed_unit() {
    let (ledger, units) = (ledger(), units(1));
    finish(&ledger, &units);
    let path = part_path(&units[0]);
    flip(&ledger, &path, 77);
    let found = damage(ledger.read_part(STAGE, &units[0], &path).unwrap_err());
    // It died after it removed the part, and before it removed the record.
    ledger.store().delete(&path).unwrap();
    let again = damage(ledger.read_part(STAGE, &units[0], &path).unwrap_err());
    assert_eq!(again.found, "no such file");
    ledger.set_aside(&again).unwrap();
    finish(&ledger, &units);
    // The first one comes back to life, too late.
    ledger.set_aside(&found).unwrap();
    assert_finished(&ledger, &units);
}

#[test]
fn what_was_decoded_from_a_damaged_part_is_dropped() {
    let (ledger, units) = (ledger(), units(1));
    finish(&ledger, &units);
    let path = part_path(&units[0]);
    let read = || ledger.read_part_with(STAGE, &units[0], &path, |bytes| bytes.len());
    assert_eq!(read().unwrap(), result_of(&units[0]).bytes.len());
    flip(&ledger, &path, 77);
    let found = damage(read().unwrap_err());
    ledger.set_aside(&found).unwrap();
    assert!(matches!(read(), Err(Error::NotCommitted { .. })));
}

#[test]
fn a_replaced_part_is_never_read() {
    let (ledger, units) = (ledger(), units(1));
    finish(&ledger, &units);
    let path = part_path(&units[0]);
    // Whole by its own account, and still not what the record names.
    let other = toy(FINGERPRINT, 11, "other rows\n");
    ledger.store().put(&path, other).unwrap();
    let found = damage(ledger.read_part(STAGE, &units[0], &path).unwrap_err());
    ledger.set_aside(&found).unwrap().unwrap();
    clear(&ledger);
    finish(&ledger, &units);
    assert_finished(&ledger, &units);
}

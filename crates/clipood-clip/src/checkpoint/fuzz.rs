//! Checkpoints mutated at random, zip archives and the older format: each is read, or rejected by name.
//! `CLIPOOD_TEST_MUTATIONS` sets their number.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::Cursor;
use std::path::Path;

use clipood_core::SplitMix64;

#[path = "../../../clipood-core/tests/common/mutate.rs"]
mod mutate;

use mutate::mutate;

use super::torch_file::TorchFile;

/// Seed of the mutations.
const SEED: u64 = 2;

fn mutations() -> usize {
    let wanted = std::env::var("CLIPOOD_TEST_MUTATIONS").ok();
    wanted.map_or(2000, |text| text.parse().unwrap())
}

#[test]
fn every_mutated_archive_is_read_or_rejected_by_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch");
    let originals: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pt"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(originals.len() >= 5);
    let (total, mut read) = (mutations(), 0);
    for number in 0..total {
        let mut rng = SplitMix64::keyed(SEED, "mutation", number as u64);
        let whole = &originals[rng.below(originals.len() as u64) as usize];
        let other = &originals[rng.below(originals.len() as u64) as usize];
        let mut bytes = whole.clone();
        mutate(&mut bytes, other, &mut rng);
        let name = format!("mutated/{number}.pt");
        match TorchFile::new(Cursor::new(bytes), &name).and_then(TorchFile::load) {
            Ok(_) => read += 1,
            Err(error) => assert!(error.to_string().contains(&name), "{error}"),
        }
    }
    println!(
        "{total} mutated archives: {read} read, {} rejected",
        total - read
    );
    // Mutations that always or never read would test nothing.
    assert!(read > total / 100 && read < total - total / 100);
}

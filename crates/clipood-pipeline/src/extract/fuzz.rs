//! Randomly mutated images, passed to the function that extraction calls: each is decoded, or rejected with its name.
//! `CLIPOOD_TEST_MUTATIONS` sets their number. A mutation that ends the process stays in a file in a folder that is
//! printed.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clipood_core::SplitMix64;
use clipood_data::Source;
use rayon::prelude::*;

#[path = "../../../clipood-core/tests/common/mutate.rs"]
mod mutate;

use mutate::mutate;

use super::decode::views_of;
use super::units::EVAL_VIEW;
use crate::models::open_model;
use crate::plan::PlannedImage;

/// Seed of the mutations.
const SEED: u64 = 1;
/// Larger files are skipped, because they only take time.
const LARGEST: u64 = 50_000;

fn mutations() -> usize {
    let wanted = std::env::var("CLIPOOD_TEST_MUTATIONS").ok();
    wanted.map_or(2000, |text| text.parse().unwrap())
}

/// Valid files of every supported format and mode.
fn originals() -> Vec<(PathBuf, Vec<u8>)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clipood-data/tests/data");
    let mut files = Vec::new();
    for folder in ["modes", "preprocess"] {
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let ending = path.extension().unwrap_or_default().to_owned();
            let is_image = !["py", "json", "safetensors", "md"]
                .iter()
                .any(|e| ending == *e);
            if is_image && path.metadata().unwrap().len() <= LARGEST {
                let bytes = std::fs::read(&path).unwrap();
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    assert!(files.len() > 30, "{} files", files.len());
    files
}

#[test]
fn every_mutated_image_is_decoded_or_rejected_by_name() {
    let config = open_model("demo").unwrap().config;
    let side = config.image.size;
    let originals = originals();
    let folder = tempfile::Builder::new()
        .prefix("mutated-")
        .tempdir()
        .unwrap();
    // Kept if the process dies: the image that killed it is among the few in this folder.
    let folder_path = folder.path().to_path_buf();
    println!("images in work lie in {}", folder_path.display());
    let (decoded, panicked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let total = mutations();
    (0..total).into_par_iter().for_each(|number| {
        let mut rng = SplitMix64::keyed(SEED, "mutation", number as u64);
        let (path, whole) = &originals[rng.below(originals.len() as u64) as usize];
        let (_, other) = &originals[rng.below(originals.len() as u64) as usize];
        let mut bytes = whole.clone();
        mutate(&mut bytes, other, &mut rng);
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        let file = folder_path.join(format!("{number:06}.{ending}"));
        std::fs::write(&file, &bytes).unwrap();
        let image = PlannedImage {
            key: format!("mutated/test/{number:06}"),
            source: Source::whole(file.to_str().unwrap()),
            roots: Arc::default(),
            content_hash: blake3::hash(&bytes).to_hex().to_string(),
            split: "test".to_string(),
            label: None,
            class_name: None,
        };
        match views_of(
            &image,
            std::fs::read(&file),
            &[EVAL_VIEW, 0],
            [0.08, 1.0],
            clipood_core::Resize::Pillow13,
            &config,
        )
        .unwrap()
        {
            Ok(views) => {
                decoded.fetch_add(1, Ordering::Relaxed);
                assert_eq!(views.len(), 2, "{number}");
                for view in views {
                    assert_eq!(view.len(), side * side * 3, "{number}");
                }
            }
            Err(row) => {
                assert_eq!(row.image_key, image.key);
                assert!(!row.error_kind.is_empty() && !row.message.is_empty());
                assert_ne!(row.error_kind, "unreadable", "{}", row.message);
                if row.error_kind == "panic" {
                    panicked.fetch_add(1, Ordering::Relaxed);
                    println!("{number}, from {}: {}", path.display(), row.message);
                }
            }
        }
        std::fs::remove_file(&file).unwrap();
    });
    let decoded = decoded.into_inner();
    println!(
        "{total} mutated images: {decoded} decoded, {} rejected, {} of these by a panic that was caught",
        total - decoded,
        panicked.into_inner()
    );
    // If all or none of the mutations could be decoded, this would test nothing.
    assert!(decoded > total / 100 && decoded < total - total / 100);
}

//! The image folders: complete, readable, drawn once, and drawn again after an interruption.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use clipood_demo::{
    DemoError, ID_CLASSES, NEAR_CLASSES, draw_planned, ensure_dataset, planned_pictures,
};

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Pictures in each folder below `root`.
fn counts(root: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for path in files(root) {
        let folder = path.parent().unwrap().strip_prefix(root).unwrap();
        let folder = folder.to_str().unwrap().replace('\\', "/");
        if !folder.is_empty() {
            *counts.entry(folder).or_default() += 1;
        }
    }
    counts
}

/// Width and height of a decoded picture.
fn decoded(path: &Path) -> (usize, usize) {
    let bytes = std::io::Cursor::new(fs::read(path).unwrap());
    if path.extension().unwrap() == "png" {
        let mut reader = png::Decoder::new(bytes).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        (info.width as usize, info.height as usize)
    } else {
        let mut decoder = zune_jpeg::JpegDecoder::new(bytes);
        let pixels = decoder.decode().unwrap();
        let (width, height) = decoder.dimensions().unwrap();
        assert_eq!(pixels.len(), width * height * 3);
        (width, height)
    }
}

#[test]
fn trees_are_complete_readable_and_drawn_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("images");
    // Leftovers of an interrupted process are not mistaken for complete pictures.
    let leftover = folder.path().join("images.drawing-0/id/train/star");
    fs::create_dir_all(&leftover).unwrap();
    fs::write(leftover.join("0000.png"), b"half").unwrap();

    assert!(ensure_dataset(&root).unwrap());
    let counts = counts(&root);
    for class in ID_CLASSES {
        assert_eq!(counts[&format!("id/train/{class}")], 32);
        assert_eq!(counts[&format!("id/test/{class}")], 50);
    }
    for name in NEAR_CLASSES {
        assert!(counts[&format!("near/{name}")] >= 20);
    }
    for tree in ["near/", "glyphs/", "scenes/", "textures/"] {
        let kinds = counts.iter().filter(|(k, _)| k.starts_with(tree));
        let n: usize = kinds.map(|(_, n)| n).sum();
        assert!(n >= 200, "{tree} {n}");
    }
    for path in files(&root) {
        let ending = path.extension().map(|e| e.to_str().unwrap());
        let Some(ending) = ending else { continue };
        assert!(["png", "jpg"].contains(&ending), "{}", path.display());
        let (width, height) = decoded(&path);
        assert!((80..=320).contains(&width), "{width}");
        assert!((80..=320).contains(&height), "{height}");
        assert!(4 * width.min(height) + 4 >= 3 * width.max(height));
    }

    let sentinel = root.join("id/train/star/0000.png");
    fs::write(&sentinel, b"mine").unwrap();
    assert!(!ensure_dataset(&root).unwrap());
    assert_eq!(fs::read(&sentinel).unwrap(), b"mine");

    // An older version is replaced as a whole.
    fs::write(root.join("VERSION"), "demo world 0\n").unwrap();
    fs::write(root.join("id/train/old.png"), b"old").unwrap();
    assert!(ensure_dataset(&root).unwrap());
    assert_ne!(fs::read(&sentinel).unwrap(), b"mine");
    assert!(!root.join("id/train/old.png").exists());
    let beside = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(beside, 2, "the trees and the other process's leftover");
}

#[test]
fn a_folder_drawn_by_something_else_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("images");
    fs::create_dir_all(root.join("id")).unwrap();
    fs::write(root.join("id/holiday.jpg"), b"mine").unwrap();
    let refused = ensure_dataset(&root);
    assert!(matches!(refused, Err(DemoError::File { .. })));
    assert_eq!(fs::read(root.join("id/holiday.jpg")).unwrap(), b"mine");
}

#[test]
fn no_picture_is_drawn_twice() {
    let mut seen = HashSet::new();
    for planned in planned_pictures() {
        let picture = draw_planned(&planned).unwrap();
        assert!(seen.insert(picture.pixels), "{}", planned.path);
    }
}

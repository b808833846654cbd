//! Finding images in folders without a manifest.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;

use clipood_data::{DataError, find_images};
use tempfile::TempDir;

fn touch(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
}

#[test]
fn images_come_sorted_with_their_top_folder() {
    let dir = TempDir::new().unwrap();
    let files = [
        "b.PNG",
        "a.jpg",
        "notes.txt",
        ".hidden.png",
        "cats/2.webp",
        "cats/1.jpeg",
        "cats/old/3.bmp",
        ".cache/4.png",
        "ants/5.tif",
    ];
    touch(dir.path(), &files);
    let (found, left_out) = find_images(dir.path()).unwrap();
    assert_eq!(
        left_out.to_string(),
        "3 files left out: 1 .txt, 2 hidden or of the system"
    );
    let found: Vec<(String, Option<&str>)> = found
        .iter()
        .map(|image| {
            let path = image.path.strip_prefix(dir.path()).unwrap();
            (path.display().to_string(), image.top_folder().unwrap())
        })
        .collect();
    let expected = [
        ("a.jpg", None),
        ("b.PNG", None),
        ("ants/5.tif", Some("ants")),
        ("cats/1.jpeg", Some("cats")),
        ("cats/2.webp", Some("cats")),
        ("cats/old/3.bmp", Some("cats")),
    ];
    let expected = expected.map(|(path, top)| (path.to_string(), top));
    assert_eq!(found, expected);
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_in_circles() {
    let dir = TempDir::new().unwrap();
    touch(dir.path(), &["cats/1.png"]);
    std::os::unix::fs::symlink(dir.path(), dir.path().join("cats/up")).unwrap();
    let (found, left_out) = find_images(dir.path()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        left_out.to_string(),
        "1 folder searched once only (linked again)"
    );
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let dir = TempDir::new().unwrap();
    let error = find_images(&dir.path().join("gone")).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }));
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn what_is_left_out_is_counted_by_extension() {
    let dir = TempDir::new().unwrap();
    let files = ["0.jpg", "g.gif", "x.heic", "x.avif", ".DS_Store"];
    touch(dir.path(), &files);
    let (found, left_out) = find_images(dir.path()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        left_out.to_string(),
        "4 files left out: 1 .avif, 1 .gif, 1 .heic, 1 hidden or of the system"
    );
    assert_eq!(left_out.first(), Some(&*dir.path().join("g.gif")));
}

#[cfg(target_os = "linux")]
#[test]
fn only_the_name_of_a_class_must_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = TempDir::new().unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xE9");
    touch(&dir.path().join(odd), &["1.png"]);
    let (found, _) = find_images(dir.path()).unwrap();
    assert_eq!(found.len(), 1);
    let error = found[0].top_folder().unwrap_err().to_string();
    assert!(error.contains(r"caf\xE9 is not UTF-8"), "{error}");
}

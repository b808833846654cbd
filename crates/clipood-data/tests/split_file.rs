//! CoOp's pickles of `Datum`, as Python writes them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::{Path, PathBuf};

use clipood_data::{Split, SplitFile};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/splits")
        .join(name)
}

#[test]
fn pickles_of_all_protocols_say_the_same() {
    let read = |protocol| {
        let name = format!("shot_2-seed_1.protocol{protocol}.pkl");
        SplitFile::read(&file(&name)).unwrap()
    };
    let split = read(2);
    assert_eq!(split.images().len(), 8);
    assert_eq!(
        split.shared(),
        "/home/somebody/datasets/imagenet/images/train/"
    );
    let first: Vec<&str> = split.part(Split::Train).map(|i| split.below(i)).collect();
    assert_eq!(first[..3], ["fish/03.png", "fish/01.png", "house/03.png"]);
    let names: Vec<_> = split.classes().into_iter().collect();
    assert_eq!(names, [(0, "fish"), (1, "house"), (2, "star"), (3, "tree")]);
    for protocol in [4, 5] {
        assert_eq!(read(protocol), split);
    }
    let whole = SplitFile::read(&file("preprocessed.pkl")).unwrap();
    let count = |part| whole.part(part).count();
    let counts = [Split::Train, Split::Val, Split::Test].map(count);
    assert_eq!(counts, [16, 0, 24]);
    assert_eq!(whole.shared(), "/home/somebody/datasets/imagenet/images/");
}

#[test]
fn a_pickle_runs_nothing() {
    let error = SplitFile::read(&file("evil.pkl")).unwrap_err().to_string();
    assert!(
        error.contains("evil.pkl") && error.contains("`posix.system`, which is refused"),
        "{error}"
    );
    assert!(!Path::new("EXECUTED").exists());
}

#[test]
fn a_pickle_that_is_cut_or_flipped_is_read_or_refused() {
    let whole = std::fs::read(file("preprocessed.pkl")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pkl");
    let (mut read, mut refused) = (0, 0);
    for at in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for bytes in [&whole[..at], &flipped] {
            std::fs::write(&path, bytes).unwrap();
            match SplitFile::read(&path) {
                Ok(_) => read += 1,
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("cut.pkl"), "{error}");
                }
            }
        }
    }
    // Cut files are refused; a flipped bit in a path is another path.
    assert!(refused > whole.len() / 7 && read > 0, "{read} {refused}");
}

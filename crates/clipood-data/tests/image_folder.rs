//! Listing of datasets with one folder per class.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs;
use std::path::Path;

use clipood_core::DatasetManifest;
use clipood_data::{
    At, DataError, Found, ImageRecord, Listing, Roots, Split, list_dataset, read, visit_dataset,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// A tree of empty files.
fn tree(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        touch(&root.path().join(file));
    }
    root
}

fn touch(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, b"").unwrap();
}

fn manifest(role: &str, rest: &str) -> DatasetManifest {
    let text = format!(
        "name = \"set\"\nrole = \"{role}\"\nlayout = \"image-folder\"\nroot = \"tree\"\n{rest}"
    );
    DatasetManifest::parse(&text, "set.toml").unwrap()
}

fn list(role: &str, rest: &str, root: &TempDir) -> Result<Listing, DataError> {
    list_dataset(&manifest(role, rest), root.path())
}

fn error(role: &str, rest: &str, root: &TempDir) -> String {
    let base = format!("{}/", root.path().display());
    list(role, rest, root)
        .unwrap_err()
        .to_string()
        .replace(&base, "")
}

fn keys(records: &[ImageRecord]) -> Vec<&str> {
    records.iter().map(|r| r.image_key.as_str()).collect()
}

fn names(listing: &Listing, root: &TempDir) -> Vec<String> {
    let below = |p: &std::path::PathBuf| p.strip_prefix(root.path()).unwrap().display().to_string();
    listing.ignored.iter().map(below).collect()
}

#[test]
fn labels_follow_folders_and_records_follow_keys() {
    // As folders `a` < `a-b`, as keys `a-b/` < `a/`.
    let root = tree(&[
        "tree/a/2.JPG",
        "tree/a/10.jpeg",
        "tree/a-b/x.png",
        "tree/Z/é.WebP",
        "tree/a/notes.txt",
        "tree/a/._2.JPG",
        "tree/labels.csv",
        "tree/.cache/b.png",
        "tree/a/more/3.png",
    ]);
    let found = list("id", "[class_names]\na-b = \"crane\"\n", &root).unwrap();
    assert_eq!(
        keys(&found.records),
        [
            "set/test/Z/é.WebP",
            "set/test/a-b/x.png",
            "set/test/a/10.jpeg",
            "set/test/a/2.JPG"
        ]
    );
    let labels: Vec<_> = found.records.iter().map(|r| r.label.unwrap()).collect();
    assert_eq!(labels, [0, 2, 1, 1]);
    let classes: Vec<_> = found
        .records
        .iter()
        .map(|r| r.class_name.clone().unwrap())
        .collect();
    assert_eq!(classes, ["Z", "crane", "a", "a"]);
    let source = &found.records[3].source;
    assert_eq!(Path::new(&source.uri), root.path().join("tree/a/2.JPG"));
    assert_eq!(source.at, At::Whole);
    assert_eq!(
        names(&found, &root),
        [
            "tree/.cache",
            "tree/a/._2.JPG",
            "tree/a/more",
            "tree/a/notes.txt",
            "tree/labels.csv"
        ]
    );
    let nested = list("id", "nested = true", &root).unwrap();
    assert!(keys(&nested.records).contains(&"set/test/a/more/3.png"));
    assert_eq!(nested.records.len(), 5);
    assert_eq!(names(&nested, &root).len(), 4);
}

#[test]
fn out_of_distribution_images_have_a_class_name_but_no_label() {
    let root = tree(&["tree/deep_sea/1.png", "tree/b/1.bmp"]);
    let found = list("ood", "", &root).unwrap();
    assert!(
        found
            .records
            .iter()
            .all(|r| r.label.is_none() && r.split == Split::Test)
    );
    assert_eq!(found.records[1].class_name.as_deref(), Some("deep sea"));
}

#[test]
fn splits_share_their_classes() {
    let files = [
        "tree/tr/a/1.png",
        "tree/tr/b/1.png",
        "tree/te/a/2.png",
        "tree/te/b/2.png",
    ];
    let splits = "[splits]\ntrain = \"tr\"\ntest = \"te\"\n";
    let root = tree(&files);
    let found = list("id", splits, &root).unwrap();
    assert_eq!(
        keys(&found.records),
        [
            "set/test/a/2.png",
            "set/test/b/2.png",
            "set/train/a/1.png",
            "set/train/b/1.png"
        ]
    );
    assert_eq!(found.records[3].label, Some(1));
    touch(&root.path().join("tree/te/c/1.png"));
    assert_eq!(
        error("id", splits, &root),
        "dataset `set`: class folder `c` is in split `test` but not in split `train`"
    );
}

#[test]
fn what_is_missing_is_named() {
    let root = tree(&["tree/te/a/1.png", "tree/te/b/readme", "file"]);
    let whole = error("id", "", &root);
    assert_eq!(
        whole,
        "dataset `set`: class folder tree/te holds no image but 2 folders, which `nested = true` would search; \
         expected files named jpg, jpeg, png, ppm, bmp, pgm, tif, tiff, webp"
    );
    assert_eq!(
        error(
            "id",
            "include = [\"a\"]\n[splits]\ntest = \"te\"\ntrain = \"tr\"\n",
            &root
        ),
        "dataset `set`: no folder at tree/tr (manifest key `splits.train`)"
    );
    let te = "[splits]\ntest = \"te\"\n";
    assert!(
        error("ood", te, &root)
            .starts_with("dataset `set`: class folder tree/te/b holds no image; expected")
    );
    assert_eq!(
        error("ood", &format!("include = [\"a\", \"z\"]\n{te}"), &root),
        "dataset `set`: no folder at tree/te/z (manifest key `include`)"
    );
    assert_eq!(
        error(
            "ood",
            &format!("include = [\"a\"]\nexpected_images = 7\n{te}"),
            &root
        ),
        "dataset `set`: 1 images found in tree, `expected_images` says 7"
    );
    assert!(
        list(
            "ood",
            &format!("include = [\"a\"]\nexpected_images = 1\n{te}"),
            &root
        )
        .is_ok()
    );

    let mut other = manifest("ood", te);
    other.root = "nowhere".into();
    let message = list_dataset(&other, root.path()).unwrap_err().to_string();
    assert!(
        message.ends_with("nowhere (manifest key `root`)"),
        "{message}"
    );
    other.root = "file".into();
    let message = list_dataset(&other, root.path()).unwrap_err().to_string();
    assert!(
        message.contains("a file where a folder is expected"),
        "{message}"
    );
    other.root = root.path().join("tree");
    other.include = vec!["a".into()];
    let anywhere = list_dataset(&other, Path::new("/elsewhere")).unwrap();
    assert_eq!(
        anywhere.records.len(),
        1,
        "an absolute root needs no data root"
    );
}

#[test]
fn images_outside_of_class_folders_are_an_error_if_there_is_nothing_else() {
    let root = tree(&["tree/1.png", "tree/2.png"]);
    assert_eq!(
        error("ood", "", &root),
        "dataset `set`: no class folder in tree (manifest key `root`), 2 files lie directly in it; \
         expected one folder for each class"
    );
}

#[test]
fn classes_that_share_a_name_are_labelled_by_their_folders() {
    let root = tree(&["tree/a_b/1.png", "tree/a-b/1.png", "tree/c/1.png"]);
    let found = list("id", "", &root).unwrap();
    let classes: Vec<_> = (found.records.iter())
        .map(|record| (record.label.unwrap(), record.class_name.as_deref().unwrap()))
        .collect();
    assert_eq!(classes, [(0, "a b"), (1, "a b"), (2, "c")]);
    assert!(list("ood", "", &root).is_ok());
}

#[test]
fn names_of_no_folder_are_noted() {
    let root = tree(&["tree/n01/1.png", "tree/n02/1.png"]);
    let notes = |names: &str| {
        let found = list("id", &format!("[class_names]\n{names}"), &root);
        found.unwrap().notes
    };
    assert!(notes("n01 = \"tench\"\nn02 = \"hen\"").is_empty());
    // A part of the dataset: both folders have their names, so that no other key is meant for them.
    assert_eq!(
        notes("n01 = \"tench\"\nn02 = \"hen\"\nn03 = \"star\""),
        ["1 of 3 names in `class_names` are of no folder: the first is `n03`"]
    );
    assert_eq!(
        notes("n01 = \"tench\"\nn022 = \"hen\""),
        ["1 of 2 names in `class_names` are of no folder: `n022` (did you mean `n02`?)"]
    );
    let misspelt = "[class_names]\nm01 = \"tench\"\nm02 = \"hen\"";
    assert_eq!(
        error("id", misspelt, &root),
        "dataset `set`: no key of `class_names` is a class folder, the first is `m01`; the nearest folder is `n01`"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_never_in_circles() {
    use std::os::unix::fs::symlink;
    let root = tree(&["tree/a/1.png", "tree/b/1.png", "elsewhere/2.png"]);
    let at = |path: &str| root.path().join(path);
    symlink("..", at("tree/a/up")).unwrap();
    symlink(".", at("tree/a/self")).unwrap();
    symlink(at("tree"), at("tree/whole")).unwrap();
    symlink("../../elsewhere", at("tree/b/other")).unwrap();
    symlink("../../elsewhere", at("tree/b/other_again")).unwrap();
    symlink("nowhere", at("tree/b/broken.png")).unwrap();
    let error = error("ood", "nested = true", &root);
    assert!(
        error.contains("class folder tree/whole holds no image"),
        "{error}"
    );
    fs::remove_file(at("tree/whole")).unwrap();
    let found = list("ood", "nested = true", &root).unwrap();
    // The broken link is listed: reading it reports the error.
    assert_eq!(
        keys(&found.records),
        [
            "set/test/a/1.png",
            "set/test/b/1.png",
            "set/test/b/broken.png",
            "set/test/b/other/2.png"
        ]
    );
    assert_eq!(
        names(&found, &root),
        ["tree/a/self", "tree/a/up", "tree/b/other_again"]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn names_without_a_portable_key_are_errors() {
    use std::os::unix::ffi::OsStrExt;
    let root = tree(&["tree/a/1.png"]);
    let bad = root
        .path()
        .join("tree/a")
        .join(std::ffi::OsStr::from_bytes(b"\xE9.png"));
    touch(&bad);
    assert_eq!(
        error("ood", "", &root),
        "the name of tree/a/\u{FFFD}.png is not UTF-8"
    );
    fs::remove_file(bad).unwrap();
    touch(&root.path().join("tree/a/b\\c.png"));
    assert!(error("ood", "", &root).contains("backslash"));
    // The uri of an image is text, so that the folders above must have such names, too.
    let data = root.path().join(std::ffi::OsStr::from_bytes(b"data\xE9"));
    touch(&data.join("tree/a/1.png"));
    let error = list_dataset(&manifest("ood", ""), &data).unwrap_err();
    assert!(matches!(error, DataError::NotUtf8 { .. }), "{error}");
}

#[test]
fn listed_sources_are_read_here_and_where_the_dataset_was_moved_to() {
    let root = tree(&["tree/a/1.png"]);
    fs::write(root.path().join("tree/a/1.png"), b"pixels").unwrap();
    let source = &list("ood", "", &root).unwrap().records[0].source;
    assert_eq!(read(source, &Roots::default()).unwrap(), b"pixels");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(root.path().join("tree"), elsewhere.path().join("tree")).unwrap();
    let roots = Roots {
        data: elsewhere.path().to_path_buf(),
        dataset: "tree".into(),
        recorded: root.path().join("tree"),
    };
    assert_eq!(read(source, &roots).unwrap(), b"pixels");
    assert!(read(source, &Roots::default()).is_err());
}

#[test]
fn a_train_fraction_divides_every_class() {
    let files: Vec<String> = (0..40)
        .map(|i| format!("tree/{}/{i}.png", ["a", "b"][i % 2]))
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let root = tree(&files);
    let found = list("id", "train_fraction = 0.3", &root).unwrap();
    assert_eq!(found.records.len(), 40);
    let train = |class: &str| {
        let of = found.records.iter().filter(|r| r.split == Split::Train);
        of.filter(|r| r.class_name.as_deref() == Some(class))
            .count()
    };
    assert_eq!((train("a"), train("b")), (6, 6));
    for record in &found.records {
        let start = format!("set/{}/", record.split.name());
        assert!(record.image_key.starts_with(&start), "{record:?}");
    }
    // The choice depends on the keys alone, so that it can be stated here.
    let first: Vec<_> = keys(&found.records)
        .into_iter()
        .filter(|k| k.contains("/train/a/"))
        .collect();
    assert_eq!(first, TRAIN_OF_A);
    let tiny = tree(&["tree/a/1.png", "tree/b/1.png"]);
    assert_eq!(
        error("id", "train_fraction = 0.3", &tiny),
        "dataset `set`: class `a` has 1 image, `train_fraction` needs at least 2 to divide"
    );
}

/// Also computed independently in Python, from the definition of the random number stream.
const TRAIN_OF_A: [&str; 6] = [
    "set/train/a/10.png",
    "set/train/a/14.png",
    "set/train/a/16.png",
    "set/train/a/34.png",
    "set/train/a/4.png",
    "set/train/a/6.png",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// With nested folders and names that sort differently as folders than in keys (`a-b/` comes before `a/`).
    #[test]
    fn a_visit_shows_what_a_listing_has_in_the_order_of_keys(
        files in prop::collection::btree_set("[ab]-?b?/([ab]-?/){0,2}[a0]{1,2}-?", 1..30),
        divides: bool,
    ) {
        let root = tempfile::tempdir().unwrap();
        for file in &files {
            // With an extension no file has the name of a folder.
            touch(&root.path().join(format!("tree/te/{file}.png")));
            touch(&root.path().join(format!("tree/te/{file}0.png")));
            touch(&root.path().join(format!("tree/va/{file}.jpg")));
        }
        let divided = if divides { "train_fraction = 0.4\n" } else { "" };
        let rest = format!("nested = true\n{divided}[splits]\ntest = \"te\"\nval = \"va\"\n");
        let set = manifest("id", &rest);
        let mut shown: Vec<ImageRecord> = Vec::new();
        visit_dataset(&set, root.path(), &mut |found| {
            if let Found::Image(record) = found {
                shown.push(record);
            }
            Ok::<(), DataError>(())
        })
        .unwrap();
        let of = |records: &[ImageRecord], split: Split| -> Vec<ImageRecord> {
            records.iter().filter(|r| r.split == split).cloned().collect()
        };
        let listed = list_dataset(&set, root.path()).unwrap().records;
        prop_assert_eq!(shown.len(), listed.len());
        for split in [Split::Test, Split::Val] {
            prop_assert_eq!(of(&shown, split), of(&listed, split));
        }
    }
}

#[test]
fn an_error_of_the_visitor_ends_the_visit() {
    let root = tree(&["tree/a/1.png", "tree/a/2.png", "tree/b/3.png"]);
    let mut shown = 0;
    let end = visit_dataset(&manifest("ood", ""), root.path(), &mut |_| {
        shown += 1;
        if shown < 2 {
            return Ok(());
        }
        Err(DataError::NoTrainImages {
            dataset: "enough".to_string(),
        })
    });
    assert!(end.unwrap_err().to_string().contains("enough"));
    assert_eq!(shown, 2);
}

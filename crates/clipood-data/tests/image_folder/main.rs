//! Listing of datasets with one folder per class.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod odd;

use std::fs;
use std::path::Path;

use clipood_core::DatasetManifest;
use clipood_data::{
    At, DataError, Found, ImageRecord, LeftOut, LeftOutCounts, Listing, Roots, Split, list_dataset,
    read, settle, visit_dataset,
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
    let below = |entry: &LeftOut| {
        let path = entry.path.strip_prefix(root.path()).unwrap();
        path.display().to_string()
    };
    listing.left_out.iter().map(below).collect()
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
    let flat = "nested = false\n[class_names]\na-b = \"crane\"\n";
    let found = list("id", flat, &root).unwrap();
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
    // As torchvision reads them.
    let nested = list("id", "", &root).unwrap();
    assert!(keys(&nested.records).contains(&"set/test/a/more/3.png"));
    assert_eq!(nested.records.len(), 5);
    assert_eq!(names(&nested, &root).len(), 4);
    assert_eq!(list("id", "nested = true", &root).unwrap(), nested);
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
    assert_eq!(
        error("id", "nested = false", &root),
        "dataset `set`: class folder tree/te holds no image but 2 folders, which `nested = true` would search; \
         expected files named jpg, jpeg, png, ppm, bmp, pgm, tif, tiff, webp (2 folders not searched (`nested` is false))"
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
fn images_outside_of_class_folders_have_no_class() {
    let root = tree(&["tree/1.png", "tree/2.png"]);
    assert_eq!(
        error("id", "", &root),
        "dataset `set`: no class folder in tree (manifest key `root`), 2 files lie directly in it; \
         expected one folder for each class (2 files left out: 2 images in no class folder)"
    );
    let found = list("ood", "", &root).unwrap();
    assert_eq!(keys(&found.records), ["set/test/1.png", "set/test/2.png"]);
    for record in &found.records {
        assert_eq!((record.label, &record.class_name), (None, &None));
    }
    touch(&root.path().join("tree/a/3.png"));
    let found = list("id", "", &root).unwrap();
    assert_eq!(keys(&found.records), ["set/test/a/3.png"]);
    assert_eq!(names(&found, &root), ["tree/1.png", "tree/2.png"]);
}

#[test]
fn an_out_of_distribution_dataset_mixes_images_and_folders_in_the_order_of_keys() {
    let root = tree(&[
        "tree/a.png",
        "tree/a-b/1.png",
        "tree/a/1.png",
        "tree/a/deep/er/2.png",
        "tree/a0.png",
        "tree/zz.png",
        "tree/masks/readme.txt",
        "tree/Thumbs.db",
        "tree/x.heic",
    ]);
    let all = [
        "set/test/a-b/1.png",
        "set/test/a.png",
        "set/test/a/1.png",
        "set/test/a/deep/er/2.png",
        "set/test/a0.png",
        "set/test/zz.png",
    ];
    let found = list("ood", "", &root).unwrap();
    assert_eq!(keys(&found.records), all);
    assert_eq!(found.records[2].class_name.as_deref(), Some("a"));
    let mut visited = Vec::new();
    visit_dataset(&manifest("ood", ""), root.path(), &mut |found| {
        if let Found::Image(record) = found {
            visited.push(record.image_key);
        }
        Ok::<(), DataError>(())
    })
    .unwrap();
    assert_eq!(visited, all);
    let mut counts = LeftOutCounts::default();
    found.left_out.iter().for_each(|entry| counts.add(entry));
    assert_eq!(
        counts.to_string(),
        "3 files left out: 1 .heic, 1 .txt, 1 hidden or of the system; 1 folder without an image"
    );
    fs::remove_dir_all(root.path().join("tree/masks")).unwrap();
    let found = list("ood", "loose = false", &root).unwrap();
    assert_eq!(found.records.len(), 3);
    let found = list("ood", "include = [\"a\"]", &root).unwrap();
    assert_eq!(found.records.len(), 2);
    let empty = tree(&["tree/x.heic", "tree/y.HEIC"]);
    assert!(
        error("ood", "", &empty)
            .ends_with("expected images, or folders of images (2 files left out: 2 .heic)")
    );
}

#[test]
fn a_manifest_is_settled_by_what_lies_in_the_folders() {
    let settled = |role: &str, rest: &str, root: &TempDir| {
        let mut set = manifest(role, rest);
        settle(&mut set, root.path()).unwrap();
        // Settled or not, the same images are listed.
        assert_eq!(
            list_dataset(&set, root.path()).unwrap().records,
            list(role, rest, root).unwrap().records
        );
        (set.nested, set.loose)
    };
    let flat = tree(&["tree/a/1.png", "tree/b/1.png", "tree/b/more/notes.txt"]);
    assert_eq!(settled("id", "", &flat), (Some(false), None));
    assert_eq!(settled("ood", "", &flat), (Some(false), None));
    // So a manifest without such images has the text of old, which fingerprints contain.
    let mut set = manifest("ood", "");
    settle(&mut set, flat.path()).unwrap();
    let text = serde_json::to_value(&set).unwrap();
    assert_eq!(text["nested"], false);
    assert!(text.get("loose").is_none());

    let nested = tree(&["tree/a/1.png", "tree/b/more/1.png", "tree/2.png"]);
    assert_eq!(settled("id", "", &nested), (Some(true), None));
    assert_eq!(settled("ood", "", &nested), (Some(true), Some(true)));
    touch(&nested.path().join("tree/b/2.png"));
    let explicit = "nested = false\nloose = false\n";
    assert_eq!(
        settled("ood", explicit, &nested),
        (Some(false), Some(false))
    );
    let alone = tree(&["tree/1.png"]);
    assert_eq!(settled("ood", "", &alone), (Some(false), None));

    let mut missing = manifest("id", "");
    assert!(settle(&mut missing, Path::new("nowhere")).is_err());
    assert_eq!(missing.nested, Some(false));
}

#[test]
fn folders_of_splits_and_folders_around_classes_are_no_classes() {
    let splits = tree(&[
        "tree/train/a/1.png",
        "tree/val/a/1.png",
        "tree/train/b/2.png",
    ]);
    assert_eq!(
        error("id", "", &splits),
        "dataset `set`: tree (manifest key `root`) holds `train`, `val` with folders instead of images, which do not look \
         like classes; name the folders of the splits in `[splits]`, or set `nested = true` to read them as classes"
    );
    let wrapped = tree(&["tree/images/a/1.png", "tree/images/b/1.png"]);
    let text = error("id", "", &wrapped);
    assert!(
        text.contains("name the folder of the classes there"),
        "{text}"
    );
    let error = settle(&mut manifest("id", ""), wrapped.path()).unwrap_err();
    assert!(matches!(error, DataError::NotClasses { .. }), "{error}");
    assert_eq!(
        list("id", "nested = true", &wrapped).unwrap().records.len(),
        2
    );
    // Of an out-of-distribution set the folders do not matter.
    let found = list("ood", "", &wrapped).unwrap();
    assert_eq!(
        keys(&found.records),
        ["set/test/images/a/1.png", "set/test/images/b/1.png"]
    );
    let classes = tree(&["tree/test/1.png", "tree/train/x/1.png"]);
    assert_eq!(list("id", "", &classes).unwrap().records.len(), 2);
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

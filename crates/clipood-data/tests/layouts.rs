//! Listing of datasets that are not folders of classes: what is read, and what is refused by name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod files;

use std::path::Path;

use clipood_core::DatasetManifest;
use clipood_data::{
    At, DataError, Found, ImageRecord, Listing, Roots, Split, list_dataset, read, visit_files,
};
use tempfile::TempDir;

use self::files::{Cifar, Column, ppm, write_parquet, write_tar};

struct Set {
    dir: TempDir,
}

impl Set {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.dir.path().join("set").join(below)
    }

    fn manifest(&self, role: &str, layout: &str, rest: &str) -> DatasetManifest {
        let head =
            format!("name = \"set\"\nrole = \"{role}\"\nlayout = \"{layout}\"\nroot = \"set\"\n");
        DatasetManifest::parse(&(head + rest), "set.toml").unwrap()
    }

    fn list(&self, role: &str, layout: &str, rest: &str) -> Result<Listing, DataError> {
        list_dataset(&self.manifest(role, layout, rest), self.dir.path())
    }

    /// The error of a listing, without the path of the folder.
    fn error(&self, role: &str, layout: &str, rest: &str) -> String {
        let error = self.list(role, layout, rest).unwrap_err().to_string();
        error.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

/// Key, label, class name.
fn rows(records: &[ImageRecord]) -> Vec<(&str, Option<u32>, Option<&str>)> {
    records
        .iter()
        .map(|r| (r.image_key.as_str(), r.label, r.class_name.as_deref()))
        .collect()
}

fn bytes(record: &ImageRecord) -> Vec<u8> {
    read(&record.source, &Roots::default()).unwrap()
}

#[test]
fn lists_of_openood_are_read_as_they_lie() {
    let set = Set::new()
        .with("images/val/n01/a.JPEG", ppm(1))
        .with("images/val/n02/b.JPEG", ppm(2))
        .with("images/x/c d.png", ppm(3))
        .with("lists/test.txt", "\u{feff}val/a.JPEG 0 \r\nval/b.JPEG 1\t\n\nx/c d.png 1\n")
        .with("lists/mos.txt", "x/c d.png { \"group_label\": 4 ,\"class_label\": -1 }\nval/a.JPEG {'class_label': 0}\n")
        .with("lists/bare.txt", "val/a.JPEG\nx/c d.png -1\n")
        .with("names.txt", "n00000002 goldfish\nn00000001 tench\n");
    let rest =
        "images = \"images\"\nclass_list = \"names.txt\"\n[splits]\ntest = \"lists/test.txt\"\n";
    let found = set.list("id", "imglist", rest).unwrap();
    assert_eq!(
        rows(&found.records),
        [
            ("set/test/val/a.JPEG", Some(0), Some("tench")),
            ("set/test/val/b.JPEG", Some(1), Some("goldfish")),
            ("set/test/x/c d.png", Some(1), Some("goldfish")),
        ]
    );
    assert_eq!(bytes(&found.records[0]), ppm(1));
    assert_eq!(bytes(&found.records[1]), ppm(2));
    let note = "2 listed images were found in a folder beside where they are listed";
    assert_eq!(found.notes, [note]);

    for list in ["mos", "bare"] {
        let rest = format!("images = \"images\"\nfiles = \"lists/{list}.txt\"\n");
        let found = set.list("ood", "imglist", &rest).unwrap();
        assert_eq!(found.records.len(), 2);
        assert!(
            found
                .records
                .iter()
                .all(|r| r.label.is_none() && r.class_name.is_none())
        );
        let error = set.error("id", "imglist", &rest);
        assert!(
            error.contains(&format!("set/lists/{list}.txt, line 1: ")),
            "{error}"
        );
    }
}

#[test]
fn a_listed_image_that_is_missing_stays_an_image_and_is_told() {
    let set = Set::new()
        .with("a/1.png", ppm(1))
        .with("a/x/2.png", ppm(2))
        .with("a/y/2.png", ppm(2))
        .with("list.txt", "a/1.png 0\na/2.png 1\nb/3.png 1\n");
    let found = set.list("id", "imglist", "files = \"list.txt\"\n").unwrap();
    assert_eq!(found.records.len(), 3);
    // Two folders have a file of that name.
    assert!(read(&found.records[1].source, &Roots::default()).is_err());
    let told = found
        .notes
        .iter()
        .any(|note| note.starts_with("2 listed images do not exist"));
    assert!(told, "{:?}", found.notes);
    let unnamed = found.notes.iter().any(|note| note.contains("class_list"));
    assert!(unnamed, "{:?}", found.notes);
}

#[test]
fn wrong_lists_are_refused_with_the_line() {
    let set = Set::new()
        .with("names.txt", "tench\ngoldfish\n")
        .with("range.txt", "a.png 0\nb.png 2\n")
        .with("word.txt", "a.png 0\nb.png cat\n")
        .with("absolute.txt", "/data/a.png 0\n")
        .with("outside.txt", "a.png 0\n\n../b.png 0\n")
        .with("latin.txt", b"a.png 0\n\xE9.png 1\n")
        .with("none.txt", "a.png\n")
        .with("minus.txt", "a.png -1\n");
    for (list, said) in [
        (
            "range",
            "line 2: label 2 is out of range: set/names.txt names 2 classes, 0 to 1",
        ),
        (
            "word",
            "line 2: found `cat` behind the path, expected a label such as 12 or -1",
        ),
        ("absolute", "line 1: found the absolute path `/data/a.png`"),
        (
            "outside",
            "line 3: found the path `../b.png`, expected a path below the folder of the images",
        ),
        ("latin", "line 2 is not UTF-8"),
        (
            "none",
            "line 1: no label, expected one for every image of an in-distribution dataset",
        ),
        (
            "minus",
            "line 1: label -1, expected 0 or more in an in-distribution dataset",
        ),
        ("gone", "no file `gone.txt` in set (manifest key `files`)"),
    ] {
        let rest = format!("files = \"{list}.txt\"\nclass_list = \"names.txt\"\n");
        let error = set.error("id", "imglist", &rest);
        assert!(error.contains(said), "{list}: {error}");
    }
}

const NAMES: &str = r#"{"info": {"features": {
    "image": {"_type": "Image"},
    "label": {"names": ["tench", "english springer"], "_type": "ClassLabel"},
    "fine_label": {"names": ["apple", "beaver"], "_type": "ClassLabel"},
    "coarse_label": {"names": ["fruit", "mammal"], "_type": "ClassLabel"}}}}"#;

#[test]
fn parquet_of_the_hub_is_read_row_by_row() {
    let set = Set::new();
    let images: Vec<Option<Vec<u8>>> = (0..5).map(|i| Some(ppm(i))).collect();
    write_parquet(
        &set.path("data/train-00000-of-00002.parquet"),
        &[
            Column::Image("image", &images[..3]),
            Column::Numbers("label", &[0, 1, 1]),
        ],
        Some(NAMES),
    );
    write_parquet(
        &set.path("data/train-00001-of-00002.parquet"),
        &[
            Column::Image("image", &images[3..]),
            Column::Numbers("label", &[0, 1]),
        ],
        Some(NAMES),
    );
    write_parquet(
        &set.path("data/validation-00000-of-00001.parquet"),
        &[
            Column::Image("image", &images),
            Column::Numbers("label", &[0, 1, 0, 1, 0]),
        ],
        Some(NAMES),
    );
    let rest = "[splits]\ntrain = \"data/train-*.parquet\"\ntest = \"data/validation-*.parquet\"\n";
    let found = set.list("id", "parquet", rest).unwrap();
    let train: Vec<&ImageRecord> = found
        .records
        .iter()
        .filter(|r| r.split == Split::Train)
        .collect();
    assert_eq!(train.len(), 5);
    assert_eq!(
        train[4].image_key,
        "set/train/data/train-00001-of-00002.parquet/00000001"
    );
    assert_eq!(
        (train[4].label, train[4].class_name.as_deref()),
        (Some(1), Some("english springer"))
    );
    for (i, record) in train.iter().enumerate() {
        assert_eq!(bytes(record), ppm(i as u8));
    }
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}

#[test]
fn columns_of_parquet_may_have_other_names_and_types() {
    let set = Set::new();
    let images: Vec<Option<Vec<u8>>> = (0..3).map(|i| Some(ppm(i))).collect();
    write_parquet(
        &set.path("cifar100.parquet"),
        &[
            Column::Image("img", &images),
            Column::Numbers("fine_label", &[0, 1, 0]),
            Column::Numbers("coarse_label", &[1, 1, 0]),
        ],
        Some(NAMES),
    );
    let classes = |rest: &str| -> Vec<String> {
        let found = set.list("id", "parquet", rest).unwrap();
        found
            .records
            .iter()
            .map(|r| r.class_name.clone().unwrap())
            .collect()
    };
    assert_eq!(
        classes("files = \"cifar100.parquet\"\n"),
        ["apple", "beaver", "apple"]
    );
    assert_eq!(
        classes("files = \"cifar100.parquet\"\ncolumns.label = \"coarse_label\"\n"),
        ["mammal", "mammal", "fruit"]
    );
    write_parquet(
        &set.path("own.parquet"),
        &[
            Column::Bytes("jpg", &images),
            Column::Words("class", &["dog", "cat", "dog"]),
            Column::Words("split", &["train", "test", "validation"]),
        ],
        None,
    );
    let found = set
        .list("id", "parquet", "files = \"own.parquet\"\n")
        .unwrap();
    assert_eq!(
        rows(&found.records),
        [
            ("set/test/own.parquet/00000001", Some(0), Some("cat")),
            ("set/train/own.parquet/00000000", Some(1), Some("dog")),
            ("set/val/own.parquet/00000002", Some(1), Some("dog")),
        ]
    );
}

#[test]
fn wrong_parquet_is_refused_by_name_and_a_row_without_bytes_is_one_unreadable_image() {
    let set = Set::new();
    let images: Vec<Option<Vec<u8>>> = vec![Some(ppm(0)), None, Some(ppm(2))];
    let labels = Column::Numbers("label", &[0, 1, 1]);
    write_parquet(
        &set.path("some.parquet"),
        &[Column::Image("image", &images), labels],
        Some(NAMES),
    );
    let found = set
        .list("id", "parquet", "files = \"some.parquet\"\n")
        .unwrap();
    assert_eq!(found.records.len(), 3);
    let error = read(&found.records[1].source, &Roots::default()).unwrap_err();
    assert_eq!(error.to_string(), "row 1 has no image bytes");

    let none = vec![None; 3];
    write_parquet(
        &set.path("paths.parquet"),
        &[Column::Image("image", &none), labels],
        Some(NAMES),
    );
    write_parquet(
        &set.path("noimage.parquet"),
        &[Column::Words("text", &["a", "b", "c"]), labels],
        None,
    );
    write_parquet(
        &set.path("nolabel.parquet"),
        &[Column::Image("image", &images)],
        None,
    );
    let high = Column::Numbers("label", &[0, 2, 1]);
    write_parquet(
        &set.path("high.parquet"),
        &[Column::Image("image", &images), high],
        Some(NAMES),
    );
    let other = NAMES.replace("tench", "trench");
    write_parquet(
        &set.path("zother.parquet"),
        &[Column::Image("image", &images), labels],
        Some(&other),
    );
    let whole = std::fs::read(set.path("some.parquet")).unwrap();
    std::fs::write(set.path("cut.parquet"), &whole[..whole.len() - 20]).unwrap();
    for (file, said) in [
        (
            "paths",
            "paths.parquet: column `image` has no bytes in any row",
        ),
        (
            "noimage",
            "noimage.parquet: no column of images, expected `image` or `img`",
        ),
        ("nolabel", "nolabel.parquet: no column of classes"),
        ("high", "high.parquet, row 1: label 2 is out of range"),
        (
            "{some,zother}",
            "zother.parquet: its class names are not those of",
        ),
        ("{some,zother}", "class 0 is `trench`, there `tench`"),
        ("cut", "cut.parquet: no readable Parquet file"),
    ] {
        let error = set.error("id", "parquet", &format!("files = \"{file}.parquet\"\n"));
        assert!(error.contains(said), "{file}: {error}");
    }
    // Bytes in the middle that are damaged.
    let mut rotten = whole.clone();
    rotten[4..120].fill(0xA5);
    std::fs::write(set.path("rotten.parquet"), &rotten).unwrap();
    let found = set.list(
        "ood",
        "parquet",
        "files = \"rotten.parquet\"\ncolumns.label = \"label\"\n",
    );
    if let Ok(found) = found {
        let damaged = |r: &ImageRecord| read(&r.source, &Roots::default()).is_err();
        assert!(found.records.iter().any(damaged));
    }
}

#[test]
fn cifar_batches_are_pixels_with_labels() {
    let set = Set::new()
        .with("data_batch_1.bin", Cifar::ten(&[3, 1]))
        .with("test_batch.bin", Cifar::ten(&[0]))
        .with("batches.meta.txt", "airplane\nautomobile\nbird\ncat\n\n");
    let found = set.list("id", "cifar-binary", "").unwrap();
    assert_eq!(
        rows(&found.records),
        [
            ("set/test/test_batch.bin/00000", Some(0), Some("airplane")),
            ("set/train/data_batch_1.bin/00000", Some(3), Some("cat")),
            (
                "set/train/data_batch_1.bin/00001",
                Some(1),
                Some("automobile")
            ),
        ]
    );
    let second = bytes(&found.records[2]);
    assert!(second.starts_with(b"P6\n32 32\n255\n"));
    assert_eq!(second[13..19], Cifar::pixels(1, 2)[..]);

    let hundred = Set::new()
        .with("train.bin", Cifar::hundred(&[(4, 30)]))
        .with("test.bin", Cifar::hundred(&[(2, 7)]));
    let label = |rest: &str| hundred.list("id", "cifar-binary", rest).unwrap().records[0].label;
    assert_eq!(label(""), Some(7));
    assert_eq!(label("columns.label = \"coarse_label\"\n"), Some(2));
    let error = hundred.error("id", "cifar-binary", "columns.label = \"colour\"\n");
    assert!(
        error.contains("no label `colour` (`columns.label`), expected fine_label, coarse_label"),
        "{error}"
    );
    let cut = Set::new()
        .with("test_batch.bin", &Cifar::ten(&[1, 2])[..5000])
        .with("data_batch_1.bin", Cifar::ten(&[3]));
    let error = cut.error("id", "cifar-binary", "");
    assert!(
        error.contains("test_batch.bin: 5000 bytes are no whole number of records"),
        "{error}"
    );
}

#[test]
fn samples_of_tars_are_ranges_of_bytes() {
    let set = Set::new();
    let (one, two, three) = (ppm(1), ppm(2), ppm(3));
    write_tar(
        &set.path("train-0000.tar"),
        &[
            ("./n01/a.ppm", &one),
            ("./n01/a.cls", b"1\n"),
            ("./n01/a.json", b"{\"label\": 7}"),
            ("./n01/a.txt", b"a caption"),
            ("b.c.ppm", &two),
            ("b.json", b"{\"label\": 0, \"other\": 1}"),
        ],
    );
    write_tar(
        &set.path("train-0001.tar"),
        &[("z.image.ppm", &three), ("z.cls", b"1"), ("note.txt", b"x")],
    );
    let set = set.with("names.txt", "cat\ndog\n");
    let rest = "class_list = \"names.txt\"\nfiles = \"train-{0000..0001}.tar\"\n";
    let found = set.list("id", "webdataset", rest).unwrap();
    assert_eq!(
        rows(&found.records),
        [
            (
                "set/test/train-0000.tar/000000-n01/a.ppm",
                Some(1),
                Some("dog")
            ),
            (
                "set/test/train-0000.tar/000001-b.c.ppm",
                Some(0),
                Some("cat")
            ),
            (
                "set/test/train-0001.tar/000000-z.image.ppm",
                Some(1),
                Some("dog")
            ),
        ]
    );
    for (record, expected) in found.records.iter().zip([&one, &two, &three]) {
        assert_eq!(&bytes(record), expected);
        assert!(matches!(record.source.at, At::Bytes(_)));
    }
    let left: Vec<String> = found
        .left_out
        .iter()
        .map(|l| l.path.display().to_string())
        .collect();
    assert_eq!(left.len(), 1);
    assert!(left[0].ends_with("train-0001.tar/note"), "{left:?}");
    let other = set.list(
        "id",
        "webdataset",
        &(rest.to_string() + "columns.label = \"other\"\n"),
    );
    assert!(other.is_ok(), "{other:?}");
}

#[test]
fn wrong_tars_are_refused_by_name_and_sample() {
    let set = Set::new();
    let image = [ppm(1), vec![0; 2000]].concat();
    let sample: &[(&str, &[u8])] = &[
        ("a.ppm", &image),
        ("a.cls", b"0"),
        ("b.ppm", &image),
        ("b.cls", b"1"),
    ];
    write_tar(&set.path("good.tar"), sample);
    write_tar(
        &set.path("twice.tar"),
        &[("a.ppm", &image), ("a.jpg", &image), ("a.cls", b"0")],
    );
    write_tar(
        &set.path("nolabel.tar"),
        &[("a.ppm", &image), ("a.txt", b"cat")],
    );
    write_tar(
        &set.path("text.tar"),
        &[("a.ppm", &image), ("a.cls", b"cat")],
    );
    write_tar(
        &set.path("badjson.tar"),
        &[("a.ppm", &image), ("a.json", b"{label: 1}")],
    );
    write_tar(&set.path("noimage.tar"), &[("a.txt", b"x")]);
    let whole = std::fs::read(set.path("good.tar")).unwrap();
    let set = set
        .with("cut.tar", &whole[..512 + 100])
        .with("header.tar", &whole[..whole.len() / 2 + 200])
        .with("empty.tar", "")
        .with(
            "gzip.tar",
            b"\x1f\x8b\x08\x00compressed and some more bytes".repeat(40),
        );
    for (file, said) in [
        (
            "twice",
            "twice.tar: sample `a` has two images, `a.ppm` and `a.jpg`, expected one",
        ),
        ("nolabel", "nolabel.tar, sample `a`: no label"),
        (
            "text",
            "text.tar, sample `a`: its class is the text `cat`; list all classes in `class_list`",
        ),
        ("badjson", "badjson.tar: `a.json`: no JSON"),
        (
            "noimage",
            "noimage.tar: the archive holds no image, in 1 samples",
        ),
        ("empty", "empty.tar: the archive holds no image"),
        (
            "cut",
            "cut.tar: the archive is cut: `a.ppm` should end at byte",
        ),
        ("header", "header.tar: "),
        ("gzip", "gzip.tar: no readable tar file"),
        ("gone", "gone.tar"),
    ] {
        let error = set.error("id", "webdataset", &format!("files = \"{file}.tar\"\n"));
        assert!(error.contains(said), "{file}: {error}");
    }
    // Cut between two files: everything is there that can be, and it is told.
    let end = whole.len() - 1024;
    let set = set.with("nomark.tar", &whole[..end]);
    let found = set
        .list("id", "webdataset", "files = \"nomark.tar\"\n")
        .unwrap();
    assert!(
        found.notes[0].contains("nomark.tar: the archive has no end mark"),
        "{:?}",
        found.notes
    );
}

#[test]
fn tables_are_read_as_pandas_and_polars_write_them() {
    let set = Set::new()
        .with("images/a.png", ppm(1))
        .with("images/b.png", ppm(2));
    let absolute = set.path("images/b.png").display().to_string();
    let set = set
        // pandas: an index, labels with a gap as floats.
        .with(
            "pandas.csv",
            format!(",path,label,split\n0,images/a.png,3.0,train\n1,{absolute},0.0,test\n"),
        )
        .with(
            "semicolon.csv",
            "\u{feff}Path;Label\nimages/a.png;cat\nimages/b.png;\"a;b\"\n",
        )
        .with(
            "tab.tsv",
            "file_name\tlabel\nimages/a.png\t1\nimages/b.png\t0\n",
        )
        .with(
            "remote.csv",
            "uri,label\ns3://bucket/x/a.png,1\nhttps://host/b%20c.png?sig=1,0\nimages/a.png,1\n",
        );
    let found = set.list("id", "table", "files = \"pandas.csv\"\n").unwrap();
    assert_eq!(
        rows(&found.records),
        [
            ("set/test/images/b.png", Some(0), Some("0")),
            ("set/train/images/a.png", Some(3), Some("3")),
        ]
    );
    assert_eq!(bytes(&found.records[0]), ppm(2));
    let found = set
        .list("id", "table", "files = \"semicolon.csv\"\n")
        .unwrap();
    assert_eq!(
        rows(&found.records),
        [
            ("set/test/images/a.png", Some(1), Some("cat")),
            ("set/test/images/b.png", Some(0), Some("a;b")),
        ]
    );
    assert!(set.list("id", "table", "files = \"tab.tsv\"\n").is_ok());
    let found = set.list("id", "table", "files = \"remote.csv\"\n").unwrap();
    let keys: Vec<&str> = found.records.iter().map(|r| r.image_key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "set/test/bucket/x/a.png",
            "set/test/host/b%20c.png",
            "set/test/images/a.png"
        ]
    );
    assert_eq!(found.records[1].source.uri, "https://host/b%20c.png?sig=1");

    write_parquet(
        &set.path("polars.parquet"),
        &[
            Column::Words("path", &["images/a.png", "images/b.png"]),
            Column::Numbers("label", &[1, 0]),
            Column::Words("split", &["test", "test"]),
        ],
        None,
    );
    let found = set
        .list("id", "table", "files = \"polars.parquet\"\n")
        .unwrap();
    assert_eq!(found.records[0].label, Some(1));
    assert_eq!(bytes(&found.records[0]), ppm(1));
}

#[test]
fn wrong_tables_are_refused_with_the_row() {
    let set = Set::new()
        .with("nopath.csv", "name,label\na,1\n")
        .with("short.csv", "path,label\na.png,1\nb.png\n")
        .with(
            "split.csv",
            "path,label,split\na.png,1,test\nb.png,1,holdout\n",
        )
        .with("nosplit.csv", "path,label,split\na.png,1,\n")
        .with("empty.csv", "path,label\n,1\n")
        .with("nolabel.csv", "path\na.png\n")
        .with("outside.csv", "path,label\n../../a.png,1\n");
    for (file, rest, said) in [
        (
            "nopath",
            "",
            "nopath.csv: no column of paths, expected `path`",
        ),
        ("short", "", "short.csv: line 3 has 1 cells, expected 2"),
        (
            "split",
            "",
            "split.csv, row 3: found split `holdout`, expected train, val or test",
        ),
        ("nosplit", "", "nosplit.csv, row 2: no split"),
        ("empty", "", "empty.csv, row 2: no path"),
        ("nolabel", "", "nolabel.csv, row 2: no label"),
        (
            "outside",
            "",
            "outside.csv, row 2: found the path `../../a.png`",
        ),
        (
            "short",
            "columns.label = \"labell\"\n",
            "no column `labell` (`columns.label`); did you mean `label`?",
        ),
    ] {
        let error = set.error("id", "table", &format!("files = \"{file}.csv\"\n{rest}"));
        assert!(error.contains(said), "{file}: {error}");
    }
}

#[test]
fn a_class_list_names_the_folders_or_says_which_it_lacks() {
    let set = Set::new()
        .with("images/val/n01440764/a.png", ppm(1))
        .with("images/val/n01443537/b.png", ppm(2))
        .with(
            "classnames.txt",
            "n01443537 goldfish\nn01440764 tench\nn01484850 great white shark\n",
        )
        .with("short.txt", "n01443537 goldfish\n")
        .with("ordered.txt", "tench\ngoldfish\n")
        .with("three.txt", "tench\ngoldfish\nshark\n");
    let rest = |list: &str| format!("class_list = \"{list}\"\n[splits]\ntest = \"images/val\"\n");
    for list in ["classnames.txt", "ordered.txt"] {
        let found = set.list("id", "image-folder", &rest(list)).unwrap();
        assert_eq!(
            rows(&found.records),
            [
                ("set/test/n01440764/a.png", Some(0), Some("tench")),
                ("set/test/n01443537/b.png", Some(1), Some("goldfish")),
            ],
            "{list}"
        );
    }
    for (list, said) in [
        (
            "short.txt",
            "set/short.txt: it names 1 classes, but not the folder `n01440764`",
        ),
        ("three.txt", "set/three.txt: 3 names for 2 class folders"),
        ("gone.txt", "no file `gone.txt`"),
    ] {
        let error = set.error("id", "image-folder", &rest(list));
        assert!(error.contains(said), "{list}: {error}");
    }
}

#[test]
fn a_flat_folder_has_no_classes() {
    let set = Set::new()
        .with("images/a.png", ppm(1))
        .with("images/deep/b.png", ppm(2))
        .with("images/notes.txt", "x");
    let rest = "[splits]\ntest = \"images\"\n";
    let found = set.list("ood", "flat-folder", rest).unwrap();
    assert_eq!(
        rows(&found.records),
        [
            ("set/test/a.png", None, None),
            ("set/test/deep/b.png", None, None)
        ]
    );
    assert_eq!(found.left_out.len(), 1);
    let empty = Set::new().with("images/notes.txt", "x");
    let error = empty.error("ood", "flat-folder", rest);
    assert!(
        error.contains("no image in") && error.contains("1 .txt"),
        "{error}"
    );
}

#[test]
fn files_are_visited_without_opening_what_holds_several_images() {
    let set = Set::new()
        .with("a.tar", "no tar file at all")
        .with("list.txt", "x.png 0\n");
    let visited = |manifest: &DatasetManifest| {
        let mut all = Vec::new();
        visit_files::<DataError>(manifest, set.dir.path(), &mut |found| {
            all.push(match found {
                Found::File(path) => format!("file {}", name(&path)),
                Found::List(path) => format!("list {}", name(&path)),
                Found::Image(record) => record.image_key,
                other => format!("{other:?}"),
            });
            Ok(())
        })
        .unwrap();
        all
    };
    assert_eq!(
        visited(&set.manifest("ood", "webdataset", "")),
        ["file a.tar"]
    );
    let list = visited(&set.manifest("ood", "imglist", "files = \"list.txt\"\n"));
    assert_eq!(list[..2], ["list list.txt", "set/test/x.png"]);
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

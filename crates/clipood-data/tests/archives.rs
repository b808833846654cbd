//! Listing of files that hold several images, Parquet, CIFAR and tar: what is read, and what is refused by name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod files;
mod set;

use clipood_data::{At, ImageRecord, Roots, Split, read};

use self::files::{Cifar, Column, ppm, write_parquet, write_tar};
use self::set::{Set, bytes, rows};

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

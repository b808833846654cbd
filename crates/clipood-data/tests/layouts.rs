//! Listing of lists, tables and flat folders, and the names of classes: what is read, and what is refused by name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod files;
mod set;

use std::path::Path;

use clipood_core::DatasetManifest;
use clipood_data::{DataError, Found, Roots, read, visit_files};

use self::files::{Column, ppm, write_parquet};
use self::set::{Set, bytes, rows};

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
        ("short", "", "short.csv: line 3: found 1 cells, expected 2"),
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

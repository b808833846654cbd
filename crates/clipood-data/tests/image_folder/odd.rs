//! What lies in folders beside images and plain names: hidden files, deep trees, links, odd names, pipes.

use super::*;

#[test]
fn habits_of_other_systems_do_no_harm() {
    let root = tree(&[
        "tree/a./1.JPG",
        "tree/a./2.JPEG",
        "tree/a./3.PNG",
        "tree/a./4.jfif",
        "tree/a./5.jpg ",
        "tree/a./@eaDir/1.JPG/SYNOPHOTO_THUMB_XL.jpg",
        "tree/a./desktop.ini",
        "tree/__MACOSX/._1.JPG",
        "tree/.DS_Store",
    ]);
    let found = list("ood", "", &root).unwrap();
    assert_eq!(
        keys(&found.records),
        [
            "set/test/a./1.JPG",
            "set/test/a./2.JPEG",
            "set/test/a./3.PNG"
        ]
    );
    let mut counts = LeftOutCounts::default();
    found.left_out.iter().for_each(|entry| counts.add(entry));
    assert_eq!(
        counts.to_string(),
        "6 files left out: 1 .jfif, 1 `.jpg `, 4 hidden or of the system"
    );
}

/// A tree so deep that a search in quadratic time or by recursion would not end well.
#[cfg(target_os = "linux")]
#[test]
fn deep_trees_are_searched_and_too_deep_ones_named() {
    let root = tree(&["tree/a/1.png"]);
    let mut deep = root.path().join("tree/a");
    while deep.as_os_str().len() < 3900 {
        deep.push("d");
    }
    touch(&deep.join("2.png"));
    let found = list("ood", "", &root).unwrap();
    assert_eq!(found.records.len(), 2);
    // No path leads to where a renamed tree ends.
    let mut other = root.path().join("other");
    while other.as_os_str().len() < 2000 {
        other.push("d");
    }
    touch(&other.join("3.png"));
    fs::rename(root.path().join("other"), deep.join("other")).unwrap();
    let text = error("ood", "", &root);
    assert!(
        text.starts_with("the path of a folder is ") && text.contains("more than the system opens"),
        "{text}"
    );
    assert!(text.len() < 1500, "{}", text.len());
    let removed = std::process::Command::new("rm")
        .arg("-rf")
        .arg(root.path().join("tree"))
        .status();
    assert!(removed.unwrap().success());
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
    symlink("nowhere", at("tree/b/broken")).unwrap();
    symlink("loop2", at("tree/b/loop1")).unwrap();
    symlink("loop1", at("tree/b/loop2")).unwrap();
    let found = list("ood", "", &root).unwrap();
    assert_eq!(list("id", "", &root).unwrap().records.len(), 4);
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
        [
            "tree/a/self",
            "tree/a/up",
            "tree/b/broken",
            "tree/b/loop1",
            "tree/b/loop2",
            "tree/b/other_again",
            "tree/whole"
        ]
    );
}

#[cfg(target_os = "linux")]
#[test]
fn odd_names_of_files_are_escaped_in_keys_and_read() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let names: [&[u8]; 6] = [
        b"\xE9.png",
        b"b\\c.png",
        b"b\nc.png",
        b"\x1B[2J.png",
        b"b\\x5Cc.png",
        "b\u{85}.png".as_bytes(),
    ];
    // The folders above may have such names, too.
    let data = tempfile::tempdir().unwrap();
    let data = data.path().join(OsStr::from_bytes(b"data\xE9"));
    for name in names {
        let file = data.join("tree/a").join(OsStr::from_bytes(name));
        touch(&file);
        fs::write(file, name).unwrap();
    }
    for role in ["id", "ood"] {
        let found = list_dataset(&manifest(role, ""), &data).unwrap();
        assert_eq!(
            keys(&found.records),
            [
                r"set/test/a/\x1B[2J.png",
                r"set/test/a/\xE9.png",
                r"set/test/a/b\x0Ac.png",
                r"set/test/a/b\x5Cc.png",
                r"set/test/a/b\x5Cx5Cc.png",
                r"set/test/a/b\xC2\x85.png",
            ]
        );
        let mut read_names: Vec<Vec<u8>> = found
            .records
            .iter()
            .map(|record| read(&record.source, &Roots::default()).unwrap())
            .collect();
        read_names.sort();
        let mut expected = names.map(<[u8]>::to_vec).to_vec();
        expected.sort();
        assert_eq!(read_names, expected);
    }
    for (name, problem) in [
        (&b"caf\xE9"[..], r"tree/caf\xE9 is not UTF-8; rename it"),
        (b"a\nb", r"tree/a\x0Ab holds a control character; rename it"),
    ] {
        let root = tree(&["tree/a/1.png"]);
        touch(
            &root
                .path()
                .join("tree")
                .join(OsStr::from_bytes(name))
                .join("1.png"),
        );
        let text = error("ood", "", &root);
        assert_eq!(text, format!("the name of the class folder {problem}"));
        assert_eq!(error("id", "", &root), text);
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_listed_and_never_waited_for() {
    let root = tree(&["tree/a/1.png"]);
    let fifo = root.path().join("tree/a/2.png");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let found = list("ood", "", &root).unwrap();
    let error = read(&found.records[1].source, &Roots::default()).unwrap_err();
    assert_eq!(error.to_string(), "found a FIFO, expected a regular file");
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

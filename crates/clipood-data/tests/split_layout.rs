//! Datasets that a split file describes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;

use clipood_core::DatasetManifest;
use clipood_data::{Listing, Split, list_dataset};
use tempfile::TempDir;

fn write(folder: &TempDir, path: &str, content: &str) {
    let path = folder.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn list(folder: &TempDir, keys: &str) -> Result<Listing, String> {
    let toml =
        format!("name = \"set\"\nrole = \"id\"\nlayout = \"split-file\"\nroot = \"set\"\n{keys}");
    let manifest = DatasetManifest::parse(&toml, "m.toml").map_err(|e| e.to_string())?;
    list_dataset(&manifest, folder.path()).map_err(|e| e.to_string())
}

const SPLIT: &str = r#"{
 "train": [["a_ant/1.png", 1, "army_ant"], ["bee/1.png", 0, "bee"], ["a_ant/2.png", 1, "army_ant"]],
 "val": [],
 "test": [["bee/3.png", 0, "bee"], ["a_ant/3.png", 1, "army_ant"]]
}"#;

fn world(root: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    write(
        &folder,
        "set/split_zhou_Set.json",
        &SPLIT
            .replace("[[\"", &format!("[[\"{root}"))
            .replace(", [\"", &format!(", [\"{root}")),
    );
    for image in ["a_ant/1", "a_ant/2", "a_ant/3", "bee/1", "bee/3", "bee/9"] {
        write(&folder, &format!("set/images/{image}.png"), image);
    }
    folder
}

const KEYS: &str = "files = \"split_zhou_Set.json\"\nimages = \"images\"\n";

#[test]
fn splits_labels_and_names_are_those_of_the_file() {
    let folder = world("");
    let listing = list(&folder, KEYS).unwrap();
    let rows: Vec<_> = (listing.records.iter())
        .map(|r| (r.image_key.as_str(), r.split, r.label.unwrap()))
        .collect();
    assert_eq!(
        rows,
        [
            ("set/test/a_ant/3.png", Split::Test, 1),
            ("set/test/bee/3.png", Split::Test, 0),
            ("set/train/a_ant/1.png", Split::Train, 1),
            ("set/train/a_ant/2.png", Split::Train, 1),
            ("set/train/bee/1.png", Split::Train, 0),
        ]
    );
    assert_eq!(listing.records[0].class_name.as_deref(), Some("army ant"));
    let images = Path::new("set/images/a_ant/3.png");
    assert!(Path::new(&listing.records[0].source.uri).ends_with(images));
    let named = format!("{KEYS}[class_names]\narmy_ant = \"ant\"\n");
    let named = list(&folder, &named).unwrap();
    assert_eq!(named.records[0].class_name.as_deref(), Some("ant"));
    // Paths of another machine are the same images.
    let moved = list(&world("/home/k/DATA/set/images/"), KEYS).unwrap();
    let keys = |listing: &Listing| -> Vec<String> {
        listing
            .records
            .iter()
            .map(|r| r.image_key.clone())
            .collect()
    };
    assert_eq!(keys(&moved), keys(&listing));
    assert!(
        moved.notes[0].contains("/home/k/DATA/set/images/ of another machine"),
        "{:?}",
        moved.notes
    );
}

#[test]
fn what_is_wrong_is_named() {
    let folder = world("");
    let error = list(&folder, "files = \"split_zhou_Set.json\"\n").unwrap_err();
    assert!(error.contains("`images` names the folder"), "{error}");
    let error = list(&folder, "files = \"gone.json\"\nimages = \"images\"\n").unwrap_err();
    assert!(error.contains("gone.json"), "{error}");
    write(&folder, "set/cut.json", &SPLIT[..60]);
    let error = list(&folder, "files = \"cut.json\"\nimages = \"images\"\n").unwrap_err();
    assert!(
        error.contains("cut.json") && error.contains("expected the lists"),
        "{error}"
    );
    let error = list(&folder, "").unwrap_err();
    assert!(error.contains("found no `files`"), "{error}");
    let error = list(&folder, &format!("{KEYS}[splits]\ntest = \"x\"\n")).unwrap_err();
    assert!(error.contains("splits"), "{error}");
    write(
        &folder,
        "set/out.json",
        r#"{"test": [["../x.png", 0, "a"]]}"#,
    );
    let error = list(&folder, "files = \"out.json\"\nimages = \"images\"\n").unwrap_err();
    assert!(error.contains("../x.png"), "{error}");
}

#[test]
fn the_lists_of_fgvc_aircraft_are_a_split() {
    let folder = TempDir::new().unwrap();
    write(&folder, "set/variants.txt", "707-320\nA300B4\n");
    write(
        &folder,
        "set/images_variant_train.txt",
        "0000001 A300B4\n0000002 707-320\n",
    );
    write(&folder, "set/images_variant_val.txt", "0000003 A300B4\n");
    write(&folder, "set/images_variant_test.txt", "0000004 707-320\n");
    for image in 1..=4 {
        write(&folder, &format!("set/images/000000{image}.jpg"), "x");
    }
    let keys = "files = \"images_variant_test.txt\"\nimages = \"images\"\n";
    let listing = list(&folder, keys).unwrap();
    let rows: Vec<_> = (listing.records.iter())
        .map(|r| (r.split, r.label.unwrap(), r.class_name.clone().unwrap()))
        .collect();
    let name = |text: &str| text.to_string();
    assert_eq!(
        rows,
        [
            (Split::Test, 0, name("707-320")),
            (Split::Train, 1, name("A300B4")),
            (Split::Train, 0, name("707-320")),
            (Split::Val, 1, name("A300B4")),
        ]
    );
    write(&folder, "set/images_variant_val.txt", "0000003 A300\n");
    let error = list(&folder, keys).unwrap_err();
    assert!(
        error.contains("images_variant_val.txt, line 1: `A300` is not in variants.txt"),
        "{error}"
    );
}

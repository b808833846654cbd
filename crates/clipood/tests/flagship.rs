//! The shipped recipe `imagenet-mos` on a tree with all 1,000 folders of ImageNet-1K and the four MOS sets, few small
//! pictures in each: zero-shot and one epoch of CoOp, from the plan to the tables.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use clipood_core::{DatasetManifest, SplitMix64};
use common::{World, stderr, stdout, tables};

const MANIFEST: &str = include_str!("../../../manifests/datasets/imagenet.toml");
/// Images of each class in each split.
const IMAGES: usize = 2;
/// Name, root and folder of the images of each OOD set, as the downloads unpack.
const OOD: [(&str, &str, &str); 4] = [
    ("inaturalist", "iNaturalist", "images"),
    ("sun", "SUN", "images"),
    ("places", "Places", "images"),
    ("textures", "dtd/images", "banded"),
];
/// Images of each OOD set.
const OOD_IMAGES: usize = 5;

/// A picture of coarse coloured cells that differs for every seed.
fn picture(path: &Path, seed: u64) {
    const SIDE: usize = 24;
    const CELL: usize = 8;
    let mut random = SplitMix64::keyed(0, "picture", seed);
    let cells: Vec<[u8; 3]> = (0..(SIDE / CELL).pow(2))
        .map(|_| {
            let [r, g, b, ..] = random.next_u64().to_le_bytes();
            [r, g, b]
        })
        .collect();
    let pixels = (0..SIDE * SIDE).flat_map(|i| {
        let (row, column) = (i / SIDE / CELL, i % SIDE / CELL);
        cells[row * (SIDE / CELL) + column]
    });
    let file = File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer
        .write_image_data(&pixels.collect::<Vec<_>>())
        .unwrap();
}

/// Draws the tree, and writes manifests of the OOD sets that do not expect the numbers of the downloads.
fn stand_in(world: &World, classes: &BTreeMap<String, String>) {
    let mut seed = 0;
    let mut draw = |folder: &str, file: &str, count: usize| {
        let folder = world.path(&format!("data/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            seed += 1;
            picture(&folder.join(format!("{file}{number}.png")), seed);
        }
    };
    for folder in classes.keys() {
        draw(
            &format!("imagenet/train/{folder}"),
            &format!("{folder}_"),
            IMAGES,
        );
        draw(
            &format!("imagenet/val/{folder}"),
            &format!("ILSVRC2012_val_{folder}"),
            IMAGES,
        );
    }
    for (name, root, below) in OOD {
        draw(&format!("{root}/{below}"), "p", OOD_IMAGES);
        let text = format!(
            "name = \"{name}\"\nrole = \"ood\"\nlayout = \"image-folder\"\nroot = \"{root}\"\n"
        );
        world.write(&format!("manifests/{name}.toml"), text);
    }
}

#[test]
fn the_shipped_imagenet_recipe_runs_from_plan_to_table() {
    let manifest = DatasetManifest::parse(MANIFEST, "imagenet.toml").unwrap();
    let classes = &manifest.class_names;
    assert_eq!(classes.len(), 1000);
    let world = World::empty();
    stand_in(&world, classes);
    world.write(
        "recipe.toml",
        include_str!("../../../pipelines/imagenet-mos.toml").to_owned()
            + "\n[train]\nepochs = 1\nviews = 1\n[metrics]\nbootstrap = 10\n",
    );
    let arguments = [
        "--model",
        "demo",
        "--methods",
        "zero-shot,coop",
        "--shots",
        "1",
        "--seeds",
        "1",
    ];
    let run = world.run("run", &arguments);
    assert!(run.status.success(), "{}", stderr(&run));
    // Two pairs of folders share a text: said once, and no reason to stop.
    for shared in ["missile", "sunglasses"] {
        assert!(stderr(&run).contains(shared), "{shared}: {}", stderr(&run));
    }

    let labels: BTreeMap<&str, i32> = classes.keys().map(String::as_str).zip(0..).collect();
    let scores = tables::scores(&world, "run");
    let rows = || scores.iter().flat_map(|(_, scores)| &scores.rows);
    // Two prompt sets.
    assert_eq!(rows().count(), 2 * (1000 * IMAGES + 4 * OOD_IMAGES));
    let mut of_class = BTreeMap::new();
    for row in rows() {
        let key: Vec<&str> = row.image_key.split('/').collect();
        match key[..] {
            ["imagenet", "test", folder, _] => {
                assert_eq!(row.label, Some(labels[folder]), "{}", row.image_key);
                *of_class.entry(labels[folder]).or_insert(0) += 1;
            }
            _ => assert_eq!(row.label, None, "{}", row.image_key),
        }
    }
    assert_eq!(of_class.len(), 1000);
    assert!(of_class.values().all(|&count| count == 2 * IMAGES));
    // Of two classes with one text the first is predicted.
    let second = ["n04008634", "n04356056"].map(|folder| labels[folder]);
    let zero_shot = scores.iter().filter(|(part, _)| part.contains("zero-shot"));
    let mut predicted = zero_shot.flat_map(|(_, scores)| &scores.rows);
    assert!(predicted.all(|row| !second.contains(&row.pred)));

    let report = world.clipood(&["report", "run", "--by", "dataset"]);
    let printed = stdout(&{ report }.output().unwrap());
    for (name, ..) in OOD {
        assert!(printed.contains(name), "{name}: {printed}");
    }
    let audit = world.clipood(&["status", "run", "--store", "store", "--audit"]);
    let audit = { audit }.output().unwrap();
    assert!(
        audit.status.success(),
        "{}{}",
        stdout(&audit),
        stderr(&audit)
    );
}

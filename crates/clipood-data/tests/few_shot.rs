//! Few-shot splits, and subsets of classes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use clipood_core::SubsampleClasses;
use clipood_data::{DataError, ImageRecord, Source, Split, few_shot_split, subsample_classes};
use proptest::prelude::*;

fn records(counts: &[usize]) -> Vec<ImageRecord> {
    let of = |(label, count): (usize, &usize)| {
        (0..*count)
            .map(move |i| ImageRecord {
                image_key: format!("set/train/c{label}/{i}.png"),
                source: Source::whole(format!("/data/{label}/{i}")),
                split: Split::Train,
                label: Some(label as u32),
                class_name: Some(format!("class {label}")),
            })
            .collect::<Vec<_>>()
    };
    counts.iter().enumerate().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn shots_are_nested_and_depend_on_keys_alone(
        counts in prop::collection::vec(1usize..40, 1..5),
        small in 0usize..20,
        more in 0usize..20,
        seed: u64,
        turn in 0usize..100,
    ) {
        let mut images = records(&counts);
        let k = few_shot_split("set", &images, small, seed, true).unwrap();
        let turn = turn % images.len();
        images.rotate_left(turn);
        images.reverse();
        let larger = few_shot_split("set", &images, small + more, seed, true).unwrap();
        prop_assert_eq!(k.classes.len(), counts.len());
        for (class, more) in k.classes.iter().zip(&larger.classes) {
            let keys = &class.keys;
            prop_assert_eq!(&class.name, &more.name);
            let label: usize = class.name["class ".len()..].parse().unwrap();
            prop_assert_eq!(keys.len(), small.min(counts[label]));
            prop_assert_eq!(keys, &more.keys[..keys.len()]);
            let start = format!("set/train/c{label}/");
            prop_assert!(keys.iter().all(|key| key.starts_with(&start)));
            let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
            prop_assert_eq!(distinct.len(), keys.len());
        }
        let text = serde_json::to_string(&larger).unwrap();
        let back: clipood_data::FewShotSplit = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.hash().unwrap(), larger.hash().unwrap());
        prop_assert_eq!(back, larger);
    }
}

#[test]
fn every_image_is_drawn_equally_often() {
    let images = records(&[10]);
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..2000 {
        for key in few_shot_split("set", &images, 3, seed, false)
            .unwrap()
            .keys()
        {
            *counts.entry(key.to_string()).or_insert(0u32) += 1;
        }
    }
    // Five standard errors of a binomial with n = 2000 and p = 0.3.
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|c| c.abs_diff(600) < 103), "{counts:?}");
}

#[test]
fn a_split_is_part_of_the_format() {
    let split = few_shot_split("set", &records(&[3, 4]), 2, 1, false).unwrap();
    let json = serde_json::to_value(&split).unwrap();
    assert_eq!(json["dataset"], "set");
    assert_eq!((&json["shots"], &json["seed"]), (&2.into(), &1.into()));
    // A change here changes every few-shot result.
    assert_eq!(split.keys().collect::<Vec<_>>(), KEYS);
    let other = few_shot_split("set", &records(&[3, 4]), 2, 2, false).unwrap();
    assert_ne!(split.hash().unwrap(), other.hash().unwrap());
}

/// Also computed independently in Python, from the definition of the random number stream.
const KEYS: [&str; 4] = [
    "set/train/c0/1.png",
    "set/train/c0/0.png",
    "set/train/c1/2.png",
    "set/train/c1/3.png",
];

#[test]
fn too_few_images_are_named() {
    let mut images = records(&[20, 3]);
    let error = few_shot_split("set", &images, 16, 1, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dataset `set`: class `class 1` has 3 training images, 16 shots were asked for"
    );
    let fewer = few_shot_split("set", &images, 16, 1, true).unwrap();
    assert_eq!(fewer.classes[1].name, "class 1");
    assert_eq!(fewer.classes[1].keys.len(), 3);
    // Only labelled training images count.
    for image in &mut images {
        if image.label == Some(1) {
            image.split = Split::Test;
        } else {
            image.label = None;
        }
    }
    let error = few_shot_split("set", &images, 1, 1, true).unwrap_err();
    assert!(matches!(error, DataError::NoTrainImages { .. }), "{error}");
}

#[test]
fn classes_of_the_same_name_are_drawn_apart() {
    let mut images = records(&[4, 5, 6]);
    let apart = few_shot_split("set", &images, 2, 1, false).unwrap();
    for image in &mut images {
        if image.label != Some(1) {
            image.class_name = Some("missile".to_string());
        }
    }
    let split = few_shot_split("set", &images, 2, 1, false).unwrap();
    let names: Vec<&str> = split
        .classes
        .iter()
        .map(|class| class.name.as_str())
        .collect();
    assert_eq!(names, ["class 1", "missile", "missile"]);
    // The draws do not depend on the names.
    for (class, before) in [(0, 1), (1, 0), (2, 2)] {
        assert_eq!(split.classes[class].keys, apart.classes[before].keys);
    }
    let text = serde_json::to_string(&split).unwrap();
    assert_eq!(
        serde_json::from_str::<clipood_data::FewShotSplit>(&text).unwrap(),
        split
    );
}

#[test]
fn splits_of_distinct_names_keep_their_file_format() {
    let split = few_shot_split("set", &records(&[1, 1]), 1, 7, false).unwrap();
    let json = r#"{"dataset":"set","shots":1,"seed":7,"classes":{"class 0":["set/train/c0/0.png"],"class 1":["set/train/c1/0.png"]}}"#;
    assert_eq!(serde_json::to_string(&split).unwrap(), json);
    assert_eq!(
        serde_json::from_str::<clipood_data::FewShotSplit>(json).unwrap(),
        split
    );
}

#[test]
fn base_and_new_are_coops_halves() {
    let classes = ["a", "b", "c", "d", "e"];
    assert_eq!(subsample_classes(&classes, SubsampleClasses::All), classes);
    assert_eq!(
        subsample_classes(&classes, SubsampleClasses::Base),
        ["a", "b", "c"]
    );
    assert_eq!(
        subsample_classes(&classes, SubsampleClasses::New),
        ["d", "e"]
    );
    assert!(subsample_classes(&classes[..1], SubsampleClasses::New).is_empty());
}

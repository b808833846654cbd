//! The training stream: reproducible, with correct captions, and with four fifths of objects.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;

use clipood_demo::{DemoError, Example, ID_CLASSES, NEAR_CLASSES, OTHER_CLASSES, training_example};

fn example(seed: u64, index: u64, side: u32, difficulty: f32) -> Example {
    training_example(seed, index, side, difficulty).unwrap()
}

/// The caption's words without punctuation.
fn words(caption: &str) -> Vec<&str> {
    caption.trim_end_matches('.').split(' ').collect()
}

#[test]
fn an_example_depends_on_its_arguments_alone() {
    let forward: Vec<Example> = (0..40).map(|i| example(3, i, 48, 1.0)).collect();
    let mut backward: Vec<Example> = (0..40).rev().map(|i| example(3, i, 48, 1.0)).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    for i in 0..40 {
        let other = example(4, i, 48, 1.0);
        assert_ne!(forward[i as usize].picture, other.picture, "picture {i}");
    }
}

/// FNV-1a.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The committed weights were trained on this stream. Changing it requires a new training, and a new version of the trees if
/// their pictures change too. Pixels are compared only on a platform whose rounding of curves is known.
#[test]
fn the_stream_is_the_one_that_the_weights_were_trained_on() {
    let examples: Vec<Example> = (0..64).map(|i| example(1, i, 96, 1.0)).collect();
    let captions = hash(examples.iter().flat_map(|e| e.caption.bytes()));
    assert_eq!(captions, CAPTIONS, "found {captions:#x}");
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let pixels = hash(examples.iter().flat_map(|e| e.picture.pixels.clone()));
        assert_eq!(pixels, PIXELS, "found {pixels:#x}");
    }
}

const CAPTIONS: u64 = 0x303d_ccdf_e7ac_2c9a;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const PIXELS: u64 = 0x9c7d_2319_9cef_3821;

#[test]
fn every_object_is_named_and_objects_are_four_fifths_of_the_stream() {
    let names: Vec<&str> = [&ID_CLASSES[..], &NEAR_CLASSES, &OTHER_CLASSES].concat();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let count = 6000;
    for index in 0..count {
        let caption = example(1, index, 8, 1.0).caption;
        for name in words(&caption) {
            if let Some(name) = names.iter().find(|n| **n == name) {
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    assert_eq!(seen.len(), 40);
    let objects = seen.values().sum::<usize>() as f64 / count as f64;
    assert!((0.75..0.81).contains(&objects), "{objects}");
    // 117 on average; five standard deviations either way.
    for (name, n) in seen {
        assert!((63..172).contains(&n), "{name} {n} times");
    }
}

#[test]
fn captions_are_short_plain_words_and_give_the_object_its_article() {
    for index in 0..6000 {
        let caption = example(2, index, 8, 1.0).caption;
        assert!(caption.len() > 2, "{caption:?}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == ' ' || c == '.';
        assert!(caption.chars().all(plain), "{caption:?}");
        // The article of a background's colour is always `a`, and the weights have learnt it so.
        let object = caption.split(" on ").next().unwrap_or_default();
        for pair in words(object).windows(2) {
            let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
            assert!(pair[0] != "a" || !vowel, "{caption:?}");
            assert!(pair[0] != "an" || vowel, "{caption:?}");
        }
    }
}

#[test]
fn a_picture_has_its_size_and_a_bad_size_is_refused() {
    for side in [1, 17, 64] {
        let picture = example(1, 0, side, 0.5).picture;
        assert_eq!((picture.width, picture.height), (side, side));
        assert_eq!(picture.pixels.len(), (side * side * 3) as usize);
    }
    for side in [0, u32::MAX] {
        let found = training_example(1, 0, side, 1.0);
        assert!(matches!(found, Err(DemoError::Size { .. })), "{side}");
    }
}

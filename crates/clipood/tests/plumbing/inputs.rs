//! `tokenize`, `preprocess` and `encode`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float32Type;
use clipood_data::{DecodeLimits, decode, eval_view, normalise};
use clipood_demo::{draw_planned, planned_pictures};
use clipood_pipeline::open_model;
use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{difference, fail, floats, succeed, table, text, words};

const TOKENIZER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../clipood-clip/tests/data/tokenizer.json"
);
const PICTURES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../clipood-data/tests/data/preprocess"
);

#[test]
fn tokenize_gives_the_reference_ids() {
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(TOKENIZER).unwrap()).unwrap();
    assert!(
        cases.iter().any(|case| case["truncate"] == true),
        "no case is too long"
    );
    let input: String = cases
        .iter()
        .map(|case| format!("{}\n", case["text"]))
        .collect();
    let found = succeed(&["tokenize", "--json"], input.as_bytes());
    assert_eq!(found.lines().count(), cases.len());
    for (line, case) in found.lines().zip(&cases) {
        assert_eq!(
            serde_json::from_str::<Value>(line).unwrap(),
            case["ids"],
            "{case}"
        );
    }

    let plain: Vec<&Value> = cases
        .iter()
        .filter(|case| !case["text"].as_str().unwrap().contains(['\n', '\r']))
        .collect();
    let texts: Vec<&str> = plain
        .iter()
        .map(|case| case["text"].as_str().unwrap())
        .collect();
    assert!(texts.len() > cases.len() / 2);
    // The last line has no line break.
    let found = succeed(&["tokenize"], texts.join("\n").as_bytes());
    let found: Vec<Value> = found
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected: Vec<Value> = plain.iter().map(|case| case["ids"].clone()).collect();
    assert_eq!(found, expected);

    let empty = succeed(&["tokenize"], b"\r\n");
    let ids: Vec<u32> = serde_json::from_str(&empty).unwrap();
    assert_eq!((ids.len(), &ids[..3]), (77, &[49406, 49407, 0][..]));
    assert_eq!(succeed(&["tokenize"], b""), "");
    fail(&["tokenize"], b"fine\n\xff\n", 1, &["line 2"]);
    fail(
        &["tokenize", "--json"],
        b"\"fine\"\nbare\n",
        1,
        &["line 2", "JSON string"],
    );
}

#[test]
fn preprocess_gives_the_reference_pixels() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("pixels.safetensors");
    let expected = std::fs::read(format!("{PICTURES}/expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let names: BTreeSet<&str> = expected
        .names()
        .into_iter()
        .filter(|name| !name.starts_with("crop/"))
        .collect();
    assert_eq!(names.len(), 25);
    let paths: Vec<String> = names
        .iter()
        .map(|name| format!("{PICTURES}/{name}"))
        .collect();
    let arguments = |more: &[&'static str]| -> Vec<String> {
        let mut all = vec!["preprocess".to_owned()];
        all.extend(paths.iter().cloned());
        all.extend(["--out", text(&out)].map(str::to_owned));
        all.extend(more.iter().map(|word| (*word).to_owned()));
        all
    };
    let run = |more: &[&'static str]| {
        let arguments = arguments(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        succeed(&arguments, b"");
        std::fs::read(&out).unwrap()
    };
    let bytes = run(&["--pixels"]);
    let pixels = SafeTensors::deserialize(&bytes).unwrap();
    let bytes = run(&["--size", "224"]);
    let normalised = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(pixels.names().into_iter().collect::<BTreeSet<_>>(), names);
    assert_eq!(
        normalised.names().into_iter().collect::<BTreeSet<_>>(),
        names
    );
    let (mean, std) = (
        [0.48145466, 0.4578275, 0.40821073],
        [0.26862954, 0.26130258, 0.27577711],
    );
    for name in names {
        let found = pixels.tensor(name).unwrap();
        let reference = expected.tensor(name).unwrap();
        assert_eq!(
            (found.dtype(), found.shape()),
            (Dtype::U8, &[224, 224, 3][..]),
            "{name}"
        );
        let worst = found
            .data()
            .iter()
            .zip(reference.data())
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        // JPEG decoders round differently.
        let allowed = if name.ends_with(".jpg") { 4 } else { 0 };
        assert!(worst.unwrap() <= allowed, "{name}: off by {worst:?}");

        let floats_found = normalised.tensor(name).unwrap();
        assert_eq!(floats_found.shape(), [3, 224, 224]);
        let values = floats(&floats_found);
        for (at, value) in values.iter().enumerate() {
            let (channel, place) = (at / (224 * 224), at % (224 * 224));
            let pixel = f64::from(found.data()[place * 3 + channel]);
            let expected = (pixel / 255.0 - mean[channel]) / std[channel];
            assert!(
                (f64::from(*value) - expected).abs() < 1e-5,
                "{name}, value {at}"
            );
        }
    }
}

#[test]
fn preprocess_writes_what_it_can_read_and_lists_the_rest() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out.safetensors");
    let good = format!("{PICTURES}/rgb_32x32.png");
    for bad in ["truncated.jpg", "empty.png", "text.png", "absent.png"] {
        let path = format!("{PICTURES}/{bad}");
        // None of the images: an error and no file.
        fail(
            &["preprocess", &path, "--out", text(&out)],
            b"",
            1,
            &[&format!("cannot read {path} ("), "none of 1 images"],
        );
        assert!(!out.exists());
        // Some of them: a file, a list, and the same exit code.
        fail(
            &["preprocess", &path, &good, "--out", text(&out)],
            b"",
            1,
            &[&format!("cannot read {path} (")],
        );
        let bytes = std::fs::read(&out).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.names(), ["rgb_32x32.png"]);
        std::fs::remove_file(&out).unwrap();
    }
    let twin = dir.path().join("rgb_32x32.png");
    std::fs::copy(&good, &twin).unwrap();
    let arguments = ["preprocess", &good, text(&twin), "--out", text(&out)];
    fail(&arguments, b"", 2, &["`rgb_32x32.png`", text(&twin)]);
    assert!(!out.exists());
    fail(
        &["preprocess", &good, "--size", "0", "--out", text(&out)],
        b"",
        2,
        &["--size"],
    );
    let nowhere = dir.path().join("absent/out.safetensors");
    fail(
        &["preprocess", &good, "--out", text(&nowhere)],
        b"",
        1,
        &[text(&nowhere)],
    );
}

/// Two drawn pictures as PPM files.
fn pictures(dir: &TempDir) -> Vec<PathBuf> {
    let planned = planned_pictures();
    let chosen = ["id/test/", "scenes/"].map(|prefix| {
        planned
            .iter()
            .find(|picture| picture.path.starts_with(prefix))
            .unwrap()
    });
    chosen
        .iter()
        .enumerate()
        .map(|(number, planned)| {
            let picture = draw_planned(planned).unwrap();
            let mut bytes = format!("P6 {} {} 255\n", picture.width, picture.height).into_bytes();
            bytes.extend_from_slice(&picture.pixels);
            let path = dir.path().join(format!("{number}.ppm"));
            std::fs::write(&path, bytes).unwrap();
            path
        })
        .collect()
}

#[test]
fn encode_gives_the_models_features_in_both_formats() {
    let dir = TempDir::new().unwrap();
    let images = pictures(&dir);
    let texts = dir.path().join("texts.txt");
    std::fs::write(&texts, "a drawing of a star\na fish\n").unwrap();
    let safe = dir.path().join("features.safetensors");
    let parquet = dir.path().join("features.parquet");
    for out in [&safe, &parquet] {
        let arguments = [
            "encode",
            "--model",
            "demo",
            "--images",
            text(&images[0]),
            text(&images[1]),
            "--texts",
            text(&texts),
            "--local",
            "--out",
            text(out),
        ];
        succeed(&arguments, b"");
    }

    let model = open_model("demo").unwrap();
    let config = &model.config;
    let (dim, patches) = (config.embed_dim, config.image.positions());
    let encoder = model.image_encoder("cpu".parse().unwrap()).unwrap();
    let bytes = std::fs::read(&safe).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let global = file.tensor("image_global").unwrap();
    let local = file.tensor("image_local").unwrap();
    let text_features = file.tensor("text").unwrap();
    assert_eq!(global.shape(), [2, dim]);
    assert_eq!(local.shape(), [2, patches, dim]);
    assert_eq!(text_features.shape(), [2, dim]);
    let (global, local, text_features) = (floats(&global), floats(&local), floats(&text_features));
    for (number, path) in images.iter().enumerate() {
        let image = decode(&std::fs::read(path).unwrap(), &DecodeLimits::default()).unwrap();
        let view = eval_view(&image, config.image.size as u32);
        let encoded = encoder
            .encode(normalise(&view, config.mean, config.std), true)
            .unwrap();
        assert!(difference(&global[number * dim..][..dim], &encoded.global) < 1e-4);
        assert!(
            difference(
                &local[number * patches * dim..][..patches * dim],
                &encoded.local
            ) < 1e-4
        );
    }
    let expected = model
        .text_encoder("cpu".parse().unwrap())
        .unwrap()
        .encode(&["a drawing of a star".to_owned(), "a fish".to_owned()])
        .unwrap();
    assert!(difference(&text_features, &expected) < 1e-4);

    let rows = table(&parquet);
    assert_eq!(words(&rows, "kind"), ["image", "image", "text", "text"]);
    let sources = [
        text(&images[0]),
        text(&images[1]),
        "a drawing of a star",
        "a fish",
    ];
    assert_eq!(words(&rows, "source"), sources);
    let lists = rows.column_by_name("global").unwrap().as_fixed_size_list();
    assert_eq!(lists.value_length() as usize, dim);
    let values = lists.values().as_primitive::<Float32Type>().values();
    let whole = [global, text_features].concat();
    assert!(
        difference(values, &whole) < 1e-6,
        "another run of the command gives the same"
    );
    let binary = rows.column_by_name("local").unwrap().as_fixed_size_binary();
    for row in 0..2 {
        let halves = binary.value(row).as_chunks::<2>().0;
        let values: Vec<f32> = halves
            .iter()
            .map(|b| f16::from_le_bytes(*b).to_f32())
            .collect();
        assert!(difference(&values, &local[row * patches * dim..][..patches * dim]) < 1e-3);
    }
    assert!(binary.is_valid(1) && binary.is_null(2) && binary.is_null(3));
}

#[test]
fn encode_writes_what_it_can_read_and_lists_the_rest() {
    let dir = TempDir::new().unwrap();
    let images = pictures(&dir);
    let broken = dir.path().join("broken.png");
    std::fs::write(&broken, b"\x89PNG\r\n no picture").unwrap();
    let safe = dir.path().join("features.safetensors");
    let parquet = dir.path().join("features.parquet");
    let (first, second) = (text(&images[0]), text(&images[1]));
    for out in [&safe, &parquet] {
        let arguments = [
            "encode",
            "--model",
            "demo",
            "--images",
            text(&broken),
            first,
            "gone.png",
            second,
            "--devices",
            "cpu:2",
            "--out",
            text(out),
        ];
        let lists = [
            &format!("cannot read {} (", text(&broken)),
            "cannot read gone.png (unreadable): ",
        ];
        fail(&arguments, b"", 1, &lists);
    }
    let bytes = std::fs::read(&safe).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let dim = open_model("demo").unwrap().config.embed_dim;
    assert_eq!(file.tensor("image_global").unwrap().shape(), [2, dim]);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    let rows: Vec<String> = serde_json::from_str(&metadata["images"]).unwrap();
    assert_eq!(rows, [first, second]);
    let table = table(&parquet);
    assert_eq!(words(&table, "source"), [first, second]);

    // The rows are those of the images alone.
    let alone = dir.path().join("alone.safetensors");
    let arguments = [
        "encode",
        "--model",
        "demo",
        "--images",
        second,
        "--out",
        text(&alone),
    ];
    succeed(&arguments, b"");
    let alone = std::fs::read(&alone).unwrap();
    let alone = SafeTensors::deserialize(&alone).unwrap();
    let alone = floats(&alone.tensor("image_global").unwrap());
    let both = floats(&file.tensor("image_global").unwrap());
    assert!(difference(&both[dim..], &alone) < 1e-4);
}

#[test]
fn encode_names_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let image = &pictures(&dir)[0];
    let out = dir.path().join("out.safetensors");
    let texts = dir.path().join("texts.txt");
    let encode = |more: &[&str], code, words: &[&str]| {
        fail(&[&["encode"][..], more].concat(), b"", code, words);
        assert!(!out.exists());
    };
    let (to, image) = (text(&out), text(image));
    encode(
        &["--model", "demo", "--out", to],
        2,
        &["--images", "--texts"],
    );
    encode(
        &["--model", "demo", "--images", image, "--out", "a.npy"],
        2,
        &["a.npy", ".parquet"],
    );
    encode(
        &["--model", "no-model", "--images", image, "--out", to],
        2,
        &["no-model"],
    );
    encode(
        &[
            "--model", "demo", "--images", "gone.png", "lost.png", "--out", to,
        ],
        1,
        &[
            "cannot read gone.png (unreadable)",
            "lost.png",
            "none of 2 images",
        ],
    );
    for name in ["--devices", "--device"] {
        let device = [
            "--model", "demo", "--images", image, name, "cuda:0", "--out", to,
        ];
        encode(&device, 2, &["cuda:0"]);
    }
    std::fs::write(&texts, format!("fine\n{}\n", "word ".repeat(100))).unwrap();
    encode(
        &["--model", "demo", "--texts", text(&texts), "--out", to],
        2,
        &["texts.txt", "102"],
    );
}

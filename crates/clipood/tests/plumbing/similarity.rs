//! `similarity`.

use std::path::PathBuf;

use clipood_demo::{draw_planned, planned_pictures};
use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{clipood, fail, succeed, text};

/// A drawn star and a drawn fish as PPM files.
fn pictures(dir: &TempDir) -> Vec<PathBuf> {
    let planned = planned_pictures();
    let draw = |class: &str| {
        let prefix = format!("id/test/{class}/");
        let first = planned.iter().find(|p| p.path.starts_with(&prefix));
        let picture = draw_planned(first.unwrap()).unwrap();
        let mut bytes = format!("P6 {} {} 255\n", picture.width, picture.height).into_bytes();
        bytes.extend_from_slice(&picture.pixels);
        let path = dir.path().join(format!("{class}.ppm"));
        std::fs::write(&path, bytes).unwrap();
        path
    };
    vec![draw("star"), draw("fish")]
}

#[test]
fn similarity_is_the_cosine_of_the_encoded_features() {
    let dir = TempDir::new().unwrap();
    let images = pictures(&dir);
    let texts = dir.path().join("texts.txt");
    std::fs::write(&texts, "a photo of a fish\na photo of a star\n").unwrap();
    let (star, fish) = (text(&images[0]), text(&images[1]));
    let arguments = [
        "similarity",
        "--model",
        "demo",
        star,
        fish,
        "--text",
        "a house",
        "--texts",
        text(&texts),
        "--json",
    ];
    let found: Value = serde_json::from_str(&succeed(&arguments, b"")).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 2);

    // The same features by another command.
    let all = dir.path().join("all.txt");
    std::fs::write(&all, "a house\na photo of a fish\na photo of a star\n").unwrap();
    let out = dir.path().join("features.safetensors");
    let encode = [
        "encode",
        "--model",
        "demo",
        "--images",
        star,
        fish,
        "--texts",
        text(&all),
        "--out",
        text(&out),
    ];
    succeed(&encode, b"");
    let bytes = std::fs::read(&out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let global = crate::helpers::floats(&file.tensor("image_global").unwrap());
    let features = crate::helpers::floats(&file.tensor("text").unwrap());
    let dim = features.len() / 3;
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let scale = clipood_pipeline::open_model("demo").unwrap().logit_scale();
    for (i, object) in found.iter().enumerate() {
        assert_eq!(object["image"], text(&images[i]));
        let rows = object["texts"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        let image = &global[i * dim..(i + 1) * dim];
        let mut weights = Vec::new();
        for (t, row) in rows.iter().enumerate() {
            let words = &features[t * dim..(t + 1) * dim];
            let expected = dot(image, words) / (dot(image, image) * dot(words, words)).sqrt();
            let cosine = row["cosine"].as_f64().unwrap();
            assert!((cosine - expected).abs() < 1e-5, "{row}: {expected}");
            let logit = row["logit"].as_f64().unwrap();
            assert!((logit - scale * cosine).abs() < 1e-9, "{row}");
            weights.push(logit.exp());
        }
        let sum: f64 = weights.iter().sum();
        for (row, weight) in rows.iter().zip(&weights) {
            let probability = row["probability"].as_f64().unwrap();
            assert!((probability - weight / sum).abs() < 1e-9, "{row}");
        }
    }
    // Each picture is nearer to its own name than to the other's.
    let cosine = |image: usize, text: usize| found[image]["texts"][text]["cosine"].as_f64();
    assert!(cosine(0, 2) > cosine(0, 1));
    assert!(cosine(1, 1) > cosine(1, 2));
}

#[test]
fn similarity_to_one_text_has_no_probability() {
    let dir = TempDir::new().unwrap();
    let images = pictures(&dir);
    let arguments = [
        "similarity",
        "--model",
        "demo",
        text(&images[0]),
        "--text",
        "a star",
    ];
    let table = succeed(&arguments, b"");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert_eq!(lines[0], text(&images[0]));
    assert!(!table.contains("probability"), "{table}");
    assert!(lines[2].ends_with("a star"), "{table}");
    let cosine: f64 = lines[2].split_whitespace().next().unwrap().parse().unwrap();
    assert!((-1.0..=1.0).contains(&cosine), "{table}");
}

#[test]
fn similarity_names_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let image = pictures(&dir).remove(0);
    let image = text(&image);
    let similarity = |more: &[&str], code, words: &[&str]| {
        let arguments = [&["similarity", "--model", "demo"][..], more].concat();
        fail(&arguments, b"", code, words);
    };
    similarity(&[image], 2, &["--text", "--texts"]);
    similarity(&[image, "--text", " "], 2, &["text 1 of 1"]);
    let lost = ["gone.png", "--text", "a star"];
    similarity(
        &lost,
        1,
        &["cannot read gone.png (unreadable)", "none of 1 images"],
    );
    let long = "word ".repeat(100);
    similarity(&[image, "--text", &long], 2, &["102"]);
    let cuda = [image, "--text", "a star", "--devices", "cuda:0"];
    similarity(&cuda, 2, &["cuda:0"]);
    let absent = dir.path().join("absent.txt");
    similarity(&[image, "--texts", text(&absent)], 1, &[text(&absent)]);
}

#[test]
fn similarity_lists_what_it_cannot_read_and_prints_the_rest() {
    let dir = TempDir::new().unwrap();
    let images = pictures(&dir);
    let output = clipood(
        &[
            "similarity",
            "--model",
            "demo",
            "gone.png",
            text(&images[1]),
            "--text",
            "a fish",
            "--json",
        ],
        b"",
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("cannot read gone.png (unreadable): "),
        "{errors}"
    );
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["image"], text(&images[1]));
}

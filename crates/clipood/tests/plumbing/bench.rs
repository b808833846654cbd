//! `clipood bench`, as the check of a GPU machine calls it, on the CPU.

use serde_json::Value;

use crate::helpers::succeed;

fn lines(arguments: &[&str]) -> Vec<Value> {
    let out = succeed(arguments, b"");
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn positive(line: &Value, key: &str) {
    assert!(line[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {line}");
}

#[test]
fn extract_agrees_and_measures() {
    let dir = tempfile::TempDir::new().unwrap();
    let export = dir.path().join("model");
    let found = lines(&[
        "bench",
        "extract",
        "--model",
        "demo",
        "--devices",
        "cpu:2",
        "--batches",
        "1,3",
        "--seconds",
        "0.05",
        "--local",
        "--export",
        export.to_str().unwrap(),
    ]);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["bench"], "agreement");
    assert_eq!(found[0]["relative_difference"], 0.0);
    for (line, batch) in found[1..].iter().zip([1, 3]) {
        assert_eq!(line["bench"], "extract");
        assert_eq!(line["batch"], batch);
        assert_eq!(line["workers"], 2);
        assert_eq!(line["source"], "memory");
        positive(line, "images_per_s");
    }
    let features = std::fs::read(export.join("features.f32")).unwrap();
    let pixels = std::fs::read(export.join("pixels.u8")).unwrap();
    assert!(features.len().is_multiple_of(16) && pixels.len().is_multiple_of(12));

    // What was written is a model that the commands open, and images can come from files.
    let pictures = dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for i in 0..3u8 {
        let file = std::fs::File::create(pictures.join(format!("{i}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, 150, 140);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer
            .write_image_data(&vec![40 * i; 150 * 140 * 3])
            .unwrap();
    }
    let found = lines(&[
        "bench",
        "extract",
        "--model",
        export.to_str().unwrap(),
        "--devices",
        "cpu:1",
        "--batches",
        "2",
        "--seconds",
        "0.2",
        "--images",
        pictures.to_str().unwrap(),
    ]);
    assert_eq!(found[1]["source"], "files");
    positive(&found[1], "images_per_s");
}

#[test]
fn prompt_steps_agree_and_are_timed() {
    let found = lines(&[
        "bench",
        "prompt",
        "--model",
        "demo",
        "--devices",
        "cpu",
        "--classes",
        "6",
        "--images",
        "4",
        "--steps",
        "2",
    ]);
    let names: Vec<_> = found.iter().map(|line| line["bench"].as_str()).collect();
    let both = [Some("prompt-agreement"), Some("prompt")];
    assert_eq!(names, [both, both].concat());
    assert_eq!(found[1]["method"], "coop");
    assert_eq!(found[3]["method"], "locoop");
    for line in [&found[1], &found[3]] {
        assert_eq!(line["steps"], 2);
        positive(line, "median_ms");
    }
}

#[test]
fn warmup_runs_what_a_run_would() {
    let found = lines(&[
        "bench",
        "warmup",
        "--model",
        "demo",
        "--devices",
        "cpu:1",
        "--batches",
        "2",
    ]);
    assert_eq!(found.len(), 1);
    positive(&found[0], "seconds");
}

//! `clipood encode` on one small model in every format, from image files to features.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::helpers::{clipood, difference, fail, floats, succeed, text};

/// The model in every format, and its features of the images.
const CHECKPOINTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../clipood-clip/tests/data/checkpoints"
);
/// The images.
pub const IMAGES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../clipood-data/tests/data/preprocess"
);

/// Unpacks a weight file into a folder.
pub fn unpack(file: &str, folder: &Path, name: &str) -> PathBuf {
    let packed = Path::new(CHECKPOINTS).join(format!("{file}.gz"));
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(packed).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The features of the images, by the command.
fn check(model: &Path) {
    let expected = std::fs::read(Path::new(CHECKPOINTS).join("expected_files.safetensors"));
    let expected = expected.unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let mut names: Vec<String> = expected
        .names()
        .into_iter()
        .filter_map(|name| Some(name.strip_suffix("/global")?.to_owned()))
        .collect();
    names.sort();
    assert_eq!(names.len(), 10);
    let images: Vec<String> = names
        .iter()
        .map(|name| format!("{IMAGES}/{name}"))
        .collect();
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("features.safetensors");
    let mut arguments = vec![
        "encode",
        "--model",
        text(model),
        "--local",
        "--out",
        text(&out),
    ];
    arguments.push("--images");
    arguments.extend(images.iter().map(String::as_str));
    succeed(&arguments, b"");

    let found = std::fs::read(&out).unwrap();
    let found = SafeTensors::deserialize(&found).unwrap();
    for (all, part) in [("image_global", "global"), ("image_local", "local")] {
        let all = floats(&found.tensor(all).unwrap());
        let size = all.len() / names.len();
        for (row, name) in all.chunks(size).zip(&names) {
            let reference = floats(&expected.tensor(&format!("{name}/{part}")).unwrap());
            let off = difference(row, &reference);
            assert!(off < 1e-4, "{} {name} {part}: {off}", model.display());
        }
    }
}

#[test]
fn encode_reads_weight_files_alone() {
    let folder = TempDir::new().unwrap();
    for file in [
        "tiny-vit.open_clip.bin",
        "tiny-vit.openai-jit.pt",
        "tiny-vit.openai-names.f16.safetensors",
    ] {
        check(&unpack(file, folder.path(), file));
    }
}

#[test]
fn encode_reads_a_hugging_face_folder() {
    let folder = TempDir::new().unwrap();
    let config = Path::new(CHECKPOINTS).join("tiny-vit-hf/config.json");
    std::fs::write(
        folder.path().join("config.json"),
        std::fs::read(config).unwrap(),
    )
    .unwrap();
    let weights = "tiny-vit-hf/model.safetensors";
    unpack(weights, folder.path(), "model.safetensors");
    check(folder.path());
}

#[test]
fn encode_says_what_it_assumes_and_takes_an_activation() {
    let folder = TempDir::new().unwrap();
    let file = "tiny-vit.openai-names.f16.safetensors";
    let model = unpack(file, folder.path(), file);
    let image = format!("{IMAGES}/rgb_32x32.png");
    let features = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let mut arguments = vec!["encode", "--model", text(&model), "--images", &image];
        arguments.extend(["--out", text(&out)]);
        arguments.extend(more);
        let output = clipood(&arguments, b"");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        let bytes = std::fs::read(&out).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        (floats(&file.tensor("image_global").unwrap()), errors)
    };
    let (assumed, errors) = features("assumed.safetensors", &[]);
    assert!(
        errors.contains("warning: ") && errors.contains("--activation gelu"),
        "{errors}"
    );
    let (quick, errors) = features("quick.safetensors", &["--activation", "quick_gelu"]);
    assert!(!errors.contains("--activation gelu"), "{errors}");
    let (exact, _) = features("exact.safetensors", &["--activation", "gelu"]);
    assert_eq!(assumed, quick);
    assert!(
        difference(&exact, &quick) > 1e-4,
        "the activation changes nothing"
    );

    let out = folder.path().join("none.safetensors");
    let mut arguments = vec!["encode", "--model", text(&model), "--images", &image];
    arguments.extend(["--out", text(&out), "--activation", "relu"]);
    fail(&arguments, b"", 2, &["relu", "gelu or quick_gelu"]);
}

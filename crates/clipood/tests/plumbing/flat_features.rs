//! Models whose features are zero or the same for every image.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::checkpoints::{IMAGES, unpack};
use crate::helpers::{clipood, fail, text};

/// A model in which every value of one tensor (f16) is replaced.
fn model(folder: &TempDir, tensor: &str, value: [u8; 2]) -> PathBuf {
    let file = "tiny-vit.openai-names.f16.safetensors";
    let path = unpack(file, folder.path(), &format!("{tensor}.safetensors"));
    let mut bytes = std::fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let (start, end) = metadata.info(tensor).unwrap().data_offsets;
    let values = &mut bytes[8 + header + start..8 + header + end];
    values.as_chunks_mut::<2>().0.fill(value);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn images() -> [PathBuf; 3] {
    ["rgb_32x32.png", "rgb_224x224.png", "rgb_301x299.png"].map(|name| Path::new(IMAGES).join(name))
}

#[test]
fn features_that_cannot_be_compared_name_the_image() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("f.safetensors");
    let threshold = folder.path().join("t.json");
    let classes = folder.path().join("classes.txt");
    std::fs::write(&classes, "fish\nstar\n").unwrap();
    let [image, ..] = images();
    let image = text(&image);
    let model = model(&folder, "visual.proj", [0, 0]);
    let model = text(&model);
    let words = [image, "zeros"];
    let given = ["--model", model, "--activation", "gelu"];
    let similarity = [&["similarity", image, "--text", "a fish"], &given[..]].concat();
    fail(&similarity, b"", 1, &words);
    let encode = ["encode", "--images", image, "--out", text(&out)];
    fail(&[&encode[..], &given].concat(), b"", 1, &words);
    assert!(!out.exists());
    let of = ["--images", image, "--classes", text(&classes)];
    let fit = ["threshold", "--out", text(&threshold)];
    fail(&[&fit[..], &of, &given].concat(), b"", 1, &words);
    let run = text(folder.path());
    let zero_shot = ["zero-shot", "--out", run];
    fail(&[&zero_shot[..], &of, &given].concat(), b"", 1, &words);
}

#[test]
fn features_that_do_not_vary_are_warned_about() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("f.safetensors");
    let images = images();
    let encode = |model: &Path| {
        let mut arguments = vec!["encode", "--model", text(model), "--out", text(&out)];
        arguments.extend(["--activation", "gelu", "--images"]);
        arguments.extend(images.iter().map(|image| text(image)));
        let output = clipood(&arguments, b"");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        errors
    };
    // Without its patches every image is the same.
    let flat = encode(&model(&folder, "visual.conv1.weight", [0, 0]));
    assert!(
        flat.contains("warning: all 3 rows of features are equal"),
        "{flat}"
    );
    let own = encode(&unpack(
        "tiny-vit.openai-names.f16.safetensors",
        folder.path(),
        "own.safetensors",
    ));
    assert!(!own.contains("rows of features"), "{own}");
}

//! `clipood prompt`: contexts out of a store, through a file of the CoOp repository's kind, and back.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};

use common::{CLASSES, RECIPE, World, files, stderr, stdout};
use safetensors::SafeTensors;

fn clipood(world: &World, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clipood"))
        .current_dir(world.path("."))
        .args(arguments)
        .output()
        .unwrap()
}

fn succeed(world: &World, arguments: &[&str]) -> String {
    let output = clipood(world, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    stdout(&output)
}

fn fail(world: &World, arguments: &[&str], code: i32, words: &[&str]) {
    let output = clipood(world, arguments);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {log}");
    for word in words {
        assert!(log.contains(word), "{arguments:?}: no `{word}` in {log}");
    }
}

fn floats(world: &World, path: &str, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(world.path(path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let words = tensor.data().as_chunks::<4>().0.iter();
    words.map(|b| f32::from_le_bytes(*b)).collect()
}

/// Paths of the trained and of the hand-written prompt set.
fn sets(world: &World) -> [String; 2] {
    let all = files(&world.path("store/prompts"));
    let sets = all
        .iter()
        .filter(|path| path.ends_with("prompt.safetensors"));
    let (mut trained, mut written) = (None, None);
    for path in sets.map(|path| format!("store/prompts/{path}")) {
        let bytes = std::fs::read(world.path(&path)).unwrap();
        match SafeTensors::deserialize(&bytes).unwrap().tensor("context") {
            Ok(_) => trained = Some(path),
            Err(_) => written = Some(path),
        }
    }
    [trained.unwrap(), written.unwrap()]
}

#[test]
fn contexts_go_out_and_come_back() {
    for (class_token, class_specific) in [("end", false), ("middle", true)] {
        let world = World::new();
        let keys = format!(
            "n_ctx = 4\nclass_token = \"{class_token}\"\nclass_specific = {class_specific}"
        );
        world.write("recipe.toml", RECIPE.replace("n_ctx = 4", &keys));
        let run = world.run("run", &["--store", "store", "--methods", "zero-shot,coop"]);
        assert!(run.status.success(), "{}", stderr(&run));
        let [trained, written] = sets(&world);
        let model = ["--model", "demo"];
        let more: &[&str] = if class_specific {
            &["--class-specific"]
        } else {
            &[]
        };
        let out = ["--out", "model.pth.tar-3"];
        succeed(
            &world,
            &[&["prompt", "export", &trained][..], &model, more, &out].concat(),
        );
        world.write("classes.txt", CLASSES.join("\n"));
        let import = [
            "prompt",
            "import",
            "model.pth.tar-3",
            "--classes",
            "classes.txt",
            "--class-token",
            class_token,
            "--out",
            "back.safetensors",
            "--model",
            "demo",
        ];
        let line = succeed(&world, &import);
        assert!(
            line.starts_with("4 vectors") && line.contains("4 classes"),
            "{line}"
        );
        assert_eq!(
            floats(&world, "back.safetensors", "context"),
            floats(&world, &trained, "context")
        );
        let (text, back) = (
            floats(&world, &trained, "text"),
            floats(&world, "back.safetensors", "text"),
        );
        assert_eq!(text.len(), back.len());
        assert!(text.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5));

        let words = succeed(
            &world,
            &[
                &[
                    "prompt",
                    "words",
                    &trained,
                    "--top",
                    "3",
                    "--out",
                    "w.parquet",
                ][..],
                &model,
            ]
            .concat(),
        );
        let vectors = if class_specific { 4 * CLASSES.len() } else { 4 };
        assert_eq!(words.lines().count(), vectors);
        assert!(
            words.lines().all(|line| line.split(", ").count() == 3),
            "{words}"
        );
        assert!(world.path("w.parquet").exists());

        let shown = succeed(
            &world,
            &[
                "zero-shot",
                "--model",
                "demo",
                "--prompt",
                "back.safetensors",
                "--images",
                "data/id/test",
            ],
        );
        assert!(shown.contains("accuracy on 24 images"), "{shown}");

        fail(
            &world,
            &[&["prompt", "words", &written][..], &model].concat(),
            1,
            &["hand-written"],
        );
        fail(
            &world,
            &[&import[..3], &["--classes", "data"], &import[5..]].concat(),
            1,
            &["data"],
        );
        world.write("three.txt", CLASSES[..3].join("\n"));
        if class_specific {
            fail(
                &world,
                &[&import[..3], &["--classes", "three.txt"], &import[5..]].concat(),
                1,
                &["[4, 4, 64]", "[3,"],
            );
        }
        fail(
            &world,
            &[&["prompt", "import", "classes.txt"], &import[3..]].concat(),
            2,
            &["classes.txt"],
        );
    }
}

#[test]
fn contexts_that_pytorch_saved_come_in() {
    let world = World::new();
    world.write("classes.txt", CLASSES.join("\n"));
    let cases = [
        ("shared", 4, "4 vectors for 4 classes"),
        ("class_specific", 8, "2 vectors a class for 4 classes"),
    ];
    let mut texts = Vec::new();
    for (name, vectors, line) in cases {
        let file = format!(
            "{}/tests/data/coop/{name}.pth.tar-50",
            env!("CARGO_MANIFEST_DIR")
        );
        let out = format!("{name}.safetensors");
        let arguments = [
            "prompt",
            "import",
            &file,
            "--classes",
            "classes.txt",
            "--out",
            &out,
            "--model",
            "demo",
        ];
        assert_eq!(succeed(&world, &arguments).trim(), line);
        let expected: Vec<f32> = (0..vectors * 64)
            .map(|i| (i % 128) as f32 / 1024.0 - 1.0 / 16.0)
            .collect();
        assert_eq!(floats(&world, &out, "context"), expected, "{name}");
        let shown = succeed(
            &world,
            &[
                "zero-shot",
                "--model",
                "demo",
                "--prompt",
                &out,
                "--images",
                "data/id/test",
            ],
        );
        assert!(shown.contains("accuracy on 24 images"), "{name}: {shown}");
        texts.push(floats(&world, &out, "text"));
    }
    assert_ne!(texts[0], texts[1]);
}

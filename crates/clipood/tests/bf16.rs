//! `--dtype bf16` on the CPU: a vision transformer and a ResNet through every command that takes it. A CPU without the
//! instructions must refuse it; there the commands run again with plain code in place of the instructions.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use clipood_clip::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use clipood_clip::init::initial_weights;
use clipood_clip::model::{Device, Dtype, Model};
use common::{World, stderr, stdout};
use safetensors::SafeTensors;
use serde_json::Value;

/// Width of a feature.
const DIM: usize = 32;

/// The usual world with a small vision transformer of random parameters in the folder `vit`.
fn world_with_vit() -> World {
    let config = ClipConfig {
        embed_dim: DIM,
        image: ImageConfig {
            size: 48,
            width: 128,
            heads: 2,
            family: ImageFamily::Vit {
                layers: 2,
                patch: 16,
            },
        },
        text: TextConfig {
            context: 77,
            vocab: 49408,
            width: 64,
            heads: 1,
            layers: 1,
        },
        activation: Activation::QuickGelu,
        mean: OPENAI_MEAN,
        std: OPENAI_STD,
    };
    let weights = initial_weights(&config, 1);
    let world = World::new();
    world.write("vit/open_clip_config.json", config.to_open_clip());
    let model = Model::new(config, weights).unwrap();
    let file = "vit/open_clip_model.safetensors";
    world.write(file, model.to_safetensors().unwrap());
    world
}

/// What the command prints in the world. Where this CPU does not multiply bf16, the command must say so as bad usage, and runs
/// again in plain code.
fn in_bf16(world: &World, words: &[&str]) -> String {
    let mut command = world.clipood(words);
    if Dtype::Bf16.check(Device::Cpu).is_err() {
        let output = command.output().unwrap();
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {errors}");
        assert!(errors.contains("AVX-512 BF16"), "{words:?}: {errors}");
        command.env("CLIPOOD_CPU", "bf16");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    stdout(&output)
}

fn rows(world: &World, file: &str, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(world.path(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = file.tensor(name).unwrap();
    let values = values.data().as_chunks::<4>().0;
    values.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn encode_rounds_images_and_leaves_texts() {
    let world = world_with_vit();
    world.write("texts.txt", "a star\na fish\n");
    let encode = |dtype: &'static str, out: &'static str| {
        let images = ["data/id/test/fish/00.png", "data/id/test/tree/01.png"];
        let model = ["encode", "--model", "vit", "--images"];
        let outputs = ["--texts", "texts.txt", "--local", "--out", out];
        let format = ["--devices", "cpu", "--dtype", dtype];
        [&model[..], &images, &outputs, &format].concat()
    };
    in_bf16(&world, &encode("bf16", "half.safetensors"));
    let wide = world.clipood(&encode("f32", "wide.safetensors")).output();
    let wide = wide.unwrap();
    assert!(wide.status.success(), "{}", stderr(&wide));
    for name in ["image_global", "image_local"] {
        let found = rows(&world, "half.safetensors", name);
        let expected = rows(&world, "wide.safetensors", name);
        assert_eq!(found.len(), expected.len());
        assert_ne!(found, expected, "{name} was not rounded");
        for (a, b) in found.chunks_exact(DIM).zip(expected.chunks_exact(DIM)) {
            let cosine = cosine(a, b);
            assert!(cosine > 0.999, "{name}: cosine {cosine}");
        }
    }
    let texts = |file| rows(&world, file, "text");
    assert_eq!(texts("half.safetensors"), texts("wide.safetensors"));
}

#[test]
fn runs_keep_features_of_each_format_apart() {
    let world = world_with_vit();
    let run = |to: &'static str, dtype: &'static str| {
        let recipe = ["run", "recipe.toml", "--manifests", "manifests"];
        let model = ["--model", "vit", "--devices", "cpu:2"];
        [&recipe[..], &model, &["--run", to, "--dtype", dtype]].concat()
    };
    in_bf16(&world, &run("half", "bf16"));
    let wide = world.clipood(&run("wide", "f32")).output().unwrap();
    assert!(wide.status.success(), "{}", stderr(&wide));
    let features = std::fs::read_dir(world.path("store/features")).unwrap();
    assert_eq!(features.count(), 2);
    for folder in ["half", "wide"] {
        assert!(world.path(folder).join("metrics/ood.parquet").exists());
    }
    // A run goes on in its own format alone.
    let other = world.clipood(&run("half", "f32")).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("dtype"), "{}", stderr(&other));
}

#[test]
fn zero_shot_and_bench_take_it_as_well() {
    let world = world_with_vit();
    let zero_shot = ["zero-shot", "--model", "vit", "--images", "data/id/test"];
    let format = ["--devices", "cpu:1", "--dtype", "bf16"];
    in_bf16(&world, &[&zero_shot[..], &format].concat());
    let bench = ["bench", "extract", "--model", "vit", "--devices", "cpu:1"];
    let sizes = ["--batches", "3", "--seconds", "0.05", "--local"];
    let formats = ["--dtypes", "f32,bf16"];
    let printed = in_bf16(&world, &[&bench[..], &sizes, &formats].concat());
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["dtype"], "f32");
    assert_eq!(lines[2]["dtype"], "bf16");
    let off = lines[2]["relative_difference"].as_f64().unwrap();
    assert!(off > 1e-5 && lines[2]["smallest_cosine"].as_f64().unwrap() > 0.999);
    assert!(lines[3]["images_per_s"].as_f64().unwrap() > 0.0);
    // Prompts are trained in float32, which no figure may pass off as another format.
    let prompt = ["bench", "prompt", "--model", "vit", "--dtypes", "bf16"];
    let words = [&prompt[..], &["--devices", "cpu"]].concat();
    let output = world.clipood(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("bf16"), "{}", stderr(&output));
}

#[test]
fn a_modified_resnet_runs_too() {
    let world = World::new();
    let run = world.run("run", &["--devices", "cpu", "--dtype", "bf16"]);
    if Dtype::Bf16.check(Device::Cpu).is_err() {
        // Refused before anything is written.
        assert_eq!(run.status.code(), Some(2), "{}", stderr(&run));
        assert!(!world.path("run").exists());
        let mut again = world.command("run", &["--devices", "cpu", "--dtype", "bf16"]);
        let output = again.env("CLIPOOD_CPU", "bf16").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(world.path("run/metrics/ood.parquet").exists());
}

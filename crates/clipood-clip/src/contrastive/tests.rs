//! Tunings of tiny models.

use clipood_core::SplitMix64;

use super::*;
use crate::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use crate::device::Device;
use crate::init::initial_weights;
use crate::model::Model;
use crate::safetensors_file::{ArrayFile, NO_METADATA, to_bytes};

fn model(family: ImageFamily) -> Model {
    let width = match family {
        ImageFamily::Vit { .. } => 24,
        ImageFamily::Resnet { .. } => 4,
    };
    let config = ClipConfig {
        embed_dim: 16,
        image: ImageConfig {
            size: 32,
            width,
            heads: 2,
            family,
        },
        text: TextConfig {
            context: 77,
            vocab: 49408,
            width: 20,
            heads: 2,
            layers: 1,
        },
        activation: Activation::QuickGelu,
        mean: OPENAI_MEAN,
        std: OPENAI_STD,
    };
    let weights = initial_weights(&config, 5);
    Model::new(config, weights).unwrap()
}

fn families() -> [ImageFamily; 2] {
    let (vit, layers) = (
        ImageFamily::Vit {
            layers: 1,
            patch: 16,
        },
        [1; 4],
    );
    [vit, ImageFamily::Resnet { layers }]
}

const PAIRS: usize = 6;

fn pixels() -> Vec<u8> {
    let mut rng = SplitMix64::keyed(1, "pixels", 0);
    // Every image has a shade of its own, with noise.
    (0..PAIRS * 32 * 32 * 3)
        .map(|i| (40 * (i / (32 * 32 * 3)) as u64 + rng.below(30)) as u8)
        .collect()
}

fn captions() -> Vec<String> {
    let words = [
        "a star",
        "a fish",
        "a red house",
        "two trees",
        "a cup",
        "rain",
    ];
    words.map(String::from).to_vec()
}

/// The rows of encoders with `width` of `dim` values each.
fn columns(rows: &[f32], dim: usize, width: usize) -> Vec<f32> {
    let rows = rows.chunks_exact(dim);
    rows.flat_map(|row| row[..width].to_vec()).collect()
}

fn trunks(model: &Model) -> TuneInput {
    let trunk = model.trunk().unwrap();
    let dim = trunk.config.embed_dim;
    let (image_width, text_width) = model.trunk_widths();
    let image = trunk.image_encoder(Device::Cpu).unwrap();
    let image = image.encode_bytes(pixels(), false).unwrap().global;
    let text = trunk.text_encoder(Device::Cpu).unwrap();
    let text = text.encode(&captions()).unwrap();
    TuneInput::Trunks {
        image: columns(&image, dim, image_width),
        text: columns(&text, dim, text_width),
    }
}

fn input(model: &Model, part: Part) -> TuneInput {
    match part {
        Part::Projections => trunks(model),
        Part::All => TuneInput::Pairs {
            pixels: pixels(),
            captions: captions(),
        },
    }
}

fn pairs() -> Vec<(u32, u32)> {
    (0..PAIRS as u32).map(|i| (i, i)).collect()
}

fn tuned(model: &Model, part: Part, steps: usize) -> (Model, Vec<StepReport>) {
    let options = AdamWOptions::default();
    let mut tuner = model.tuner(part, Device::Cpu, &options).unwrap();
    let (input, pairs) = (input(model, part), pairs());
    let reports = (0..steps)
        .map(|_| tuner.step(3e-3, &input, &pairs).unwrap())
        .collect();
    (tuner.finish().unwrap(), reports)
}

#[test]
fn the_features_before_the_projections_are_projected_to_those_of_the_model() {
    for family in families() {
        let model = model(family);
        let TuneInput::Trunks { image, text } = trunks(&model) else {
            unreachable!("trunks() makes no other input")
        };
        let (image_width, text_width) = model.trunk_widths();
        let weight = |name: &str| model.weights.get(name).map(|tensor| tensor.data.to_vec());
        let dim = model.config.embed_dim;
        let product = |row: &[f32], at: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
            let sum = |j| (0..row.len()).map(|k| row[k] * at(k, j)).sum();
            (0..dim).map(sum).collect()
        };
        let text_weight = weight("text_projection").unwrap();
        let expected = model.text_encoder(Device::Cpu).unwrap();
        let expected = expected.encode(&captions()).unwrap();
        let found: Vec<f32> = text
            .chunks_exact(text_width)
            .flat_map(|row| product(row, &|k, j| text_weight[k * dim + j]))
            .collect();
        close(&found, &expected);
        let expected = model.image_encoder(Device::Cpu).unwrap();
        let expected = expected.encode_bytes(pixels(), false).unwrap().global;
        let found: Vec<f32> = match weight("visual.proj") {
            Some(weight) => image
                .chunks_exact(image_width)
                .flat_map(|row| product(row, &|k, j| weight[k * dim + j]))
                .collect(),
            None => {
                let weight = weight("visual.attnpool.c_proj.weight").unwrap();
                image
                    .chunks_exact(image_width)
                    .flat_map(|row| product(row, &|k, j| weight[j * image_width + k]))
                    .collect()
            }
        };
        close(&found, &expected);
    }
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn a_tuning_lowers_the_loss_and_repeats_to_the_last_bit() {
    for family in families() {
        let model = model(family);
        for part in [Part::Projections, Part::All] {
            let (first, reports) = tuned(&model, part, 12);
            let (start, end) = (reports[0].loss, reports[11].loss);
            assert!(end < 0.8 * start, "{part:?}: {start} {end}");
            assert!(
                reports
                    .iter()
                    .all(|r| r.scale <= 100.01 && r.right <= PAIRS)
            );
            let (again, same) = tuned(&model, part, 12);
            assert_eq!(reports, same, "{part:?}");
            assert_eq!(first.hash, again.hash, "{part:?}");
            assert_ne!(first.hash, model.hash);
        }
    }
}

#[test]
fn a_tuning_goes_on_from_its_arrays_to_the_last_bit() {
    for family in families() {
        let model = model(family);
        for part in [Part::Projections, Part::All] {
            let (expected, _) = tuned(&model, part, 5);
            let options = AdamWOptions::default();
            let (input, pairs) = (input(&model, part), pairs());
            let begin = || model.tuner(part, Device::Cpu, &options).unwrap();
            let step = |tuner: &mut Tuner| tuner.step(3e-3, &input, &pairs).unwrap();
            let mut first = begin();
            step(&mut first);
            step(&mut first);
            let bytes = to_bytes(&first.arrays().unwrap(), NO_METADATA).unwrap();
            let mut second = begin();
            step(&mut second);
            second.restore(&ArrayFile::read(&bytes).unwrap()).unwrap();
            for _ in 0..3 {
                step(&mut second);
            }
            let found = second.finish().unwrap();
            let family = &model.config.image.family;
            assert_eq!(found.hash, expected.hash, "{family:?} {part:?}");
        }
        // Arrays of another part are refused, and the tuner is usable.
        let options = AdamWOptions::default();
        let mut other = model.tuner(Part::All, Device::Cpu, &options).unwrap();
        let tuner = model.tuner(Part::Projections, Device::Cpu, &options);
        let bytes = to_bytes(&tuner.unwrap().arrays().unwrap(), NO_METADATA).unwrap();
        assert!(other.restore(&ArrayFile::read(&bytes).unwrap()).is_err());
        other.finish().unwrap();
    }
}

#[test]
fn projections_leave_the_towers_as_they_were() {
    for family in families() {
        let model = model(family);
        let (tuned, _) = tuned(&model, Part::Projections, 2);
        let changed: Vec<&str> = model
            .weights
            .iter()
            .filter(|(name, tensor)| tuned.weights.get(name) != Some(tensor))
            .map(|(name, _)| name.as_str())
            .collect();
        let image: &[&str] = match model.config.image.family {
            ImageFamily::Vit { .. } => &["visual.proj"],
            ImageFamily::Resnet { .. } => &[
                "visual.attnpool.c_proj.bias",
                "visual.attnpool.c_proj.weight",
            ],
        };
        let mut expected = vec!["logit_scale", "text_projection"];
        expected.extend(image);
        assert_eq!(changed, expected);
    }
}

#[test]
fn the_first_loss_is_that_of_the_features_of_the_encoders() {
    // A ModifiedResNet is trained with the statistics of the batch, so this holds for vision transformers alone.
    let model = model(families()[0].clone());
    let losses = [Part::Projections, Part::All].map(|part| tuned(&model, part, 1).1[0].loss);
    assert!((losses[0] - losses[1]).abs() < 1e-4, "{losses:?}");
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let model = model(families()[0].clone());
    let options = AdamWOptions::default();
    let refused = |part: Part, input: TuneInput, pairs: &[(u32, u32)]| {
        let mut tuner = model.tuner(part, Device::Cpu, &options).unwrap();
        tuner.step(1e-3, &input, pairs).unwrap_err().to_string()
    };
    let pairs = [(0, 0), (1, 1)];
    let message = refused(Part::Projections, input(&model, Part::All), &pairs);
    assert!(message.contains("features of frozen towers"), "{message}");
    let message = refused(Part::All, trunks(&model), &pairs);
    assert!(message.contains("pixels and captions"), "{message}");
    // Two pairs, and the features or pixels of six.
    let message = refused(Part::Projections, trunks(&model), &pairs);
    assert!(
        message.contains("expected 48 values, found 144"),
        "{message}"
    );
    let message = refused(Part::All, input(&model, Part::All), &pairs);
    assert!(message.contains("expected 6144 values"), "{message}");
    let message = refused(Part::All, input(&model, Part::All), &[]);
    assert!(message.contains("no pair"), "{message}");

    let mut tuner = model
        .tuner(Part::Projections, Device::Cpu, &options)
        .unwrap();
    let wrong = TuneInput::Trunks {
        image: vec![f32::NAN; 48],
        text: vec![1.0; 40],
    };
    let message = tuner.step(1e-3, &wrong, &pairs).unwrap_err().to_string();
    assert!(message.contains("the loss is NaN"), "{message}");
    let message = tuner.finish().unwrap_err().to_string();
    assert!(message.contains("an earlier step has failed"), "{message}");
}

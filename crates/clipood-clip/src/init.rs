//! Initial parameters for training a CLIP from scratch, with the variances of `clip/model.py` of openai/CLIP.

use clipood_core::SplitMix64;

use crate::config::{ClipConfig, ImageFamily};
use crate::weights::Weights;

/// Draws every parameter of `config`; the same seed gives the same values. The logit scale starts at ln(1 / 0.07).
pub fn initial_weights(config: &ClipConfig, seed: u64) -> Weights {
    let mut weights = Weights::new(format!("initial parameters, seed {seed}"));
    for (name, shape) in config.parameters() {
        let n: usize = shape.iter().product();
        let mut rng = SplitMix64::keyed(seed, &name, 0);
        let data: Vec<f32> = match deviation(config, &name, &shape) {
            Draw::Constant(value) => vec![value; n],
            Draw::Normal(std) => (0..n).map(|_| (rng.normal() * std) as f32).collect(),
            Draw::Uniform(bound) => (0..n)
                .map(|_| ((rng.unit() * 2.0 - 1.0) * bound) as f32)
                .collect(),
        };
        weights.insert(name, shape, data);
    }
    weights
}

enum Draw {
    Constant(f32),
    Normal(f64),
    Uniform(f64),
}

fn deviation(config: &ClipConfig, name: &str, shape: &[usize]) -> Draw {
    let is_text = !name.starts_with("visual.");
    let (width, layers) = if is_text {
        (config.text.width, config.text.layers)
    } else {
        match config.image.family {
            ImageFamily::Vit { layers, .. } => (config.image.width, layers),
            ImageFamily::Resnet { .. } => (config.image.width * 32, 1),
        }
    };
    let width = width as f64;
    let last = name.rsplit('.').next().unwrap_or(name);
    match name {
        "logit_scale" => return Draw::Constant((1.0f32 / 0.07).ln()),
        "token_embedding.weight" => return Draw::Normal(0.02),
        "positional_embedding" => return Draw::Normal(0.01),
        _ => {}
    }
    if last == "running_var" {
        Draw::Constant(1.0)
    } else if last == "bias" || last == "running_mean" || last == "in_proj_bias" {
        Draw::Constant(0.0)
    } else if last == "weight" && shape.len() == 1 {
        // The last norm of a bottleneck starts at 0, so that the block starts as its shortcut.
        Draw::Constant(if name.ends_with("bn3.weight") && name.contains("layer") {
            0.0
        } else {
            1.0
        })
    } else if shape.len() == 4 {
        let fan_in: usize = shape[1..].iter().product();
        Draw::Uniform((1.0 / fan_in as f64).sqrt())
    } else if name.contains("out_proj") || name.contains("mlp.c_proj") {
        Draw::Normal(width.powf(-0.5) * (2.0 * layers as f64).powf(-0.5))
    } else if name.contains("mlp.c_fc") {
        Draw::Normal((2.0 * width).powf(-0.5))
    } else {
        // Projections, q/k/v, class and positional embeddings of the image tower.
        Draw::Normal(width.powf(-0.5))
    }
}

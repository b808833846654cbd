//! Times one pass of all global detectors over random features of a benchmark's size.
//!
//! `cargo run --release -p clipood-ood --example score_speed [IMAGES CLASSES DIM SHOTS]` (SHOTS a class)

use clipood_ood::{
    Classifier, DetectorSpec, FitInputs, Matrix, OodError, ScoreInputs, fit, score_all,
};
use std::time::Instant;

/// Values in [-1, 1), with a mean direction as CLIP's features have.
fn features(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    (0..(rows * dim) as u64)
        .map(|i| {
            let z = (i ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0 + (i % dim as u64 % 7) as f32 * 0.2
        })
        .collect()
}

fn main() -> Result<(), OodError> {
    let given: Vec<usize> = std::env::args().skip(1).flat_map(|a| a.parse()).collect();
    let size = |i: usize, default: usize| given.get(i).copied().unwrap_or(default);
    let (images, classes, dim) = (size(0, 100_000), size(1, 1000), size(2, 512));
    let shots = size(3, 4) * classes;

    let text = features(classes, dim, 1);
    let negative = features(2 * classes, dim, 2);
    let other = features(classes, dim, 5);
    let train = features(shots, dim, 3);
    let labels: Vec<u32> = (0..shots).map(|i| (i % classes) as u32).collect();
    let data = features(images, dim, 4);
    let text = Matrix::new("text", &text, classes, dim)?;
    let inputs = FitInputs {
        text,
        negative_text: Some(Matrix::new("negative_text", &negative, 2 * classes, dim)?),
        train: Some(Matrix::new("train", &train, shots, dim)?),
        train_labels: Some(&labels),
        classifiers: &[Classifier::Texts(Matrix::new(
            "other", &other, classes, dim,
        )?)],
    };
    let plain = "mcm,mcm:t=0.1,msp,max_logit,max_cosine,energy,energy:on=cosine,neg_entropy,gen";
    let fitted =
        "mahalanobis,relative_mahalanobis,vim,residual,knn,neglabel:groups=10,dpm_neg_min_kl";
    let texts = "inter_modal,tins,eoe,negprompt,cooked";
    let svm = "one_class_svm";
    let mut all = Vec::new();
    for list in [plain, fitted, texts, svm] {
        for spec in DetectorSpec::parse_list(list)? {
            let start = Instant::now();
            all.push(fit(&spec, &inputs)?);
            let seconds = start.elapsed().as_secs_f64();
            if seconds > 0.1 {
                println!("fitting {spec} on {shots} shots: {seconds:.2} s");
            }
        }
    }
    let global = Matrix::new("images", &data, images, dim)?;
    let inputs = ScoreInputs {
        global,
        local: None,
    };
    let count = plain.split(',').count();
    let but_svm = all.len() - svm.split(',').count();
    let but_texts = but_svm - texts.split(',').count();
    for (name, detectors) in [
        ("no detector (predictions)", &all[..0]),
        ("mcm", &all[..1]),
        ("detectors on cosines", &all[..count]),
        ("detectors on other texts", &all[but_texts..but_svm]),
        ("all but one_class_svm", &all[..but_svm]),
        ("all global detectors", &all[..]),
    ] {
        let start = Instant::now();
        let scores = score_all(detectors, &text, &inputs)?;
        let mean: f64 = scores
            .columns
            .iter()
            .flatten()
            .map(|&x| f64::from(x))
            .sum::<f64>();
        println!(
            "{images} x {classes} x {dim}, {name} ({}): {:.2} s (sum {mean:.3})",
            detectors.len(),
            start.elapsed().as_secs_f64()
        );
    }
    if all.len() > count {
        for detector in &all[count..] {
            let start = Instant::now();
            score_all(std::slice::from_ref(detector), &text, &inputs)?;
            println!(
                "  {} alone: {:.2} s",
                detector.name(),
                start.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}

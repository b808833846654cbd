//! Scores of patches by the kernels that a GPU runs, emulated on the CPU, against their definition in float64.

mod host;
mod oracle;

use clipood_cuda::Result;
use clipood_cuda::scores::{PatchPlan, PatchScorer, PatchSizes};
use host::Emulated;
use oracle::normals;

fn scorer(
    sizes: PatchSizes,
    text: &[f32],
    images: usize,
    descending: bool,
) -> Result<PatchScorer<Emulated>> {
    let mut plan = PatchPlan::new(sizes, text, images)?;
    let device = Emulated::new(&PatchPlan::program(), plan.space(), descending);
    PatchScorer::new(plan, device)
}

/// The largest probability over patches and classes.
fn exact(local: &[f32], text: &[f32], dim: usize, scale: f64) -> f64 {
    let length = |row: &[f32]| {
        row.iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>()
    };
    local
        .chunks_exact(dim)
        .map(|patch| {
            let logits: Vec<f64> = text
                .chunks_exact(dim)
                .map(|class| scale * dot(patch, class) / (length(patch) * length(class)))
                .collect();
            let most = logits.iter().copied().fold(f64::MIN, f64::max);
            1.0 / logits.iter().map(|z| (z - most).exp()).sum::<f64>()
        })
        .fold(0.0, f64::max)
}

#[test]
fn the_best_patch_of_each_image() -> Result<()> {
    let (dim, images) = (20, 7);
    for (patches, classes) in [(1, 2), (9, 33), (4, 100)] {
        let sizes = PatchSizes {
            patches,
            classes,
            dim,
        };
        let (text, local) = (
            normals(&mut 1, classes * dim, 2.0),
            normals(&mut 2, images * patches * dim, 3.0),
        );
        let scales = [1.0, 10.0, 100.0];
        // Three images at once: the last batch is short.
        let found = scorer(sizes, &text, 3, false)?.best(&local, &scales)?;
        for (scale, found) in scales.iter().zip(&found) {
            for (image, found) in local.chunks_exact(patches * dim).zip(found) {
                let expected = exact(image, &text, dim, *scale);
                assert!(
                    (found - expected).abs() < 1e-5 * expected,
                    "{found} for {expected}"
                );
            }
        }
        assert_eq!(scorer(sizes, &text, 7, true)?.best(&local, &scales)?, found);
    }
    Ok(())
}

#[test]
fn equal_classes_and_features_without_direction() -> Result<()> {
    let sizes = PatchSizes {
        patches: 2,
        classes: 3,
        dim: 4,
    };
    let text = [1.0f32, 0.0, 0.0, 0.0].repeat(3);
    let mut scorer = scorer(sizes, &text, 4, false)?;
    let mut local = vec![0.5f32; 8];
    assert_eq!(scorer.best(&local, &[10.0])?, [[1.0 / 3.0]]);
    local[4..].fill(0.0);
    assert!(scorer.best(&local, &[10.0])?[0][0].is_nan());
    assert!(scorer.best(&local[1..], &[10.0]).is_err());
    Ok(())
}

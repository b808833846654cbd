//! Whole image towers by the kernels and the order of launches that a GPU runs, emulated on the CPU, against their definition in
//! float64.

mod host;
mod image_exact;

use clipood_cuda::Result;
use clipood_cuda::image::{
    Batch, COLUMN_BYTES, ImageSizes, Memory, Resnet, ResnetSizes, Tensors, Tower, Vit, VitSizes,
};
use clipood_cuda::precision::Precision;
use clipood_cuda::rows::Activation;
use clipood_cuda::space::{Device, Space, read_floats};
use host::Emulated;
use image_exact::{Exact, ExactTower, Parameters, Random};

const MEAN: [f32; 3] = [0.48, 0.46, 0.41];
const DEVIATION: [f32; 3] = [0.27, 0.26, 0.28];

/// Formats with the relative error that features may have: float32 that of its own arithmetic, the others that of their weights
/// and activations.
const FORMATS: [(Precision, f64); 3] = [
    (Precision::F32, 2e-6),
    (Precision::F16, 4e-3),
    (Precision::Bf16, 3e-2),
];

fn image_sizes(side: usize, dim: usize, heads: usize, precision: Precision) -> ImageSizes {
    ImageSizes {
        side,
        dim,
        heads,
        precision,
        mean: MEAN,
        deviation: DEVIATION,
    }
}

fn exact(parameters: &Parameters, heads: usize, activation: Activation) -> ExactTower<'_> {
    ExactTower {
        parameters,
        mean: MEAN,
        deviation: DEVIATION,
        heads,
        quick_gelu: activation == Activation::QuickGelu,
    }
}

fn tensors(parameters: &Parameters) -> Tensors<'_> {
    parameters
        .iter()
        .map(|(name, values)| (name.as_str(), values.as_slice()))
        .collect()
}

/// Global and local features of a batch; every byte that nobody has written is part of a NaN.
fn run(
    (tower, weights): &(Tower, Vec<u8>),
    batch: Batch,
    pixels: &[u8],
    descending: bool,
) -> Result<[Vec<f32>; 2]> {
    let places = tower.places(batch);
    let mut space = Space::default();
    let arena = space.words(places.size.div_ceil(4));
    let of_weights = space.words(weights.len().div_ceil(4));
    let mut device = Emulated::new(&tower.program(), &mut space, descending);
    let memory = Memory {
        weights: device.base() + of_weights,
        arena: device.base() + arena,
    };
    device.write(memory.weights, weights)?;
    device.write(memory.arena + places.pixels, pixels)?;
    tower.enqueue(&mut device, batch, memory)?;
    assert!(device.launches > 0);
    let values = batch.images * tower.sizes().dim;
    let positions = if batch.local { tower.positions() } else { 0 };
    Ok([
        read_floats(&mut device, memory.arena + places.global, values)?,
        read_floats(&mut device, memory.arena + places.local, values * positions)?,
    ])
}

/// `|a - b| / |b|`.
fn apart(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference: f64 = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (f64::from(*a) - b).powi(2))
        .sum();
    (difference / expected.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// Compares features with the definition, and those without local ones and in another order of threads with each other.
fn compare(
    tower: &(Tower, Vec<u8>),
    pixels: &[u8],
    expected: &[Exact],
    tolerance: f64,
) -> Result<()> {
    let images = expected.len();
    let [global, local] = run(
        tower,
        Batch {
            images,
            local: true,
        },
        pixels,
        false,
    )?;
    let all = |part: fn(&Exact) -> &Vec<f64>| -> Vec<f64> {
        expected
            .iter()
            .flat_map(|image| part(image).clone())
            .collect()
    };
    let errors = [
        apart(&global, &all(|image| &image.global)),
        apart(&local, &all(|image| &image.local)),
    ];
    assert!(
        errors.iter().all(|error| *error < tolerance),
        "{:?}: {errors:?}",
        tower.0.sizes()
    );
    let [alone, nothing] = run(
        tower,
        Batch {
            images,
            local: false,
        },
        pixels,
        true,
    )?;
    assert_eq!((alone, nothing.len()), (global, 0));
    Ok(())
}

/// A vision transformer of `[side, patch, width, layers, dim]` in every format.
fn check_vit(
    sizes: [usize; 5],
    heads: usize,
    activation: Activation,
    formats: &[(Precision, f64)],
) -> Result<()> {
    let [side, patch, width, layers, dim] = sizes;
    let mut random = Random::new(3);
    random.vit(sizes);
    let pixels = random.bytes(2 * 3 * side * side);
    let definition = exact(&random.parameters, heads, activation);
    let expected: Vec<Exact> = pixels
        .chunks_exact(3 * side * side)
        .map(|image| definition.vit(image, sizes))
        .collect();
    for (precision, tolerance) in formats {
        let image = image_sizes(side, dim, heads, *precision);
        let sizes = VitSizes {
            image,
            patch,
            width,
            layers,
            activation,
        };
        let (tower, weights) = Vit::new(sizes, &tensors(&random.parameters))?;
        compare(
            &(Tower::Vit(tower), weights),
            &pixels,
            &expected,
            *tolerance,
        )?;
    }
    Ok(())
}

#[test]
fn vits_with_heads_of_64_values() -> Result<()> {
    // 26 tokens, more than a tile of queries and fewer than one of keys.
    check_vit([40, 8, 128, 2, 24], 2, Activation::QuickGelu, &FORMATS)
}

#[test]
fn vits_with_wide_heads_and_exact_gelu() -> Result<()> {
    // Widths that do not divide evenly among the lanes of a warp, patches of 588 values that are padded, as in ViT-g/14.
    for (width, heads) in [(160, 2), (176, 2), (104, 1)] {
        check_vit([28, 14, width, 1, 16], heads, Activation::Gelu, &FORMATS)?;
    }
    Ok(())
}

#[test]
fn vits_with_several_tiles_of_tokens() -> Result<()> {
    // 145 tokens: several tiles of queries and keys, the last ones incomplete.
    check_vit([48, 4, 64, 2, 8], 1, Activation::QuickGelu, &FORMATS)
}

#[test]
fn vits_whose_pixels_leave_a_rest() -> Result<()> {
    check_vit([35, 16, 64, 1, 8], 1, Activation::QuickGelu, &FORMATS[..1])
}

#[test]
fn resnets() -> Result<()> {
    // Half of a width of 8 is padded to 8 channels. One stage with a block without a downsampling shortcut.
    let (side, width, layers, dim) = (64, 8, [1, 2, 1, 1], 24);
    let mut random = Random::new(5);
    random.resnet(width, layers, 4, dim);
    let pixels = random.bytes(3 * 3 * side * side);
    for heads in [4, 2] {
        let definition = exact(&random.parameters, heads, Activation::QuickGelu);
        let expected: Vec<Exact> = pixels
            .chunks_exact(3 * side * side)
            .map(|image| definition.resnet(image, side, layers))
            .collect();
        for (precision, tolerance) in FORMATS {
            // All images' columns at once, and as few as two images' of the largest map.
            for column_bytes in [COLUMN_BYTES, 2 * 32 * 32 * 72 * precision.bytes()] {
                let image = image_sizes(side, dim, heads, precision);
                let sizes = ResnetSizes {
                    image,
                    width,
                    layers,
                    column_bytes,
                };
                let (tower, weights) = Resnet::new(sizes, &tensors(&random.parameters))?;
                compare(
                    &(Tower::Resnet(tower), weights),
                    &pixels,
                    &expected,
                    tolerance,
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn sizes_without_kernels_are_refused_by_name() {
    let nothing = Tensors::default();
    let image = image_sizes(32, 8, 2, Precision::F16);
    let vit = |width, layers| {
        let sizes = VitSizes {
            image,
            patch: 16,
            width,
            layers,
            activation: Activation::Gelu,
        };
        Vit::new(sizes, &nothing)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert!(vit(36, 1).contains("no multiple of 8"), "{}", vit(36, 1));
    assert!(vit(24, 1).contains("heads of 12 values"), "{}", vit(24, 1));
    assert!(vit(64, 0).contains("without blocks"), "{}", vit(64, 0));
    assert!(
        vit(64, 1).contains("`visual.conv1.weight`"),
        "{}",
        vit(64, 1)
    );
}

//! The image tower of the demo model, a trained ModifiedResNet, by the kernels that a GPU runs: emulated on the CPU, from the bytes
//! of pictures, against the features that Burn computes on the CPU.

mod host;

use std::path::Path;

use clipood_cuda::Result;
use clipood_cuda::image::{
    Batch, COLUMN_BYTES, ImageSizes, Memory, Resnet, ResnetSizes, Tensors, Tower,
};
use clipood_cuda::precision::Precision;
use clipood_cuda::space::{Device, Space, read_floats};
use host::Emulated;
use safetensors::SafeTensors;

const SIDE: usize = 96;
const DIM: usize = 128;
const POSITIONS: usize = 9;

/// The pictures whose features are in `tests/data`.
fn pictures() -> Vec<u8> {
    let places = (0..SIDE * SIDE).map(|i| (i % SIDE, i / SIDE));
    let waves = places
        .clone()
        .flat_map(|(x, y)| [2 * x, 255 - 2 * y, x * y % 256]);
    let disc =
        places.flat_map(
            |(x, y)| match x.abs_diff(48).pow(2) + y.abs_diff(40).pow(2) < 900 {
                true => [255, 40, 40],
                false => [200, 3 * x % 256, 2 * y],
            },
        );
    waves.chain(disc).map(|value| value as u8).collect()
}

fn read(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_demo_model_sees_what_the_cpu_sees() -> Result<()> {
    let model = read("../../data/demo/model/open_clip_model.safetensors");
    let model = SafeTensors::deserialize(&model).expect("the demo model");
    let parameters: Vec<(String, Vec<f32>)> = model
        .iter()
        .map(|(name, tensor)| (name.to_string(), Precision::F16.values(tensor.data())))
        .collect();
    let tensors: Tensors<'_> = parameters
        .iter()
        .map(|(name, values)| (name.as_str(), values.as_slice()))
        .collect();
    let expected = read("tests/data/demo-features.safetensors");
    let expected = SafeTensors::deserialize(&expected).expect("reference features");
    let of = |name: &str| Precision::F32.values(expected.tensor(name).expect("a feature").data());

    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 5e-2)] {
        let image = ImageSizes {
            side: SIDE,
            dim: DIM,
            heads: 12,
            precision,
            mean: [0.481_454_67, 0.457_827_5, 0.408_210_72],
            deviation: [0.268_629_55, 0.261_302_6, 0.275_777_1],
        };
        let sizes = ResnetSizes {
            image,
            width: 24,
            layers: [1; 4],
            column_bytes: COLUMN_BYTES,
        };
        let (tower, weights) = Resnet::new(sizes, &tensors)?;
        let tower = Tower::Resnet(tower);
        let batch = Batch {
            images: 2,
            local: true,
        };
        let places = tower.places(batch);
        let mut space = Space::default();
        let (arena, of_weights) = (
            space.words(places.size.div_ceil(4)),
            space.words(weights.len().div_ceil(4)),
        );
        let mut device = Emulated::new(&tower.program(), &mut space, false);
        let memory = Memory {
            weights: device.base() + of_weights,
            arena: device.base() + arena,
        };
        device.write(memory.weights, &weights)?;
        device.write(memory.arena + places.pixels, &pictures())?;
        tower.enqueue(&mut device, batch, memory)?;
        for (name, place, values) in [
            ("image_global", places.global, 2 * DIM),
            ("image_local", places.local, 2 * POSITIONS * DIM),
        ] {
            let found = read_floats(&mut device, memory.arena + place, values)?;
            let expected = of(name);
            assert_eq!(found.len(), expected.len());
            let largest = expected
                .iter()
                .fold(0f32, |most, value| most.max(value.abs()));
            let worst = found
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b).abs())
                .fold(0f32, |most, off| if off <= most { most } else { off });
            assert!(
                worst < tolerance * largest,
                "{precision:?} {name}: {worst} of {largest}"
            );
        }
    }
    Ok(())
}

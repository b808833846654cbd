//! Compiles every kernel for the architectures named on the command line, without a GPU:
//! `cargo run --release -p clipood-cuda --example compile_kernels -- sm_80 sm_90 sm_100`.
//!
//! NVRTC must be found: `pip install nvidia-cuda-nvrtc` into the active environment.

use std::process::ExitCode;
use std::time::Instant;

use clipood_cuda::compile::Program;
use clipood_cuda::image::{COLUMN_BYTES, ImageSizes, ResnetSizes, VitSizes};
use clipood_cuda::precision::Precision;
use clipood_cuda::rows::Activation;

fn main() -> ExitCode {
    let mut failures = 0;
    let architectures: Vec<String> = std::env::args().skip(1).collect();
    for architecture in &architectures {
        for program in programs() {
            let start = Instant::now();
            let options = program.options().join(" ");
            match program.cubin(architecture, None) {
                Ok(code) => {
                    let (bytes, seconds) = (code.len(), start.elapsed().as_secs_f64());
                    println!(
                        "{architecture} {} {options}: {bytes} bytes, {seconds:.2} s",
                        program.name
                    );
                }
                Err(error) => {
                    failures += 1;
                    eprintln!("{error}");
                }
            }
        }
    }
    match (failures, architectures.is_empty()) {
        (0, false) => ExitCode::SUCCESS,
        (0, true) => {
            eprintln!("give architectures, such as sm_90");
            ExitCode::from(2)
        }
        _ => ExitCode::FAILURE,
    }
}

/// The programs of all published models in every format.
fn programs() -> Vec<Program> {
    let formats = [Precision::F32, Precision::F16, Precision::Bf16];
    formats
        .into_iter()
        .flat_map(|precision| vits(precision).into_iter().chain(resnets(precision)))
        .collect()
}

fn image(precision: Precision, side: usize, heads: usize) -> ImageSizes {
    ImageSizes {
        side,
        dim: 512,
        heads,
        precision,
        mean: [0.5; 3],
        deviation: [0.5; 3],
    }
}

/// Side, patch, width and heads of OpenAI's and OpenCLIP's vision transformers, with heads of 64, 80, 88 and 104 values.
const VITS: [[usize; 4]; 8] = [
    [224, 32, 768, 12],
    [224, 16, 768, 12],
    [240, 16, 896, 14],
    [224, 14, 1024, 16],
    [336, 14, 1024, 16],
    [224, 14, 1280, 16],
    [224, 14, 1408, 16],
    [224, 14, 1664, 16],
];

fn vits(precision: Precision) -> Vec<Program> {
    let program = |[side, patch, width, heads]: [usize; 4]| {
        VitSizes {
            image: image(precision, side, heads),
            patch,
            width,
            layers: 1,
            activation: Activation::Gelu,
        }
        .program()
    };
    VITS.map(program).to_vec()
}

/// Side, width and heads of the demo's ModifiedResNet and OpenAI's, which differ for the kernels by the size of a head alone.
const RESNETS: [[usize; 3]; 2] = [[96, 24, 12], [224, 64, 32]];

fn resnets(precision: Precision) -> Vec<Program> {
    let program = |[side, width, heads]: [usize; 3]| {
        ResnetSizes {
            image: image(precision, side, heads),
            width,
            layers: [1; 4],
            column_bytes: COLUMN_BYTES,
        }
        .program()
    };
    let mut programs = RESNETS.map(program).to_vec();
    programs.dedup();
    programs
}

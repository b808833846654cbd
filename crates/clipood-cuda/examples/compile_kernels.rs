//! Compiles every kernel for the architectures named on the command line, without a GPU:
//! `cargo run --release -p clipood-cuda --example compile_kernels -- sm_80 sm_90 sm_100`.
//!
//! NVRTC must be found: `pip install nvidia-cuda-nvrtc` into the active environment.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clipood_cuda::card::Card;
use clipood_cuda::compile::Program;
use clipood_cuda::image::{COLUMN_BYTES, ImageSizes, ResnetSizes, VitSizes};
use clipood_cuda::precision::Precision;
use clipood_cuda::prompt::prompt_program;
use clipood_cuda::rows::Activation;
use clipood_cuda::scores::PatchPlan;
use clipood_cuda::text::plan::TextProgram;
use clipood_cuda::text::weights::TextSizes;

fn main() -> ExitCode {
    let architectures: Vec<String> = std::env::args().skip(1).collect();
    if architectures.is_empty() {
        eprintln!("give architectures, such as sm_90");
        return ExitCode::from(2);
    }
    let programs = programs();
    let all = architectures
        .iter()
        .flat_map(|a| programs.iter().map(move |program| (a, program)));
    let (queue, failures) = (Mutex::new(all), AtomicUsize::new(0));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((architecture, program)) = next() {
                    if let Err(error) = compile(architecture, program) {
                        failures.fetch_add(1, Ordering::Relaxed);
                        eprintln!("{error}");
                    }
                }
            });
        }
    });
    match failures.into_inner() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn compile(architecture: &str, program: &Program) -> clipood_cuda::Result<()> {
    let start = Instant::now();
    let code = program.cubin(architecture, None)?;
    let (bytes, seconds) = (code.len(), start.elapsed().as_secs_f64());
    let (name, options) = (program.name, program.options().join(" "));
    println!("{architecture} {name} {options}: {bytes} bytes, {seconds:.2} s");
    Ok(())
}

/// The programs that differ among published models, in every format.
fn programs() -> Vec<Program> {
    let formats = [Precision::F32, Precision::F16, Precision::Bf16];
    formats
        .into_iter()
        .flat_map(|precision| [vits(precision), resnets(precision), texts(precision)].concat())
        .chain([PatchPlan::program()])
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

/// Side, patch, width and heads of vision transformers: one of each size of head (64, 80, 88, 104 values), and one whose width does
/// not divide evenly among the lanes of a warp.
const VITS: [[usize; 4]; 5] = [
    [224, 32, 768, 12],
    [240, 16, 896, 14],
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

/// Width and heads of text towers: the demo's, whose rows are shorter than a warp's vectors, and that of ViT-B. Further widths
/// differ by the length of a loop alone.
const TEXTS: [[usize; 2]; 2] = [[64, 1], [512, 8]];

/// Tokens that prompts share and rows of a group: a shared context of 16 vectors, and long prompts with contexts of each class.
const PROMPTS: [[usize; 2]; 2] = [[17, 32], [1, 64]];

/// Rows of a group of texts: short ones, and some that fill the context.
const GROUPS: [usize; 2] = [32, 96];

/// Shared memory of compute capability 8.0.
const CARD: Card = Card {
    multiprocessors: 108,
    shared_per_block: 166_912,
    shared_per_multiprocessor: 167_936,
};

fn texts(precision: Precision) -> Vec<Program> {
    let mut programs = Vec::new();
    for [width, heads] in TEXTS {
        let sizes = TextSizes {
            width,
            heads,
            layers: 1,
            context: 77,
            dim: 512,
            activation: Activation::Gelu,
        };
        for group_rows in GROUPS {
            let encoder = TextProgram {
                sizes: &sizes,
                precision,
                prefix: 1,
                group_rows,
                training: None,
            };
            programs.extend(encoder.program(&CARD));
        }
        for [prefix, group_rows] in PROMPTS {
            programs.extend(prompt_program(
                &sizes,
                precision,
                (prefix, group_rows),
                &CARD,
            ));
        }
    }
    programs
}

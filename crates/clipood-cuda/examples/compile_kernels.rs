//! Compiles every kernel for the architectures named on the command line, without a GPU:
//! `cargo run --release -p clipood-cuda --example compile_kernels -- sm_80 sm_90 sm_100`.
//!
//! NVRTC must be found: `pip install nvidia-cuda-nvrtc` into the active environment.

use std::process::ExitCode;
use std::time::Instant;

use clipood_cuda::attention::{self, Heads};
use clipood_cuda::compile::Program;
use clipood_cuda::precision::Precision;
use clipood_cuda::rows;

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

/// The programs of published models in every format.
fn programs() -> Vec<Program> {
    let mut programs = Vec::new();
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        for (width, size) in [(768, 64), (1280, 80), (1408, 88), (1664, 104)] {
            let heads = Heads {
                count: width / size,
                size,
                precision,
            };
            let mut defines = vec![("ELEMENT", precision.element()), ("WIDTH", width as i64)];
            defines.extend(heads.defines());
            programs.push(Program {
                name: "transformer",
                families: vec![rows::SOURCE, attention::SOURCE],
                defines,
                kernels: Vec::new(),
            });
        }
    }
    programs
}

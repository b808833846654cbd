//! [`Emulated`]: a device that is no GPU. The kernels are compiled by the machine's C++ compiler against `emulator.hpp` and run
//! thread by thread on the CPU; products are computed by their definition.

use std::ffi::c_void;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use clipood_cuda::compile::Program;
use clipood_cuda::executor::{Argument, Executor, Launch};
use clipood_cuda::precision::Precision;
use clipood_cuda::product::{Epilogue, Matrix, Operands, Shape};
use clipood_cuda::space::{Device, Space};
use clipood_cuda::{CudaError, Result};
use libloading::Library;

/// `host::Shape` of the emulator.
#[repr(C)]
struct LaunchShape {
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    descending: u32,
}

type Entry = unsafe extern "C" fn(*mut *mut c_void, *const LaunchShape);

static RUNNING: Mutex<()> = Mutex::new(());

/// Bytes on both sides of the memory that nobody may touch.
const GUARD: usize = 4096;
const GUARD_BYTE: u8 = 0xa5;
const ALIGNMENT: usize = 256;

/// A program and memory on the CPU.
pub struct Emulated {
    library: Library,
    shared: Vec<(&'static str, u32)>,
    memory: Vec<u8>,
    /// Place of the first byte that belongs to the device.
    start: usize,
    size: usize,
    /// Threads run from the last to the first.
    descending: bool,
    /// Launches so far.
    pub launches: usize,
}

impl Emulated {
    /// Compiles a program, and fills memory with NaN but for the space's contents.
    pub fn new(program: &Program, space: &mut Space, descending: bool) -> Self {
        let mut device = Self::with_memory(program, space.size(), descending);
        for (at, bytes) in space.take_contents() {
            device
                .write(device.base() + at, &bytes)
                .expect("contents inside of the space");
        }
        device
    }

    /// Compiles a program, and fills `size` bytes of memory with NaN.
    pub fn with_memory(program: &Program, size: usize, descending: bool) -> Self {
        let path = build(program);
        // SAFETY: the library is what `build` has just made; it has no initialisers of its own.
        let library = unsafe { Library::new(&path) }
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut memory = vec![GUARD_BYTE; size + 2 * GUARD + ALIGNMENT];
        let start = GUARD + (memory.as_ptr() as usize + GUARD).next_multiple_of(ALIGNMENT)
            - memory.as_ptr() as usize
            - GUARD;
        memory[start..start + size].fill(0xff);
        Self {
            library,
            shared: program.kernels.clone(),
            memory,
            start,
            size,
            descending,
            launches: 0,
        }
    }

    fn place(&self, at: u64, bytes: usize) -> Result<usize> {
        let offset = (at - self.base()) as usize;
        match offset + bytes <= self.size {
            true => Ok(self.start + offset),
            false => Err(CudaError::Failed(format!(
                "{bytes} bytes at {offset} leave a memory of {}",
                self.size
            ))),
        }
    }

    fn check_guards(&self, kernel: &str) {
        let (before, after) = (
            &self.memory[..self.start],
            &self.memory[self.start + self.size..],
        );
        let intact = before.iter().chain(after).all(|byte| *byte == GUARD_BYTE);
        assert!(intact, "{kernel} wrote outside of the memory");
    }

    /// Value `index` of an array at an address.
    fn value(&self, precision: Precision, at: u64, index: usize) -> f64 {
        let bytes = precision.bytes();
        let place = self
            .place(at + (index * bytes) as u64, bytes)
            .expect("an operand inside of the memory");
        f64::from(precision.values(&self.memory[place..place + bytes])[0])
    }

    fn matrix(
        &self,
        precision: Precision,
        at: u64,
        matrix: Matrix,
        [rows, columns]: [usize; 2],
    ) -> Vec<f64> {
        let value = |row: usize, column: usize| {
            let index = match matrix.transposed {
                true => column * matrix.pitch + row,
                false => row * matrix.pitch + column,
            };
            let value = self.value(precision, at, index);
            if precision == Precision::Tf32 {
                f64::from(tf32(value as f32))
            } else {
                value
            }
        };
        (0..rows * columns)
            .map(|i| value(i / columns, i % columns))
            .collect()
    }
}

/// To 10 bits of mantissa, as tensor cores read float32.
fn tf32(x: f32) -> f32 {
    f32::from_bits((x.to_bits() + 0x1000) & !0x1fff)
}

impl Executor for Emulated {
    fn launch(&mut self, launch: &Launch<'_>) -> Result<()> {
        let kernel = launch.kernel;
        let (_, shared) = self
            .shared
            .iter()
            .find(|(name, _)| *name == kernel)
            .ok_or(CudaError::NoKernel(kernel))?;
        assert!(
            launch.shared <= *shared,
            "{kernel} takes {} bytes of shared memory, {shared} were planned",
            launch.shared
        );
        let symbol = format!("emulate_{kernel}");
        // SAFETY: `EMULATED` defines functions of this type.
        let entry = unsafe { self.library.get::<Entry>(symbol.as_bytes()) }
            .map_err(|_| CudaError::NoKernel(kernel))?;
        let mut pointers: Vec<*mut c_void> = launch
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::I32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::I64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            })
            .collect();
        let shape = LaunchShape {
            grid: launch.grid,
            threads: launch.block,
            shared: launch.shared,
            descending: u32::from(self.descending),
        };
        // A library has one emulated run-time, whichever tests use it.
        let _one_at_a_time = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the arguments are those of the kernel by number and type, which is what these tests are about; a wrong one
        // crashes the test.
        unsafe { entry(pointers.as_mut_ptr(), &shape) };
        self.launches += 1;
        self.check_guards(kernel);
        Ok(())
    }

    fn product(&mut self, shape: &Shape, operands: &Operands) -> Result<()> {
        let Shape {
            rows,
            columns,
            depth,
            precision,
            ..
        } = *shape;
        let x = self.matrix(precision, operands.input, shape.input, [rows, depth]);
        let w = self.matrix(precision, operands.weight, shape.weight, [depth, columns]);
        let written = if shape.wide {
            Precision::F32
        } else {
            precision
        };
        let mut out = Vec::with_capacity(rows);
        for x in x.chunks_exact(depth) {
            let row = out.len();
            let mut sums = vec![0f64; columns];
            for (x, w) in x.iter().zip(w.chunks_exact(columns)) {
                sums.iter_mut().zip(w).for_each(|(sum, w)| *sum += x * w);
            }
            for (column, sum) in sums.iter_mut().enumerate() {
                *sum *= f64::from(operands.scale);
                if let Some(pitch) = shape.residual_pitch {
                    *sum += self.value(written, operands.residual, row * pitch + column);
                }
                if shape.epilogue != Epilogue::None {
                    *sum += self.value(written, operands.bias, column);
                }
                if shape.epilogue == Epilogue::BiasRelu {
                    *sum = sum.max(0.0);
                }
            }
            out.push(sums);
        }
        for (row, sums) in out.into_iter().enumerate() {
            let mut bytes = Vec::new();
            let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
            written.append(&mut bytes, &sums);
            let at = operands.output + (row * shape.output_pitch * written.bytes()) as u64;
            self.write(at, &bytes)?;
        }
        Ok(())
    }
}

impl Device for Emulated {
    fn base(&self) -> u64 {
        self.memory[self.start..].as_ptr() as u64
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let place = self.place(at, bytes.len())?;
        self.memory[place..place + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, at: u64, bytes: usize) -> Result<Vec<u8>> {
        let place = self.place(at, bytes)?;
        Ok(self.memory[place..place + bytes].to_vec())
    }

    fn repeat(
        &mut self,
        _: usize,
        pass: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<()> {
        pass(self)
    }
}

/// The program as a shared library, compiled once for each content of its sources.
fn build(program: &Program) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host");
    let mut source = program.source();
    for (kernel, _) in &program.kernels {
        source.push_str(&format!("\nEMULATED({kernel})"));
    }
    source.push('\n');
    let read = |name: &str| {
        fs::read_to_string(here.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let options = program.options();
    let all = format!(
        "{source}\n{options:?}\n{}{}",
        read("emulator.hpp"),
        read("host.h")
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!(
        "emulated-{}.so",
        &blake3::hash(all.as_bytes()).to_hex()[..32]
    ));
    if path.exists() {
        return path;
    }
    let work = tempfile::tempdir_in(folder).expect("a folder for the compiler");
    let (text, made) = (
        work.path().join("kernels.cpp"),
        work.path().join("kernels.so"),
    );
    fs::write(&text, source).expect("the source for the compiler");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(&compiler);
    command.args([
        "-std=c++20",
        "-O1",
        "-fPIC",
        "-shared",
        "-ffp-contract=off",
        "-fno-strict-aliasing",
        "-fno-gnu-unique",
        "-U_FORTIFY_SOURCE",
    ]);
    command
        .args([
            "-Wall",
            "-Wno-unknown-pragmas",
            "-Wno-unused-function",
            "-DCLIPOOD_HOST",
        ])
        .args(&options);
    command.arg("-I").arg(&here).arg(&text).arg("-o").arg(&made);
    let output = command.output().unwrap_or_else(|error| {
        panic!("these tests need a C++ compiler, and {compiler} does not start: {error}")
    });
    assert!(
        output.status.success(),
        "{compiler}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&made, &path).expect("the library in its place");
    path
}

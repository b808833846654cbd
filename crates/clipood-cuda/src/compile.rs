//! From kernel sources to machine code: NVRTC, and a folder that keeps what it made.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use cudarc::nvrtc::{result as nvrtc, sys};

use crate::error::{CudaError, Result};
use crate::libraries;

/// What every kernel file begins with.
pub const DEVICE: &str = include_str!("kernels/device.cuh");

/// Kernels to be compiled together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// For messages.
    pub name: &'static str,
    /// Texts of the kernel files, which follow [`DEVICE`] in this order.
    pub families: Vec<&'static str>,
    /// Macros.
    pub defines: Vec<(&'static str, i64)>,
    /// Names of the kernels, and the bytes of dynamic shared memory that each may be launched with.
    pub kernels: Vec<(&'static str, u32)>,
}

impl Program {
    /// The source of all kernels in one file.
    pub fn source(&self) -> String {
        std::iter::once(DEVICE)
            .chain(self.families.iter().copied())
            .collect()
    }

    /// The macros as options of a compiler.
    pub fn options(&self) -> Vec<String> {
        let define = |(name, value): &(&str, i64)| format!("-D{name}={value}");
        self.defines.iter().map(define).collect()
    }

    /// Machine code (CUBIN) for `architecture`, such as `sm_90`: from the folder `cache` if it is there, or else by NVRTC, and
    /// then kept. A kept file that is damaged is made again; a folder that cannot be written to is done without.
    ///
    /// # Errors
    /// NVRTC is missing, or does not compile the source.
    pub fn cubin(&self, architecture: &str, cache: Option<&Path>) -> Result<Vec<u8>> {
        let version = libraries::nvrtc_version()?;
        let key = self.key(architecture, version);
        let path = cache.map(|folder| {
            folder.join(format!("{}-{architecture}-{}.cubin", self.name, &key[..32]))
        });
        if let Some(path) = &path
            && let Some(code) = read_kept(path)
        {
            return Ok(code);
        }
        let code = compile(self, architecture)?;
        if let Some(path) = &path {
            // The next process compiles again if this fails, which costs a second or two.
            let _ = keep(path, &code);
        }
        Ok(code)
    }

    /// A hash of all that decides the machine code.
    fn key(&self, architecture: &str, (major, minor): (i32, i32)) -> String {
        let mut text = format!("{architecture}\n{major}.{minor}\n");
        for option in self.options() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{option}");
        }
        text.push_str(&self.source());
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

/// A kept file is a hash of the code, then the code.
fn read_kept(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let (hash, code) = bytes.split_first_chunk::<{ blake3::OUT_LEN }>()?;
    (blake3::hash(code).as_bytes() == hash).then(|| code.to_vec())
}

/// Written beside and renamed, so that no other process reads half a file.
fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(blake3::hash(code).as_bytes())?;
    file.write_all(code)?;
    file.persist(path)?;
    Ok(())
}

/// NVRTC up to machine code, so that the driver need not compile once more.
fn compile(program: &Program, architecture: &str) -> Result<Vec<u8>> {
    let failed = |log: String| CudaError::Compile {
        program: program.name,
        architecture: architecture.to_string(),
        log,
    };
    let source = CString::new(program.source()).map_err(|error| failed(error.to_string()))?;
    let mut options = program.options();
    options.push(format!("--gpu-architecture={architecture}"));
    let handle = nvrtc::create_program(&source, Some(c"clipood.cu"))
        .map_err(|error| failed(error.to_string()))?;
    // SAFETY: the handle is alive until it is destroyed below; the buffer has the size that NVRTC asked for.
    unsafe {
        let outcome = nvrtc::compile_program(handle, &options);
        let code = match outcome {
            Ok(()) => machine_code(handle).map_err(|error| failed(error.to_string())),
            Err(error) => {
                let log = nvrtc::get_program_log(handle).unwrap_or_default();
                let log: Vec<u8> = log
                    .iter()
                    .map(|c| *c as u8)
                    .take_while(|c| *c != 0)
                    .collect();
                let text = String::from_utf8_lossy(&log);
                Err(failed(format!("{error}: {}", text.trim())))
            }
        };
        // The code is here already; a program that is not freed costs memory alone.
        let _ = nvrtc::destroy_program(handle);
        code
    }
}

/// # Safety
/// `handle` is a compiled program.
unsafe fn machine_code(
    handle: sys::nvrtcProgram,
) -> std::result::Result<Vec<u8>, nvrtc::NvrtcError> {
    let mut size = 0;
    // SAFETY: as the caller promises; the buffer has the size that NVRTC asked for.
    unsafe {
        sys::nvrtcGetCUBINSize(handle, &mut size).result()?;
        let mut code = vec![0u8; size];
        sys::nvrtcGetCUBIN(handle, code.as_mut_ptr().cast()).result()?;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        Program {
            name: "test",
            families: vec!["// kernels"],
            defines: vec![("WIDTH", 768)],
            kernels: Vec::new(),
        }
    }

    #[test]
    fn whatever_decides_the_machine_code_is_in_its_name() {
        let keys = [
            program().key("sm_90", (13, 0)),
            program().key("sm_80", (13, 0)),
            program().key("sm_90", (13, 1)),
            Program {
                defines: vec![("WIDTH", 512)],
                ..program()
            }
            .key("sm_90", (13, 0)),
            Program {
                families: vec!["// others"],
                ..program()
            }
            .key("sm_90", (13, 0)),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{i}");
        }
        assert_eq!(keys[0], program().key("sm_90", (13, 0)));
    }

    #[test]
    fn a_damaged_or_short_file_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/kernels.cubin");
        assert_eq!(read_kept(&path), None);
        keep(&path, b"machine code").unwrap();
        assert_eq!(read_kept(&path).as_deref(), Some(&b"machine code"[..]));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_kept(&path), None);
        std::fs::write(&path, &bytes[..20]).unwrap();
        assert_eq!(read_kept(&path), None);
        assert!(keep(&path.join("below a file.cubin"), b"machine code").is_err());
        // Made again over the damaged one.
        keep(&path, b"other code").unwrap();
        assert_eq!(read_kept(&path).as_deref(), Some(&b"other code"[..]));
    }
}

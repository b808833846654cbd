//! CUDA's libraries: found and loaded at run time, by the loader's own search or in the folders of [`toolkit`].
//!
//! `cudarc` panics where a library is missing. Each function here looks before, loads the library by its path where the
//! loader does not find it (it then stays loaded, and a later search by name finds it), and otherwise says what to install.

use std::path::Path;
use std::sync::OnceLock;

use cudarc::driver::sys as driver;
use cudarc::{cublaslt::sys as cublaslt, nvrtc::sys as nvrtc};

use crate::error::{CudaError, Result};
use crate::toolkit;

/// Loads the driver.
///
/// # Errors
/// It is not installed.
pub fn load_driver() -> Result<()> {
    // SAFETY: loads the driver's library, as every later call does.
    match unsafe { driver::is_culib_present() } {
        true => Ok(()),
        false => Err(CudaError::NoDriver),
    }
}

/// Loads the run-time compiler.
///
/// # Errors
/// It is not installed.
pub fn load_nvrtc() -> Result<()> {
    static LOADED: OnceLock<Result<()>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            // SAFETY: loads the compiler's library, as every later call does.
            let present = || unsafe { nvrtc::is_culib_present() };
            // The compiler opens its own second library by name alone.
            let found = load(&["libnvrtc-builtins", "libnvrtc"], present);
            found.then_some(()).ok_or(CudaError::NoLibrary {
                purpose: "CUDA's run-time compiler",
                library: "libnvrtc",
                package: "nvidia-cuda-nvrtc",
            })
        })
        .clone()
}

/// Loads the library of matrix products.
///
/// # Errors
/// It is not installed.
pub fn load_cublaslt() -> Result<()> {
    static LOADED: OnceLock<Result<()>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            // SAFETY: loads the library, as every later call does.
            let present = || unsafe { cublaslt::is_culib_present() };
            load(&["libcublasLt"], present)
                .then_some(())
                .ok_or(CudaError::NoLibrary {
                    purpose: "CUDA's library of matrix products",
                    library: "libcublasLt",
                    package: "nvidia-cublas",
                })
        })
        .clone()
}

/// Major and minor version of the run-time compiler, which is loaded if it is not yet.
///
/// # Errors
/// As [`load_nvrtc`].
pub fn nvrtc_version() -> Result<(i32, i32)> {
    load_nvrtc()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes to the two integers.
    let asked = unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor).result() };
    asked.map_err(|error| CudaError::Failed(error.to_string()))?;
    Ok((major, minor))
}

/// The CUDA version that the driver supports.
///
/// # Errors
/// No driver.
pub fn driver_version() -> Result<(i32, i32)> {
    load_driver()?;
    let mut version = 0;
    // SAFETY: writes to the integer.
    unsafe { driver::cuDriverGetVersion(&mut version).result()? };
    Ok((version / 1000, version % 1000 / 10))
}

/// The oldest CUDA version of a driver that has every function that is called here (`cuEventElapsedTime_v2`).
const OLDEST_DRIVER: (i32, i32) = (12, 8);

/// Loads all libraries and compares their versions: within a major version of CUDA they work with any driver.
///
/// # Errors
/// One is missing, or the driver is too old for it.
pub fn check() -> Result<()> {
    let driver = driver_version()?;
    let text = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    if driver < OLDEST_DRIVER {
        return Err(CudaError::DriverTooOld {
            found: text(driver),
            needed: text(OLDEST_DRIVER),
        });
    }
    let compiler = nvrtc_version()?;
    load_cublaslt()?;
    // SAFETY: takes nothing; the library was just loaded.
    let products = unsafe { cublaslt::cublasLtGetCudartVersion() } as i32;
    let products = (products / 1000, products % 1000 / 10);
    for (library, found) in [("libnvrtc", compiler), ("libcublasLt", products)] {
        if found.0 > driver.0 {
            return Err(CudaError::OldDriver {
                library,
                driver: text(driver),
                found: text(found),
            });
        }
    }
    Ok(())
}

/// Whether the library is there, after those of `names` that the loader does not find were loaded from a toolkit's folder.
fn load(names: &[&str], present: impl Fn() -> bool) -> bool {
    if present() {
        return true;
    }
    let newest = driver_version().map_or(i32::MAX, |(major, _)| major);
    #[cfg(unix)]
    for toolkit in toolkit::candidates() {
        for name in names {
            let files = toolkit.files(name).into_iter();
            // Beside each other lie what PyTorch and what other programs have brought.
            for file in files.filter(|file| major_version(file).is_none_or(|major| major <= newest))
            {
                use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
                // SAFETY: NVIDIA's library, whose constructors do nothing but initialise it.
                if let Ok(library) = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) } {
                    std::mem::forget(library);
                }
            }
        }
        if present() {
            return true;
        }
    }
    false
}

/// The major version in a name such as `libnvrtc.so.13` or `libnvrtc-builtins.so.13.0`.
fn major_version(file: &Path) -> Option<i32> {
    let name = file.file_name()?.to_str()?;
    let (_, version) = name.split_once(".so.")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names() {
        for (name, expected) in [
            ("libnvrtc.so.13", Some(13)),
            ("libnvrtc-builtins.so.12.9", Some(12)),
            ("libcublasLt.so.12.8.4.1", Some(12)),
            ("libcublasLt.so", None),
            ("libcublasLt.so.x", None),
        ] {
            assert_eq!(
                major_version(Path::new("/x/y").join(name).as_path()),
                expected,
                "{name}"
            );
        }
    }
}

//! Where CUDA's headers and run-time compiler may lie: a toolkit, or the packages that pip installs beside PyTorch.

use std::path::{Path, PathBuf};

/// Headers that kernels include, relative to `include`.
pub const HEADERS: [&str; 5] = [
    "cuda_runtime.h",
    "cuda_fp16.h",
    "cuda_bf16.h",
    "mma.h",
    "crt/mma.h",
];

/// A folder with `include`, and perhaps libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolkit {
    /// What CUDA_PATH would be.
    pub prefix: PathBuf,
    /// Folders with libraries.
    pub libraries: Vec<PathBuf>,
}

impl Toolkit {
    /// The first header that is not there.
    pub fn missing_header(&self) -> Option<&'static str> {
        let include = self.prefix.join("include");
        HEADERS
            .into_iter()
            .find(|header| !include.join(header).is_file())
    }

    /// Whether any header is there.
    pub fn has_some_headers(&self) -> bool {
        let include = self.prefix.join("include");
        HEADERS.iter().any(|header| include.join(header).is_file())
    }

    /// Files called `NAME.so*`, in name order.
    pub fn files(&self, name: &str) -> Vec<PathBuf> {
        let start = format!("{name}.so");
        let files = self.libraries.iter().flat_map(|folder| entries(folder));
        files
            .filter(|file| {
                let name = file.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name.starts_with(&start))
            })
            .collect()
    }

    fn at(prefix: &Path) -> Self {
        Self {
            prefix: prefix.to_path_buf(),
            libraries: vec![
                prefix.join("lib64"),
                prefix.join("lib"),
                prefix.join("lib/x86_64-linux-gnu"),
            ],
        }
    }
}

/// Existing places, best first: what the environment names, the usual prefixes, conda, pip.
pub fn candidates() -> Vec<Toolkit> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut found = Vec::new();
    for name in ["CUDA_PATH", "CUDA_HOME"] {
        found.extend(set(name).map(|folder| Toolkit::at(Path::new(&folder))));
    }
    for prefix in ["/usr/local/cuda", "/opt/cuda"] {
        found.push(Toolkit::at(Path::new(prefix)));
    }
    if let Some(conda) = set("CONDA_PREFIX") {
        let conda = Path::new(&conda);
        found.push(Toolkit::at(conda));
        found.push(Toolkit::at(&conda.join("targets/x86_64-linux")));
    }
    for packages in site_packages() {
        found.extend(pip_toolkits(&packages.join("nvidia")));
    }
    found.push(Toolkit::at(Path::new("/usr")));
    found.retain(|toolkit| toolkit.prefix.is_dir());
    found
}

/// pip puts all of CUDA 13 into one folder, and each part of CUDA 12 into its own.
fn pip_toolkits(nvidia: &Path) -> Vec<Toolkit> {
    let mut found = vec![Toolkit::at(&nvidia.join("cu13"))];
    let mut older = Toolkit::at(&nvidia.join("cuda_runtime"));
    older.libraries = vec![nvidia.join("cuda_nvrtc/lib"), nvidia.join("cublas/lib")];
    found.push(older);
    found
}

/// Folders that Python imports from: of the active environment, of the user, of the system, and of the `python3` that
/// the shell would start.
fn site_packages() -> Vec<PathBuf> {
    let mut libraries = Vec::new();
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        libraries.extend(std::env::var_os(name).map(|root| Path::new(&root).join("lib")));
    }
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        // `bin` of an environment that was not activated but put first into PATH, and links into one.
        let python = folder.join("python3");
        if python.is_file()
            && let Some(root) = folder.parent()
        {
            libraries.push(root.join("lib"));
        }
    }
    if let Some(home) = std::env::var_os("HOME") {
        libraries.push(Path::new(&home).join(".local/lib"));
    }
    let mut found = Vec::new();
    for library in libraries {
        for python in entries(&library) {
            let name = python.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(|name| name.starts_with("python3")) {
                continue;
            }
            for packages in ["site-packages", "dist-packages"] {
                let folder = python.join(packages);
                if folder.join("nvidia").is_dir() && !found.contains(&folder) {
                    found.push(folder);
                }
            }
        }
    }
    found
}

/// Entries of a folder in name order; none if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    paths
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_folders() {
        for toolkit in candidates() {
            assert!(toolkit.prefix.is_dir(), "{toolkit:?}");
        }
    }

    #[test]
    fn packages_of_pip_are_a_toolkit_when_all_headers_are_there() {
        let root = std::env::temp_dir().join(format!("clipood-toolkit-{}", std::process::id()));
        let nvidia = root.join("nvidia");
        let include = nvidia.join("cu13/include");
        std::fs::create_dir_all(include.join("crt")).unwrap();
        std::fs::create_dir_all(nvidia.join("cu13/lib")).unwrap();
        let toolkit = pip_toolkits(&nvidia).remove(0);
        assert!(!toolkit.has_some_headers());
        for header in HEADERS {
            assert_eq!(toolkit.missing_header(), Some(header));
            std::fs::write(include.join(header), "").unwrap();
        }
        assert_eq!(toolkit.missing_header(), None);
        assert!(toolkit.files("libnvrtc").is_empty());
        let compiler = nvidia.join("cu13/lib/libnvrtc.so.13");
        std::fs::write(&compiler, "").unwrap();
        std::fs::write(nvidia.join("cu13/lib/libnvrtc-builtins.so.13.0"), "").unwrap();
        assert_eq!(toolkit.files("libnvrtc"), vec![compiler]);
        std::fs::remove_dir_all(&root).unwrap();
    }
}

//! Local disk support beyond object_store: paths that do not exist yet, fast listings, leftovers of killed writers.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Whether `name` has the form under which object_store stages unfinished local writes: `name#7`.
pub(crate) fn is_staging_name(name: &str) -> bool {
    match name.rsplit_once('#') {
        Some((_, digits)) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => false,
    }
}

/// The name of the object that a staging file would have become.
fn staged_target(name: &str) -> Option<&str> {
    let (target, _) = name.rsplit_once('#')?;
    (is_staging_name(name) && !target.is_empty()).then_some(target)
}

/// The absolute path, with symbolic links and `..` resolved in the part that exists; the rest need not exist.
///
/// # Errors
/// The current directory does not exist, or the part that does not exist contains `..`.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    let mut existing = whole.as_path();
    let mut missing: Vec<OsString> = Vec::new();
    loop {
        match existing.canonicalize() {
            Ok(mut resolved) => {
                resolved.extend(missing.iter().rev());
                return Ok(resolved);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file in place of a directory, or a directory without search permission: keep the path as it is, the
            // first operation on it reports the precise error.
            Err(_) => return Ok(whole),
        }
        match (existing.components().next_back(), existing.parent()) {
            (Some(Component::Normal(name)), Some(parent)) => {
                missing.push(name.to_owned());
                existing = parent;
            }
            _ => {
                let reason = "a `..` follows a directory that does not exist";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
        }
    }
}

/// Names of the files directly in `directory`, except staging files; none if the directory is missing.
pub(crate) fn file_names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let is_file = match kind.is_symlink() {
            true => entry.path().is_file(),
            false => kind.is_file(),
        };
        // Names that are not UTF-8 cannot be objects of this store.
        if let (true, Ok(name)) = (is_file, entry.file_name().into_string())
            && !is_staging_name(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes, at any depth, staging files whose object exists; returns their paths relative to `directory`, `/`-separated.
pub(crate) fn sweep(directory: &Path) -> io::Result<Vec<String>> {
    let mut swept = Vec::new();
    let mut pending = vec![(directory.to_owned(), String::new())];
    while let Some((folder, prefix)) = pending.pop() {
        for entry in entries(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if kind.is_dir() {
                pending.push((entry.path(), format!("{prefix}{name}/")));
                continue;
            }
            let published = match staged_target(&name) {
                Some(target) => kind.is_file() && folder.join(target).is_file(),
                None => false,
            };
            if !published {
                continue;
            }
            match std::fs::remove_file(entry.path()) {
                Ok(()) => swept.push(format!("{prefix}{name}")),
                // Its writer or another sweep has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    swept.sort_unstable();
    Ok(swept)
}

fn entries(directory: &Path) -> io::Result<impl Iterator<Item = io::Result<std::fs::DirEntry>>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_names_are_recognised() {
        for name in ["a#1", "part.parquet#12", "#3", "a#b#1"] {
            assert!(is_staging_name(name), "{name}");
        }
        for name in ["a", "a#", "a#x", "a#1.jpg", "1"] {
            assert!(!is_staging_name(name), "{name}");
        }
        assert_eq!(staged_target("part.parquet#12"), Some("part.parquet"));
        assert_eq!(staged_target("a#b#1"), Some("a#b"));
        assert_eq!(staged_target("#3"), None);
        assert_eq!(staged_target("a#b"), None);
    }

    #[test]
    fn sweep_keeps_what_may_still_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("dataset=a b");
        std::fs::create_dir(&deep).unwrap();
        for name in [
            "done.parquet",
            "done.parquet#1",
            "done.parquet#2",
            "open.parquet#1",
            "x#y",
        ] {
            std::fs::write(deep.join(name), name).unwrap();
        }
        let swept = sweep(dir.path()).unwrap();
        assert_eq!(
            swept,
            ["dataset=a b/done.parquet#1", "dataset=a b/done.parquet#2"]
        );
        let mut left = file_names(&deep).unwrap();
        left.sort();
        assert_eq!(left, ["done.parquet", "x#y"]);
        assert!(deep.join("open.parquet#1").exists());
        assert!(sweep(&dir.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn absolute_resolves_the_existing_part() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        let dotted = root.join("real/../real");
        assert_eq!(absolute(&dotted).unwrap(), root.join("real"));
        assert_eq!(
            absolute(&dotted.join("a/b")).unwrap(),
            root.join("real/a/b")
        );
        assert!(absolute(&root.join("absent/../b")).is_err());
    }
}

//! [`OutFolder`]: a folder that gets all its files at once.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clipood_core::shown;

use crate::error::{PipelineError, Result};
use crate::progress::tell;

/// A folder that does not exist yet, is empty, or is to be replaced. The files are written into a folder beside it that is
/// renamed at the end, so that an interrupted command leaves nothing that looks like a result.
#[derive(Debug)]
pub struct OutFolder {
    place: PathBuf,
    /// Whether it held files that may be replaced.
    replace: bool,
    /// Ending of the names of siblings, which no other process uses.
    tag: String,
}

impl OutFolder {
    /// Checks that the result can be written to `place`. With `overwrite` a folder that holds nothing but files called as those in
    /// `own` may be replaced.
    ///
    /// # Errors
    /// A file, a folder that is not empty, a folder with other files, a place that cannot be written to, or a folder that
    /// cannot be replaced, such as a mount point.
    pub fn claim(place: &Path, overwrite: bool, own: &[&str]) -> Result<Self> {
        let usage =
            |problem: String| PipelineError::Usage(format!("--out {}: {problem}", shown(place)));
        if place.file_name().is_none() {
            return Err(usage("expected the name of a new folder".to_owned()));
        }
        let held = match fs::read_dir(place) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<OsString>>>()
                .map_err(failed(place, "cannot list the folder"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(usage("is a file, expected a folder".to_owned()));
            }
            Err(error) => return Err(failed(place, "cannot list the folder")(error)),
        };
        let is_own = |name: &OsString| name.to_str().is_some_and(|name| own.contains(&name));
        let foreign = held.iter().find(|name| !is_own(name));
        match (foreign, held.first(), overwrite) {
            (_, None, _) | (None, _, true) => {}
            (Some(name), _, true) => {
                let name = shown(name);
                return Err(usage(format!(
                    "holds {name}, which this command does not write; give another folder"
                )));
            }
            (_, Some(name), false) => {
                let name = shown(name);
                return Err(usage(format!(
                    "is not empty (it holds {name}); give another folder, or --overwrite"
                )));
            }
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.as_nanos());
        let claimed = Self {
            // The folder that a link leads to is replaced, not the link.
            place: fs::canonicalize(place).unwrap_or_else(|_| place.to_path_buf()),
            replace: !held.is_empty(),
            tag: format!("{}-{nanos:x}", std::process::id()),
        };
        // Found now, not after hours of training.
        let staged = claimed.beside("writing");
        fs::create_dir_all(&staged)
            .and_then(|()| fs::remove_dir(&staged))
            .map_err(failed(&staged, "cannot create a folder"))?;
        if claimed.place.exists() {
            let old = claimed.beside("old");
            fs::rename(&claimed.place, &old)
                .and_then(|()| fs::rename(&old, &claimed.place))
                .map_err(failed(
                    &claimed.place,
                    "cannot replace the folder; give one inside it",
                ))?;
        }
        Ok(claimed)
    }

    /// The file beside the folder that keeps the state of a training until the result is written.
    pub fn checkpoint(&self) -> PathBuf {
        self.sibling("checkpoint")
    }

    /// Writes the files and puts the folder in its place.
    ///
    /// # Errors
    /// A file that cannot be written. A folder that cannot be put in its place: its files stay beside it, and a line on
    /// standard error says where.
    pub fn write(self, files: &[(&str, Vec<u8>)]) -> Result<()> {
        let staged = self.beside("writing");
        if let Err(error) = self.stage(&staged, files) {
            // What is left of it is of no use; the first error is the one to report.
            let _ = fs::remove_dir_all(&staged);
            return Err(error);
        }
        let put = self.put(&staged);
        if staged.exists() {
            tell(&format!("the finished files are in {}", shown(&staged)));
        }
        put
    }

    fn stage(&self, staged: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
        fs::create_dir_all(staged).map_err(failed(staged, "cannot create a folder"))?;
        for (name, bytes) in files {
            let path = staged.join(name);
            write_synced(&path, bytes).map_err(failed(&path, "cannot write"))?;
        }
        Ok(())
    }

    fn put(&self, staged: &Path) -> Result<()> {
        let old = self.beside("old");
        let replace = match fs::read_dir(&self.place) {
            Ok(mut held) => held.next().is_some(),
            Err(_) => false,
        };
        if replace && !self.replace {
            let action = "was filled meanwhile, cannot put the folder in place";
            return Err(failed(&self.place, action)(
                io::ErrorKind::DirectoryNotEmpty.into(),
            ));
        }
        if replace {
            // Moved away, not removed in place: an interrupted removal would leave half a model.
            fs::rename(&self.place, &old)
                .map_err(failed(&self.place, "cannot move the former folder away"))?;
        }
        // An empty folder is replaced by the renaming itself.
        if let Err(error) = fs::rename(staged, &self.place) {
            if replace {
                let _ = fs::rename(&old, &self.place);
            }
            return Err(failed(&self.place, "cannot put the folder in place")(error));
        }
        match replace {
            true => {
                fs::remove_dir_all(&old).map_err(failed(&old, "cannot remove the former folder"))
            }
            false => Ok(()),
        }
    }

    /// A sibling that only this process uses.
    fn beside(&self, what: &str) -> PathBuf {
        self.sibling(&format!("{what}-{}", self.tag))
    }

    /// A hidden sibling, `.NAME.ending`.
    fn sibling(&self, ending: &str) -> PathBuf {
        let mut sibling = OsString::from(".");
        sibling.push(self.place.file_name().unwrap_or_default());
        sibling.push(".");
        sibling.push(ending);
        self.place.with_file_name(sibling)
    }
}

/// A file whose bytes are on disk when this returns.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> PipelineError {
    let path = shown(path);
    move |source| PipelineError::File {
        path,
        action,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [&str; 2] = ["a", "b"];

    fn files(folder: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<OsString> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_filled_once_and_replaced_on_request() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("deep/out");
        let claim = |overwrite| OutFolder::claim(&place, overwrite, &OWN);
        claim(false)
            .unwrap()
            .write(&[("a", b"1".to_vec())])
            .unwrap();
        let refused = claim(false).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(
            refused.to_string().contains("is not empty (it holds a)"),
            "{refused}"
        );
        claim(true).unwrap().write(&[("b", b"2".to_vec())]).unwrap();
        assert_eq!(files(&place), ["b"]);
        fs::write(place.join("notes.txt"), "mine").unwrap();
        let refused = claim(true).unwrap_err().to_string();
        assert!(refused.contains("holds notes.txt"), "{refused}");
        // Nothing is left beside it.
        assert_eq!(files(&root.path().join("deep")), ["out"]);
        let file = place.join("b");
        let refused = OutFolder::claim(&file, true, &OWN).unwrap_err().to_string();
        assert!(refused.contains("is a file"), "{refused}");
        assert!(OutFolder::claim(Path::new("/"), false, &OWN).is_err());
        // An empty folder that was filled meanwhile is not lost, nor are the finished files.
        let empty = root.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let claimed = OutFolder::claim(&empty, false, &OWN).unwrap();
        fs::write(empty.join("new"), "mine").unwrap();
        assert!(claimed.write(&[("a", b"1".to_vec())]).is_err());
        assert_eq!(files(&empty), ["new"]);
        let held = files(root.path());
        let kept = held[0].to_str().unwrap();
        assert!(kept.starts_with(".empty.writing-"), "{held:?}");
        assert_eq!(held[1..], ["deep", "empty"]);
        assert_eq!(files(&root.path().join(kept)), ["a"]);
    }
}

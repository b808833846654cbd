//! Searching a folder and those below it for images.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::error::DataError;
use crate::extensions::is_image;
use crate::folder::{FolderId, Kind, entries, identity, is_junk};
use crate::left_out::{LeftOut, Why};

/// A file or folder that a search comes across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file that is named as an image.
    Image(PathBuf),
    /// Anything else that is not searched.
    LeftOut(LeftOut),
}

/// The search of a folder: its entries sorted by name, files before the folders below it, which follow one after the other.
/// Time and memory are proportional to the number of entries, however deep they lie.
///
/// Links are followed. Each folder is searched once, so that they cannot lead in circles.
pub struct Walk {
    /// Whether folders below the first are searched.
    nested: bool,
    searched: HashSet<FolderId>,
    /// Folders to search, the next one last.
    folders: Vec<PathBuf>,
    /// What the folder searched last contains, in reverse.
    steps: Vec<Step>,
}

impl Walk {
    /// A search of `folder` that does not enter the folders `searched`.
    pub fn new(folder: PathBuf, nested: bool, searched: HashSet<FolderId>) -> Walk {
        Walk {
            nested,
            searched,
            folders: vec![folder],
            steps: Vec::new(),
        }
    }

    fn search(&mut self, folder: PathBuf) -> Result<(), DataError> {
        if !self.searched.insert(identity(&folder)?) {
            self.steps
                .push(Step::LeftOut(LeftOut::new(folder, Why::Searched)));
            return Ok(());
        }
        let below = self.folders.len();
        for entry in entries(&folder)? {
            let path = entry.path;
            let why = match entry.kind {
                _ if is_junk(&path) => Why::Junk,
                Kind::Folder if self.nested => {
                    self.folders.push(path);
                    continue;
                }
                Kind::Folder => Why::NotNested,
                Kind::File | Kind::Broken if is_image(&path) => {
                    self.steps.push(Step::Image(path));
                    continue;
                }
                Kind::Broken => Why::Broken,
                Kind::File => Why::NoImage,
            };
            self.steps.push(Step::LeftOut(LeftOut::new(path, why)));
        }
        self.steps.reverse();
        self.folders[below..].reverse();
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<Step, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(step) = self.steps.pop() {
                return Some(Ok(step));
            }
            let folder = self.folders.pop()?;
            if let Err(error) = self.search(folder) {
                // An error ends the search.
                self.folders.clear();
                self.steps.clear();
                return Some(Err(error));
            }
        }
    }
}

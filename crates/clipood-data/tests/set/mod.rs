//! A dataset in a temporary folder, and what a listing of it gives.

// Each test uses some of it.
#![allow(dead_code)]

use std::path::PathBuf;

use clipood_core::DatasetManifest;
use clipood_data::{DataError, ImageRecord, Listing, Roots, list_dataset, read};
use tempfile::TempDir;

/// A dataset in a temporary folder.
pub struct Set {
    pub dir: TempDir,
}

impl Set {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    pub fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("set").join(below)
    }

    pub fn manifest(&self, role: &str, layout: &str, rest: &str) -> DatasetManifest {
        let head =
            format!("name = \"set\"\nrole = \"{role}\"\nlayout = \"{layout}\"\nroot = \"set\"\n");
        DatasetManifest::parse(&(head + rest), "set.toml").unwrap()
    }

    pub fn list(&self, role: &str, layout: &str, rest: &str) -> Result<Listing, DataError> {
        list_dataset(&self.manifest(role, layout, rest), self.dir.path())
    }

    /// The error of a listing, without the path of the folder.
    pub fn error(&self, role: &str, layout: &str, rest: &str) -> String {
        let error = self.list(role, layout, rest).unwrap_err().to_string();
        error.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

/// Key, label, class name.
pub fn rows(records: &[ImageRecord]) -> Vec<(&str, Option<u32>, Option<&str>)> {
    records
        .iter()
        .map(|r| (r.image_key.as_str(), r.label, r.class_name.as_deref()))
        .collect()
}

/// The bytes of an image.
pub fn bytes(record: &ImageRecord) -> Vec<u8> {
    read(&record.source, &Roots::default()).unwrap()
}

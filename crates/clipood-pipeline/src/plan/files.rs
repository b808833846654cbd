//! The files of a dataset by name, size and time: recorded with the plan, so that a later call notices that the folders
//! are not those that were planned.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clipood_core::{is_url, shown};
use clipood_data::{At, Found, LeftOutCounts, content_hash, facts_of, path_of};
use clipood_store::Facts;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::spool::Blocks;
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::tables::{FileMeta, FileRow, write_files};

/// Key of [`DataRecord`] in the commit record of a dataset's plan.
pub(super) const DATA: &str = "data";
/// Files whose sizes are looked up together, in parallel.
const BLOCK: usize = 4096;
/// Rows of one part of the list.
const PART: usize = 16 * BLOCK;

/// Where a dataset was when it was planned, and which files it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Absolute path of its root, without links, on the machine that made the plan.
    pub root: String,
    /// Number of image files in all splits.
    pub files: usize,
    /// Digest of their names relative to the root and their sizes.
    pub sizes: String,
    /// Digest of the same with the times of their last modification.
    pub times: String,
    /// When they were listed, in seconds since 1970.
    pub listed: u64,
    /// The files and folders that the listing left out, by reason; absent if an earlier build has made the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Vec<Skipped>>,
}

/// Files and folders that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The reason in words.
    pub reason: String,
    /// How many there are.
    pub count: usize,
    /// The first of them, relative to the root of the dataset.
    pub examples: Vec<String>,
}

/// Looks the files of a dataset up, block by block, and digests them.
pub(super) struct Census {
    root: PathBuf,
    block: Vec<(String, Kind, PathBuf)>,
    sizes: blake3::Hasher,
    times: blake3::Hasher,
    files: usize,
}

/// What a file is, which decides how a change is noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An image, or a file of several.
    Images,
    /// A list of images or of names, compared by its content.
    List,
}

impl Census {
    /// A census of the files below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            block: Vec::new(),
            sizes: blake3::Hasher::new(),
            times: blake3::Hasher::new(),
            files: 0,
        }
    }

    /// Adds what a listing has found, unless it is no file of its own; returns a block of files whenever one is full, and
    /// nothing otherwise.
    ///
    /// # Errors
    /// A list that cannot be read, errors of an object store.
    pub fn add(&mut self, found: &Found) -> Result<Vec<FileRow>> {
        let (kind, path) = match found {
            Found::Image(record) if record.source.at == At::Whole => {
                (Kind::Images, path_of(&record.source.uri))
            }
            Found::File(path) => (Kind::Images, path.clone()),
            Found::List(path) => (Kind::List, path.clone()),
            Found::Image(_) | Found::LeftOut(_) | Found::Note(_) => return Ok(Vec::new()),
        };
        self.block.push((relative(&path, &self.root), kind, path));
        match self.block.len() {
            BLOCK => self.look_up(),
            _ => Ok(Vec::new()),
        }
    }

    /// The files that [`Census::add`] has not returned, and the record.
    ///
    /// # Errors
    /// As [`Census::add`].
    pub fn finish(mut self) -> Result<(Vec<FileRow>, DataRecord)> {
        let rest = self.look_up()?;
        let record = DataRecord {
            root: canonical(&self.root),
            files: self.files,
            sizes: self.sizes.finalize().to_hex()[..32].to_string(),
            times: self.times.finalize().to_hex()[..32].to_string(),
            listed: now(),
            skipped: None,
        };
        Ok((rest, record))
    }

    fn look_up(&mut self) -> Result<Vec<FileRow>> {
        let block = std::mem::take(&mut self.block);
        let urls: Vec<PathBuf> = (block.iter())
            .filter(|(_, _, path)| is_url(path))
            .map(|(_, _, path)| path.clone())
            .collect();
        let failed = |source| PipelineError::File {
            path: self.root.display().to_string(),
            action: "cannot look up the files of the dataset",
            source,
        };
        let remote = facts_of(&urls).map_err(failed)?;
        let remote: HashMap<PathBuf, Option<Facts>> = urls.into_iter().zip(remote).collect();
        let rows: Vec<FileRow> = block
            .into_par_iter()
            .map(|(name, kind, path)| match (kind, remote.get(&path)) {
                (Kind::List, _) => list_row(name, &path).map_err(failed),
                (_, Some(facts)) => Ok(FileRow {
                    name,
                    bytes: facts.as_ref().map(|facts| facts.size),
                    modified: facts.as_ref().map(|facts| facts.stamp),
                }),
                (_, None) => Ok(file_row(name, &path)),
            })
            .collect::<Result<_>>()?;
        for row in &rows {
            let number = |value: Option<u64>| value.map_or(u64::MAX, |value| value).to_le_bytes();
            for hasher in [&mut self.sizes, &mut self.times] {
                hasher.update(&(row.name.len() as u64).to_le_bytes());
                hasher.update(row.name.as_bytes());
                hasher.update(&number(row.bytes));
            }
            self.times.update(&number(row.modified));
        }
        self.files += rows.len();
        Ok(rows)
    }
}

/// Size and time of a file.
fn file_row(name: String, path: &Path) -> FileRow {
    let found = std::fs::metadata(path).ok();
    let modified = found.as_ref().and_then(|found| found.modified().ok());
    let since = modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    FileRow {
        name,
        bytes: found.map(|found| found.len()),
        modified: since.and_then(|since| u64::try_from(since.as_nanos()).ok()),
    }
}

/// The row of a list: instead of its size a hash of its content, which is what matters of it, and no time.
fn list_row(name: String, path: &Path) -> std::io::Result<FileRow> {
    let mut first = [0; 8];
    first.copy_from_slice(&content_hash(path)?.as_bytes()[..8]);
    Ok(FileRow {
        name,
        bytes: Some(u64::from_le_bytes(first)),
        modified: None,
    })
}

/// The files of a dataset that is being planned: the census, and the parts of their list in a temporary file.
pub(super) struct ListedFiles {
    census: Census,
    left_out: LeftOutCounts,
    rows: Vec<FileRow>,
    parts: Blocks,
}

impl ListedFiles {
    /// No file yet, of the dataset below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            census: Census::new(root),
            left_out: LeftOutCounts::default(),
            rows: Vec::new(),
            parts: Blocks::new(),
        }
    }

    /// Adds what a listing has found.
    ///
    /// # Errors
    /// As [`Census::add`]; a temporary file that cannot be written.
    pub fn add(&mut self, found: &Found) -> Result<()> {
        if let Found::LeftOut(entry) = found {
            self.left_out.add(entry);
        }
        let rows = self.census.add(found)?;
        self.take(rows, PART)
    }

    /// The record, and the parts of the list.
    ///
    /// # Errors
    /// As [`ListedFiles::add`].
    pub fn finish(mut self) -> Result<(DataRecord, Blocks)> {
        let census = std::mem::replace(&mut self.census, Census::new(PathBuf::new()));
        let root = census.root.clone();
        let (rows, mut record) = census.finish()?;
        record.skipped = Some(skipped(&self.left_out, &root));
        self.take(rows, 1)?;
        Ok((record, self.parts))
    }

    /// Keeps rows, and writes those that have come together if they are at least `enough`.
    fn take(&mut self, rows: Vec<FileRow>, enough: usize) -> Result<()> {
        self.rows.extend(rows);
        if self.rows.len() >= enough {
            let bytes = write_files(&self.rows, &FileMeta::default())?;
            self.parts.push(&bytes)?;
            self.rows.clear();
        }
        Ok(())
    }
}

fn skipped(left_out: &LeftOutCounts, root: &Path) -> Vec<Skipped> {
    let groups = left_out.groups().into_iter();
    groups
        .map(|group| Skipped {
            reason: group.reason,
            count: group.count,
            examples: (group.examples.iter())
                .map(|path| shown(relative(path, root)))
                .collect(),
        })
        .collect()
}

/// Path of a part of a dataset's list in the run directory.
pub(super) fn list_part(dataset: &str, number: usize) -> String {
    format!("_run/files/dataset={dataset}/part-{number:05}.parquet")
}

/// Writes the parts of a dataset's list. Another planner may have written them; that has listed the same names and sizes,
/// or [`super::make`] has refused one of the two.
///
/// # Errors
/// A run directory that cannot be written.
pub(super) fn write_list(job: &Job, dataset: &str, parts: &mut Blocks) -> Result<()> {
    let mut number = 0;
    parts.for_each(|bytes| {
        let path = list_part(dataset, number);
        number += 1;
        let _: clipood_store::Created = job.places.run.store().create(&path, bytes)?;
        Ok(())
    })
}

/// A path relative to `root`, as text with forward slashes.
pub(super) fn relative(path: &Path, root: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let names = below.iter().map(|name| name.to_string_lossy());
    names.collect::<Vec<_>>().join("/")
}

/// The absolute path without links; as it is if it cannot be looked up.
pub(super) fn canonical(path: &Path) -> String {
    if is_url(path) {
        return path.display().to_string();
    }
    let found = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    found
        .unwrap_or_else(|_| path.to_path_buf())
        .display()
        .to_string()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

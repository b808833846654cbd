//! What lies in a folder that no manifest describes: manifests that may fit, and what a manifest lists, in counts.

mod guess;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clipood_core::DatasetManifest;
use rayon::prelude::*;

use crate::decode::{DecodeLimits, decode_safely, format_name};
use crate::error::DataError;
use crate::layouts::visit_dataset;
use crate::left_out::LeftOutCounts;
use crate::record::{Found, Split};
use crate::source::{At, Roots, Source, path_here, read};

pub use self::guess::{Guess, candidates};

/// Files that are looked up together.
const BLOCK: usize = 4096;
/// Sources that are kept for [`sample`]: every one of a small dataset, every second, fourth ... one of larger ones.
const KEPT: usize = 512;
/// Missing files that are kept by name.
const NAMED: usize = 1000;

/// The images that a manifest lists, in counts.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Number of images of each split.
    pub splits: BTreeMap<Split, usize>,
    /// Number of images of each class: by label, or by name where there is no label.
    pub classes: BTreeMap<(Option<u32>, String), u64>,
    /// Bytes of all images that are files of their own.
    pub bytes: u64,
    /// Images that are files of their own, and exist.
    pub files: usize,
    /// Listed images whose files do not exist, at most 1000 of them, in the order of the list.
    pub missing: Vec<PathBuf>,
    /// How many do not exist.
    pub missing_count: usize,
    /// Images whose files are empty, at most 1000 of them.
    pub empty: Vec<PathBuf>,
    /// How many are empty.
    pub empty_count: usize,
    /// What is left out.
    pub left_out: LeftOutCounts,
    /// What a user should know about the dataset.
    pub notes: Vec<String>,
    /// Images all over the dataset.
    sources: Vec<Source>,
}

impl Census {
    /// Number of images.
    pub fn images(&self) -> usize {
        self.splits.values().sum()
    }

    /// Number of images of a split.
    pub fn of(&self, split: Split) -> usize {
        self.splits.get(&split).copied().unwrap_or(0)
    }

    fn look_up(&mut self, block: &mut Vec<PathBuf>) {
        let found: Vec<(PathBuf, Option<u64>)> = std::mem::take(block)
            .into_par_iter()
            .map(|path| {
                let found = std::fs::metadata(&path).ok().map(|found| found.len());
                (path, found)
            })
            .collect();
        for (path, bytes) in found {
            let Some(bytes) = bytes else {
                self.missing_count += 1;
                if self.missing.len() < NAMED {
                    self.missing.push(path);
                }
                continue;
            };
            self.files += 1;
            self.bytes += bytes;
            if bytes == 0 {
                self.empty_count += 1;
                if self.empty.len() < NAMED {
                    self.empty.push(path);
                }
            }
        }
    }
}

/// Lists a dataset and looks up its files. The number of images may be any; whoever asks compares it.
///
/// # Errors
/// As [`visit_dataset`], but for another number of images than `expected_images`.
pub fn census(
    manifest: &DatasetManifest,
    data_root: &std::path::Path,
) -> Result<Census, DataError> {
    let manifest = DatasetManifest {
        expected_images: None,
        ..manifest.clone()
    };
    let mut census = Census::default();
    let mut block = Vec::with_capacity(BLOCK);
    let (mut seen, mut step) = (0_usize, 1);
    visit_dataset(&manifest, data_root, &mut |found| {
        match found {
            Found::Image(record) => {
                *census.splits.entry(record.split).or_default() += 1;
                let name = record.class_name.unwrap_or_default();
                *census.classes.entry((record.label, name)).or_default() += 1;
                if let (At::Whole, Some(path)) = (&record.source.at, path_here(&record.source)) {
                    block.push(path);
                    if block.len() == BLOCK {
                        census.look_up(&mut block);
                    }
                }
                if seen.is_multiple_of(step) {
                    census.sources.push(record.source);
                }
                seen += 1;
                if census.sources.len() == 2 * KEPT {
                    let mut place = 0;
                    census.sources.retain(|_| {
                        place += 1;
                        place % 2 == 1
                    });
                    step *= 2;
                }
            }
            Found::LeftOut(entry) => census.left_out.add(&entry),
            Found::Note(note) => census.notes.push(note),
            Found::File(_) | Found::List(_) => {}
        }
        Ok::<(), DataError>(())
    })?;
    census.look_up(&mut block);
    Ok(census)
}

/// What some images all over a dataset are.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Number of images that were read.
    pub images: usize,
    /// Number of each format, such as `JPEG`.
    pub formats: BTreeMap<&'static str, usize>,
    /// Width and height of those that could be decoded, sorted by their product.
    pub sizes: Vec<(u32, u32)>,
    /// Images that could not be read or decoded, with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Reads and decodes at most `images` images all over a dataset.
pub fn sample(census: &Census, images: usize) -> Sample {
    let every = census.sources.len().div_ceil(images.max(1)).max(1);
    // What does not exist, or is empty, is counted already.
    let is_there = |source: &&Source| {
        let found = path_here(source).map(std::fs::metadata);
        found.is_none_or(|found| found.is_ok_and(|found| found.len() > 0))
    };
    let chosen = census.sources.iter().step_by(every);
    let chosen: Vec<&Source> = chosen.filter(is_there).collect();
    let outcomes: Vec<_> = chosen
        .par_iter()
        .map(|source| {
            let bytes = read(source, &Roots::default()).map_err(|e| e.to_string())?;
            let size = |image: &crate::RgbImage| (image.width, image.height);
            let decoded = decode_safely(&bytes, &DecodeLimits::default(), size);
            decoded
                .map(|size| (format_name(&bytes).unwrap_or("other"), size))
                .map_err(|e| e.to_string())
        })
        .collect();
    let mut sample = Sample {
        images: chosen.len(),
        ..Sample::default()
    };
    for (source, outcome) in chosen.into_iter().zip(outcomes) {
        match outcome {
            Ok((format, size)) => {
                *sample.formats.entry(format).or_default() += 1;
                sample.sizes.push(size);
            }
            Err(reason) => sample.unreadable.push((source.to_string(), reason)),
        }
    }
    let area = |(width, height): &(u32, u32)| u64::from(*width) * u64::from(*height);
    sample.sizes.sort_by_key(area);
    sample
}

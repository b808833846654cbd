//! Notes of the images that a process is decoding, so that an image that kills the process is found and put into
//! quarantine.
//!
//! A panic of a decoder is caught, but an abort, a stack overflow or the out-of-memory killer ends the process. So
//! before a worker decodes images of a unit it writes a note that names them, and removes the note when they are
//! decoded. A note that exists at the next start of the same worker means that the process died: that range is then
//! decoded in two halves, each with its own note, until a single image is left on which the process dies repeatedly. A
//! process that is killed from outside leaves notes as well. They cause smaller ranges, and the loss of an image only
//! if the process is killed three times while that image is decoded alone.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use clipood_store::{Created, Store};
use serde_json::json;

use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::plan::PlannedImage;
use crate::tables::QuarantineRow;

/// Folder of the notes in a run directory.
const FOLDER: &str = "_run/attempts";
/// Number of deaths on a single image after which it is left out.
const DEATHS: usize = 3;

/// A part of a unit's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Decode these, by position.
    Decode(Range<usize>),
    /// Leave this one out: the process died on it.
    Leave(usize),
}

/// The notes that earlier processes of this worker have left.
pub struct Attempts<'a> {
    store: &'a Store,
    worker: &'a str,
    /// By unit, the ranges of images that were being decoded.
    deaths: BTreeMap<String, Vec<Range<usize>>>,
}

impl<'a> Attempts<'a> {
    /// Reads the notes of this worker by one listing. Notes of other workers may belong to running processes.
    ///
    /// # Errors
    /// A run directory that cannot be listed.
    pub fn read(job: &'a Job) -> Result<Self> {
        let store = job.places.run.store();
        let worker = job.places.run.ledger().worker();
        let mut deaths: BTreeMap<String, Vec<Range<usize>>> = BTreeMap::new();
        for object in store.list(FOLDER)? {
            let name = object.path.strip_prefix(FOLDER).unwrap_or_default();
            if let Some((unit, range)) = parse(name, worker) {
                deaths.entry(unit).or_default().push(range);
            }
        }
        Ok(Self {
            store,
            worker,
            deaths,
        })
    }

    /// How to decode the `images` images of a unit.
    pub fn pieces(&self, unit: &str, images: usize) -> Vec<Piece> {
        let deaths = self.deaths.get(unit).map(Vec::as_slice).unwrap_or_default();
        let mut pieces = Vec::new();
        split(0..images, deaths, &mut pieces);
        pieces
    }

    /// Writes a note that images are being decoded; returns its path for [`Attempts::end`].
    ///
    /// # Errors
    /// A run directory that cannot be written.
    pub fn begin(
        &self,
        unit: &str,
        images: &[PlannedImage],
        range: &Range<usize>,
    ) -> Result<String> {
        let died = self.deaths.get(unit).map_or(0, |deaths| {
            deaths.iter().filter(|death| *death == range).count()
        });
        let path = format!(
            "{FOLDER}/{unit}/{}.{}-{}.{died}.json",
            self.worker, range.start, range.end
        );
        let keys: Vec<&str> = images.iter().map(|image| image.key.as_str()).collect();
        let note = json!({
            "process": std::process::id(),
            "first": keys.first(),
            "last": keys.last(),
        });
        // An existing note belongs to another process with the same worker name.
        let _: Created = self.store.create(&path, Bytes::from(note.to_string()))?;
        Ok(path)
    }

    /// Removes a note.
    ///
    /// # Errors
    /// A run directory that cannot be written.
    pub fn end(&self, path: &str) -> Result<()> {
        self.store.delete(path).map_err(PipelineError::from)
    }
}

/// The reason of an image that [`Piece::Leave`] names.
pub fn process_killed(image: &PlannedImage) -> QuarantineRow {
    QuarantineRow {
        image_key: image.key.clone(),
        uri: clipood_core::stored(&image.path()),
        stage: "extract".to_string(),
        error_kind: "process_killed".to_string(),
        message: format!(
            "the process died {DEATHS} times while it decoded this image alone; docs/RELIABILITY.md says how to try it again"
        ),
        content_hash: image.content_hash.clone(),
    }
}

/// Halves the ranges on which the process died, and leaves a single image out after [`DEATHS`] deaths.
fn split(range: Range<usize>, deaths: &[Range<usize>], pieces: &mut Vec<Piece>) {
    let died = deaths.iter().filter(|death| **death == range).count();
    if died > 0 && range.len() > 1 {
        let middle = range.start + range.len() / 2;
        split(range.start..middle, deaths, pieces);
        split(middle..range.end, deaths, pieces);
    } else if died >= DEATHS {
        pieces.push(Piece::Leave(range.start));
    } else {
        pieces.push(Piece::Decode(range));
    }
}

/// Unit and range of the note `/<unit>/<worker>.<start>-<end>.<deaths>.json`, if it is this worker's.
fn parse(name: &str, worker: &str) -> Option<(String, Range<usize>)> {
    let (unit, note) = name.strip_prefix('/')?.split_once('/')?;
    let rest = note.strip_suffix(".json")?.strip_prefix(worker)?;
    let (range, _) = rest.strip_prefix('.')?.split_once('.')?;
    let (start, end) = range.split_once('-')?;
    Some((unit.to_string(), start.parse().ok()?..end.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadly_image_is_found_and_nothing_else_is_left_out() {
        for deadly in 0..13 {
            let mut deaths = Vec::new();
            let mut restarts = 0;
            let left = loop {
                let mut pieces = Vec::new();
                split(0..13, &deaths, &mut pieces);
                let covered: usize = pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Decode(range) => range.len(),
                        Piece::Leave(_) => 1,
                    })
                    .sum();
                assert_eq!(covered, 13);
                let fatal = pieces.iter().find_map(|piece| match piece {
                    Piece::Decode(range) if range.contains(&deadly) => Some(range.clone()),
                    _ => None,
                });
                match fatal {
                    Some(range) => deaths.push(range),
                    None => break pieces,
                }
                restarts += 1;
            };
            let named: Vec<&Piece> = left
                .iter()
                .filter(|piece| matches!(piece, Piece::Leave(_)))
                .collect();
            assert_eq!(named, [&Piece::Leave(deadly)]);
            assert!(restarts <= 4 + DEATHS, "{restarts} restarts");
        }
    }

    #[test]
    fn notes_of_others_are_not_read() {
        let parsed = parse("/abc/worker-1.4-8.0.json", "worker-1");
        assert_eq!(parsed, Some(("abc".to_string(), 4..8)));
        for other in [
            "/abc/worker-1.4-8.0.json#1",
            "/abc/worker-11.4-8.0.json",
            "/abc/worker-2.4-8.0.json",
            "/abc/worker-1.4.0.json",
            "abc",
        ] {
            assert_eq!(parse(other, "worker-1"), None, "{other}");
        }
    }
}

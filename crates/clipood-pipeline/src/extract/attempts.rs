//! Notes of the images that a process is decoding, so that an image that kills the process is found and put into
//! quarantine.
//!
//! A panic of a decoder is caught, but an abort, a stack overflow or the out-of-memory killer ends the process. So
//! before a worker decodes images of a unit it writes a note that names them, and removes the note when they are
//! decoded. A note that exists at the next start of the same worker means that the process died: that range is then
//! decoded in two halves, each with its own note, until a single image is left. A process that is killed from outside
//! leaves notes as well, so a note alone blames no image: it makes the ranges smaller, and a single image that has one
//! is judged by [`super::judge`].

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

    /// The ranges in which to decode the `images` images of a unit.
    pub fn pieces(&self, unit: &str, images: usize) -> Vec<Range<usize>> {
        let deaths = self.deaths.get(unit).map(Vec::as_slice).unwrap_or_default();
        let mut pieces = Vec::new();
        split(0..images, deaths, &mut pieces);
        pieces
    }

    /// How often the process died while it decoded this range.
    pub fn died(&self, unit: &str, range: &Range<usize>) -> usize {
        let deaths = self.deaths.get(unit).map(Vec::as_slice).unwrap_or_default();
        deaths.iter().filter(|death| *death == range).count()
    }

    /// Where the notes of a unit are, for messages.
    pub fn place(&self, unit: &str) -> String {
        self.store.display(&format!("{FOLDER}/{unit}"))
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
        let died = self.died(unit, range);
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

/// The reason of an image on which processes die: `how`, as in "died by SIGSEGV".
pub fn process_killed(image: &PlannedImage, how: &str) -> QuarantineRow {
    QuarantineRow {
        image_key: image.key.clone(),
        uri: clipood_core::stored(&image.path()),
        stage: "extract".to_string(),
        error_kind: "process_killed".to_string(),
        message: format!(
            "a process that did nothing but decode this image {how}, three times of three; docs/RELIABILITY.md says how to \
             try it again"
        ),
        content_hash: image.content_hash.clone(),
    }
}

/// Halves the ranges on which the process died, down to single images.
fn split(range: Range<usize>, deaths: &[Range<usize>], pieces: &mut Vec<Range<usize>>) {
    if range.len() > 1 && deaths.contains(&range) {
        let middle = range.start + range.len() / 2;
        split(range.start..middle, deaths, pieces);
        split(middle..range.end, deaths, pieces);
    } else {
        pieces.push(range);
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
    fn a_deadly_image_is_soon_alone() {
        for deadly in 0..13 {
            let mut deaths: Vec<Range<usize>> = Vec::new();
            let alone = deadly..deadly + 1;
            while !deaths.contains(&alone) {
                let mut pieces = Vec::new();
                split(0..13, &deaths, &mut pieces);
                let covered: Vec<usize> = pieces.iter().cloned().flatten().collect();
                assert_eq!(covered, (0..13).collect::<Vec<_>>());
                let fatal = pieces.into_iter().find(|piece| piece.contains(&deadly));
                deaths.push(fatal.unwrap());
            }
            assert!(deaths.len() <= 5, "{} restarts", deaths.len());
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

//! The report of a run: a short table on the console, and a page in the run directory.
//!
//! `regions` has its own page of single images, and their part of a run's page.
//!
//! The order is data (`scored`, `map`, `training`: plain structs read from the tables), figures (`figures`: SVG, one file
//! each), and the page (`page`: templates, style and script as files). `sections` puts them together; `bounds` has every limit.

mod bars;
mod bounds;
mod compare;
mod console;
mod curve_points;
mod figures;
mod headline;
mod map;
mod page;
mod published;
mod regions;
mod scored;
mod sections;
mod sheet;
mod svg;
mod table;
mod thumbnails;
mod training;
mod views;
mod warnings;
mod zero_shot;

use bytes::Bytes;
use clipood_store::Error as StoreError;

pub use self::bars::bars;
pub use self::compare::{Comparison, compare_runs};
pub use self::console::{console, notes};
pub use self::published::{
    PUBLISHED_NOTE, keep_published, kept_published, published, published_table, to_keep,
};
pub use self::regions::{RegionsPage, SeenImage};
pub use self::sheet::{Sheet, SheetGroup, SheetImage};
pub use self::table::{Cell, Spread, Table};
pub use self::views::{By, View, report_table};
pub use self::zero_shot::ZeroShotPage;

use self::sections::run_page;
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::metrics::{Metrics, read_metrics};

/// Path of the page, relative to the run directory.
pub const PAGE: &str = "report/index.html";

/// Before the hash of a page, in its last line.
const SEAL: &str = "\n<!-- BLAKE3 of the lines above: ";

/// Writes `report/index.html` into the run directory.
///
/// # Errors
/// Tables, features or prompts that are damaged; a run directory that cannot be written.
pub fn write_page(job: &Job, metrics: Option<&Metrics>) -> Result<()> {
    let page = sealed(run_page(job, metrics)?.html()?);
    let store = job.places.run.store();
    // The page is derived from the tables; it is written only if it has changed.
    if store.get(PAGE)?.as_deref() != Some(page.as_bytes()) {
        store.put(PAGE, Bytes::from(page))?;
    }
    Ok(())
}

/// A page with its hash in a comment.
fn sealed(page: String) -> String {
    let hash = blake3::hash(page.as_bytes()).to_hex();
    format!("{page}{SEAL}{hash} -->\n")
}

/// Whether the page is as it was written.
fn is_whole(page: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(page) else {
        return false;
    };
    let Some((page, seal)) = text.rsplit_once(SEAL) else {
        return false;
    };
    let hash = blake3::hash(page.as_bytes()).to_hex();
    seal.strip_suffix(" -->\n") == Some(hash.as_str())
}

/// The page of a run as it stands, finished or not, with the files of its figures (SVG) and tables (CSV): pairs of a name
/// and contents. `index.html` is the first.
///
/// # Errors
/// Tables, features or prompts that are damaged.
pub fn page_files(job: &Job) -> Result<Vec<(String, String)>> {
    let metrics = read_metrics(job.places.run.store())?;
    let page = run_page(job, metrics.as_ref())?;
    let mut files = vec![("index.html".to_string(), page.html()?)];
    files.extend(page.files());
    Ok(files)
}

/// Writes the page of a finished run again if it is gone, damaged, or of an earlier version. A run directory that may only be read stays as it is.
///
/// # Errors
/// As [`write_page`].
pub fn ensure_page(job: &Job, metrics: &Metrics) -> Result<()> {
    let page = job.places.run.store().get(PAGE)?;
    if page.is_some_and(|page| is_whole(&page)) {
        return Ok(());
    }
    match write_page(job, Some(metrics)) {
        // To show what is finished needs no permission to write.
        Err(PipelineError::Store(StoreError::Denied { .. })) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_with_a_flipped_bit_is_not_whole() {
        let page = sealed("<!doctype html>\n<p>a page</p>".to_string()).into_bytes();
        assert!(is_whole(&page));
        for byte in 0..page.len() {
            let mut flipped = page.clone();
            flipped[byte] ^= 1;
            assert!(!is_whole(&flipped), "byte {byte}");
        }
        assert!(!is_whole(b"") && !is_whole(b"<!doctype html>\n"));
    }
}

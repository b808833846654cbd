//! The source of the engine in stage `extract`: decodes the images of the units.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::attempts::{Attempts, Piece, process_killed};
use super::decode::{Views, views_of};
use super::units::ExtractUnit;
use crate::encode::{BatchSink, UnitSink, in_order};
use crate::error::Result;
use crate::job::Job;
use crate::plan::PlannedImage;
use crate::tables::QuarantineRow;

/// The images of a unit.
#[derive(Debug)]
pub(super) struct UnitEnd {
    /// All its images, in key order.
    pub images: Arc<[PlannedImage]>,
    /// Those that could not be read.
    pub quarantined: Vec<QuarantineRow>,
}

/// Decodes the units of `pending` that `turns` selects, one after the other, and sends their views in key order. The
/// images of a unit are decoded in parallel.
///
/// # Errors
/// An interruption, a run directory that cannot be read or written, an image that has changed since it was planned.
pub(super) fn decode_units(
    job: &Job,
    pending: &[&ExtractUnit],
    turns: impl Iterator<Item = Result<usize>>,
    sink: &BatchSink<'_, UnitEnd>,
) -> Result<()> {
    let attempts = Attempts::read(job)?;
    for turn in turns {
        let number = turn?;
        let unit = pending[number];
        let _span = tracing::debug_span!("decode", unit = unit.key, images = unit.images).entered();
        let images = unit.list(job)?;
        let mut decoding = Decoding {
            job,
            unit,
            images: &images,
            // What fills two batches: one that is being filled and one ahead of it.
            ahead: (2 * sink.full() / unit.views.len()).max(2),
            sink: sink.begin(number),
            quarantined: Vec::new(),
        };
        for piece in attempts.pieces(&unit.key, images.len()) {
            let goes_on = match piece {
                Piece::Decode(range) => decoding.range(&attempts, range)?,
                Piece::Leave(image) => {
                    let row = process_killed(&images[image]);
                    decoding.quarantined.push(row);
                    true
                }
            };
            if !goes_on {
                return Ok(());
            }
        }
        let Decoding {
            sink, quarantined, ..
        } = decoding;
        let end = UnitEnd {
            images: images.clone(),
            quarantined,
        };
        if !sink.end(end) {
            return Ok(());
        }
    }
    Ok(())
}

/// A unit whose images are being decoded.
struct Decoding<'a> {
    job: &'a Job,
    unit: &'a ExtractUnit,
    images: &'a [PlannedImage],
    /// Number of images that are fetched or decoded at the same time.
    ahead: usize,
    sink: UnitSink<'a, UnitEnd>,
    quarantined: Vec<QuarantineRow>,
}

impl Decoding<'_> {
    /// Decodes some images under a note of [`Attempts`]; `false` if there is no receiver any more.
    fn range(&mut self, attempts: &Attempts<'_>, range: Range<usize>) -> Result<bool> {
        let key = &self.unit.key;
        let note = attempts.begin(key, &self.images[range.clone()], &range)?;
        if range.len() == 1 {
            let image = &self.images[range.start];
            let views = views(self.job, self.unit, image, fetch(image));
            // The note is removed before the views are sent: a kill while waiting for a slow device must not count for
            // this image.
            attempts.end(&note)?;
            return Ok(self.add(range.start, views?));
        }
        let decoded = self.in_parallel(range);
        attempts.end(&note)?;
        decoded
    }

    fn in_parallel(&mut self, range: Range<usize>) -> Result<bool> {
        let (job, unit) = (self.job, self.unit);
        let mut image = range.start;
        let decode = |image: &&PlannedImage, read| views(job, unit, image, read);
        let fetch = |image: &&PlannedImage| fetch(image);
        let images = &self.images[range];
        in_order(images, self.ahead, fetch, decode, |views| {
            job.worker.interrupt.check()?;
            let goes_on = self.add(image, views?);
            image += 1;
            Ok(goes_on)
        })
    }

    /// Sends the views of an image, given by its position; `false` if there is no receiver any more.
    fn add(&mut self, image: usize, views: Views) -> bool {
        match views {
            Err(row) => {
                self.quarantined.push(*row);
                true
            }
            Ok(pixels) => {
                let mut views = self.unit.views.iter().zip(pixels);
                views.all(|(view, pixels)| self.sink.add((image, *view), &pixels))
            }
        }
    }
}

fn fetch(image: &PlannedImage) -> io::Result<Vec<u8>> {
    clipood_data::read(&image.source, &image.roots)
}

fn views(
    job: &Job,
    unit: &ExtractUnit,
    image: &PlannedImage,
    read: io::Result<Vec<u8>>,
) -> Result<Views> {
    let recipe = &job.experiment.recipe;
    views_of(
        image,
        read,
        &unit.views,
        recipe.train.crop_scale,
        recipe.data.resize,
        &job.experiment.model.config,
    )
}

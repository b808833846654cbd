//! The source of the engine in stage `extract`: decodes the images of the units.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::attempts::{Attempts, process_killed};
use super::decode::{Views, views_of};
use super::judge::{Verdict, judge, undecided};
use super::staged::{Rows, Staging};
use super::units::ExtractUnit;
use crate::encode::{BatchSink, UnitSink, in_order};
use crate::error::Result;
use crate::job::Job;
use crate::plan::PlannedImage;
use crate::quarantine::Tally;
use crate::tables::QuarantineRow;

/// The images of a unit.
#[derive(Debug)]
pub(super) struct UnitEnd {
    /// All its images, in key order.
    pub images: Arc<[PlannedImage]>,
    /// Those that could not be read.
    pub quarantined: Vec<QuarantineRow>,
    /// What earlier processes have encoded of it.
    pub staged: Rows,
}

/// Decodes the units of `pending` (with their patch features if `local`) that `turns` selects, one after the other, and sends their views in key order. The
/// images of a unit are decoded in parallel.
///
/// # Errors
/// An interruption, a run directory that cannot be read or written, an image that has changed since it was planned, more
/// unreadable images than the recipe allows.
pub(super) fn decode_units(
    job: &Job,
    (pending, local): (&[&ExtractUnit], bool),
    (turns, mut tally): (impl Iterator<Item = Result<usize>>, Tally),
    sink: &BatchSink<'_, UnitEnd>,
) -> Result<()> {
    let attempts = Attempts::read(job)?;
    for turn in turns {
        let number = turn?;
        let unit = pending[number];
        let _span = tracing::debug_span!("decode", unit = unit.key, images = unit.images).entered();
        let images = unit.list(job)?;
        let staged = Staging { job, unit, local }.read(&images)?;
        let mut decoding = Decoding {
            job,
            unit,
            images: &images,
            staged,
            // What fills two batches: one that is being filled and one ahead of it.
            ahead: (2 * sink.full() / unit.views.len()).max(2),
            sink: sink.begin(number),
            tally: &mut tally,
            quarantined: Vec::new(),
        };
        let pieces = attempts.pieces(&unit.key, images.len());
        // After a death nothing waits for a full batch: the process may not live that long.
        let died = pieces.len() > 1;
        for piece in pieces {
            if !decoding.range(&attempts, piece)? || (died && !decoding.sink.flush()) {
                return Ok(());
            }
        }
        let Decoding {
            sink,
            quarantined,
            staged,
            ..
        } = decoding;
        let end = UnitEnd {
            images: images.clone(),
            quarantined,
            staged,
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
    /// What earlier processes have encoded of it.
    staged: Rows,
    /// Number of images that are fetched or decoded at the same time.
    ahead: usize,
    sink: UnitSink<'a, UnitEnd>,
    tally: &'a mut Tally,
    quarantined: Vec<QuarantineRow>,
}

impl Decoding<'_> {
    /// Decodes some images under a note of [`Attempts`]; `false` if there is no receiver any more.
    fn range(&mut self, attempts: &Attempts<'_>, range: Range<usize>) -> Result<bool> {
        let key = &self.unit.key;
        if range.clone().all(|image| self.is_staged(image)) {
            return Ok(true);
        }
        let died = attempts.died(key, &range);
        if range.len() == 1 && died > 0 {
            return self.suspected(attempts, range.start, died);
        }
        let note = attempts.begin(key, &self.images[range.clone()], &range)?;
        if range.len() == 1 {
            let image = &self.images[range.start];
            let views = views(self.job, self.unit, image, fetch(image));
            // The note is removed before the views are sent: a kill while waiting for a slow device must not count for
            // this image.
            attempts.end(&note)?;
            return self.add(range.start, views?);
        }
        let decoded = self.in_parallel(range);
        attempts.end(&note)?;
        decoded
    }

    /// Decodes an image that was alone in work when processes died, if it is not the image that kills them.
    fn suspected(&mut self, attempts: &Attempts<'_>, number: usize, died: usize) -> Result<bool> {
        let (job, image) = (self.job, &self.images[number]);
        let name = image.path().display().to_string();
        let notes = attempts.place(&self.unit.key);
        let bytes = fetch(image);
        if let Ok(bytes) = &bytes {
            let side = job.experiment.model.config.image.size;
            let verdict = match &job.worker.judge {
                Some(program) => judge(program, bytes, side, &job.worker.interrupt)?,
                None => {
                    Verdict::Unknown("was not tried, for there is no program for it".to_string())
                }
            };
            match verdict {
                Verdict::Healthy => job.worker.reporting.say(&format!(
                    "{name} was in work when a process died ({died} times), and is healthy: it was decoded in a process of its \
                     own; processes are killed from outside, or have too little memory"
                )),
                Verdict::Deadly(how) => {
                    let row = process_killed(image, &how);
                    return self.add(number, Err(Box::new(row)));
                }
                Verdict::Unknown(why) => return Err(undecided(&name, &why, &notes)),
            }
        }
        // Without a note: the image is known not to kill, whoever kills this process now.
        let views = views(job, self.unit, image, bytes)?;
        self.add(number, views)
    }

    /// Whether all views of an image were encoded by earlier processes.
    fn is_staged(&self, image: usize) -> bool {
        let mut views = self.unit.views.iter();
        views.all(|view| self.staged.contains_key(&(image, *view)))
    }

    fn in_parallel(&mut self, range: Range<usize>) -> Result<bool> {
        let (job, unit) = (self.job, self.unit);
        let all = self.images;
        let open: Vec<usize> = range.filter(|image| !self.is_staged(*image)).collect();
        let decode = |image: &&usize, read| views(job, unit, &all[**image], read);
        let fetch = |image: &&usize| fetch(&all[**image]);
        let mut numbers = open.iter();
        in_order(&open, self.ahead, fetch, decode, |views| {
            job.worker.interrupt.check()?;
            // The results come in the order of the images.
            let image = numbers.next().copied().unwrap_or_default();
            self.add(image, views?)
        })
    }

    /// Sends the views of an image, given by its position; `false` if there is no receiver any more.
    ///
    /// # Errors
    /// More unreadable images than the recipe allows.
    fn add(&mut self, image: usize, views: Views) -> Result<bool> {
        Ok(match views {
            Err(row) => {
                self.tally.add(&self.unit.key, &row)?;
                self.quarantined.push(*row);
                true
            }
            Ok(pixels) => {
                let mut views = self.unit.views.iter().zip(pixels);
                views.all(|(view, pixels)| self.sink.add((image, *view), &pixels))
            }
        })
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

//! Encoding a list of image files with the engine, with results in the order of the list.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use clipood_clip::model::{Devices, EncodedImages, Model};
use clipood_data::{Roots, Source, read};
use crossbeam_channel::bounded;

use super::batch::{EVAL_VIEW, EncodeEvent};
use super::decode::{Unreadable, eval_view_of};
use super::engine::{BatchSink, Engine};
use super::in_order::in_order;
use super::queue::Clock;
use crate::error::{PipelineError, Result};
use crate::feature_checks::{Variation, check_rows};
use crate::heap::trim_heap;
use crate::interrupt::Interrupt;
use crate::progress::Reporting;

/// Image files per pass of the image tower.
pub const FILE_BATCH: usize = 32;
/// Number of units after which freed memory is returned to the system.
const TRIM_EVERY: usize = 64;

/// Features of one image, before normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedImage {
    /// `[D]`.
    pub global: Vec<f32>,
    /// `[positions, D]`; empty unless the engine makes patch features.
    pub local: Vec<f32>,
}

impl<'a> Engine<'a> {
    /// An engine for image files, in batches of [`FILE_BATCH`], without patch features. A device that fails is reported
    /// on standard error.
    pub fn for_files(model: &'a Model, devices: &'a Devices) -> Self {
        Self {
            model,
            devices,
            local: false,
            full: FILE_BATCH,
            reporting: Reporting::Human,
            interrupt: Interrupt::default(),
        }
    }

    /// The same engine with batches small enough for `images` images to occupy every device.
    #[must_use]
    pub fn spread(mut self, images: usize) -> Self {
        let each = images.div_ceil(self.devices.workers.len().max(1));
        self.full = self.full.min(each).max(1);
        self
    }
}

/// Encodes the evaluation view of every file and calls `each` with its features, or with the reason why it could not be
/// read, in the order of `files`. Memory use does not grow with their number.
///
/// # Errors
/// As [`Engine::run`], and as [`check_rows`] with the path of the image.
pub fn encode_files(
    engine: &Engine<'_>,
    files: &[PathBuf],
    each: impl FnMut(usize, std::result::Result<EncodedImage, Unreadable>) -> Result<()>,
) -> Result<()> {
    let dim = engine.model.config.embed_dim;
    let split = |features: EncodedImages| {
        let rows = features.global.len() / dim.max(1);
        let patches = features.local.len() / rows.max(1);
        let row = |row: usize| EncodedImage {
            global: features.global[row * dim..(row + 1) * dim].to_vec(),
            local: features.local[row * patches..(row + 1) * patches].to_vec(),
        };
        Ok((0..rows).map(row).collect())
    };
    let files: Vec<Source> = files.iter().map(|path| Source::found(path)).collect();
    convert_files(engine, &files, split, each)
}

/// [`encode_files`] with a function `convert` that turns the features of a batch into one value per image.
pub(crate) fn convert_files<T>(
    engine: &Engine<'_>,
    files: &[Source],
    mut convert: impl FnMut(EncodedImages) -> Result<Vec<T>>,
    mut each: impl FnMut(usize, std::result::Result<T, Unreadable>) -> Result<()>,
) -> Result<()> {
    let side = side(engine)?;
    // While one device is slow or has failed, the others continue with later files; at most this many units wait here.
    let window = 6 * engine.devices.workers.len() + 6;
    let (occupy, slots) = bounded::<()>(window);
    let mut waiting: BTreeMap<usize, FileUnit<T>> = BTreeMap::new();
    let mut next = 0;
    let dim = engine.model.config.embed_dim;
    let mut variation = Variation::default();
    let watched = &mut variation;
    let done = engine.run(
        &Clock::default(),
        |sink| decode_files(sink, files, side, || occupy.send(()).is_ok()),
        // Owns `slots`, so that a source that waits for a slot ends with the consumer.
        move |event| {
            match event {
                EncodeEvent::Encoded {
                    unit,
                    rows,
                    global,
                    local,
                    ..
                } => {
                    let path = |row: usize| files[rows[row].0].to_string();
                    check_rows(&global, dim, path)?;
                    watched.add(&global, dim);
                    let values = convert(EncodedImages { global, local })?;
                    if values.len() != rows.len() {
                        return Err(PipelineError::Inconsistent(format!(
                            "features of {} images were encoded, expected {}",
                            values.len(),
                            rows.len()
                        )));
                    }
                    let images = rows.into_iter().map(|(file, _)| file).zip(values);
                    waiting.entry(unit).or_default().images = Some(images.collect());
                }
                EncodeEvent::End { unit, batches, end } => {
                    let waits = waiting.entry(unit).or_default();
                    waits.unreadable = Some(end);
                    if batches == 0 {
                        waits.images = Some(Vec::new());
                    }
                }
            }
            while waiting.get(&next).is_some_and(FileUnit::is_whole) {
                let unit = waiting.remove(&next).unwrap_or_default();
                next += 1;
                for (file, outcome) in unit.outcomes() {
                    each(file, outcome)?;
                }
                if next.is_multiple_of(TRIM_EVERY) {
                    trim_heap();
                }
                // The source occupied a slot before it began the unit.
                let _ = slots.try_recv();
            }
            Ok(())
        },
    );
    if done.is_ok()
        && let Some(problem) = variation.problem()
    {
        let warning = format!("warning: {problem}: check the images and the weights of the model");
        engine.reporting.say(&warning);
    }
    done
}

/// What has arrived of the files of one unit, by their number.
struct FileUnit<T> {
    images: Option<Vec<(usize, T)>>,
    unreadable: Option<Vec<(usize, Unreadable)>>,
}

impl<T> Default for FileUnit<T> {
    fn default() -> Self {
        Self {
            images: None,
            unreadable: None,
        }
    }
}

impl<T> FileUnit<T> {
    fn is_whole(&self) -> bool {
        self.images.is_some() && self.unreadable.is_some()
    }

    /// In the order of the files.
    fn outcomes(self) -> BTreeMap<usize, std::result::Result<T, Unreadable>> {
        let images = self.images.into_iter().flatten();
        let unreadable = self.unreadable.into_iter().flatten();
        let images = images.map(|(file, value)| (file, Ok(value)));
        images
            .chain(unreadable.map(|(file, reason)| (file, Err(reason))))
            .collect()
    }
}

/// Side of the model's images in pixels.
fn side(engine: &Engine<'_>) -> Result<u32> {
    let size = engine.model.config.image.size;
    u32::try_from(size).map_err(|_| {
        let problem = format!("images of {size} x {size} pixels are too large to be decoded");
        PipelineError::Usage(problem)
    })
}

/// A source of the evaluation views, `side` pixels wide and high, of image files: every `sink.full()` files form a unit
/// of one batch (or none), whose end lists the files that could not be read. Files are numbered from 0, in their order.
/// Before each unit `admit` is called, which may wait; `false` ends the source.
///
/// # Errors
/// None: files that cannot be read are not errors.
pub fn decode_files<S: Borrow<Source> + Send>(
    sink: &BatchSink<'_, Vec<(usize, Unreadable)>>,
    files: impl IntoIterator<Item = S>,
    side: u32,
    mut admit: impl FnMut() -> bool,
) -> Result<()> {
    let full = sink.full();
    let mut file = 0;
    let mut current = None;
    let fetch = |source: &S| read(source.borrow(), &Roots::default());
    let decode = |_: &S, read| eval_view_of(read, side, clipood_core::Resize::default());
    // Enough for two batches: the one being filled and the next.
    let goes_on = in_order(files, 2 * full, fetch, decode, |decoded| {
        if current.is_none() {
            if !admit() {
                return Ok(false);
            }
            current = Some((sink.begin(file / full), Vec::new()));
        }
        let Some((unit, unreadable)) = &mut current else {
            return Ok(false);
        };
        match decoded {
            Ok(pixels) if !unit.add((file, EVAL_VIEW), &pixels) => return Ok(false),
            Ok(_) => {}
            Err(reason) => unreadable.push((file, reason)),
        }
        file += 1;
        if !file.is_multiple_of(full) {
            return Ok(true);
        }
        Ok(current.take().is_none_or(|(unit, end)| unit.end(end)))
    })?;
    if goes_on && let Some((unit, unreadable)) = current {
        // There is no receiver only if the run has ended for another reason.
        let _ = unit.end(unreadable);
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Listing a dataset for a plan: the images to score, and those training images that a draw may take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clipood_core::{DatasetManifest, is_url, shown};
use clipood_data::{
    Found, ImageRecord, LeftOutCounts, Source, Split, few_shot_split, visit_dataset,
};

use super::file_shots::FileShots;
use super::files::ListedFiles;
use super::form;
use super::sort::Sorter;
use super::spool::Spool;
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::progress::Reporting;
use crate::tables::ImageRow;

/// The images of one dataset as found in its folders.
pub(super) struct Listed {
    /// In key order.
    pub test: Spool,
    /// In key order; empty if the recipe does not validate.
    pub val: Spool,
    /// Readable names of the classes by label; empty out of distribution.
    pub classes: BTreeMap<u32, String>,
    /// Labels of the classes that have images in `val`.
    pub val_classes: BTreeSet<u32>,
    /// Training images that are in at least one draw: the draws from these are the same as from all training images.
    pub train: Vec<ImageRecord>,
    /// All its files, used or not.
    pub files: ListedFiles,
}

/// The draws from the training images of a class.
pub(super) struct Draws {
    pub seeds: Vec<u64>,
    /// Largest number of images that each draw takes from a class.
    pub images: usize,
    /// The files that name the shots, if they are not drawn.
    pub files: Option<FileShots>,
}

/// The purpose of listing a dataset.
pub(super) enum Serves<'a> {
    /// In-distribution: classes, images to test and to validate on, and draws from the training images.
    Id(&'a Draws),
    /// Out-of-distribution images to test on.
    Ood,
    /// Out-of-distribution images to choose hyperparameters on, whatever their folder is called.
    OodValidation,
}

/// Lists a dataset.
///
/// # Errors
/// As [`list_images`]; no image in the test folders; temporary files that cannot be written.
pub(super) fn list(job: &Job, manifest: &DatasetManifest, serves: &Serves<'_>) -> Result<Listed> {
    let (mut classes, mut val_classes) = (BTreeMap::new(), BTreeSet::new());
    let validates = job.experiment.manifests.validates();
    let (mut test, mut val) = (Sorter::new(&manifest.name), Sorter::new(&manifest.name));
    let mut train = Candidates::default();
    let mut tested = 0;
    let mut take = |mut record: ImageRecord| {
        tested += usize::from(record.split == Split::Test);
        match serves {
            Serves::Id(_) => {
                if let (Some(label), Some(name)) = (record.label, &record.class_name)
                    && !classes.contains_key(&label)
                {
                    classes.insert(label, name.clone());
                }
            }
            Serves::Ood | Serves::OodValidation => record.label = None,
        }
        match (record.split, serves) {
            (Split::Test, Serves::Id(_) | Serves::Ood) => test.push(image_row(record)),
            (Split::Test, Serves::OodValidation) => {
                record.split = Split::Val;
                val.push(image_row(record))
            }
            (Split::Val, Serves::Id(_)) if validates => {
                val_classes.extend(record.label);
                val.push(image_row(record))
            }
            (Split::Train, Serves::Id(draws)) => train.add(record, draws),
            _ => Ok(()),
        }
    };
    let (data, reporting) = (&job.places.data, job.worker.reporting);
    let mut files = ListedFiles::new(manifest.root_in(data));
    visit_images(manifest, data, reporting, &mut |found| {
        files.add(&found)?;
        match found {
            Found::Image(record) => take(record),
            _ => Ok(()),
        }
    })?;
    if tested == 0 {
        return Err(PipelineError::Usage(format!(
            "dataset `{}` has no test image under {}",
            manifest.name,
            shown(&manifest.root)
        )));
    }
    Ok(Listed {
        test: test.finish()?,
        val: val.finish()?,
        classes,
        val_classes,
        train: match serves {
            Serves::Id(draws) => train.finish(draws)?,
            Serves::Ood | Serves::OodValidation => Vec::new(),
        },
        files,
    })
}

/// The training images of each class that may be in a draw.
#[derive(Default)]
struct Candidates {
    by_class: BTreeMap<Option<u32>, Vec<ImageRecord>>,
}

impl Candidates {
    /// Images of a class that are kept beside those of the draws before they are looked through again.
    const SPARE: usize = 256;

    fn add(&mut self, record: ImageRecord, draws: &Draws) -> Result<()> {
        let class = self.by_class.entry(record.label).or_default();
        class.push(record);
        if class.len() >= Self::SPARE + 2 * draws.seeds.len() * draws.images {
            *class = drawn(std::mem::take(class), draws)?;
        }
        Ok(())
    }

    /// Those that are in at least one draw, class by class.
    fn finish(self, draws: &Draws) -> Result<Vec<ImageRecord>> {
        let mut all = Vec::new();
        for class in self.by_class.into_values() {
            all.extend(drawn(class, draws)?);
        }
        Ok(all)
    }
}

/// The training images of one class that are in at least one draw. A draw takes the images whose hashes come first, so
/// that which of them were looked at before does not matter.
///
/// # Errors
/// An image that is listed twice.
fn drawn(mut class: Vec<ImageRecord>, draws: &Draws) -> Result<Vec<ImageRecord>> {
    class.sort_by(|a, b| a.image_key.cmp(&b.image_key));
    if let Some(pair) = class
        .windows(2)
        .find(|pair| pair[0].image_key == pair[1].image_key)
    {
        let key = &pair[0].image_key;
        return Err(PipelineError::Usage(format!("image {key} is listed twice")));
    }
    let mut taken = BTreeSet::new();
    if !class.is_empty() {
        for seed in &draws.seeds {
            let split = few_shot_split("", &class, draws.images, *seed, true)?;
            taken.extend(split.keys().map(String::from));
        }
    }
    let is_named = |record: &ImageRecord| draws.files.as_ref().is_some_and(|f| f.name(record));
    class.retain(|record| taken.contains(&record.image_key) || is_named(record));
    Ok(class)
}

/// A row of the plan, without the shard and the fields that follow from reading the file.
pub(super) fn image_row(record: ImageRecord) -> ImageRow {
    let (offset, length, form) = form::columns(record.source.at);
    ImageRow {
        image_key: record.image_key,
        uri: record.source.uri,
        offset,
        length,
        form,
        split: record.split.name().to_string(),
        label: record.label,
        class_name: record.class_name,
        ..ImageRow::default()
    }
}

/// Lists a dataset whose root may be relative to `data`; draws the images first if it is a demo dataset.
///
/// # Errors
/// Images that cannot be drawn; as [`visit_dataset`].
pub fn list_images(
    manifest: &DatasetManifest,
    data: &Path,
    reporting: Reporting,
) -> Result<Vec<ImageRecord>> {
    let mut records = Vec::new();
    visit_images(manifest, data, reporting, &mut |found| {
        if let Found::Image(record) = found {
            records.push(record);
        }
        Ok(())
    })?;
    records.sort_by(|a, b| a.image_key.cmp(&b.image_key));
    Ok(records)
}

/// Where the images called `keys` lie, by key, and how the listing of the dataset ended, which is as [`visit_dataset`]: images
/// that were listed before an error are found nevertheless. Nothing is drawn, and nothing is kept of the other images.
pub fn find_sources(
    manifest: &DatasetManifest,
    data: &Path,
    keys: &BTreeSet<&str>,
) -> (BTreeMap<String, Source>, Result<()>) {
    let mut sources = BTreeMap::new();
    let end = visit_dataset(manifest, data, &mut |found| {
        if let Found::Image(record) = found
            && keys.contains(record.image_key.as_str())
        {
            sources.insert(record.image_key, record.source);
        }
        Ok(())
    });
    (sources, end)
}

/// Makes sure that the folders of the job's datasets exist on this machine, which may differ from the one that made the
/// plan; those of the demo are drawn.
///
/// # Errors
/// A folder that is missing or cannot be read: one error here is better than one for each of its images.
pub fn open_roots(job: &Job) -> Result<()> {
    for (_, manifest) in job.experiment.manifests.all() {
        draw_demo(manifest, &job.places.data, job.worker.reporting)?;
        let root = manifest.root_in(&job.places.data);
        if is_url(&root) {
            continue;
        }
        std::fs::read_dir(&root).map_err(|source| PipelineError::File {
            path: root.display().to_string(),
            action: "cannot open the folder of the dataset (--data names the folder that relative ones start from)",
            source,
        })?;
    }
    Ok(())
}

/// Draws the demo images if `manifest` belongs to the demo and they do not exist.
///
/// # Errors
/// Images that cannot be written.
pub fn draw_demo(manifest: &DatasetManifest, data: &Path, reporting: Reporting) -> Result<()> {
    if manifest.generator.as_deref() == Some("demo")
        && let Some(trees) = data.join(&manifest.root).parent()
    {
        if !trees.exists() {
            reporting.say("drawing the demo images");
        }
        clipood_demo::ensure_dataset(trees)?;
    }
    Ok(())
}

/// Calls `visit` with what a dataset consists of, as [`visit_dataset`] does, and reports notes and what is left out.
fn visit_images(
    manifest: &DatasetManifest,
    data: &Path,
    reporting: Reporting,
    visit: &mut dyn FnMut(Found) -> Result<()>,
) -> Result<()> {
    draw_demo(manifest, data, reporting)?;
    let mut left_out = LeftOutCounts::default();
    let done = visit_dataset(manifest, data, &mut |found| {
        match &found {
            Found::Note(note) => reporting.say(&format!("{}: {note}", manifest.name)),
            Found::LeftOut(entry) => left_out.add(entry),
            Found::Image(_) | Found::File(_) | Found::List(_) => {}
        }
        visit(found)
    });
    // Reported even if listing fails: it may be the reason.
    report_left_out(reporting, &manifest.name, &left_out);
    done
}

/// Reports what a listing of `whose` folders has left out, with an example. Nothing is said about hidden files alone.
pub fn report_left_out(reporting: Reporting, whose: &str, left_out: &LeftOutCounts) {
    if left_out.is_only_junk() {
        return;
    }
    let first = left_out.first().map(shown).unwrap_or_default();
    reporting.say(&format!("{whose}: {left_out}; the first is {first}"));
}

#[cfg(test)]
mod tests {
    use clipood_data::{At, PlaneSize};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_of_the_plan_keeps_the_source_of_its_image() {
        let row = At::Row {
            column: "image.bytes".to_string(),
            row: 1 << 40,
        };
        let planes = At::Planes {
            start: 3074,
            size: PlaneSize {
                width: 32,
                height: 16,
            },
        };
        for at in [At::Whole, At::Bytes(512..2048), row, planes] {
            let source = Source {
                uri: "/data/set/images.tar".to_string(),
                at,
            };
            let row = image_row(ImageRecord {
                image_key: "set/test/a/1.png".to_string(),
                source: source.clone(),
                split: Split::Test,
                label: None,
                class_name: None,
            });
            assert_eq!(super::super::source_of(&row).unwrap(), source);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn draws_from_what_is_kept_are_those_from_all(
            images in 1..40_usize,
            shots in 1..8_usize,
            held_out in 0..8_usize,
            seeds in proptest::collection::vec(any::<u64>(), 1..4),
        ) {
            let class: Vec<ImageRecord> = (0..images)
                .map(|i| ImageRecord {
                    image_key: format!("set/train/a/{i}.png"),
                    source: Source::whole(""),
                    split: Split::Train,
                    label: Some(0),
                    class_name: Some("a".to_string()),
                })
                .collect();
            let draws = Draws { seeds: seeds.clone(), images: shots + held_out, files: None };
            let kept = drawn(class.clone(), &draws).unwrap();
            // In pieces, backwards.
            let mut pieces = Vec::new();
            for record in class.iter().rev() {
                pieces.push(record.clone());
                pieces = drawn(pieces, &draws).unwrap();
            }
            prop_assert_eq!(&pieces, &kept);
            prop_assert!(kept.len() <= images.min(seeds.len() * draws.images));
            // The first seed holds images out, like validation; the others draw from the rest.
            let both = |mut from: Vec<ImageRecord>| {
                let draw = |from: &[ImageRecord], shots, seed| {
                    few_shot_split("set", from, shots, seed, true).map(|split| split.classes[0].keys.clone()).ok()
                };
                let validation = draw(&from, held_out, seeds[0]);
                let taken: BTreeSet<String> = validation.iter().flatten().cloned().collect();
                from.retain(|record| !taken.contains(&record.image_key));
                let shots: Vec<_> = seeds[1..].iter().map(|seed| draw(&from, shots, *seed)).collect();
                (validation, shots)
            };
            prop_assert_eq!(both(kept), both(class));
        }
    }
}

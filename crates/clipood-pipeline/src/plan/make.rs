//! Making a plan: listing, choosing, hashing, writing. The rows are passed between the steps in temporary files, so
//! that memory does not grow with the number of images.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use clipood_core::shown;
use clipood_data::{ImageRecord, Roots, Source, Split, path_of, read, recognise};
use clipood_store::{Created, Unit, seal_json};
use serde_json::json;

use super::check::{Unread, check_limit, check_recipe, check_shots};
use super::choose::{Chosen, choose, draws};
use super::files::{DATA, DataRecord, ListedFiles, write_list};
use super::list::{Listed, Serves, image_row, list};
use super::overlap::{OVERLAPS, SetOverlap, settle};
use super::spool::{Blocks, Rows, Spool};
use super::texts::check_texts;
use super::write::write_dataset;
use super::{CLASSES, CLASSES_FILE, ClassesFile, STAGE, classes_digest, parse_classes, source_of};
use crate::encode::in_order;
use crate::error::{PipelineError, Result};
use crate::heap::trim_heap;
use crate::job::Job;
use crate::manifests::DatasetRole;
use crate::progress::StageProgress;
use crate::tables::ImageRow;

/// Images that are hashed between two checks for an interruption.
const BLOCK: usize = 1024;
/// Images that are read and not hashed yet.
const HASHED_AHEAD: usize = 64;

/// A plan that is complete and checked, and not written yet.
struct Prepared {
    classes: ClassesFile,
    /// In the order of the manifests.
    datasets: Vec<Rows>,
    files: Vec<(DataRecord, Blocks)>,
    overlaps: Vec<SetOverlap>,
}

/// Lists and hashes all images, then writes the plan.
///
/// Nothing is written to the run directory before everything is hashed and checked, so that an interrupted or rejected
/// plan leaves nothing behind that could contradict images that change afterwards, or another recipe.
pub(super) fn make(job: &Job, units: &[Unit]) -> Result<()> {
    let _span = tracing::info_span!("plan").entered();
    let prepared = prepare(job)?;
    write(job, units, prepared)?;
    trim_heap();
    Ok(())
}

fn prepare(job: &Job) -> Result<Prepared> {
    let experiment = &job.experiment;
    let manifests = &experiment.manifests;
    let draws = draws(job)?;
    let of_id = list(job, &manifests.id, &Serves::Id(&draws))?;
    let chosen = choose(job, &of_id, draws.files.as_ref())?;
    check_texts(experiment, &chosen.classes)?;
    check_recipe(experiment, &chosen)?;
    let mut of_id = Some(take_chosen(of_id, &chosen)?);
    let (mut datasets, mut files) = (Vec::new(), Vec::new());
    for (role, manifest) in manifests.all() {
        let serves = match role {
            DatasetRole::Id => {
                if let Some((rows, listed)) = of_id.take() {
                    datasets.push(rows);
                    files.push(listed.finish()?);
                }
                continue;
            }
            DatasetRole::Ood => Serves::Ood,
            DatasetRole::ValidationOod => Serves::OodValidation,
        };
        let listed = list(job, manifest, &serves)?;
        datasets.push(Rows {
            test: listed.test,
            val: listed.val,
            train: Vec::new(),
        });
        files.push(listed.files.finish()?);
    }
    let mut datasets = hash_all(job, &chosen, datasets)?;
    let names: Vec<(DatasetRole, &str)> = (manifests.all())
        .map(|(role, manifest)| (role, manifest.name.as_str()))
        .collect();
    let overlaps = settle(&mut datasets, &names, experiment.recipe.data.overlap)?;
    for overlap in &overlaps {
        job.worker.reporting.say(&overlap.line());
    }
    let plan = digest(&mut datasets, &files)?;
    Ok(Prepared {
        classes: ClassesFile {
            classes: chosen.classes,
            splits: chosen.splits,
            plan: Some(plan),
        },
        datasets,
        files,
        overlaps,
    })
}

/// Writes a plan. Of several planners at once, the first to write the classes decides; one that has found other images is
/// refused before it writes anything else.
fn write(job: &Job, units: &[Unit], prepared: Prepared) -> Result<()> {
    let Prepared {
        classes,
        datasets,
        files,
        overlaps,
    } = prepared;
    job.places.run.create()?;
    let standing = publish_classes(job, classes)?;
    let manifests = job.experiment.manifests.all();
    let datasets = manifests.zip(units).zip(datasets).zip(files);
    for ((((role, manifest), unit), rows), (record, mut parts)) in datasets {
        write_list(job, &manifest.name, &mut parts)?;
        let mut extra = BTreeMap::from([
            (CLASSES.to_string(), json!(standing)),
            (DATA.to_string(), json!(record)),
        ]);
        if role == DatasetRole::Id && !overlaps.is_empty() {
            extra.insert(OVERLAPS.to_string(), json!(overlaps));
        }
        write_dataset(job, manifest, unit, rows, extra)?;
    }
    job.places.run.ledger().sweep(&["images"])?;
    Ok(())
}

/// Writes the classes if no other planner has; returns the digest of the file that stands.
fn publish_classes(job: &Job, ours: ClassesFile) -> Result<String> {
    let json = serde_json::to_vec_pretty(&ours)
        .map_err(|e| PipelineError::Inconsistent(format!("{CLASSES_FILE}: {e}")))?;
    let store = job.places.run.store();
    let json = Bytes::from(seal_json(json));
    match store.create(CLASSES_FILE, json.clone())? {
        Created::New | Created::Identical => Ok(classes_digest(&json)),
        Created::Existed(found) => {
            let theirs = parse_classes(&found)?;
            // Earlier builds did not record the digest of the images.
            let same_images = theirs.plan.is_none() || theirs.plan == ours.plan;
            match same_images && (&theirs.classes, &theirs.splits) == (&ours.classes, &ours.splits)
            {
                true => Ok(classes_digest(&found)),
                false => Err(PipelineError::Usage(format!(
                    "{}: another process has planned this run from other images than are here; start another run directory, \
                     or remove this one",
                    store.display(CLASSES_FILE)
                ))),
            }
        }
    }
}

/// Digest of all images that the plan uses, and of the names and sizes of all files.
fn digest(datasets: &mut [Rows], files: &[(DataRecord, Blocks)]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut add = |row: &ImageRow| {
        for text in [&row.content_hash, &row.image_key] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        Ok(())
    };
    for (rows, (record, _)) in datasets.iter_mut().zip(files) {
        rows.test.for_each(&mut add)?;
        rows.val.for_each(&mut add)?;
        rows.train.iter().try_for_each(&mut add)?;
        let files = ImageRow {
            content_hash: record.sizes.clone(),
            ..ImageRow::default()
        };
        add(&files)?;
    }
    Ok(hasher.finalize().to_hex()[..32].to_string())
}

/// The images of the chosen classes, those held out for validation, and those that are shots.
fn take_chosen(listed: Listed, chosen: &Chosen) -> Result<(Rows, ListedFiles)> {
    let labels = &chosen.labels;
    let relabel = |row: &mut ImageRow| {
        row.label = row.label.and_then(|label| labels.get(&label).copied());
        row.label.is_some()
    };
    let of_chosen = |images: Spool| -> Result<Spool> {
        if labels.len() == listed.classes.len() && labels.iter().all(|(from, to)| from == to) {
            // The labels of the rows are right already.
            return Ok(images);
        }
        let mut taken = Spool::new();
        for row in images.into_rows()? {
            let mut row = row?;
            if relabel(&mut row) {
                taken.push(row)?;
            }
        }
        Ok(taken)
    };
    let mut rows = Rows {
        test: of_chosen(listed.test)?,
        val: of_chosen(listed.val)?,
        train: Vec::new(),
    };
    let shots: HashSet<&str> = chosen.splits.values().flat_map(|s| s.keys()).collect();
    let mut candidates: Vec<ImageRecord> = listed.train;
    candidates.sort_by(|a, b| a.image_key.cmp(&b.image_key));
    for record in candidates {
        let is_shot = shots.contains(record.image_key.as_str());
        let is_held_out = chosen.held_out.contains(&record.image_key);
        let mut row = image_row(record);
        if !relabel(&mut row) {
            continue;
        }
        if is_held_out {
            row.split = Split::Val.name().to_string();
            rows.val.push(row)?;
        } else if is_shot {
            rows.train.push(row);
        }
    }
    Ok((rows, listed.files))
}

/// Hashes every image, those for validation first: no image may be used both for validation and for testing. Files are
/// compared by their bytes. The images that extraction will certainly put into quarantine are counted here already.
fn hash_all(job: &Job, chosen: &Chosen, datasets: Vec<Rows>) -> Result<Vec<Rows>> {
    let count = |rows: &Rows| rows.test.len() + rows.val.len() + rows.train.len();
    let total: usize = datasets.iter().map(count).sum();
    let mut progress = job
        .worker
        .reporting
        .stage(STAGE, "images hashed", total as u64);
    let mut validated: HashMap<String, String> = HashMap::new();
    let mut checked = Vec::new();
    let names: Vec<&str> = (job.experiment.manifests.all())
        .map(|(_, manifest)| manifest.name.as_str())
        .collect();
    for (mut rows, name) in datasets.into_iter().zip(&names) {
        let mut unread = Unread::default();
        let val = std::mem::replace(&mut rows.val, Spool::new());
        rows.val = hash_spool(job, val, (&mut progress, &mut unread), |row| {
            validated.insert(row.content_hash.clone(), place_of(row));
            Ok(())
        })?;
        check_limit(job, name, &unread, rows.val.len())?;
        checked.push(rows);
    }
    // Images that cannot be read do not count as equal. Extraction will put them into quarantine.
    validated.remove("");
    for (rows, name) in checked.iter_mut().zip(&names) {
        let mut unread = Unread::default();
        let test = std::mem::replace(&mut rows.test, Spool::new());
        rows.test = hash_spool(
            job,
            test,
            (&mut progress, &mut unread),
            |row| match validated.get(&row.content_hash) {
                None => Ok(()),
                Some(twin) => Err(PipelineError::Usage(format!(
                    "{twin} is used for validation, but {} is the same image and is tested; remove it from one of the two",
                    place_of(row)
                ))),
            },
        )?;
        for block in rows.train.chunks_mut(BLOCK) {
            hash_block(job, block, (&mut progress, &mut unread))?;
        }
        check_limit(job, name, &unread, rows.test.len() + rows.train.len())?;
        check_shots(&job.experiment, chosen, &unread)?;
    }
    progress.finish();
    Ok(checked)
}

fn hash_spool(
    job: &Job,
    images: Spool,
    (progress, unread): (&mut StageProgress, &mut Unread),
    mut check: impl FnMut(&ImageRow) -> Result<()>,
) -> Result<Spool> {
    let mut hashed = Spool::new();
    let mut rows = images.into_rows()?;
    loop {
        let mut block: Vec<ImageRow> = rows.by_ref().take(BLOCK).collect::<Result<_>>()?;
        if block.is_empty() {
            return Ok(hashed);
        }
        hash_block(job, &mut block, (progress, unread))?;
        for row in block {
            check(&row)?;
            hashed.push(row)?;
        }
    }
}

/// Where the image of a row lies, for messages.
fn place_of(row: &ImageRow) -> String {
    let file = shown(path_of(&row.uri));
    match (&row.form, row.offset) {
        (Some(_), Some(number)) => format!("{file} (image {}, at {number})", row.image_key),
        (None, Some(offset)) => format!("{file} (image {}, byte {offset})", row.image_key),
        _ => file,
    }
}

/// Hash and size of the bytes of an image, if they could be read, and what is wrong with them.
type Hashed = (Option<(String, u64)>, Option<String>);

fn hash_of(read: std::io::Result<Vec<u8>>) -> Hashed {
    match read {
        Ok(bytes) => {
            let hash = blake3::hash(&bytes).to_hex().to_string();
            let problem = recognise(&bytes).err().map(|error| error.to_string());
            (Some((hash, bytes.len() as u64)), problem)
        }
        Err(error) => (None, Some(format!("cannot be read: {error}"))),
    }
}

/// Sets BLAKE3 hash and size of the files; those that cannot be read keep an empty hash.
fn hash_block(
    job: &Job,
    block: &mut [ImageRow],
    (progress, unread): (&mut StageProgress, &mut Unread),
) -> Result<()> {
    job.worker.interrupt.check()?;
    let sources = block.iter().map(source_of).collect::<Result<Vec<_>>>()?;
    let fetch = |source: &&Source| read(source, &Roots::default());
    let mut hashed = Vec::with_capacity(block.len());
    in_order(
        &sources,
        HASHED_AHEAD,
        fetch,
        |_, bytes| hash_of(bytes),
        |hash| {
            hashed.push(hash);
            Ok(true)
        },
    )?;
    for (row, (hash, problem)) in block.iter_mut().zip(hashed) {
        if let Some((hash, length)) = hash {
            row.content_hash = hash;
            row.length = Some(length);
        }
        if let Some(problem) = problem {
            let line = format!("{}: {problem}", place_of(row));
            progress.note(&line);
            unread.add(row.image_key.clone(), line);
        }
    }
    progress.add(block.len() as u64);
    Ok(())
}

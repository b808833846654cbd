//! Whether the images are still those that a run was planned from. Names, sizes and times are compared, not contents, so
//! this takes one look at each file; images whose time alone has changed are compared by their content.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use clipood_core::{DatasetManifest, is_url};
use clipood_data::{Split, path_of, visit_files};
use clipood_store::Unit;
use rayon::prelude::*;

use super::files::{Census, DATA, DataRecord, canonical, list_part, relative};
use super::{DatasetIndex, STAGE, part_path, plan_record, plan_units, planned_images, read_index};
use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::places::ChangedData;
use crate::tables::{FileRow, read_files};

/// Files that are named for each kind of change.
const NAMED: usize = 3;

/// The record of each dataset's files: name and record; `None` for a dataset that an earlier build has planned.
///
/// # Errors
/// Records that cannot be read.
pub fn data_records(job: &Job) -> Result<Vec<(String, Option<DataRecord>)>> {
    let mut all = Vec::new();
    for unit in plan_units(job)? {
        if let Some(record) = job.places.run.ledger().record(STAGE, &unit)? {
            let data = record.extra.get(DATA).cloned();
            let data = data.and_then(|data| serde_json::from_value(data).ok());
            all.push((unit.key, data));
        }
    }
    Ok(all)
}

/// When and from where the images were planned, for people; `None` if an earlier build has planned them.
///
/// # Errors
/// As [`data_records`].
pub fn origin(job: &Job) -> Result<Option<String>> {
    Ok(origin_of(&data_records(job)?))
}

/// `2026-11-27 09:41 UTC` for a number of seconds since 1970; `None` beyond the calendar.
fn utc(seconds: u64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)?;
    Some(time.format("%Y-%m-%d %H:%M UTC").to_string())
}

/// [`origin`] of these records.
fn origin_of(records: &[(String, Option<DataRecord>)]) -> Option<String> {
    let known: Vec<(&str, &DataRecord)> = records
        .iter()
        .filter_map(|(name, record)| Some((name.as_str(), record.as_ref()?)))
        .collect();
    let (_, first) = known.first()?;
    let from: Vec<String> = known
        .iter()
        .map(|(name, record)| format!("{} ({name}, {} files)", record.root, record.files))
        .collect();
    Some(format!(
        "planned on {} from {}",
        utc(first.listed)?,
        from.join(", ")
    ))
}

/// Compares the folders with the record of the plan. Folders that do not exist here are not compared: what is left to do
/// may not need them. On worker machines the folders may be elsewhere.
///
/// # Errors
/// [`PipelineError::Usage`] for other files, and for the same files elsewhere unless the job allows that; records that
/// cannot be read. If the job accepts changes, they are reported instead.
pub fn check_data(job: &Job) -> Result<()> {
    let records = data_records(job)?;
    let reporting = job.worker.reporting;
    if records.iter().any(|(_, record)| record.is_none()) {
        reporting.say(&format!(
            "{}: its plan was made by an earlier build and does not record which files it lists, so whether they have \
             changed is not checked",
            job.places.run_location
        ));
    }
    let manifests: HashMap<&str, &DatasetManifest> = (job.experiment.manifests.all())
        .map(|(_, manifest)| (manifest.name.as_str(), manifest))
        .collect();
    let units: HashMap<String, Unit> = plan_units(job)?
        .into_iter()
        .map(|unit| (unit.key.clone(), unit))
        .collect();
    let (mut problems, mut absent, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    for (name, record) in &records {
        let (Some(record), Some(manifest), Some(unit)) =
            (record, manifests.get(name.as_str()), units.get(name))
        else {
            continue;
        };
        job.worker.interrupt.check()?;
        let root = manifest.root_in(&job.places.data);
        if !is_url(&root) && !root.exists() {
            absent.push(format!("{} ({name})", root.display()));
            continue;
        }
        let here = canonical(&root);
        let elsewhere = here != record.root;
        if elsewhere {
            moved.push(format!("{name}: planned from {}, now {here}", record.root));
        }
        let compared = Compared {
            job,
            manifest,
            root: &root,
            record,
            elsewhere,
        };
        if let Some(changes) = compared.changes(unit)? {
            problems.push(format!("{name}: {changes} in {here}"));
        }
    }
    if problems.is_empty() && !moved.is_empty() {
        match job.places.changed {
            ChangedData::Refuse => problems = moved,
            ChangedData::AllowMoved | ChangedData::Accept => {
                reporting.say(&format!(
                    "the images are in other folders than when the run was planned, with the same names and sizes: {}",
                    moved.join("; ")
                ));
            }
        }
    } else {
        problems.splice(0..0, moved);
    }
    let origin = origin_of(&records).unwrap_or_default();
    if !absent.is_empty() {
        reporting.say(&format!(
            "{origin}; not compared, because they are not on this machine: {}",
            absent.join(", ")
        ));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let text = format!(
        "the images are not those that {} was planned from ({origin}): {}",
        job.places.run_location,
        problems.join("; ")
    );
    if job.places.changed == ChangedData::Accept {
        reporting.say(&format!("{text}; going on with the plan as it is"));
        return Ok(());
    }
    Err(PipelineError::Usage(format!(
        "{text}. Plan them as another run with `--run NEW`, or go on with the plan as it is with `--accept-changed-data`"
    )))
}

/// A dataset that is compared with its record.
struct Compared<'a> {
    job: &'a Job,
    manifest: &'a DatasetManifest,
    root: &'a Path,
    record: &'a DataRecord,
    /// Whether its folder is another than that of the record, so that times say nothing.
    elsewhere: bool,
}

/// First 16 bytes of the BLAKE3 of a name.
type NameHash = [u8; 16];

fn name_hash(name: &str) -> NameHash {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
    short
}

/// Number of files and the first of them.
#[derive(Default)]
struct Counted {
    count: usize,
    first: Vec<String>,
}

impl Counted {
    fn add(&mut self, name: &str) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(name.to_string());
        }
    }

    fn text(&self, what: &str) -> Option<String> {
        let more = if self.count > self.first.len() {
            ", ..."
        } else {
            ""
        };
        (self.count > 0).then(|| format!("{} {what} ({}{more})", self.count, self.first.join(", ")))
    }
}

impl Compared<'_> {
    /// What has changed, in words; `None` if nothing has.
    fn changes(&self, unit: &Unit) -> Result<Option<String>> {
        let census = match self.census(&mut |_| ()) {
            Ok(census) => census,
            Err(PipelineError::Data(error)) => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let same_sizes = census.sizes == self.record.sizes;
        if same_sizes && (self.elsewhere || census.times == self.record.times) {
            return Ok(None);
        }
        self.differences(unit)
    }

    /// Lists the dataset and calls `each` with every file.
    fn census(&self, each: &mut dyn FnMut(&FileRow)) -> Result<DataRecord> {
        let mut census = Census::new(self.root.to_path_buf());
        visit_files::<PipelineError>(self.manifest, &self.job.places.data, &mut |found| {
            census.add(&found)?.iter().for_each(&mut *each);
            Ok(())
        })?;
        let (rest, record) = census.finish()?;
        rest.iter().for_each(each);
        Ok(record)
    }

    /// Compares file by file; the order of the lists does not matter.
    fn differences(&self, unit: &Unit) -> Result<Option<String>> {
        let mut here: HashMap<NameHash, (Option<u64>, Option<u64>)> = HashMap::new();
        let census = self.census(&mut |row| {
            here.insert(name_hash(&row.name), (row.bytes, row.modified));
        })?;
        let (mut removed, mut resized, mut replaced) =
            (Counted::default(), Counted::default(), Counted::default());
        let mut touched = BTreeSet::new();
        let store = self.job.places.run.store();
        let (mut number, mut recorded) = (0, 0);
        while recorded < self.record.files {
            let path = list_part(&self.manifest.name, number);
            let Some(bytes) = store.get(&path)? else {
                let files = (self.record.files, census.files);
                return Ok(Some(format!(
                    "{} files planned, {} now, by other names or sizes",
                    files.0, files.1
                )));
            };
            for row in read_files(bytes, &path)? {
                recorded += 1;
                match here.remove(&name_hash(&row.name)) {
                    None => removed.add(&row.name),
                    Some((None, _)) if row.bytes.is_some() => removed.add(&row.name),
                    Some((bytes, _)) if bytes != row.bytes => resized.add(&row.name),
                    Some((_, modified)) if !self.elsewhere && modified != row.modified => {
                        touched.insert(row.name);
                    }
                    Some(_) => {}
                }
            }
            number += 1;
        }
        let mut added = Counted::default();
        if !here.is_empty() {
            self.census(&mut |row| {
                if here.contains_key(&name_hash(&row.name)) {
                    added.add(&row.name);
                }
            })?;
        }
        if !touched.is_empty() {
            self.compare_contents(unit, &touched, &mut replaced)?;
        }
        let texts = [
            added.text("added"),
            removed.text("removed"),
            resized.text("of another size or content"),
            replaced.text("of another content"),
        ];
        let texts: Vec<String> = texts.into_iter().flatten().collect();
        Ok((!texts.is_empty()).then(|| texts.join(", ")))
    }

    /// Hashes those of the `touched` files that the plan uses.
    fn compare_contents(
        &self,
        unit: &Unit,
        touched: &BTreeSet<String>,
        replaced: &mut Counted,
    ) -> Result<()> {
        let DatasetIndex { test, val, train } =
            read_index(self.job, &plan_record(self.job, unit)?)?;
        let name = &self.manifest.name;
        let shards = [(Split::Test, test.len()), (Split::Val, val.len())];
        let train = (Split::Train, usize::from(train > 0));
        for (split, parts) in shards.into_iter().chain([train]) {
            for part in 0..parts {
                self.job.worker.interrupt.check()?;
                let images = planned_images(self.job, &part_path(name, split, part))?;
                let changed: Vec<Option<String>> = images
                    .par_iter()
                    .map(|image| {
                        let below = relative(&path_of(&image.source.uri), &image.roots.recorded);
                        if !touched.contains(&below) {
                            return None;
                        }
                        let read = clipood_data::read(&image.source, &image.roots);
                        let hash = read.map(|bytes| blake3::hash(&bytes).to_hex().to_string());
                        (hash.unwrap_or_default() != image.content_hash).then_some(below)
                    })
                    .collect();
                let changed: BTreeSet<&String> = changed.iter().flatten().collect();
                changed.into_iter().for_each(|name| replaced.add(name));
            }
        }
        Ok(())
    }
}

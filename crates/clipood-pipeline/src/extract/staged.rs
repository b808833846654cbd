//! Features of a part of a unit, kept in the run directory until the unit is complete, so that a process that is
//! killed again and again after a shorter time than a unit takes still gets ahead.
//!
//! A unit is committed as a whole. While it is in work, what has been encoded of it is written to
//! `_run/staged/<unit>/` now and then: after one second at first, and later whenever a tenth of the time of the process
//! has passed, so that no more than that is lost and no more than a few dozen files are written. They are read by
//! whichever worker does the unit next, and removed once it is committed. The run directory belongs to one model, number
//! format and backend, which the fingerprint in each file confirms.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clipood_store::Store;
use half::f16;

use super::units::ExtractUnit;
use crate::error::Result;
use crate::job::Job;
use crate::plan::PlannedImage;
use crate::tables::{
    FileMeta, GlobalFeatures, GlobalType, LocalFeatures, read_footer, read_global, read_local,
    write_global, write_local,
};

/// Folder in a run directory.
const FOLDER: &str = "_run/staged";
/// Shortest time between two files of a unit.
const FIRST: Duration = Duration::from_secs(1);
/// Share of the time of the process between two files.
const SHARE: u32 = 10;

/// Encoded views by image and view: global features, and patch features or nothing.
pub(super) type Rows = BTreeMap<(usize, i16), (Vec<f32>, Vec<f16>)>;

/// Which files hold the features of a part of a unit.
pub(super) struct Staging<'a> {
    pub job: &'a Job,
    pub unit: &'a ExtractUnit,
    /// Whether there are patch features.
    pub local: bool,
}

/// When to write the next file of a unit.
pub(super) struct Schedule {
    process: Instant,
    last: Instant,
}

impl Schedule {
    /// Begins with a unit, in a process that began its work at `process`.
    pub fn begin(process: Instant) -> Self {
        let last = Instant::now();
        Self { process, last }
    }

    /// Whether it is time; if so, the next time is counted from now.
    pub fn is_due(&mut self) -> bool {
        let due = FIRST.max(self.process.elapsed() / SHARE) <= self.last.elapsed();
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Removes what processes have left that were killed after they had committed a unit, and before they had removed its
/// staged files. Only `pending` units keep theirs.
///
/// # Errors
/// A run directory that cannot be listed or written.
pub(super) fn sweep(store: &Store, pending: &[&ExtractUnit]) -> Result<()> {
    let pending: HashSet<&str> = pending.iter().map(|unit| unit.key.as_str()).collect();
    for object in store.list(FOLDER)? {
        let unit = object
            .path
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('/').nth(1));
        if unit.is_some_and(|unit| !pending.contains(unit)) {
            store.delete(&object.path)?;
        }
    }
    Ok(())
}

impl Staging<'_> {
    fn store(&self) -> &Store {
        self.job.places.run.store()
    }

    fn folder(&self) -> String {
        format!("{FOLDER}/{}", self.unit.key)
    }

    /// Writes some rows; images are positions in `images`, the images of the unit.
    ///
    /// # Errors
    /// A run directory that cannot be written.
    pub fn write(&self, images: &[PlannedImage], rows: &Rows) -> Result<()> {
        let config = &self.job.experiment.model.config;
        let (dim, patches) = (config.embed_dim, config.image.positions());
        let key = |image: usize| images[image].key.clone();
        let keys: Vec<String> = rows.keys().map(|(image, _)| key(*image)).collect();
        let views: Vec<i16> = rows.keys().map(|(_, view)| *view).collect();
        let meta = FileMeta {
            fingerprint: self.job.places.features.fingerprint.to_string(),
            recipe: self.job.experiment.recipe.name.clone(),
            quarantined: Vec::new(),
            extra: BTreeMap::new(),
        };
        // Twins, workers of one name, write different names; what both have written is the same.
        let worker = self.job.places.run.ledger().worker();
        let Some((first, last)) = rows.keys().next().zip(rows.keys().last()) else {
            return Ok(());
        };
        let name = format!(
            "{}/{worker}.{}-{}.{}",
            self.folder(),
            first.0,
            last.0,
            std::process::id()
        );
        if self.local {
            let table = LocalFeatures {
                keys: keys.clone(),
                views: views.clone(),
                patches,
                dim,
                values: rows.values().flat_map(|(_, local)| local.clone()).collect(),
            };
            let bytes = Bytes::from(write_local(&table, &meta)?);
            self.store().put(&format!("{name}.local.parquet"), bytes)?;
        }
        let hash = |image: usize| images[image].content_hash.clone();
        let table = GlobalFeatures {
            keys,
            views,
            content_hashes: rows.keys().map(|(image, _)| hash(*image)).collect(),
            dim,
            values: rows
                .values()
                .flat_map(|(global, _)| global.clone())
                .collect(),
        };
        let bytes = Bytes::from(write_global(&table, GlobalType::F32, &meta)?);
        Ok(self.store().put(&format!("{name}.global.parquet"), bytes)?)
    }

    /// All rows that were written for the unit. A file that cannot be used is left out: its rows are encoded again.
    ///
    /// # Errors
    /// A run directory that cannot be listed.
    pub fn read(&self, images: &[PlannedImage]) -> Result<Rows> {
        let mut rows = Rows::new();
        for object in self.store().list(&self.folder())? {
            if let Some(name) = object.path.strip_suffix(".global.parquet") {
                rows.extend(self.read_file(name, images).unwrap_or_default());
            }
        }
        Ok(rows)
    }

    fn read_file(&self, name: &str, images: &[PlannedImage]) -> Option<Rows> {
        let config = &self.job.experiment.model.config;
        let (dim, patches) = (config.embed_dim, config.image.positions());
        let fetch = |path: &str| self.store().get(path).ok().flatten();
        let path = format!("{name}.global.parquet");
        let bytes = fetch(&path)?;
        let footer = read_footer(&bytes, &path).ok()?;
        if footer.meta.fingerprint != self.job.places.features.fingerprint.to_string() {
            return None;
        }
        let global = read_global(bytes, &path).ok()?;
        let mut values = Vec::new();
        if self.local {
            let path = format!("{name}.local.parquet");
            let local = read_local(fetch(&path)?, &path).ok()?;
            let same = (&local.keys, &local.views) == (&global.keys, &global.views);
            if !same || (local.dim, local.patches) != (dim, patches) {
                return None;
            }
            values = local.values;
        }
        if global.dim != dim {
            return None;
        }
        let width = dim * patches;
        let mut rows = Rows::new();
        for (row, (key, view)) in global.keys.iter().zip(&global.views).enumerate() {
            let image = images.binary_search_by(|i| i.key.cmp(key)).ok()?;
            let features = global.values.get(row * dim..(row + 1) * dim)?.to_vec();
            let patch_features = match self.local {
                true => values.get(row * width..(row + 1) * width)?.to_vec(),
                false => Vec::new(),
            };
            rows.insert((image, *view), (features, patch_features));
        }
        Some(rows)
    }

    /// Removes the files of the unit, which is committed.
    ///
    /// # Errors
    /// A run directory that cannot be written.
    pub fn remove(&self) -> Result<()> {
        for object in self.store().list(&self.folder())? {
            self.store().delete(&object.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::EVAL_VIEW;
    use crate::planned::Planned;
    use crate::testing::World;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_not() {
        let world = World::new();
        let job = world.job(0, 1);
        let planned = Planned::make(&job).unwrap();
        let units = &planned.features.units;
        let unit = units.iter().find(|unit| unit.views == [EVAL_VIEW]).unwrap();
        let images = unit.list(&job).unwrap();
        let config = &job.experiment.model.config;
        for local in [false, true] {
            let staging = Staging {
                job: &job,
                unit,
                local,
            };
            let row = |image: usize| {
                let patches = config.embed_dim * config.image.positions();
                let local = vec![f16::from_f32(2.0); if local { patches } else { 0 }];
                let global = vec![image as f32 + 0.25; config.embed_dim];
                ((image, EVAL_VIEW), (global, local))
            };
            let first = Rows::from([row(0)]);
            let second = Rows::from([row(1), row(2)]);
            staging.write(&images, &first).unwrap();
            staging.write(&images, &second).unwrap();
            let all: Rows = [row(0), row(1), row(2)].into();
            assert_eq!(staging.read(&images).unwrap(), all);
            let files = world.run.list(&staging.folder()).unwrap();
            let path = &files
                .iter()
                .find(|f| f.path.contains(".1-2."))
                .unwrap()
                .path;
            world.run.put(path, Bytes::from_static(b"damaged")).unwrap();
            assert_eq!(staging.read(&images).unwrap(), first);
            sweep(staging.store(), &[unit]).unwrap();
            assert_eq!(staging.read(&images).unwrap(), first);
            staging.remove().unwrap();
            assert!(staging.read(&images).unwrap().is_empty());
            staging.write(&images, &first).unwrap();
            let others: Vec<_> = units.iter().filter(|other| other.key != unit.key).collect();
            sweep(staging.store(), &others).unwrap();
            assert!(staging.read(&images).unwrap().is_empty());
        }
    }
}

//! The commit protocol: how any number of workers finish every unit exactly once, whichever of them crashes at any time.
//!
//! # The rules
//! A unit of work has a stage, a key and a fingerprint of everything that can change its result. It may have one *part*:
//! a file with a deterministic name whose footer contains the fingerprint. A worker that has finished a unit writes two
//! objects, in this order, each with one atomic "create if absent":
//!
//! 1. the complete part, under its deterministic name;
//! 2. the commit record, `<dir>/commits/<stage>/<unit>.<fingerprint digits>.json`.
//!
//! A unit is done when its record exists. Parts and records are never changed by a running worker, and removed only if they
//! are proven to be damaged ([`Ledger::set_aside`]).
//! Before working on a unit, a worker may write a *claim*, `<dir>/claims/<stage>/<unit>.json`, also create-if-absent.
//!
//! # Why it is correct
//! *At most one part.* All attempts at a unit write the same name, and the store lets only one of them create it. A partial
//! file is never visible: a remote PUT is atomic, and a local write is staged and hard-linked. So a table contains each unit
//! once or not at all, at any time, for every reader that selects parts by name. (A reader of all files of a local
//! directory, regardless of their extension, can see a staging file until the sweep.)
//!
//! *A record is always true.* It is written after its part exists, it describes the published bytes (which are not those of
//! the writer if another worker was faster), and workers do not change parts afterwards. A disk can; so whoever reads a part
//! compares it with the BLAKE3 in the record, and the record with its own seal ([`Ledger::read_part`]).
//!
//! *The first part is kept.* Units are deterministic up to rounding, so the parts of all attempts are equally good. A worker
//! whose part comes second drops it, may compare its rows with the published ones, and writes the record in case the
//! first worker crashed before doing so.
//!
//! # What a crash leaves behind
//! | killed | what is left | what the next start does |
//! | --- | --- | --- |
//! | before the claim | nothing | does the unit |
//! | after the claim | a claim | does the unit in its first pass if the claim is its own, otherwise last |
//! | while writing the part | on local disk a staging file `part#1`, invisible to listings; else nothing | does the unit; [`Ledger::sweep`] removes the leftover once the part exists |
//! | after the part | a complete part without a record | [`Ledger::recover_part`] checks seal and footer of the part and writes the record without repeating the work |
//! | while writing the record | as above, and perhaps `record.json#1` | as above |
//! | after the record | a finished unit | nothing |
//! | by a power failure | the same: local writes reach the disk before they become visible | the same |
//!
//! After a lost reply (the store executed the write, the network lost the answer) a retried create finds its own object. So
//! "already exists" is never taken at face value: the object is read back and compared. Records and claims contain a nonce,
//! so equal bytes mean that this worker wrote them; for parts it does not matter which worker did.
//!
//! A part of another fingerprint, or a file that is not a part, under the name of the part is an error and is not touched: the
//! directory contains the results of something else.
//!
//! # Why there are no leases
//! A lease requires knowledge that its holder is dead. That is impossible over a network: a stopped process, a suspended node
//! and a slow disk look dead and recover, and the clocks of nodes differ. So nothing here depends on claims being up to date.
//! A claim only orders the work ("do this last"). If its writer has died, other workers do the unit when nothing else is
//! left; if it is alive, the unit is computed twice and one result wins. A stale claim costs time at the end of a stage, never
//! a result. Restarting dead workers is the task of whatever started them.
//!
//! Waits have a limit. With [`wait_for`](crate::wait_for), for short units that all workers reach together, a worker waits for
//! the commits of the others before it repeats their units. For long ones the caller may watch for signs of life of the worker
//! that has claimed them. A limit that is too short or too long costs work or time, and again never a result.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::part::{CommitOutcome, Committed, FooterReader, Part};
use crate::record::{
    Claim, CommitRecord, FORMAT_VERSION, Unit, decode_name, encode_name, nonce, record_stem,
    sealed_json, to_json,
};
use crate::store::{Created, Store};

/// Commits and claims of the units whose parts are in one store, kept in one directory of it.
///
/// Parts and bookkeeping never share a directory, so directories of Parquet files contain nothing else.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    dir: String,
    worker: String,
    /// Suffix of the claims directory, which limits claims to the workers of one run; empty for all workers, unset while that
    /// run is not created.
    claims_of: Arc<OnceLock<String>>,
}

/// Suffix of the claims directory for the workers of the run with this identifier; empty for an empty one.
pub(crate) fn claims_suffix(run: &str) -> Result<String> {
    Ok(match run {
        "" => String::new(),
        run => format!("@{}", encode_name("run", run)?),
    })
}

impl Ledger {
    /// A ledger over the parts in `store`, with its records under `dir`, writing as `worker`.
    ///
    /// A run uses `_run`; shared features use `_commits` beside their tables. Nothing is read or written here. `worker`
    /// should be the same after a restart, so that the worker recognises its earlier claims.
    pub fn new(store: Store, dir: &str, worker: &str) -> Self {
        Self {
            store,
            dir: dir.trim_matches('/').to_owned(),
            worker: worker.to_owned(),
            claims_of: Arc::new(OnceLock::from(String::new())),
        }
    }

    /// The same commits, with claims that only the workers of one run see.
    ///
    /// For units that several runs share and that a worker waits for instead of repeating them: the workers of another run
    /// may never come back, and may have the same names.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn with_claims_of(mut self, run: &str) -> Result<Self> {
        self.claims_of = Arc::new(OnceLock::from(claims_suffix(run)?));
        Ok(self)
    }

    /// The same commits, with claims under a suffix that may be set later.
    pub(crate) fn with_claims_suffix(mut self, suffix: &Arc<OnceLock<String>>) -> Self {
        self.claims_of = suffix.clone();
        self
    }

    /// The store that the parts' paths are relative to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The full path of its bookkeeping, which distinguishes it from other ledgers.
    pub fn location(&self) -> String {
        self.store.display(&self.dir)
    }

    /// The directory of its bookkeeping, relative to its store.
    pub(crate) fn dir(&self) -> &str {
        &self.dir
    }

    /// The name of the worker that writes through this ledger.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Claims the unit for this worker; `false` if another worker has already claimed it.
    ///
    /// A claim by a worker of the same name is this worker's own, from before a restart.
    ///
    /// # Errors
    /// [`Error::InvalidName`] and the store's errors.
    pub fn claim(&self, stage: &str, key: &str) -> Result<bool> {
        let path = format!("{}/{}.json", self.claims(stage)?, encode_name("unit", key)?);
        let ours = Claim {
            format_version: FORMAT_VERSION,
            worker: self.worker.clone(),
            nonce: nonce()?,
        };
        match self.store.create(&path, to_json(&path, "claim", &ours)?)? {
            Created::New | Created::Identical => Ok(true),
            Created::Existed(found) => {
                // A claim that cannot be read counts as another worker's.
                let theirs = serde_json::from_slice::<Claim>(&found);
                Ok(theirs.is_ok_and(|claim| claim.worker == self.worker))
            }
        }
    }

    /// Keys of the units of a stage that any worker has claimed.
    ///
    /// # Errors
    /// [`Error::InvalidName`] and the store's errors.
    pub fn claimed(&self, stage: &str) -> Result<HashSet<String>> {
        let names = self.store.names(&self.claims(stage)?)?;
        Ok(names
            .iter()
            .filter_map(|name| decode_name(name.strip_suffix(".json")?))
            .collect())
    }

    /// The finished units of a stage, by one listing.
    ///
    /// # Errors
    /// [`Error::InvalidName`] and the store's errors.
    pub fn committed(&self, stage: &str) -> Result<Committed> {
        let names = self.store.names(&self.commits(stage)?)?;
        let mut stems = HashSet::with_capacity(names.len());
        for mut name in names {
            if let Some(stem) = name.strip_suffix(".json") {
                name.truncate(stem.len());
                stems.insert(name);
            }
        }
        Ok(Committed { stems })
    }

    /// Whether the unit is done with its current fingerprint, by one look-up.
    ///
    /// # Errors
    /// [`Error::InvalidName`] and the store's errors.
    pub fn is_done(&self, stage: &str, unit: &Unit) -> Result<bool> {
        self.store.exists(&self.record_path(stage, unit)?)
    }

    /// The unit's record, if it is done.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::Json`], [`Error::Version`], [`Error::RecordMismatch`], the store's errors.
    pub fn record(&self, stage: &str, unit: &Unit) -> Result<Option<CommitRecord>> {
        let path = self.record_path(stage, unit)?;
        let Some(bytes) = self.store.get(&path)? else {
            return Ok(None);
        };
        self.parse_record(&path, &bytes, stage, unit).map(Some)
    }

    /// The records of some units in their order, read concurrently; `None` for a unit that is not done.
    ///
    /// # Errors
    /// The first error in the order of `units`, as of [`Ledger::record`].
    pub fn records_of(&self, stage: &str, units: &[Unit]) -> Result<Vec<Option<CommitRecord>>> {
        let paths = units
            .iter()
            .map(|unit| self.record_path(stage, unit))
            .collect::<Result<Vec<_>>>()?;
        let found = self.store.get_many(&paths)?;
        let parse = |((path, unit), bytes): ((&String, &Unit), Option<Bytes>)| {
            let record = bytes.map(|bytes| self.parse_record(path, &bytes, stage, unit));
            record.transpose()
        };
        paths.iter().zip(units).zip(found).map(parse).collect()
    }

    /// Every record of a stage, sorted by unit and fingerprint.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::Json`], [`Error::Version`], the store's errors.
    pub fn records(&self, stage: &str) -> Result<Vec<CommitRecord>> {
        let dir = self.commits(stage)?;
        let names = self.store.names(&dir)?;
        let paths: Vec<String> = names
            .iter()
            .filter(|name| name.ends_with(".json"))
            .map(|name| format!("{dir}/{name}"))
            .collect();
        let mut records = Vec::with_capacity(paths.len());
        for (path, bytes) in paths.iter().zip(self.store.get_many(&paths)?) {
            if let Some(bytes) = bytes {
                records.push(self.parse_whole(stage, path, &bytes)?);
            }
        }
        records.sort_unstable_by(|a, b| (&a.unit, &a.fingerprint).cmp(&(&b.unit, &b.fingerprint)));
        Ok(records)
    }

    /// Publishes a unit's part and its record.
    ///
    /// Safe to repeat, and safe while other workers commit the same unit; the [module](self) explains why.
    ///
    /// # Errors
    /// [`Error::Footer`] if the part does not contain the unit's fingerprint; [`Error::OtherFingerprint`] or
    /// [`Error::ForeignPart`] if its name is taken by something else; [`Error::RecordMismatch`] if the existing record does
    /// not describe the published part; [`Error::InvalidName`], [`Error::OutOfSpace`], the store's errors. After an error the
    /// unit is unchanged, or its part exists without its record, which [`Ledger::recover_part`] completes.
    pub fn commit_part(
        &self,
        stage: &str,
        unit: &Unit,
        part: Part,
        read_footer: FooterReader,
    ) -> Result<CommitOutcome> {
        let _span =
            tracing::debug_span!("commit", stage, unit = unit.key, bytes = part.bytes.len())
                .entered();
        // Checked first: a unit that cannot be recorded must not leave a part behind.
        self.record_path(stage, unit)?;
        let own = read_footer(&part.bytes);
        match own {
            Some(footer) if footer.fingerprint == unit.fingerprint => {}
            other => {
                return Err(Error::Footer {
                    path: self.store.display(&part.path),
                    found: other.map_or("nothing readable".to_owned(), |footer| footer.fingerprint),
                    expected: unit.fingerprint.clone(),
                });
            }
        }
        let published = match self.store.create(&part.path, part.bytes.clone())? {
            Created::New | Created::Identical => None,
            Created::Existed(bytes) => Some(bytes),
        };
        if let Some(published) = published.as_ref() {
            self.check_standing(stage, unit, &part.path, published, read_footer)?;
        }
        let standing = published.as_ref().unwrap_or(&part.bytes);
        let blank = self.blank_record(stage, unit, part.extra)?;
        let ours = self.describe(blank, &part.path, standing, read_footer)?;
        let (record, is_ours) = self.put_record(stage, unit, ours)?;
        Ok(match published {
            Some(published) => CommitOutcome::LostRace { record, published },
            None if is_ours => CommitOutcome::Committed(record),
            None => CommitOutcome::AlreadyCommitted(record),
        })
    }

    /// Marks a unit without a part as done.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::RecordMismatch`], [`Error::OutOfSpace`], the store's errors.
    pub fn commit_without_part(
        &self,
        stage: &str,
        unit: &Unit,
        extra: BTreeMap<String, Value>,
    ) -> Result<CommitOutcome> {
        let ours = self.blank_record(stage, unit, extra)?;
        let (record, is_ours) = self.put_record(stage, unit, ours)?;
        Ok(match is_ours {
            true => CommitOutcome::Committed(record),
            false => CommitOutcome::AlreadyCommitted(record),
        })
    }

    /// Completes the commit of a part that a crash left without its record; `None` if there is no part at `part_path`.
    ///
    /// Call it before the work on a unit without a record. The cost is one read of the part if it exists.
    ///
    /// # Errors
    /// As of [`Ledger::commit_part`].
    pub fn recover_part(
        &self,
        stage: &str,
        unit: &Unit,
        part_path: &str,
        read_footer: FooterReader,
    ) -> Result<Option<CommitRecord>> {
        let Some(bytes) = self.store.get(part_path)? else {
            return Ok(None);
        };
        self.check_standing(stage, unit, part_path, &bytes, read_footer)?;
        let extra = BTreeMap::from([("recovered".to_owned(), Value::Bool(true))]);
        let blank = self.blank_record(stage, unit, extra)?;
        let ours = self.describe(blank, part_path, &bytes, read_footer)?;
        let (record, _) = self.put_record(stage, unit, ours)?;
        Ok(Some(record))
    }

    /// Removes the staging files that killed writers left in the bookkeeping and under `part_prefixes`; returns their paths.
    ///
    /// Call it on resume and when a stage is done. It is safe beside running workers provided that there is nothing but parts
    /// under `part_prefixes`: a staging file is removed only if its object exists, and then it can no longer be published.
    ///
    /// # Errors
    /// The store's errors.
    pub fn sweep(&self, part_prefixes: &[&str]) -> Result<Vec<String>> {
        let own = [
            format!("{}/commits", self.dir),
            format!("{}/claims", self.dir),
        ];
        let mut swept = Vec::new();
        for prefix in own
            .iter()
            .map(|dir| &**dir)
            .chain(part_prefixes.iter().copied())
        {
            swept.extend(self.store.sweep_staging(prefix)?);
        }
        Ok(swept)
    }

    /// Completes the record of a unit with the facts of its published part, `standing` at `path`, whichever worker wrote it.
    fn describe(
        &self,
        blank: CommitRecord,
        path: &str,
        standing: &Bytes,
        read_footer: FooterReader,
    ) -> Result<CommitRecord> {
        let whole_path = || self.store.display(path);
        let footer =
            read_footer(standing).ok_or_else(|| Error::ForeignPart { path: whole_path() })?;
        if footer.fingerprint != blank.fingerprint {
            return Err(Error::OtherFingerprint {
                path: whole_path(),
                found: footer.fingerprint,
                expected: blank.fingerprint,
            });
        }
        Ok(CommitRecord {
            part: Some(path.to_owned()),
            blake3: Some(digest(standing)),
            bytes: standing.len() as u64,
            rows: footer.rows,
            quarantined: footer.quarantined,
            ..blank
        })
    }

    /// The record of a unit without a part.
    fn blank_record(
        &self,
        stage: &str,
        unit: &Unit,
        extra: BTreeMap<String, Value>,
    ) -> Result<CommitRecord> {
        Ok(CommitRecord {
            format_version: FORMAT_VERSION,
            stage: stage.to_owned(),
            unit: unit.key.clone(),
            fingerprint: unit.fingerprint.clone(),
            part: None,
            blake3: None,
            bytes: 0,
            rows: 0,
            quarantined: 0,
            extra,
            nonce: nonce()?,
            worker: self.worker.clone(),
            sealed: true,
        })
    }

    /// Writes the record; returns the published one, and whether it is this worker's.
    fn put_record(
        &self,
        stage: &str,
        unit: &Unit,
        ours: CommitRecord,
    ) -> Result<(CommitRecord, bool)> {
        let path = self.record_path(stage, unit)?;
        let json = sealed_json(&path, "commit record", &ours)?;
        let found = match self.store.create(&path, json)? {
            Created::New | Created::Identical => return Ok((ours, true)),
            Created::Existed(found) => self.parse_record(&path, &found, stage, unit)?,
        };
        // Both describe the same part, so they agree unless the part has been replaced in between.
        if (&found.part, &found.blake3) != (&ours.part, &ours.blake3) {
            let describe = |record: &CommitRecord| {
                let part = record.part.as_deref().unwrap_or("no part");
                format!(
                    "{part} with blake3 {}",
                    record.blake3.as_deref().unwrap_or("-")
                )
            };
            return Err(Error::RecordMismatch {
                path: self.store.display(&path),
                found: describe(&found),
                expected: describe(&ours),
            });
        }
        Ok((found, false))
    }

    fn parse_record(
        &self,
        path: &str,
        bytes: &Bytes,
        stage: &str,
        unit: &Unit,
    ) -> Result<CommitRecord> {
        let record = self.parse_whole(stage, path, bytes)?;
        record.check(&self.store.display(path), stage, unit)?;
        Ok(record)
    }

    pub(crate) fn record_path(&self, stage: &str, unit: &Unit) -> Result<String> {
        Ok(format!(
            "{}/{}.json",
            self.commits(stage)?,
            record_stem(unit)?
        ))
    }

    pub(crate) fn commits(&self, stage: &str) -> Result<String> {
        Ok(format!(
            "{}/commits/{}",
            self.dir,
            encode_name("stage", stage)?
        ))
    }

    pub(crate) fn claims(&self, stage: &str) -> Result<String> {
        let stage = encode_name("stage", stage)?;
        let suffix = self.claims_of.get().map_or("", String::as_str);
        Ok(format!("{}/claims/{stage}{suffix}", self.dir))
    }
}

/// BLAKE3 in hexadecimal digits.
pub(crate) fn digest(bytes: &Bytes) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

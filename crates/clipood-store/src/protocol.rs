//! The commit protocol: how many workers finish every unit exactly once, whatever dies when.
//!
//! # The rules
//! A unit of work has a stage, a key and a fingerprint of everything that can change its result. It may have one *part*:
//! a file with a deterministic name whose footer carries the fingerprint. A worker that has finished a unit writes two
//! objects, in this order, each with one atomic "create if absent":
//!
//! 1. the part, whole, under its deterministic name;
//! 2. the commit record, `<dir>/commits/<stage>/<unit>.<fingerprint digits>.json`.
//!
//! A unit is done when its record exists. Parts and records are never changed or removed by a running worker.
//! Before working on a unit, a worker may write a *claim*, `<dir>/claims/<stage>/<unit>.json`, also create-if-absent.
//!
//! # Why it is right
//! *At most one part.* All attempts at a unit write the same name, and the store lets one of them create it. There is no
//! partial file to be seen: a remote PUT is atomic, and a local write is staged and hard-linked. So a table
//! holds each unit once or not at all, at every moment, for every reader of its parts' names. (A reader that takes every
//! file of a local directory, whatever its ending, can meet a staging file until the sweep.)
//!
//! *A record never lies.* It is written after its part exists, describes the bytes that stand in the store (not those the
//! writer brought, if another was faster), and parts do not change afterwards.
//!
//! *The first wins, and that is enough.* Units are deterministic up to rounding, so any attempt's part is as good as any
//! other's. A worker that comes second keeps nothing, compares its rows with the published ones if it cares, and adds the
//! record in case the first died before doing so.
//!
//! # Which crash leaves what
//! | killed | what is left | what the next start does |
//! | --- | --- | --- |
//! | before the claim | nothing | does the unit |
//! | after the claim | a claim | takes the unit in its own first pass if it was its own, or last |
//! | while writing the part | on local disk a staging file `part#1`, invisible to listings; else nothing | does the unit; [`Ledger::sweep`] removes the leftover once the part exists |
//! | after the part | a whole part without a record | [`Ledger::recover_part`] reads the footer and writes the record, without the work |
//! | while writing the record | as above, and perhaps `record.json#1` | as above |
//! | after the record | a done unit | nothing |
//! | by power cut | the same: local writes reach the disk before they become visible | the same |
//!
//! A lost reply (the store did the write, the network lost the answer) makes a retried create meet its own object. So
//! "already exists" is never believed: the object is read back and compared. Records and claims carry a nonce, so equal
//! bytes mean "it was me"; for parts it does not matter whose equal bytes they are.
//!
//! A part of another fingerprint, or a file that is no part, under the part's name is an error and stays untouched: it
//! means that somebody's results live in this directory.
//!
//! # Why there is no clock and no heartbeat
//! A lease needs to know that its holder is dead. Over a network nobody can: a stopped process, a suspended node and a
//! slow disk look like death and come back, and clocks of nodes differ. So nothing here depends on a claim being true. A
//! claim only orders the work ("take this last"). If its writer died, others take the unit when nothing else is left; if
//! it lives, the unit is computed twice and one result wins. A wrong claim costs time at the end of a stage, never a
//! result. Restarting dead workers is left to whatever started them.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::part::{CommitOutcome, Committed, FooterReader, Part, PartState};
use crate::record::{
    Claim, CommitRecord, FORMAT_VERSION, Unit, decode_name, encode_name, nonce, record_stem,
    to_json,
};
use crate::store::{Created, Store};

/// Commits and claims of the units whose parts lie in one store, kept in one directory of it.
///
/// Parts and bookkeeping never share a directory, so that directories of Parquet files hold nothing else.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    dir: String,
    worker: String,
    /// Whose claims count; empty for everybody's.
    claims_of: String,
}

impl Ledger {
    /// A ledger over the parts in `store`, with its records under `dir`, writing as `worker`.
    ///
    /// A run uses `_run`; shared features use `_commits` beside their tables. Nothing is read or written here. `worker`
    /// should be the same again after a restart, so that a worker knows its earlier claims.
    pub fn new(store: Store, dir: &str, worker: &str) -> Self {
        Self {
            store,
            dir: dir.trim_matches('/').to_owned(),
            worker: worker.to_owned(),
            claims_of: String::new(),
        }
    }

    /// The same commits, with claims among the workers of one run alone.
    ///
    /// For units that several runs share and that a worker waits for instead of doing them again: the workers of another
    /// run may be gone for good, and have the same names.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn with_claims_of(mut self, run: &str) -> Result<Self> {
        self.claims_of = match run {
            "" => String::new(),
            run => format!("@{}", encode_name("run", run)?),
        };
        Ok(self)
    }

    /// The store that the parts' paths are relative to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The name this ledger writes under.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Path of the table of a unit's quarantined rows, relative to the store. Publish it before the unit's commit.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn quarantine_path(&self, stage: &str, key: &str) -> Result<String> {
        let stage = encode_name("stage", stage)?;
        let key = encode_name("unit", key)?;
        Ok(format!("{}/quarantine/{stage}@{key}.parquet", self.dir))
    }

    /// Says that this worker starts the unit, and whether it should: `false` if another worker has claimed it.
    ///
    /// A claim by a worker of the same name is ours from before a restart.
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
                // A claim that cannot be read is somebody's all the same.
                let theirs = serde_json::from_slice::<Claim>(&found);
                Ok(theirs.is_ok_and(|claim| claim.worker == self.worker))
            }
        }
    }

    /// Keys of the units of a stage that somebody has claimed.
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

    /// Which units of a stage are done, by one listing.
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

    /// Whether the unit is done with its present fingerprint, by one look-up.
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
                records.push(CommitRecord::parse(&self.store.display(path), &bytes)?);
            }
        }
        records.sort_unstable_by(|a, b| (&a.unit, &a.fingerprint).cmp(&(&b.unit, &b.fingerprint)));
        Ok(records)
    }

    /// Publishes a unit's part and its record.
    ///
    /// Safe to repeat and safe beside other workers committing the same unit; see the [module](self) for why.
    ///
    /// # Errors
    /// [`Error::Footer`] if the part does not carry the unit's fingerprint; [`Error::OtherFingerprint`] or
    /// [`Error::ForeignPart`] if its name is taken by something else; [`Error::RecordMismatch`] if a record stands that
    /// is not about the published part; [`Error::InvalidName`], [`Error::OutOfSpace`], the store's errors. After an error
    /// the unit is as before, or its part stands without its record, which [`Ledger::recover_part`] completes.
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
        // A name that cannot be recorded must not leave a part behind.
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
        let standing = published.as_ref().unwrap_or(&part.bytes);
        let ours = self.describe(stage, unit, &part.path, standing, part.extra, read_footer)?;
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

    /// Finishes the commit of a part that a crash left without its record; `None` if there is no part at `part_path`.
    ///
    /// To be called before the work of a unit that has no record. Costs one read of the part, and only if it exists.
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
        let extra = BTreeMap::from([("recovered".to_owned(), Value::Bool(true))]);
        let ours = self.describe(stage, unit, part_path, &bytes, extra, read_footer)?;
        let (record, _) = self.put_record(stage, unit, ours)?;
        Ok(Some(record))
    }

    /// Whether the part behind a record still has the recorded bytes. Reads the whole part if its size is right.
    ///
    /// # Errors
    /// The store's errors.
    pub fn check_part(&self, record: &CommitRecord) -> Result<PartState> {
        let Some(path) = &record.part else {
            return Ok(PartState::Whole);
        };
        match self.store.size(path)? {
            None => return Ok(PartState::Missing),
            Some(size) if size != record.bytes => return Ok(PartState::Changed),
            Some(_) => {}
        }
        let Some(bytes) = self.store.get(path)? else {
            return Ok(PartState::Missing);
        };
        let same = record.blake3.as_deref() == Some(&*digest(&bytes));
        Ok(if same {
            PartState::Whole
        } else {
            PartState::Changed
        })
    }

    /// Removes the staging files that killed writers left in the bookkeeping and under `part_prefixes`; returns their paths.
    ///
    /// Run it on resume and when a stage is done. Under `part_prefixes` there must be nothing but parts: see
    /// [`Store::sweep_staging`] for why that makes it safe beside running workers.
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

    /// The record of the part that stands at `path`, whoever wrote it.
    fn describe(
        &self,
        stage: &str,
        unit: &Unit,
        path: &str,
        standing: &Bytes,
        extra: BTreeMap<String, Value>,
        read_footer: FooterReader,
    ) -> Result<CommitRecord> {
        let whole_path = || self.store.display(path);
        let footer =
            read_footer(standing).ok_or_else(|| Error::ForeignPart { path: whole_path() })?;
        if footer.fingerprint != unit.fingerprint {
            return Err(Error::OtherFingerprint {
                path: whole_path(),
                found: footer.fingerprint,
                expected: unit.fingerprint.clone(),
            });
        }
        Ok(CommitRecord {
            part: Some(path.to_owned()),
            blake3: Some(digest(standing)),
            bytes: standing.len() as u64,
            rows: footer.rows,
            quarantined: footer.quarantined,
            ..self.blank_record(stage, unit, extra)?
        })
    }

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
        })
    }

    /// Writes the record; returns the one that stands, and whether it is ours.
    fn put_record(
        &self,
        stage: &str,
        unit: &Unit,
        ours: CommitRecord,
    ) -> Result<(CommitRecord, bool)> {
        let path = self.record_path(stage, unit)?;
        let json = to_json(&path, "commit record", &ours)?;
        let found = match self.store.create(&path, json)? {
            Created::New | Created::Identical => return Ok((ours, true)),
            Created::Existed(found) => self.parse_record(&path, &found, stage, unit)?,
        };
        // Both describe the one part there is, so they can only agree, unless somebody replaced it.
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
        let path = self.store.display(path);
        let record = CommitRecord::parse(&path, bytes)?;
        record.check(&path, stage, unit)?;
        Ok(record)
    }

    fn record_path(&self, stage: &str, unit: &Unit) -> Result<String> {
        Ok(format!(
            "{}/{}.json",
            self.commits(stage)?,
            record_stem(unit)?
        ))
    }

    fn commits(&self, stage: &str) -> Result<String> {
        Ok(format!(
            "{}/commits/{}",
            self.dir,
            encode_name("stage", stage)?
        ))
    }

    fn claims(&self, stage: &str) -> Result<String> {
        let stage = encode_name("stage", stage)?;
        Ok(format!("{}/claims/{stage}{}", self.dir, self.claims_of))
    }
}

fn digest(bytes: &Bytes) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

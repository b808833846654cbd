//! Parts and records whose bytes have changed on the disk: found when they are read, set aside, and made again.
//!
//! Nothing here decides a result. [`Ledger::read_part`] returns bytes only if they are those of the record that it reads in
//! the same call, so a damaged part is never used, whatever other workers do meanwhile. [`Ledger::set_aside`] undoes a commit
//! in the reverse order of its two writes: first the part, and then its record. As long as the record exists, no worker
//! repeats the unit; once it is gone, the unit is open like any other.
//!
//! Two workers may find the same damage. Each looks again immediately before it removes an object, and removes it only if it
//! is still the one that it found: the part by its BLAKE3, the record by its nonce. Object stores cannot do both in one
//! request, so a very slow worker can remove the new part of a faster one. Then a record without its part is left, which is
//! damage of the same kind: the next reader notices it, and the unit is done once more. So a race costs work, never a result.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::part::FooterReader;
use crate::protocol::{Ledger, digest};
use crate::record::{CommitRecord, Unit, decode_name};
use crate::seal::{Seal, check_json_seal, check_seal};

/// An object that is not what was written, or is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is damaged: expected blake3 {expected}, found {found}")]
pub struct Damage {
    /// Its full path.
    pub path: String,
    /// The BLAKE3 that its commit record or its seal names.
    pub expected: String,
    /// The BLAKE3 of its bytes, or why there is none.
    pub found: String,
    /// The stage of its unit.
    pub stage: String,
    /// Its ledger, as [`Ledger::location`] names it.
    pub ledger: String,
    /// The object, relative to the ledger's store.
    pub(crate) object: String,
    /// The record of its unit, relative to the ledger's store; `None` if there was none when the damage was found.
    pub(crate) record: Option<String>,
    /// Nonce of that record; empty if the record itself is damaged.
    pub(crate) nonce: String,
}

impl Damage {
    /// Whether the unit was committed when the damage was found.
    pub fn is_committed(&self) -> bool {
        self.record.is_some()
    }
}

/// What [`Damage::found`] says of an object that is missing.
const MISSING: &str = "no such file";

impl Ledger {
    /// The part of a unit, compared with its commit record.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the record or the part is not what was written, or the part is missing;
    /// [`Error::NotCommitted`]; [`Error::RecordMismatch`] if the record names another part; the store's errors.
    pub fn read_part(&self, stage: &str, unit: &Unit, path: &str) -> Result<Bytes> {
        let (record, bytes) = self.fetch(stage, unit, path)?;
        match record.blake3.as_deref() == Some(&*digest(&bytes)) {
            true => Ok(bytes),
            false => Err(self.part_damage(&record, Some(&bytes))?.into()),
        }
    }

    /// As [`Ledger::read_part`], for large parts: `decode` works on the bytes while they are compared on another thread.
    /// What it returns is dropped if they are not what was written.
    ///
    /// # Errors
    /// As of [`Ledger::read_part`].
    pub fn read_part_with<T>(
        &self,
        stage: &str,
        unit: &Unit,
        path: &str,
        decode: impl FnOnce(Bytes) -> T,
    ) -> Result<T> {
        let (record, bytes) = self.fetch(stage, unit, path)?;
        let (hashed, decoded) = std::thread::scope(|scope| {
            let hashing = scope.spawn(|| digest(&bytes));
            let decoded = decode(bytes.clone());
            (hashing.join(), decoded)
        });
        let hashed = hashed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match record.blake3 == Some(hashed) {
            true => Ok(decoded),
            false => Err(self.part_damage(&record, Some(&bytes))?.into()),
        }
    }

    /// The record of a unit and the bytes of its part, not compared yet.
    fn fetch(&self, stage: &str, unit: &Unit, path: &str) -> Result<(CommitRecord, Bytes)> {
        let whole_path = || self.store().display(path);
        let record = self
            .record(stage, unit)?
            .ok_or_else(|| Error::NotCommitted { path: whole_path() })?;
        if record.part.as_deref() != Some(path) {
            return Err(Error::RecordMismatch {
                path: self.store().display(&self.record_path(stage, unit)?),
                found: record.part.unwrap_or_else(|| "no part".to_owned()),
                expected: path.to_owned(),
            });
        }
        match self.store().get(path)? {
            Some(bytes) => Ok((record, bytes)),
            None => Err(self.part_damage(&record, None)?.into()),
        }
    }

    /// Compares the part of `record` with it; `None` if it is whole, or the unit has no part. Reads the whole part.
    ///
    /// # Errors
    /// The store's errors.
    pub fn check_part(&self, record: &CommitRecord) -> Result<Option<Box<Damage>>> {
        let Some(path) = &record.part else {
            return Ok(None);
        };
        let found = self.store().get(path)?;
        if let Some(bytes) = &found
            && record.blake3.as_deref() == Some(&*digest(bytes))
        {
            return Ok(None);
        }
        self.part_damage(record, found.as_ref()).map(Some)
    }

    /// As [`Ledger::check_part`] for many records: the first damage in their order.
    ///
    /// # Errors
    /// The store's errors.
    pub fn check_parts(&self, records: &[CommitRecord]) -> Result<Option<Box<Damage>>> {
        // Few at a time: a part may be large.
        for records in records.chunks(16) {
            let with_part = records.iter().filter(|record| record.part.is_some());
            let (records, paths): (Vec<_>, Vec<_>) = with_part
                .filter_map(|record| Some((record, record.part.clone()?)))
                .unzip();
            for (record, found) in records.into_iter().zip(self.store().get_many(&paths)?) {
                let whole = found
                    .as_ref()
                    .is_some_and(|bytes| record.blake3.as_deref() == Some(&*digest(bytes)));
                if !whole {
                    return self.part_damage(record, found.as_ref()).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// A sealed file of a unit that is not its part; `None` if there is no such file. A file without a seal, of an older
    /// version, is returned unchecked.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the seal is broken; the store's errors.
    pub fn read_sealed(&self, stage: &str, unit: &Unit, path: &str) -> Result<Option<Bytes>> {
        let Some(bytes) = self.store().get(path)? else {
            return Ok(None);
        };
        match self.broken_seal(stage, unit, path, &bytes)? {
            None => Ok(Some(bytes)),
            Some(damage) => Err(damage.into()),
        }
    }

    /// The damage of a unit that is committed, but whose file at `path` is missing.
    ///
    /// # Errors
    /// As of [`Ledger::record`].
    pub fn missing_file(&self, stage: &str, unit: &Unit, path: &str) -> Result<Box<Damage>> {
        self.damage_of(
            stage,
            unit,
            path,
            ("unknown".to_owned(), MISSING.to_owned()),
        )
    }

    /// Moves a damaged object into `<dir>/damaged/`, and removes the record of its unit, so that the unit is open again.
    /// Returns where the object is now, `None` if there was nothing to move: it was missing, or has been replaced meanwhile.
    ///
    /// Safe beside other workers that do the same; the head of this file explains why.
    ///
    /// # Errors
    /// The store's errors. After an error the same call completes what it began.
    pub fn set_aside(&self, damage: &Damage) -> Result<Option<String>> {
        let object = &damage.object;
        let mut kept = None;
        if let Some(bytes) = self.store().get(object)? {
            let found = digest(&bytes);
            if !damage.is_in(object, &bytes, &found) {
                return Ok(None);
            }
            let copy = format!("{}/damaged/{object}.{}", self.dir(), &found[..12]);
            // An identical copy is one of an interrupted attempt; the digits make every other one different.
            let _: crate::store::Created = self.store().create(&copy, bytes)?;
            self.store().delete(object)?;
            kept = Some(self.store().display(&copy));
        }
        let Some(path) = &damage.record else {
            return Ok(kept);
        };
        if path == object {
            self.unclaim_recorded(&damage.stage, path)?;
            return Ok(kept);
        }
        // A record that cannot be read any more is damage of its own.
        if let Some(bytes) = self.store().get(path)?
            && let Ok(record) = CommitRecord::parse(path, &bytes)
            && record.nonce == damage.nonce
        {
            self.store().delete(path)?;
        }
        // Whoever claimed the unit has finished it and may be gone.
        self.unclaim_recorded(&damage.stage, path)?;
        Ok(kept)
    }

    /// Removes the claims of the unit whose record is at `record`.
    fn unclaim_recorded(&self, stage: &str, record: &str) -> Result<()> {
        let name = record.rsplit('/').next().unwrap_or_default();
        let unit = name.strip_suffix(".json").and_then(|n| n.rsplit_once('.'));
        match unit.and_then(|(unit, _)| decode_name(unit)) {
            Some(unit) => self.unclaim(stage, &unit),
            None => Ok(()),
        }
    }

    /// Removes every record of a stage whose units are only summaries of others, so that they are checked and committed
    /// again.
    ///
    /// # Errors
    /// The store's errors.
    pub fn reopen(&self, stage: &str) -> Result<()> {
        let dir = self.commits(stage)?;
        for name in self.store().names(&dir)? {
            self.store().delete(&format!("{dir}/{name}"))?;
        }
        Ok(())
    }

    /// Fails unless the part that stands under the name of a unit's part is what was written: by its record, or without one
    /// by its seal. Only its seal can show that a part is whole which a crash has left without a record.
    pub(crate) fn check_standing(
        &self,
        stage: &str,
        unit: &Unit,
        path: &str,
        standing: &Bytes,
        read_footer: FooterReader,
    ) -> Result<()> {
        if let Some(record) = self.record(stage, unit)?
            && record.part.as_deref() == Some(path)
        {
            return match record.blake3.as_deref() == Some(&*digest(standing)) {
                true => Ok(()),
                false => Err(self.part_damage(&record, Some(standing))?.into()),
            };
        }
        if let Some(damage) = self.broken_seal(stage, unit, path, standing)? {
            return Err(damage.into());
        }
        // A file of something else is named by its fingerprint, and stays.
        let ours = read_footer(standing).is_some_and(|f| f.fingerprint == unit.fingerprint);
        match check_seal(standing) {
            Seal::Absent if ours => Err(self.unsealed_part(stage, path, standing).into()),
            _ => Ok(()),
        }
    }

    /// The damage of a record, whose bytes are broken by their own account.
    pub(crate) fn record_damage(
        &self,
        stage: &str,
        path: &str,
        expected: String,
        found: String,
    ) -> Box<Damage> {
        Box::new(Damage {
            path: self.store().display(path),
            expected,
            found,
            stage: stage.to_owned(),
            ledger: self.location(),
            object: path.to_owned(),
            record: Some(path.to_owned()),
            nonce: String::new(),
        })
    }

    /// The damage of a part that has other bytes than its record says.
    pub(crate) fn part_damage(
        &self,
        record: &CommitRecord,
        found: Option<&Bytes>,
    ) -> Result<Box<Damage>> {
        let unit = Unit {
            key: record.unit.clone(),
            fingerprint: record.fingerprint.clone(),
        };
        let path = record.part.as_deref().unwrap_or_default();
        Ok(Box::new(Damage {
            path: self.store().display(path),
            expected: record.blake3.clone().unwrap_or_default(),
            found: found.map_or_else(|| MISSING.to_owned(), digest),
            stage: record.stage.clone(),
            ledger: self.location(),
            object: path.to_owned(),
            record: Some(self.record_path(&record.stage, &unit)?),
            nonce: record.nonce.clone(),
        }))
    }

    /// A part that an older version has left without a record and without a seal. It may be whole, but nothing shows it.
    pub(crate) fn unsealed_part(&self, stage: &str, path: &str, found: &Bytes) -> Box<Damage> {
        Box::new(Damage {
            path: self.store().display(path),
            expected: "unknown (it has neither a commit record nor a seal)".to_owned(),
            found: digest(found),
            stage: stage.to_owned(),
            ledger: self.location(),
            object: path.to_owned(),
            record: None,
            nonce: String::new(),
        })
    }

    /// The damage of an object of a unit whose seal is broken; `None` if it is whole or has no seal.
    pub(crate) fn broken_seal(
        &self,
        stage: &str,
        unit: &Unit,
        path: &str,
        bytes: &Bytes,
    ) -> Result<Option<Box<Damage>>> {
        let seal = match path.ends_with(".json") {
            true => check_json_seal(bytes),
            false => check_seal(bytes),
        };
        let Seal::Broken { expected, found } = seal else {
            return Ok(None);
        };
        self.damage_of(stage, unit, path, (expected, found))
            .map(Some)
    }

    /// The damage of an object of `unit`, whose record, if there is one, is to be removed with it.
    fn damage_of(
        &self,
        stage: &str,
        unit: &Unit,
        path: &str,
        (expected, found): (String, String),
    ) -> Result<Box<Damage>> {
        let record = self.record(stage, unit)?;
        Ok(Box::new(Damage {
            path: self.store().display(path),
            expected,
            found,
            stage: stage.to_owned(),
            ledger: self.location(),
            object: path.to_owned(),
            record: match &record {
                Some(_) => Some(self.record_path(stage, unit)?),
                None => None,
            },
            nonce: record.map_or_else(String::new, |record| record.nonce),
        }))
    }

    /// Reads a record whose seal, if it has one, is whole. A file that is no record at all is damaged as well.
    pub(crate) fn parse_whole(
        &self,
        stage: &str,
        path: &str,
        bytes: &Bytes,
    ) -> Result<CommitRecord> {
        let sealed = match check_json_seal(bytes) {
            Seal::Broken { expected, found } => {
                return Err(self.record_damage(stage, path, expected, found).into());
            }
            Seal::Absent => false,
            Seal::Whole => true,
        };
        match CommitRecord::parse(&self.store().display(path), bytes) {
            Ok(record) => Ok(CommitRecord { sealed, ..record }),
            Err(Error::Json { source, .. }) => {
                let expected = format!("unknown ({source})");
                let damage = self.record_damage(stage, path, expected, digest(bytes));
                Err(damage.into())
            }
            Err(error) => Err(error),
        }
    }
}

impl Damage {
    /// Whether the object now at its path, with these bytes and this BLAKE3, is still the damaged one.
    fn is_in(&self, object: &str, bytes: &Bytes, blake3: &str) -> bool {
        let is_record = self.record.as_deref() == Some(object);
        let seal = match is_record || object.ends_with(".json") {
            true => check_json_seal(bytes),
            false => check_seal(bytes),
        };
        match seal {
            Seal::Broken { found, .. } => found == self.found || blake3 == self.found,
            // Without a seal only the record can tell.
            Seal::Absent | Seal::Whole => blake3 == self.found,
        }
    }
}

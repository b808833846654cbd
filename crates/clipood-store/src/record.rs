//! The bookkeeping files: commit records and claims, and their names.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::seal::seal_json;

/// The format version of records, claims and run files that this crate writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Hexadecimal digits of the fingerprint in the name of a record: 48 bits.
const FINGERPRINT_DIGITS: usize = 12;

/// Longest encoded stage or unit in bytes, so that `<unit>.<digits>.json#<n>` fits the 255 bytes of common file systems.
const LONGEST_NAME: usize = 200;

/// A unit of work of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    /// The unit's key, unique in its stage; any text whose encoded form has 1 to 200 bytes.
    pub key: String,
    /// Fingerprint of everything that can change the unit's result: at least 12 lower-case hexadecimal digits.
    pub fingerprint: String,
}

/// Proof that a unit is done: the last object that its commit writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Format version of the record, currently 1. Newer versions are rejected.
    pub format_version: u32,
    /// Stage of the unit.
    pub stage: String,
    /// Key of the unit.
    pub unit: String,
    /// The complete fingerprint of the unit.
    pub fingerprint: String,
    /// Path of the part, relative to the ledger's store; `None` if the unit has no part.
    pub part: Option<String>,
    /// BLAKE3 of the part in hexadecimal digits; `None` without a part.
    pub blake3: Option<String>,
    /// Size of the part in bytes, 0 without a part.
    pub bytes: u64,
    /// Rows of the part, 0 without a part.
    pub rows: u64,
    /// Rows that the unit put into quarantine instead of its part.
    pub quarantined: u64,
    /// Additional fields of the stage: program versions, counts, times.
    pub extra: BTreeMap<String, Value>,
    /// 128 random bits in hexadecimal digits, which distinguish this write from every other.
    pub nonce: String,
    /// Name of the worker that wrote it.
    pub worker: String,
    /// Whether the file has a seal, which showed that no byte of it has changed; records of older versions have none.
    #[serde(skip)]
    pub sealed: bool,
}

impl CommitRecord {
    /// Reads a record; `path` names it in errors.
    pub(crate) fn parse(path: &str, bytes: &Bytes) -> Result<Self> {
        check_version(path, "commit record", bytes)?;
        serde_json::from_slice(bytes).map_err(|source| Error::Json {
            path: path.to_owned(),
            what: "commit record",
            source,
        })
    }

    /// Fails unless the record describes exactly this unit: its name contains only the first digits of the fingerprint.
    pub(crate) fn check(&self, path: &str, stage: &str, unit: &Unit) -> Result<()> {
        let found = (&*self.stage, &*self.unit, &*self.fingerprint);
        let expected = (stage, &*unit.key, &*unit.fingerprint);
        if found == expected {
            return Ok(());
        }
        let describe = |(stage, unit, fingerprint): (&str, &str, &str)| {
            format!("stage {stage:?}, unit {unit:?}, fingerprint {fingerprint}")
        };
        Err(Error::RecordMismatch {
            path: path.to_owned(),
            found: describe(found),
            expected: describe(expected),
        })
    }
}

/// A hint that a worker has started a unit, so that others take it last. It never affects a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub format_version: u32,
    pub worker: String,
    pub nonce: String,
}

/// Fails for a file of a newer format version, before its other fields are read.
pub(crate) fn check_version(path: &str, what: &'static str, bytes: &Bytes) -> Result<()> {
    #[derive(Deserialize)]
    struct Versioned {
        format_version: u32,
    }
    let versioned: Versioned = serde_json::from_slice(bytes).map_err(|source| Error::Json {
        path: path.to_owned(),
        what,
        source,
    })?;
    match versioned.format_version {
        ..=FORMAT_VERSION => Ok(()),
        found => Err(Error::Version {
            path: path.to_owned(),
            found,
            supported: FORMAT_VERSION,
        }),
    }
}

/// Indented JSON with a final newline, for human readers.
pub(crate) fn to_json(path: &str, what: &'static str, value: &impl Serialize) -> Result<Bytes> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| Error::Json {
        path: path.to_owned(),
        what,
        source,
    })?;
    text.push(b'\n');
    Ok(Bytes::from(text))
}

/// As [`to_json`], with a seal.
pub(crate) fn sealed_json(path: &str, what: &'static str, value: &impl Serialize) -> Result<Bytes> {
    Ok(Bytes::from(seal_json(to_json(path, what, value)?.into())))
}

/// 128 random bits in hexadecimal digits.
pub(crate) fn nonce() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Error::Random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A stage or unit as a file name: every byte except ASCII letters, digits and `-_=,.` becomes `~XX`, and so does a leading
/// `.`.
///
/// Not percent-encoding, because many tools decode that, some of them twice.
pub(crate) fn encode_name(what: &'static str, name: &str) -> Result<String> {
    let mut encoded = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-_=,".contains(&byte);
        if plain || (byte == b'.' && index > 0) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("~{byte:02X}"));
        }
    }
    let reason = match encoded.len() {
        0 => "it is empty".to_owned(),
        1..=LONGEST_NAME => return Ok(encoded),
        length => format!("it takes {length} bytes as a file name, at most {LONGEST_NAME} fit"),
    };
    Err(Error::InvalidName {
        what,
        name: name.to_owned(),
        reason,
    })
}

/// The inverse of [`encode_name`]; `None` for text that it never produces.
pub(crate) fn decode_name(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.find('~') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(rest.get(at + 1..at + 3)?, 16).ok()?);
        rest = &rest[at + 3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    let name = String::from_utf8(bytes).ok()?;
    (encode_name("name", &name).ok()? == encoded).then_some(name)
}

/// The name of a record without `.json`: `<unit>.<first digits of the fingerprint>`, so that a listing alone shows which
/// units are done with which fingerprint.
pub(crate) fn record_stem(unit: &Unit) -> Result<String> {
    let digits = &unit.fingerprint;
    let hexadecimal = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() < FINGERPRINT_DIGITS || !digits.bytes().all(hexadecimal) {
        return Err(Error::InvalidName {
            what: "fingerprint",
            name: digits.clone(),
            reason: format!("at least {FINGERPRINT_DIGITS} lower-case hexadecimal digits needed"),
        });
    }
    let key = encode_name("unit", &unit.key)?;
    Ok(format!("{key}.{}", &digits[..FINGERPRINT_DIGITS]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_plain_and_bounded() {
        assert_eq!(
            encode_name("unit", "a/b c#1%.d").unwrap(),
            "a~2Fb~20c~231~25.d"
        );
        assert_eq!(encode_name("unit", "..").unwrap(), "~2E.");
        assert!(encode_name("unit", "").is_err());
        assert!(encode_name("unit", &"é".repeat(34)).is_err());
        for foreign in ["a b", "a~", "a~2", "a~zz", "a~2f", "~41", "a~é9", ""] {
            assert_eq!(decode_name(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn fingerprints_are_checked() {
        let stem = |fingerprint: &str| {
            record_stem(&Unit {
                key: "00007".into(),
                fingerprint: fingerprint.into(),
            })
        };
        assert_eq!(stem("0123456789abcdef").unwrap(), "00007.0123456789ab");
        for bad in ["0123456789a", "0123456789AB", "0123456789a.", ""] {
            assert!(stem(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn newer_formats_are_refused_by_name() {
        let newer = Bytes::from_static(br#"{"format_version": 2, "unit": 5}"#);
        let error = CommitRecord::parse("/run/r.json", &newer).unwrap_err();
        assert!(matches!(error, Error::Version { found: 2, .. }), "{error}");
        let broken = Bytes::from_static(b"{");
        let error = CommitRecord::parse("/run/r.json", &broken).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/run/r.json is not a readable commit record")
        );
    }

    proptest! {
        #[test]
        fn names_round_trip(name in "\\PC{1,40}|[ -~]{1,60}") {
            prop_assume!(encode_name("unit", &name).is_ok());
            let encoded = encode_name("unit", &name).unwrap();
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=,.~".contains(&b)));
            prop_assert_eq!(decode_name(&encoded), Some(name));
        }
    }
}

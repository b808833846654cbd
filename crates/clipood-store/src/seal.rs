//! Seals: the BLAKE3 of a file inside the file itself, so that a file without a commit record can be checked too.
//!
//! A seal is the text `blake3-of-this-file:` followed by 64 hexadecimal digits: the BLAKE3 of the whole file with these
//! digits replaced by `0`. It can stand wherever the format of the file has room for a text (a JSON member, the metadata of
//! Parquet or safetensors), and is checked without knowledge of the format. If the text occurs more than once, the last one
//! is the seal.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Start of a seal.
const MARK: &[u8] = b"blake3-of-this-file:";
/// Hexadecimal digits of a BLAKE3.
const DIGITS: usize = 64;

/// Whether a file is the one that was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It has no seal: an older version or another program wrote it.
    Absent,
    /// Every byte is as it was sealed.
    Whole,
    /// Some byte has changed.
    Broken {
        /// The BLAKE3 that the seal names.
        expected: String,
        /// The BLAKE3 of the file as it is.
        found: String,
    },
}

/// The text to put where the seal will be, before [`stamp`].
pub fn blank_seal() -> String {
    let mut text = String::from_utf8_lossy(MARK).into_owned();
    text.extend(std::iter::repeat_n('0', DIGITS));
    text
}

/// Writes the digits of the last seal in `file`; without one nothing is changed.
pub fn stamp(file: &mut [u8]) {
    if let Some(at) = digits_of(file) {
        let digest = digest_around(file, at);
        file[at..at + DIGITS].copy_from_slice(digest.as_bytes());
    }
}

/// Compares a file with its seal. The cost is one pass over the file.
pub fn check_seal(file: &[u8]) -> Seal {
    let Some(at) = digits_of(file) else {
        return Seal::Absent;
    };
    let found = digest_around(file, at);
    let digits = &file[at..at + DIGITS];
    match digits == found.as_bytes() {
        true => Seal::Whole,
        false => Seal::Broken {
            expected: String::from_utf8_lossy(digits).into_owned(),
            found,
        },
    }
}

/// Adds the member `seal` to the JSON object `text`; any other text is returned as it is.
pub fn seal_json(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.trim_ascii_end().len();
    let body = match text[..end].strip_suffix(b"}") {
        Some(body) => body.trim_ascii_end(),
        None => return text,
    };
    let indented = body.contains(&b'\n');
    let comma = if body.ends_with(b"{") { "" } else { "," };
    let length = body.len();
    text.truncate(length);
    let seal = blank_seal();
    let member = match indented {
        true => format!("{comma}\n  \"seal\": \"{seal}\"\n}}\n"),
        false => format!("{comma}\"seal\":\"{seal}\"}}"),
    };
    text.extend(member.as_bytes());
    stamp(&mut text);
    text
}

/// As [`check_seal`], for a file that [`seal_json`] has sealed: a seal that is itself unreadable counts as broken, not as
/// absent, and so does a file that is no JSON object.
pub fn check_json_seal(file: &[u8]) -> Seal {
    #[derive(Deserialize)]
    struct Sealed {
        seal: Option<IgnoredAny>,
    }
    let seal = check_seal(file);
    if seal != Seal::Absent {
        return seal;
    }
    match serde_json::from_slice::<Sealed>(file) {
        Ok(Sealed { seal: None }) => Seal::Absent,
        _ => Seal::Broken {
            expected: "unknown (its seal or its JSON is unreadable)".to_owned(),
            found: blake3::hash(file).to_hex().to_string(),
        },
    }
}

/// Where the digits of the last seal begin.
fn digits_of(file: &[u8]) -> Option<usize> {
    let last = file.len().checked_sub(DIGITS)?;
    let mark = file[..last]
        .windows(MARK.len())
        .rposition(|window| window == MARK)?;
    Some(mark + MARK.len())
}

/// The BLAKE3 of `file` with zeros in place of the digits at `at`.
fn digest_around(file: &[u8], at: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..at]);
    hasher.update(&[b'0'; DIGITS]);
    hasher.update(&file[at + DIGITS..]);
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_sealed_json_file_is_noticed() {
        for text in [
            "{\"a\": 1}",
            "{}",
            "{\n  \"a\": [1, 2],\n  \"b\": \"x y\"\n}\n",
        ] {
            let sealed = seal_json(text.as_bytes().to_vec());
            assert_eq!(check_json_seal(&sealed), Seal::Whole, "{text}");
            let value: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
            assert!(value["seal"].is_string());
            for bit in 0..8 * sealed.len() {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let seen = check_json_seal(&changed);
                assert!(matches!(seen, Seal::Broken { .. }), "bit {bit} of {text}");
            }
        }
    }

    #[test]
    fn files_without_a_seal_are_left_alone() {
        assert_eq!(check_seal(b""), Seal::Absent);
        assert_eq!(check_seal(b"blake3-of-this-file:0123"), Seal::Absent);
        assert_eq!(check_json_seal(b"{\"a\": 1}"), Seal::Absent);
        assert_eq!(seal_json(b"[1]".to_vec()), b"[1]");
        let mut plain = b"no seal here".to_vec();
        stamp(&mut plain);
        assert_eq!(plain, b"no seal here");
    }

    #[test]
    fn the_last_seal_counts() {
        let mut file = format!("{}, {} end", blank_seal(), blank_seal()).into_bytes();
        stamp(&mut file);
        assert_eq!(check_seal(&file), Seal::Whole);
        assert!(file.starts_with(blank_seal().as_bytes()));
        let length = file.len();
        file[length - 1] ^= 1;
        assert!(matches!(check_seal(&file), Seal::Broken { .. }));
    }
}

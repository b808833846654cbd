//! Zip archives of uncompressed entries, the container of `torch.save` and TorchScript.
//!
//! Only the central directory is read, so that a tensor is reached without touching the rest of the archive. Zip64
//! records are understood. Layout: PKWARE's APPNOTE, sections 4.3.7 to 4.3.16.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::problem::{Problem, Result};

/// Bytes of the end record without its comment.
const END_LENGTH: usize = 22;
/// End record, its longest comment, and the zip64 locator before it.
const TAIL_LENGTH: u64 = 20 + END_LENGTH as u64 + 0xFFFF;
/// A 32-bit field whose value is in the zip64 field.
const IN_ZIP64: u64 = 0xFFFF_FFFF;

/// Position of an entry's bytes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// Names and spans of all entries except TorchScript's sources, of the archive in `reader`, which is `length` bytes long.
pub(super) fn entries<R: Read + Seek>(
    reader: &mut R,
    length: u64,
) -> Result<BTreeMap<String, Span>> {
    let tail_length = length.min(TAIL_LENGTH);
    let tail_start = Span {
        start: length - tail_length,
        length: tail_length,
    };
    let tail = read_span(reader, tail_start, length)?;
    let end = (0..=tail.len().saturating_sub(END_LENGTH))
        .rev()
        .find(|&at| {
            tail[at..].starts_with(b"PK\x05\x06")
                && number(&tail, at + 20, 2)
                    .is_ok_and(|comment| (at + END_LENGTH) as u64 + comment == tail_length)
        })
        .ok_or("a zip archive without its directory: the file is cut off")?;
    let mut count = number(&tail, end + 10, 2)?;
    let mut directory = Span {
        start: number(&tail, end + 16, 4)?,
        length: number(&tail, end + 12, 4)?,
    };
    if count == 0xFFFF || directory.start == IN_ZIP64 || directory.length == IN_ZIP64 {
        let locator = end
            .checked_sub(20)
            .filter(|at| tail[*at..].starts_with(b"PK\x06\x07"))
            .ok_or("a zip64 archive without its locator")?;
        let record = Span {
            start: number(&tail, locator + 8, 8)?,
            length: 56,
        };
        let record = read_span(reader, record, length)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Err("a zip64 archive whose locator points nowhere".into());
        }
        count = number(&record, 32, 8)?;
        directory = Span {
            start: number(&record, 48, 8)?,
            length: number(&record, 40, 8)?,
        };
    }
    let directory = read_span(reader, directory, length)?;
    let mut entries = BTreeMap::new();
    let mut at = 0;
    for _ in 0..count {
        let (entry, next) = directory_entry(&directory, at)?;
        at = next;
        // TorchScript's sources, which are compressed, and which nothing reads.
        if entry.name.split('/').nth(1) == Some("code") {
            continue;
        }
        let span = stored_bytes(reader, &entry, length).map_err(|p| p.within(&entry.name))?;
        if entries.insert(entry.name.clone(), span).is_some() {
            return Err(format!("the archive holds `{}` twice", entry.name).into());
        }
    }
    Ok(entries)
}

/// One record of the central directory.
struct DirectoryEntry {
    name: String,
    compressed: bool,
    length: u64,
    header: u64,
}

/// The record at `at`, and where the next one starts.
fn directory_entry(directory: &[u8], at: usize) -> Result<(DirectoryEntry, usize)> {
    if number(directory, at, 4)? != 0x0201_4b50 {
        return Err("the directory of the zip archive is damaged".into());
    }
    let mut stored = number(directory, at + 20, 4)?;
    let mut length = number(directory, at + 24, 4)?;
    let mut header = number(directory, at + 42, 4)?;
    let name_end = at + 46 + number(directory, at + 28, 2)? as usize;
    let extra_end = name_end + number(directory, at + 30, 2)? as usize;
    let next = extra_end + number(directory, at + 32, 2)? as usize;
    let name = directory
        .get(at + 46..name_end)
        .ok_or("the directory of the zip archive is cut off")?;
    let mut field = name_end;
    while field + 4 <= extra_end {
        let mut value = field + 4;
        if number(directory, field, 2)? == 1 {
            // Only the values that do not fit their 32-bit field are present, in this order.
            for wide in [&mut length, &mut stored, &mut header] {
                if *wide == IN_ZIP64 {
                    *wide = number(directory, value, 8)?;
                    value += 8;
                }
            }
        }
        field += 4 + number(directory, field + 2, 2)? as usize;
    }
    let entry = DirectoryEntry {
        name: String::from_utf8_lossy(name).into_owned(),
        compressed: number(directory, at + 10, 2)? != 0
            || number(directory, at + 8, 2)? & 1 != 0
            || stored != length,
        length,
        header,
    };
    Ok((entry, next))
}

/// Position of the bytes of `entry`, after its local header.
fn stored_bytes<R: Read + Seek>(
    reader: &mut R,
    entry: &DirectoryEntry,
    length: u64,
) -> Result<Span> {
    if entry.compressed {
        return Err("compressed or encrypted, which torch.save never does".into());
    }
    let header = Span {
        start: entry.header,
        length: 30,
    };
    let header = read_span(reader, header, length)?;
    if !header.starts_with(b"PK\x03\x04") {
        return Err("its header is damaged".into());
    }
    let start = entry.header + 30 + number(&header, 26, 2)? + number(&header, 28, 2)?;
    match start.checked_add(entry.length) {
        Some(end) if end <= length => Ok(Span {
            start,
            length: entry.length,
        }),
        _ => Err("it reaches beyond the end of the file".into()),
    }
}

/// The bytes of `span` in a file of `length` bytes. A span beyond the end is refused before memory is allocated for it.
pub(super) fn read_span<R: Read + Seek>(
    reader: &mut R,
    span: Span,
    length: u64,
) -> Result<Vec<u8>> {
    if span
        .start
        .checked_add(span.length)
        .is_none_or(|end| end > length)
    {
        return Err("the file is cut off, or its directory is damaged".into());
    }
    reader.seek(SeekFrom::Start(span.start))?;
    let mut bytes = vec![0; span.length as usize];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The little-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> Result<u64> {
    let field = bytes
        .get(at..at + width)
        .ok_or("the directory of the zip archive is cut off")?;
    Ok(field
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// An archive of stored entries.
///
/// # Errors
/// It would need zip64 records: 4 GiB or 65535 entries are too much for this writer.
pub(super) fn archive(entries: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in entries {
        let narrow = |value: usize| {
            u32::try_from(value)
                .ok()
                .filter(|value| u64::from(*value) < IN_ZIP64)
                .ok_or_else(|| {
                    Problem::from("more than 4 GiB do not fit a state dict of this kind")
                })
        };
        let header = narrow(out.len())?;
        let length = narrow(bytes.len())?.to_le_bytes();
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        // Version 2.0, UTF-8 names, stored, 1980-01-01: equal contents make equal bytes.
        let mut common = vec![20, 0, 0, 8, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend(length);
        common.extend(length);
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(bytes);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(header.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = u32::try_from(out.len()).map_err(|_| "more than 4 GiB do not fit a zip archive")?;
    let count = u16::try_from(entries.len())
        .ok()
        .filter(|count| *count < 0xFFFF)
        .ok_or("more than 65534 tensors do not fit a zip archive")?;
    let length = directory.len() as u32;
    out.extend(directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn small() -> Vec<u8> {
        archive(&[
            ("a/data.pkl".to_owned(), vec![1, 2, 3]),
            ("a/data/0".to_owned(), vec![9; 40]),
        ])
        .unwrap()
    }

    #[test]
    fn entries_are_found_where_they_were_written() {
        let bytes = small();
        let found = entries(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap();
        let names: Vec<&String> = found.keys().collect();
        assert_eq!(names, ["a/data.pkl", "a/data/0"]);
        let read = read_span(
            &mut Cursor::new(&bytes),
            found["a/data/0"],
            bytes.len() as u64,
        );
        assert_eq!(read.unwrap(), vec![9; 40]);
    }

    #[test]
    fn an_archive_cut_off_anywhere_is_refused() {
        let bytes = small();
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            assert!(
                entries(&mut Cursor::new(cut), length as u64).is_err(),
                "{length} bytes were taken for an archive"
            );
        }
    }

    #[test]
    fn compressed_entries_are_refused_by_name() {
        let mut bytes = small();
        let method = bytes
            .windows(4)
            .position(|four| four == b"PK\x01\x02")
            .unwrap()
            + 10;
        bytes[method] = 8;
        let problem = entries(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap_err();
        let message = problem.of("x.pt").to_string();
        assert!(message.contains("a/data.pkl: compressed"), "{message}");
    }
}

//! NumPy's `.npz` files: zip archives of `.npy` files, stored or deflated.
//!
//! Layout: PKWARE's APPNOTE, sections 4.3.7 to 4.3.16, with the zip64 sizes that NumPy writes for large arrays.

use std::io::Read;

use anyhow::{Context, Result, bail};
use flate2::Crc;
use flate2::read::DeflateDecoder;

use super::arrays::LONGEST_FILE;

/// A 32-bit field whose value is in the zip64 field.
const IN_ZIP64: u64 = 0xFFFF_FFFF;

/// A file in an archive.
struct Entry {
    name: String,
    /// 0: stored, 8: deflated.
    method: u64,
    crc: u32,
    packed: u64,
    length: u64,
    /// Position of its local header.
    header: u64,
}

/// The `.npy` file of the array `wanted`, or of the only one; `option` says in errors how to name it.
///
/// # Errors
/// An archive that is damaged, cut off, or of another program; no or several arrays.
pub fn member(archive: &[u8], wanted: Option<&str>, option: &str) -> Result<Vec<u8>> {
    let entries = entries(archive)?;
    let is_here = |end: &str| entries.iter().any(|entry| entry.name.ends_with(end));
    if is_here("data.pkl") {
        bail!("a file of torch.save; save the array with numpy.save(FILE, tensor.numpy())");
    }
    if is_here("workbook.xml") {
        bail!("an Excel workbook; export the sheet as CSV");
    }
    let name_of = |entry: &Entry| entry.name.strip_suffix(".npy").map(str::to_owned);
    let arrays: Vec<(String, &Entry)> = entries
        .iter()
        .filter_map(|entry| Some((name_of(entry)?, entry)))
        .collect();
    let names: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
    let list = names.join(", ");
    let entry = match (wanted, &arrays[..]) {
        (Some(wanted), all) => {
            all.iter()
                .find(|(name, _)| name == wanted)
                .with_context(|| format!("no array `{wanted}` (arrays: {list})"))?
                .1
        }
        (None, [(_, only)]) => only,
        (None, []) => bail!("a zip archive without arrays"),
        (None, _) => bail!("several arrays, choose one with {option}: {list}"),
    };
    unpacked(archive, entry).with_context(|| format!("array `{}`", entry.name))
}

/// The little-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> Result<u64> {
    let field = at.checked_add(width).and_then(|end| bytes.get(at..end));
    let field = field.context("the zip archive is cut off")?;
    Ok(field
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn entries(archive: &[u8]) -> Result<Vec<Entry>> {
    let least = archive.len().saturating_sub(22 + 0xFFFF);
    let end = (least..=archive.len().saturating_sub(22))
        .rev()
        .find(|&at| archive[at..].starts_with(b"PK\x05\x06"))
        .context("a zip archive without its directory: the file is cut off")?;
    let (mut count, mut at) = (number(archive, end + 10, 2)?, number(archive, end + 16, 4)?);
    if count == 0xFFFF || at == IN_ZIP64 {
        let locator = end
            .checked_sub(20)
            .context("a zip64 archive without its locator")?;
        let record = number(archive, locator + 8, 8)? as usize;
        if !archive
            .get(record..)
            .unwrap_or_default()
            .starts_with(b"PK\x06\x06")
        {
            bail!("a zip64 archive whose locator points nowhere");
        }
        count = number(archive, record + 32, 8)?;
        at = number(archive, record + 48, 8)?;
    }
    let mut at = at as usize;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (entry, next) = entry(archive, at)?;
        entries.push(entry);
        at = next;
    }
    Ok(entries)
}

/// The record of the directory at `at`, and where the next one starts.
fn entry(archive: &[u8], at: usize) -> Result<(Entry, usize)> {
    if number(archive, at, 4)? != 0x0201_4b50 {
        bail!("the directory of the zip archive is damaged");
    }
    let name_end = at + 46 + number(archive, at + 28, 2)? as usize;
    let extra_end = name_end + number(archive, at + 30, 2)? as usize;
    let name = archive.get(at + 46..name_end);
    let name = name.context("the directory of the zip archive is cut off")?;
    let mut entry = Entry {
        name: String::from_utf8_lossy(name).into_owned(),
        method: number(archive, at + 10, 2)?,
        crc: number(archive, at + 16, 4)? as u32,
        packed: number(archive, at + 20, 4)?,
        length: number(archive, at + 24, 4)?,
        header: number(archive, at + 42, 4)?,
    };
    let mut field = name_end;
    while field + 4 <= extra_end {
        let mut value = field + 4;
        if number(archive, field, 2)? == 1 {
            // Only the values that do not fit their 32-bit field are present, in this order.
            for wide in [&mut entry.length, &mut entry.packed, &mut entry.header] {
                if *wide == IN_ZIP64 {
                    *wide = number(archive, value, 8)?;
                    value += 8;
                }
            }
        }
        field += 4 + number(archive, field + 2, 2)? as usize;
    }
    Ok((entry, extra_end + number(archive, at + 32, 2)? as usize))
}

fn unpacked(archive: &[u8], entry: &Entry) -> Result<Vec<u8>> {
    let at = entry.header as usize;
    if number(archive, at, 4)? != 0x0403_4b50 {
        bail!("its header is damaged");
    }
    let lengths = number(archive, at + 26, 2)? + number(archive, at + 28, 2)?;
    let start = at + 30 + lengths as usize;
    let end = start.checked_add(entry.packed as usize);
    let packed = end.and_then(|end| archive.get(start..end));
    let packed = packed.context("the zip archive is cut off")?;
    if entry.length > LONGEST_FILE {
        bail!(
            "is {} bytes long, allowed: at most {LONGEST_FILE}",
            entry.length
        );
    }
    let bytes = match entry.method {
        0 => packed.to_vec(),
        8 => {
            // Grown while it is read, because the stated length may be wrong.
            let mut bytes = Vec::new();
            DeflateDecoder::new(packed)
                .take(entry.length.saturating_add(1))
                .read_to_end(&mut bytes)
                .context("its compressed bytes are damaged")?;
            bytes
        }
        other => bail!("is compressed by method {other}, expected 0 (stored) or 8 (deflated)"),
    };
    let mut crc = Crc::new();
    crc.update(&bytes);
    if bytes.len() as u64 != entry.length || crc.sum() != entry.crc {
        bail!("its bytes do not fit their checksum: the file is damaged");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    /// An archive of these files, as numpy.savez (or, if `deflated`, numpy.savez_compressed) lays it out.
    fn archive(files: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for (name, content) in files {
            let mut crc = Crc::new();
            crc.update(content);
            let packed = match deflated {
                false => content.to_vec(),
                true => {
                    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                    encoder.write_all(content).unwrap();
                    encoder.finish().unwrap()
                }
            };
            let header = bytes.len() as u32;
            let mut common = vec![20, 0, 0, 0, if deflated { 8 } else { 0 }, 0, 0, 0, 0, 0];
            common.extend(crc.sum().to_le_bytes());
            common.extend((packed.len() as u32).to_le_bytes());
            common.extend((content.len() as u32).to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            bytes.extend(b"PK\x03\x04");
            bytes.extend(&common);
            bytes.extend(name.as_bytes());
            bytes.extend(packed);
            directory.extend(b"PK\x01\x02\x14\x00");
            directory.extend(&common);
            directory.extend([0; 10]);
            directory.extend(header.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let (start, length) = (bytes.len() as u32, directory.len() as u32);
        bytes.extend(directory);
        bytes.extend(b"PK\x05\x06\0\0\0\0");
        bytes.extend([files.len() as u8, 0, files.len() as u8, 0]);
        bytes.extend(length.to_le_bytes());
        bytes.extend(start.to_le_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    #[test]
    fn arrays_are_found_by_name_or_alone() {
        for deflated in [false, true] {
            let one = archive(&[("arr_0.npy", b"abcabcabc")], deflated);
            assert_eq!(member(&one, None, "").unwrap(), b"abcabcabc");
            let two = archive(&[("a.npy", b"x"), ("b.npy", b"y")], deflated);
            assert_eq!(member(&two, Some("b"), "").unwrap(), b"y");
            let error = member(&two, None, "--column").unwrap_err().to_string();
            assert!(error.contains("--column: a, b"), "{error}");
            let error = member(&two, Some("c"), "").unwrap_err().to_string();
            assert!(error.contains("`c` (arrays: a, b)"), "{error}");
            // Any cut and any changed byte of the content is noticed.
            for end in 0..one.len() {
                assert!(member(&one[..end], None, "").is_err(), "{end}");
            }
            let mut damaged = one.clone();
            damaged[30 + 9 + 3] ^= 1;
            assert!(member(&damaged, None, "").is_err());
        }
        let torch = archive(&[("x/data.pkl", b""), ("x/data/0", b"")], false);
        let error = member(&torch, None, "").unwrap_err().to_string();
        assert!(error.contains("torch.save"), "{error}");
    }
}

//! Files that Pillow's decoder reads and the `png` crate does not, with what they lack.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// Length of the signature and the chunk IHDR, which come first.
const HEAD: usize = 33;

/// The chunks up to the last one with data of the picture, and an end: what comes behind is not read by Pillow's decoder,
/// so that the last checksum and IEND may be missing. Chunks of unknown kinds that call themselves critical are left out,
/// and a palette that is missing is black.
pub fn ended(bytes: &[u8]) -> Vec<u8> {
    let mut whole = bytes[..bytes.len().min(8)].to_vec();
    let (mut at, mut has_data, mut has_palette) = (8, false, false);
    while let Some(&[l0, l1, l2, l3, ref kind @ ..]) = bytes.get(at..at + 8) {
        let end = at + 8 + u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let is_data = kind == b"IDAT";
        if has_data && !is_data {
            break;
        }
        if is_data && bytes.len() < end {
            return bytes.to_vec();
        }
        has_palette |= kind == b"PLTE";
        if is_data && !has_data && !has_palette && bytes.get(25) == Some(&3) {
            chunk(
                &mut whole,
                b"PLTE",
                &[0; 3 << 8][..3 << depth(bytes).min(8)],
            );
        }
        has_data |= is_data;
        let is_known =
            kind[0].is_ascii_lowercase() || matches!(kind, b"IHDR" | b"PLTE" | b"IDAT" | b"IEND");
        if is_known {
            whole.extend(&bytes[at.min(bytes.len())..(end + 4).min(bytes.len())]);
            let missing = (end + 4).saturating_sub(bytes.len());
            if is_data {
                whole.resize(whole.len() + missing, 0);
            }
        }
        at = end + 4;
    }
    if !has_data {
        return bytes.to_vec();
    }
    chunk(&mut whole, b"IEND", b"");
    whole
}

/// The file with rows of zeros in place of those that are missing at the end of its data; `None` if no row is missing, if
/// part of one is there, if the data do not end as zlib's should, or if the picture is interlaced.
pub fn with_all_rows(ended: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| Some(u32::from_be_bytes(*ended.get(at..)?.first_chunk()?) as usize);
    let (width, height) = (number(16)?, number(20)?);
    let channels = match ended.get(25)? {
        0 | 3 => 1,
        4 => 2,
        2 => 3,
        6 => 4,
        _ => return None,
    };
    if ended.get(28) != Some(&0) {
        return None;
    }
    let bits = width.checked_mul(channels * usize::from(depth(ended)))?;
    // Each row begins with its filter.
    let row = 1 + bits.div_ceil(8);
    let expected = row.checked_mul(height)?;
    let (mut kept, mut data) = (ended.get(..HEAD)?.to_vec(), Vec::new());
    let mut at = HEAD;
    while let Some(kind) = ended.get(at + 4..at + 8) {
        let end = at + 8 + number(at)?;
        match kind {
            b"IDAT" => data.extend(ended.get(at + 8..end)?),
            b"IEND" => break,
            _ => kept.extend(ended.get(at..end + 4)?),
        }
        at = end + 4;
    }
    let mut decoder = ZlibDecoder::new(&data[..]);
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    let mut found = Vec::new();
    decoder
        .by_ref()
        .take(expected as u64)
        .read_to_end(&mut found)
        .ok()?;
    if found.len() >= expected || !found.len().is_multiple_of(row) {
        return None;
    }
    found.resize(expected, 0);
    packed.write_all(&found).ok()?;
    chunk(&mut kept, b"IDAT", &packed.finish().ok()?);
    chunk(&mut kept, b"IEND", b"");
    Some(kept)
}

/// Bits of a sample.
fn depth(bytes: &[u8]) -> u8 {
    bytes.get(24).copied().unwrap_or(0)
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let mut checksum = flate2::Crc::new();
    for part in [&kind[..], data] {
        checksum.update(part);
        file.extend(part);
    }
    file.extend(checksum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey picture of 2 x 3 pixels with these rows.
    fn file(rows: &[u8]) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(&mut file, b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 3, 8, 0, 0, 0, 0]);
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(rows).unwrap();
        chunk(&mut file, b"IDAT", &packed.finish().unwrap());
        chunk(&mut file, b"IEND", b"");
        file
    }

    #[test]
    fn rows_are_added_only_where_they_are_missing() {
        let rows = [0, 1, 2, 0, 3, 4, 0, 5, 6];
        assert_eq!(with_all_rows(&file(&rows)), None);
        assert_eq!(with_all_rows(&file(&rows[..5])), None);
        let expected = file(&[0, 1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(with_all_rows(&file(&rows[..3])), Some(expected));
    }

    #[test]
    fn whole_files_stay_and_shorter_ones_are_no_panic() {
        let whole = file(&[0, 1, 2, 0, 3, 4, 0, 5, 6]);
        assert_eq!(ended(&whole), whole);
        for length in 0..whole.len() {
            let ended = ended(&whole[..length]);
            with_all_rows(&ended);
        }
    }
}

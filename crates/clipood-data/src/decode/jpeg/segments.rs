//! The segments of a JPEG file: what they say about the picture, without decoding it.

/// The frame header (SOF): what the picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Low byte of the marker: 0xC0 and 0xC1 are sequential, 0xC2 is progressive.
    pub marker: u8,
    /// Bits of a sample.
    pub precision: u8,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// Horizontal and vertical sampling factor of each component.
    pub sampling: Vec<(u8, u8)>,
}

/// The first frame header before the first scan; `None` if there is none, or if it is not complete.
pub fn frame(bytes: &[u8]) -> Option<Frame> {
    let mut at = 2;
    loop {
        let (marker, body) = segment(bytes, &mut at)?;
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let &[precision, h1, h0, w1, w0, count, ..] = body else {
                    return None;
                };
                let components = body[6..].as_chunks::<3>().0.get(..usize::from(count))?;
                return Some(Frame {
                    marker,
                    precision,
                    width: u16::from_be_bytes([w1, w0]),
                    height: u16::from_be_bytes([h1, h0]),
                    sampling: components.iter().map(|c| (c[1] >> 4, c[1] & 15)).collect(),
                });
            }
            0xD9 | 0xDA => return None,
            _ => {}
        }
    }
}

/// Number of scans, and whether any segment defines a restart interval.
pub fn scans(bytes: &[u8]) -> (usize, bool) {
    let (mut at, mut scans, mut restarts) = (2, 0, false);
    while let Some((marker, body)) = segment(bytes, &mut at) {
        match marker {
            0xD9 if scans > 0 => break,
            0xDA => {
                scans += 1;
                at = next_marker(bytes, at);
                while matches!(bytes.get(at + 1), Some(0xD0..=0xD7)) {
                    at = next_marker(bytes, at + 2);
                }
            }
            0xDD => restarts |= body.iter().any(|byte| *byte != 0),
            _ => {}
        }
    }
    (scans, restarts)
}

/// Place of the next marker in entropy-coded data, where 0xFF is escaped by a 0; the end of the file if there is none.
pub fn next_marker(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|b| b.iter().position(|b| *b == 0xFF))
    {
        at += found;
        match bytes.get(at + 1) {
            None => break,
            Some(0) => at += 2,
            // A fill byte.
            Some(0xFF) => at += 1,
            Some(_) => return at,
        }
    }
    bytes.len()
}

/// The next marker from `at` on and the bytes of its segment after the length; moves `at` behind it. Stray bytes before it
/// are skipped, as libjpeg does. `None` if there is no whole segment.
pub fn segment<'a>(bytes: &'a [u8], at: &mut usize) -> Option<(u8, &'a [u8])> {
    let start = next_marker(bytes, *at);
    let &[0xFF, marker] = bytes.get(start..start + 2)? else {
        return None;
    };
    if matches!(marker, 0x00 | 0x01 | 0xD0..=0xD9) {
        *at = start + 2;
        return Some((marker, &[]));
    }
    let &[high, low] = bytes.get(start + 2..start + 4)? else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let body = bytes.get(start + 4..start + 2 + length)?;
    *at = start + 2 + length;
    Some((marker, body))
}

/// A whole file of tables and a picture that uses them, both as files without or with an end. Segments that say how colours
/// are stored are replaced by one that says whether they are luma and differences of colour.
pub fn joined(tables: &[u8], data: &[u8], is_ycc: bool) -> Vec<u8> {
    let mut out = b"\xFF\xD8\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0".to_vec();
    out.push(u8::from(is_ycc));
    for part in [tables, data] {
        let mut at = 2;
        loop {
            let start = next_marker(part, at);
            match segment(part, &mut at) {
                None | Some((0xD9, _)) => break,
                Some((0xDA, _)) => {
                    out.extend_from_slice(&part[start..]);
                    break;
                }
                Some((0xE0 | 0xEE, _)) => {}
                Some(_) => out.extend_from_slice(&part[start..at]),
            }
        }
    }
    out.extend([0xFF, 0xD9]);
    out
}

/// Whether the end marker of the picture is present. The segments before the picture are skipped one by one, so that the
/// end marker of a thumbnail in one of them does not count. In entropy-coded data 0xFF is escaped, so that the two bytes
/// can only be a marker.
pub fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        at += match marker {
            0xD9 => return true,
            0xDA => {
                return bytes[at..]
                    .windows(2)
                    .rev()
                    .any(|pair| pair == [0xFF, 0xD9]);
            }
            // A fill byte; the next line has the markers without a segment.
            0xFF => 1,
            0x00 | 0x01 | 0xD0..=0xD8 => 2,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                2 + usize::from(u16::from_be_bytes([high, low]))
            }
        };
    }
    // Bytes between segments that are no marker: the decoder decides whether they are an error.
    bytes.len() >= at + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_marker_is_the_pictures_own() {
        let head = [0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 1, 1];
        assert!(!has_end(&head), "a thumbnail's end marker");
        let mut file = head.to_vec();
        file.extend([0xFF, 0xDA, 0, 2, 5, 0xFF, 0, 0xFF, 0xD0, 7]);
        assert!(!has_end(&file), "entropy-coded data only");
        file.extend([0xFF, 0xFF, 0xD9]);
        assert!(has_end(&file));
        for length in 0..file.len() {
            assert!(!has_end(&file[..length]), "cut at {length}");
        }
    }

    /// A thumbnail with a frame of its own in APP1, a frame of 3 x 2 pixels, a restart interval, and two scans.
    fn file() -> Vec<u8> {
        let mut file = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, 13];
        file.extend([0xFF, 0xC0, 0, 11, 8, 0, 9, 0, 9, 1, 1]);
        file.extend([0xFF, 0xFF, 0xC2, 0, 11, 8, 0, 2, 0, 3, 1, 1, 0x21, 0]);
        file.extend([0xFF, 0xDD, 0, 4, 0, 1]);
        file.extend([0xFF, 0xDA, 0, 2, 1, 0xFF, 0, 0xDA, 0xFF, 0xD0, 7]);
        file.extend([0xFF, 0xFE, 0, 4, 0xFF, 0xDA]);
        file.extend([0xFF, 0xDA, 0, 2, 9, 0xFF, 0xD9, 0xFF, 0xDA, 0, 2]);
        file
    }

    #[test]
    fn the_frame_and_the_scans_are_those_of_the_picture() {
        let file = file();
        let frame = frame(&file).unwrap();
        assert_eq!((frame.marker, frame.precision), (0xC2, 8));
        assert_eq!((frame.width, frame.height), (3, 2));
        assert_eq!(frame.sampling, [(2, 1)]);
        // Not the bytes inside the comment, nor those after the end.
        assert_eq!(scans(&file), (2, true));
        for length in 0..file.len() {
            let (found, _) = scans(&file[..length]);
            assert!(found <= 2, "cut at {length}");
        }
    }
}

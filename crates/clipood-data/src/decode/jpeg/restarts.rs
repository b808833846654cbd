//! Lost, repeated and renumbered restart markers: put in order as libjpeg does while it decodes (`jdmarker.c`,
//! `jpeg_resync_to_restart`).

use super::segments::{next_marker, segment};

/// The file with the restart markers of each scan numbered 0 to 7 in turn. Where one or two are missing, empty intervals
/// stand in for them, which a decoder leaves grey; a marker that comes again is removed with the data behind it; one with
/// any other number is taken for the expected one.
pub fn in_order(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    // The bytes before `copied` are in `out`, unless they were removed.
    let (mut at, mut copied) = (2, 0);
    while let Some((marker, _)) = segment(bytes, &mut at) {
        if marker != 0xDA {
            continue;
        }
        let mut expected = 0;
        at = next_marker(bytes, at);
        while let Some(&marker @ 0xD0..=0xD7) = bytes.get(at + 1) {
            let ahead = (marker & 7).wrapping_sub(expected) & 7;
            if ahead >= 6 {
                out.extend_from_slice(&bytes[copied..at]);
                at = next_marker(bytes, at + 2);
                copied = at;
                continue;
            }
            if ahead != 0 {
                out.extend_from_slice(&bytes[copied..at]);
                copied = at;
            }
            if ahead <= 2 {
                for _ in 0..ahead {
                    out.extend([0xFF, 0xD0 | expected]);
                    expected = (expected + 1) & 7;
                }
            } else {
                out.extend([0xFF, 0xD0 | expected]);
                copied = at + 2;
            }
            expected = (expected + 1) & 7;
            at = next_marker(bytes, at + 2);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one scan whose intervals are numbered, with these markers between them.
    fn scan(intervals: &[u8], markers: &[u8]) -> Vec<u8> {
        let mut file = vec![0xFF, 0xD8, 0xFF, 0xDA, 0, 2];
        for (index, interval) in intervals.iter().enumerate() {
            file.push(*interval);
            if let Some(marker) = markers.get(index) {
                file.extend([0xFF, 0xD0 | marker]);
            }
        }
        file.extend([0xFF, 0xD9]);
        file
    }

    #[test]
    fn markers_are_put_in_order() {
        let whole = scan(&[10, 11, 12, 13], &[0, 1, 2]);
        assert_eq!(in_order(&whole), whole);
        // A renumbered marker.
        assert_eq!(in_order(&scan(&[10, 11, 12, 13], &[0, 5, 2])), whole);
        // A repeated one: the data behind it is dropped.
        assert_eq!(in_order(&scan(&[10, 11, 99, 12, 13], &[0, 0, 1, 2])), whole);
        // Marker 1 was lost: interval 11 stays, the next one is empty.
        let mut lost = vec![0xFF, 0xD8, 0xFF, 0xDA, 0, 2, 10, 0xFF, 0xD0, 11, 0xFF, 0xD1];
        lost.extend([0xFF, 0xD2, 13, 0xFF, 0xD9]);
        assert_eq!(in_order(&scan(&[10, 11, 13], &[0, 2])), lost);
        for length in 0..lost.len() {
            in_order(&lost[..length]);
        }
    }
}

//! From a compressed strip or tile to its samples.

use std::io::Read;

use flate2::read::ZlibDecoder;
use ruzstd::decoding::StreamingDecoder;
use weezl::{BitOrder, LzwStatus, decode};

use super::super::jpeg;
use super::super::{DecodeError, DecodeLimits};
use super::fax;
use super::layout::{Layout, Meaning};
use super::{complete, corrupt, unsupported};

/// Most bytes that a Zstandard frame may ask to look back at, as in libzstd.
const MAX_WINDOW: u64 = 1 << 27;

/// A compressed piece.
pub struct Piece<'a> {
    /// Its bytes in the file.
    pub data: &'a [u8],
    /// Tables that JPEG pieces share; empty if there are none.
    pub tables: &'a [u8],
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Samples of a pixel in this piece.
    pub samples: usize,
}

/// Fills `out`, whole rows of samples.
pub fn decompress(piece: &Piece, layout: &Layout, out: &mut [u8]) -> Result<(), DecodeError> {
    let reversed;
    let data = match layout.reversed && layout.compression != 7 {
        true => {
            reversed = (piece.data.iter().map(|b| b.reverse_bits())).collect::<Vec<_>>();
            &reversed
        }
        false => piece.data,
    };
    let predicts = match layout.compression {
        1 => {
            let used = data.len().min(out.len());
            out[..used].copy_from_slice(&data[..used]);
            complete(used, out.len())?;
            false
        }
        2 | 3 if layout.bits == 1 && piece.samples == 1 => {
            fax::runs(data, piece.columns, layout, out)?;
            false
        }
        4 if layout.bits == 1 && piece.samples == 1 => {
            fax::group4(data, piece.columns, out)?;
            false
        }
        5 => {
            lzw(data, out)?;
            true
        }
        7 => {
            joint_photographic(piece, layout, out)?;
            false
        }
        8 | 32946 => {
            stream(ZlibDecoder::new(data), out)?;
            true
        }
        32773 => {
            complete(pack_bits(data, out), out.len())?;
            false
        }
        50000 => {
            let decoder = StreamingDecoder::new_with_max_window_size(data, MAX_WINDOW)
                .map_err(|error| corrupt(format!("Zstandard: {error}")))?;
            stream(decoder, out)?;
            true
        }
        other => return Err(unsupported(format!("compression {}", name(other)))),
    };
    if predicts {
        predict(piece, layout, out)?;
    }
    Ok(())
}

fn name(compression: u64) -> String {
    let name = match compression {
        2 => "CCITT run lengths",
        3 => "CCITT group 3",
        4 => "CCITT group 4",
        6 => "JPEG of TIFF 6.0",
        32771 => "CCITT run lengths in words",
        32809 => "ThunderScan",
        34925 => "LZMA",
        50001 => "WebP",
        _ => return format!("{compression}"),
    };
    format!("{compression} ({name})")
}

/// Fills `out` from a decoder; what comes behind is not read.
fn stream(mut decoder: impl Read, out: &mut [u8]) -> Result<(), DecodeError> {
    let mut filled = 0;
    while filled < out.len() {
        match decoder.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(corrupt(error.to_string())),
        }
    }
    complete(filled, out.len())
}

fn lzw(data: &[u8], out: &mut [u8]) -> Result<(), DecodeError> {
    let mut decoder = decode::Configuration::with_tiff_size_switch(BitOrder::Msb, 8)
        .with_yield_on_full_buffer(true)
        .build();
    let (mut read, mut filled) = (0, 0);
    while filled < out.len() {
        let step = decoder.decode_bytes(&data[read..], &mut out[filled..]);
        read += step.consumed_in;
        filled += step.consumed_out;
        match step.status {
            Err(error) => return Err(corrupt(format!("LZW: {error}"))),
            Ok(LzwStatus::Done | LzwStatus::NoProgress) => break,
            Ok(LzwStatus::Ok) => {}
        }
    }
    complete(filled, out.len())
}

/// Number of bytes written: a count `n` below 128 is followed by `n + 1` bytes, one above by one byte that is repeated
/// `257 - n` times.
fn pack_bits(mut data: &[u8], out: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < out.len()
        && let [count, rest @ ..] = data
    {
        let left = out.len() - filled;
        let count = usize::from(*count);
        match (count, rest) {
            (128, _) => data = rest,
            (129.., [byte, rest @ ..]) => {
                let run = (257 - count).min(left);
                out[filled..filled + run].fill(*byte);
                filled += run;
                data = rest;
            }
            (129.., []) => break,
            _ => {
                let run = (count + 1).min(left).min(rest.len());
                out[filled..filled + run].copy_from_slice(&rest[..run]);
                filled += run;
                data = &rest[(count + 1).min(rest.len())..];
            }
        }
    }
    filled
}

fn joint_photographic(piece: &Piece, layout: &Layout, out: &mut [u8]) -> Result<(), DecodeError> {
    if layout.bits != 8 {
        return Err(unsupported(format!("JPEG with {} bits", layout.bits)));
    }
    let is_ycc = layout.meaning == Meaning::YCbCr && piece.samples == 3;
    let limits = DecodeLimits {
        max_pixels: (piece.columns * layout.piece_height) as u64,
    };
    let part = jpeg::decode_part(piece.tables, piece.data, is_ycc, &limits)?;
    if part.width != piece.columns || part.height < piece.rows || part.components != piece.samples {
        return Err(corrupt(format!(
            "JPEG of {} x {} pixels with {} components in a piece of {} x {} with {}",
            part.width, part.height, part.components, piece.columns, piece.rows, piece.samples
        )));
    }
    let filled = out.len();
    match part.components {
        // Grey comes out three times.
        1 => {
            for (sample, grey) in out.iter_mut().zip(part.samples.chunks_exact(3)) {
                *sample = grey[0];
            }
        }
        _ => out.copy_from_slice(&part.samples[..filled]),
    }
    Ok(())
}

/// Undoes the predictor (TIFF 6.0, section 14, and Adobe's Technical Note 3 for floating-point numbers).
fn predict(piece: &Piece, layout: &Layout, out: &mut [u8]) -> Result<(), DecodeError> {
    let row_bytes = layout.row_bytes(piece.columns, piece.samples);
    let bytes = layout.bits / 8;
    match (layout.predictor, layout.bits) {
        (1, _) => {}
        (2, 8 | 16 | 32) => {
            for row in out.chunks_exact_mut(row_bytes) {
                differences(row, bytes, piece.samples * bytes, layout.little);
            }
        }
        (3, 16 | 32) => {
            for row in out.chunks_exact_mut(row_bytes) {
                differences(row, 1, piece.samples, true);
                // The high bytes of all numbers come first.
                let numbers = row.len() / bytes;
                let planes = row.to_vec();
                for (at, byte) in row.iter_mut().enumerate() {
                    let place = match layout.little {
                        true => bytes - 1 - at % bytes,
                        false => at % bytes,
                    };
                    *byte = planes[place * numbers + at / bytes];
                }
            }
        }
        (predictor, bits) => {
            return Err(unsupported(format!(
                "predictor {predictor} with {bits} bits"
            )));
        }
    }
    Ok(())
}

/// Adds to each number of `bytes` bytes the one `step` bytes before it.
fn differences(row: &mut [u8], bytes: usize, step: usize, little: bool) {
    for at in (step..row.len()).step_by(bytes) {
        let mut carry = 0;
        for index in 0..bytes {
            let place = at + if little { index } else { bytes - 1 - index };
            let sum = u16::from(row[place]) + u16::from(row[place - step]) + carry;
            row[place] = sum as u8;
            carry = sum >> 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_copies_are_unpacked() {
        let packed = [0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0x80, 0xFD, 0xAA];
        let mut out = [0; 10];
        assert_eq!(pack_bits(&packed, &mut out), 10);
        let expected = [0xAA, 0xAA, 0xAA, 0x80, 0, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA];
        assert_eq!(out, expected);
        for length in 0..packed.len() {
            assert!(pack_bits(&packed[..length], &mut out) < 10);
        }
    }

    #[test]
    fn differences_carry_in_the_byte_order() {
        let mut row = [0xFF, 0x00, 0x02, 0x01];
        differences(&mut row, 2, 2, true);
        assert_eq!(row, [0xFF, 0x00, 0x01, 0x02]);
        let mut row = [0x00, 0xFF, 0x01, 0x02];
        differences(&mut row, 2, 2, false);
        assert_eq!(row, [0x00, 0xFF, 0x02, 0x01]);
    }
}

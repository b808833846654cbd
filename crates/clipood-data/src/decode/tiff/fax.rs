//! CCITT compression: rows of one bit, 1 for black.

use std::convert::Infallible;

use fax::decoder::{DecodeStatus, Group4Decoder, pels};
use fax::maps::{black, white};
use fax::{BitReader, ByteReader, Color};

use super::super::DecodeError;
use super::layout::Layout;
use super::{complete, corrupt, unsupported};

/// ITU-T T.6, group 4.
pub fn group4(data: &[u8], columns: usize, out: &mut [u8]) -> Result<(), DecodeError> {
    let width = u16::try_from(columns)
        .map_err(|_| unsupported(format!("CCITT group 4 with {columns} columns")))?;
    let bad = |what: String| corrupt(format!("CCITT group 4: {what}"));
    let bytes = data.iter().copied().map(Ok::<u8, Infallible>);
    let mut decoder = Group4Decoder::new(bytes, width).map_err(|e| bad(format!("{e:?}")))?;
    let (row_bytes, expected) = (columns.div_ceil(8), out.len());
    for (index, row) in out.chunks_exact_mut(row_bytes).enumerate() {
        match decoder.advance() {
            Ok(DecodeStatus::Incomplete) => {}
            Ok(DecodeStatus::End) => return complete(index * row_bytes, expected),
            Err(error) => return Err(bad(format!("{error:?}"))),
        }
        for (x, colour) in pels(decoder.transition(), width).enumerate() {
            if colour == Color::Black {
                row[x / 8] |= 0x80 >> (x % 8);
            }
        }
    }
    Ok(())
}

/// Runs of white and black by turns: compression 2 of TIFF 6.0, whose rows start at a byte, and group 3 (ITU-T T.4) without
/// rows that refer to the one before, whose rows start with a mark.
pub fn runs(
    data: &[u8],
    columns: usize,
    layout: &Layout,
    out: &mut [u8],
) -> Result<(), DecodeError> {
    let has_marks = layout.compression == 3;
    if has_marks && layout.refers {
        let message = "CCITT group 3 with rows that refer to others";
        return Err(unsupported(message.to_string()));
    }
    // The reader looks further than the last code.
    let bytes = data.iter().copied().chain([0; 4]).map(Ok::<u8, Infallible>);
    let Ok(mut reader) = ByteReader::new(bytes);
    let row_bytes = columns.div_ceil(8);
    for (index, row) in out.chunks_exact_mut(row_bytes).enumerate() {
        let broken = || corrupt(format!("CCITT: unknown code in row {index} of a piece"));
        // No code of a run starts with so many zeros.
        if has_marks && reader.peek(9) == Some(0) {
            while reader.peek(1) == Some(0) {
                let Ok(()) = reader.consume(1);
            }
            let Ok(()) = reader.consume(1);
        }
        let (mut x, mut is_black) = (0, false);
        while x < columns {
            let run = run(&mut reader, is_black).ok_or_else(broken)?;
            let end = (x + run).min(columns);
            if is_black {
                for column in x..end {
                    row[column / 8] |= 0x80 >> (column % 8);
                }
            }
            x = end;
            is_black = !is_black;
        }
        if !has_marks {
            let Ok(()) = reader.consume(reader.bits_to_byte_boundary());
        }
    }
    Ok(())
}

/// Length of a run: codes of multiples of 64, then one of less.
fn run(reader: &mut impl BitReader, is_black: bool) -> Option<usize> {
    let mut length = 0;
    loop {
        let part = match is_black {
            true => black::decode(reader)?,
            false => white::decode(reader)?,
        };
        length += usize::from(part);
        if part < 64 {
            return Some(length);
        }
    }
}

//! The strips or tiles of a picture, put together.

use super::super::DecodeError;
use super::compression::{self, Piece};
use super::directory::Directory;
use super::layout::Layout;
use super::{corrupt, truncated};

const STRIP_OFFSETS: u16 = 273;
const STRIP_BYTES: u16 = 279;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTES: u16 = 325;
const JPEG_TABLES: u16 = 347;

/// How often all pieces together may be as long as the file: pieces may share their bytes, but each is gone through.
const MAX_SHARED: usize = 16;

/// The samples of all rows, `[height, row_bytes]`, those of a pixel side by side, in the byte order of the file. Rows start
/// at a byte.
pub fn read(bytes: &[u8], directory: &Directory, layout: &Layout) -> Result<Vec<u8>, DecodeError> {
    let (offsets, sizes) = match layout.tiled {
        true => (directory.values(TILE_OFFSETS), directory.values(TILE_BYTES)),
        false => (
            directory.values(STRIP_OFFSETS),
            directory.values(STRIP_BYTES),
        ),
    };
    let tables = directory.bytes_of(JPEG_TABLES);
    let planes = if layout.planar { layout.samples } else { 1 };
    let samples = layout.samples / planes;
    if layout.planar && !matches!(layout.bits, 8 | 16) {
        return Err(super::unsupported(format!(
            "planes of {} bits, allowed: 8, 16",
            layout.bits
        )));
    }
    let across = layout.width.div_ceil(layout.piece_width);
    let down = layout.height.div_ceil(layout.piece_height);
    let row_bytes = layout.row_bytes(layout.width, layout.samples);
    if layout.tiled && !(layout.piece_width * samples * layout.bits).is_multiple_of(8) {
        return Err(corrupt(format!("tiles of {} columns", layout.piece_width)));
    }
    let mut out = vec![0; row_bytes * layout.height];
    let (mut piece, mut total) = (Vec::new(), 0_usize);
    for index in 0..planes * across * down {
        let (plane, place) = (index / (across * down), index % (across * down));
        let (left, top) = (
            place % across * layout.piece_width,
            place / across * layout.piece_height,
        );
        let columns = layout.piece_width.min(layout.width - left);
        let rows = layout.piece_height.min(layout.height - top);
        let start = *offsets
            .get(index)
            .ok_or_else(|| corrupt(format!("{} pieces, expected more", offsets.len())))?;
        // The size of uncompressed pieces follows from their rows; Pillow does not look at it.
        let size = match sizes.get(index) {
            Some(size) if layout.compression != 1 => *size as usize,
            _ => usize::MAX,
        };
        let data = bytes
            .get(start as usize..)
            .ok_or_else(|| truncated(format!("piece {index} is missing")))?;
        let data = &data[..size.min(data.len())];
        if layout.reversed || layout.compression == 7 {
            total += data.len();
            if total > bytes.len().saturating_mul(MAX_SHARED) {
                return Err(corrupt(format!(
                    "pieces of more than {MAX_SHARED} times the length of the file"
                )));
            }
        }
        let stored_row = layout.row_bytes(layout.piece_width, samples);
        let stored_rows = if layout.tiled && layout.compression != 1 {
            layout.piece_height
        } else {
            rows
        };
        piece.clear();
        piece.resize(stored_row * stored_rows, 0);
        compression::decompress(
            &Piece {
                data,
                tables,
                columns: layout.piece_width,
                rows: stored_rows,
                samples,
            },
            layout,
            &mut piece,
        )?;
        let used = layout.row_bytes(columns, samples);
        for (row, stored) in piece.chunks_exact(stored_row).take(rows).enumerate() {
            let start = (top + row) * row_bytes + layout.row_bytes(left, layout.samples);
            match layout.planar {
                false => out[start..start + used].copy_from_slice(&stored[..used]),
                true => {
                    let bytes = layout.bits / 8;
                    for (x, sample) in stored[..used].chunks_exact(bytes).enumerate() {
                        let at = start + (x * layout.samples + plane) * bytes;
                        out[at..at + bytes].copy_from_slice(sample);
                    }
                }
            }
        }
    }
    Ok(out)
}

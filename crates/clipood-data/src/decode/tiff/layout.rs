//! How the samples of a picture are stored, and what they mean.

use super::super::{DecodeError, DecodeLimits};
use super::directory::Directory;
use super::{corrupt, unsupported};

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const SAMPLES: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const PLANAR: u16 = 284;
const FAX_OPTIONS: u16 = 292;
const PREDICTOR: u16 = 317;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const STRIP_OFFSETS: u16 = 273;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;

/// Most samples of a pixel in any layout that is read.
const MAX_SAMPLES: u64 = 6;

/// What the samples of a pixel mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Grey of 1, 2, 4 or 8 bits.
    Grey {
        /// Whether 0 is white.
        inverted: bool,
    },
    /// Grey of more bits, or real numbers: values outside 0..=255 are clamped (Pillow's modes `I;16`, `I` and `F`).
    Clamped(Number),
    /// Index of a colour.
    Palette,
    /// Red, green and blue of 8 or 16 bits.
    Rgb {
        /// Whether the fourth sample is an alpha that the others were multiplied by.
        associated: bool,
    },
    /// Luma and two differences of colour, compressed as JPEG.
    YCbCr,
    /// Cyan, magenta, yellow and black of 8 or 16 bits.
    Cmyk,
}

/// Type of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Without a sign.
    Unsigned,
    /// With a sign.
    Signed,
    /// IEEE 754.
    Float,
}

/// How the picture is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Columns as stored.
    pub width: usize,
    /// Rows as stored.
    pub height: usize,
    /// Bits of each sample.
    pub bits: usize,
    /// Samples of a pixel, 1 to 6.
    pub samples: usize,
    /// What they mean.
    pub meaning: Meaning,
    /// Whether each sample has a plane of its own.
    pub planar: bool,
    /// Whether the pieces are tiles.
    pub tiled: bool,
    /// Columns of a piece.
    pub piece_width: usize,
    /// Rows of a piece; the last strip may have fewer.
    pub piece_height: usize,
    /// TIFF's number of the compression.
    pub compression: u64,
    /// TIFF's number of the predictor; 1 is none.
    pub predictor: u64,
    /// Whether rows of CCITT group 3 may refer to the one before.
    pub refers: bool,
    /// Whether the bits of each byte come in reverse.
    pub reversed: bool,
    /// Whether numbers start with their low byte.
    pub little: bool,
}

impl Layout {
    /// The layout that a directory describes, with the defaults and the tolerance of Pillow.
    pub fn of(directory: &Directory, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let value = |tag, default| directory.first_value(tag).unwrap_or(default);
        let (width, height) = (value(WIDTH, 0), value(HEIGHT, 0));
        limits.check(width, height)?;
        let compression = value(COMPRESSION, 1);
        let planar = value(PLANAR, 1) == 2;
        let mut samples = value(SAMPLES, 1);
        let mut bits = directory.values(BITS);
        if bits.is_empty() {
            bits.push(1);
        }
        let mut extra = directory.values(EXTRA_SAMPLES);
        if planar && !extra.is_empty() && extra.iter().all(|kind| *kind == 0) {
            // Samples of no known meaning in planes at the end are left out.
            bits.truncate(bits.len().saturating_sub(extra.len()));
            samples = samples.saturating_sub(extra.len() as u64);
            extra.clear();
        }
        if samples == 0 || samples > MAX_SAMPLES {
            return Err(unsupported(format!(
                "{samples} samples per pixel, allowed: 1 to {MAX_SAMPLES}"
            )));
        }
        let samples = samples as usize;
        if bits.len() == 1 {
            bits = vec![bits[0]; samples];
        }
        bits.truncate(samples);
        let formats = directory.values(SAMPLE_FORMAT);
        let key = Key {
            photometric: value(PHOTOMETRIC, 0),
            bits: bits.first().copied().unwrap_or(0),
            samples,
            format: formats.first().copied().unwrap_or(1),
            extra: &extra,
            little: directory.little,
            is_jpeg: compression == 7,
        };
        let reversed = value(FILL_ORDER, 1) == 2;
        let same = bits.len() == samples
            && bits.iter().all(|b| *b == key.bits)
            && formats.iter().all(|f| *f == key.format);
        let meaning = key.meaning().filter(|_| same).ok_or_else(|| {
            unsupported(format!(
                "photometric interpretation {}{} with samples of {bits:?} bits, format {}, and extra samples {extra:?}",
                key.photometric,
                match key.photometric {
                    6 => " (Y'CbCr, read if compressed as JPEG)",
                    8 => " (L*a*b*)",
                    _ => "",
                },
                key.format
            ))
        })?;
        let tiled = directory.first_value(STRIP_OFFSETS).is_none()
            && directory.first_value(TILE_OFFSETS).is_some();
        let (piece_width, piece_height) = match tiled {
            true => (value(TILE_WIDTH, 0), value(TILE_HEIGHT, 0)),
            false => (width, value(ROWS_PER_STRIP, height).min(height)),
        };
        if piece_width == 0 || piece_height == 0 {
            return Err(corrupt(format!(
                "pieces of {piece_width} x {piece_height} pixels"
            )));
        }
        limits.check(piece_width, piece_height)?;
        Ok(Layout {
            width: width as usize,
            height: height as usize,
            bits: key.bits as usize,
            samples,
            meaning,
            planar: planar && samples > 1,
            tiled,
            piece_width: piece_width as usize,
            piece_height: piece_height as usize,
            compression,
            predictor: value(PREDICTOR, 1),
            refers: value(FAX_OPTIONS, 0) & 1 == 1,
            reversed,
            little: directory.little,
        })
    }

    /// Bytes of a row of `columns` pixels with `samples` each.
    pub fn row_bytes(&self, columns: usize, samples: usize) -> usize {
        (columns * samples * self.bits).div_ceil(8)
    }

    /// Bytes that decoding takes: the samples, a piece in its compressed and its decompressed form, and the pixels, twice
    /// if the picture is turned.
    pub fn memory(&self, turns: bool) -> u64 {
        let samples = self.row_bytes(self.width, self.samples) * self.height;
        let piece = self.row_bytes(self.piece_width, self.samples) * self.piece_height;
        let pixels = 3 * self.width * self.height * if turns { 2 } else { 1 };
        (samples + 3 * piece + pixels) as u64
    }
}

/// What decides on the meaning of samples.
struct Key<'a> {
    photometric: u64,
    bits: u64,
    samples: usize,
    format: u64,
    extra: &'a [u64],
    little: bool,
    is_jpeg: bool,
}

impl Key<'_> {
    /// The rows of Pillow's table `OPEN_INFO`; `None` for what it refuses, for L\*a\*b\*, and for Y'CbCr that is not JPEG.
    fn meaning(&self) -> Option<Meaning> {
        let (colours, extra) = (
            self.samples - self.extra.len().min(self.samples),
            self.extra,
        );
        let unknown = |kinds: &[u64]| kinds.iter().all(|kind| *kind == 0);
        let is_grey = self.samples == 1 && extra.is_empty();
        match (self.photometric, self.bits, self.format) {
            (0 | 1, 1 | 2 | 4 | 8, 1) | (1, 8, 2) if is_grey => Some(Meaning::Grey {
                inverted: self.photometric == 0,
            }),
            (1, 8, 1) if colours == 1 && extra == [2] => Some(Meaning::Grey { inverted: false }),
            (6, 8, 1) if is_grey => Some(Meaning::Grey { inverted: false }),
            // Pillow does not invert more than 8 bits.
            (1, 16, 1) if is_grey => Some(Meaning::Clamped(Number::Unsigned)),
            (0, 16, 1) | (1, 12, 1) | (1, 32, 1) if is_grey && self.little => {
                Some(Meaning::Clamped(Number::Unsigned))
            }
            (1, 16 | 32, 2) if is_grey => Some(Meaning::Clamped(Number::Signed)),
            (0 | 1, 32, 3) if is_grey => Some(Meaning::Clamped(Number::Float)),
            (2, 8, 1) if colours == 3 => match extra {
                [] => Some(Meaning::Rgb { associated: false }),
                [0 | 2, rest @ ..] if unknown(rest) => Some(Meaning::Rgb { associated: false }),
                [999] => Some(Meaning::Rgb { associated: false }),
                [1, rest @ ..] if unknown(rest) => Some(Meaning::Rgb { associated: true }),
                _ => None,
            },
            (2, 16, 1) if colours == 3 => match extra {
                [] | [0 | 2] => Some(Meaning::Rgb { associated: false }),
                [1] => Some(Meaning::Rgb { associated: true }),
                _ => None,
            },
            // A fourth sample that is not declared.
            (2, 8 | 16, 1) if colours == 4 && extra.is_empty() => {
                Some(Meaning::Rgb { associated: false })
            }
            (3, 1 | 2 | 4 | 8, 1) if is_grey => Some(Meaning::Palette),
            (3, 8, 1) if colours == 1 && matches!(extra, [0 | 2]) => Some(Meaning::Palette),
            (5, 8, 1) if colours == 4 && unknown(extra) => Some(Meaning::Cmyk),
            (5, 16, 1) if colours == 4 && extra.is_empty() => Some(Meaning::Cmyk),
            (6, 8, 1) if self.samples == 3 && extra.is_empty() && self.is_jpeg => {
                Some(Meaning::YCbCr)
            }
            _ => None,
        }
    }
}

//! NumPy's `.npy` files (NEP 1), versions 1 to 3.

use anyhow::{Context, Result, bail};
use half::f16;

/// Numbers of either kind.
pub enum Numbers {
    /// Any kind of float, as f32.
    Floats(Vec<f32>),
    /// Any kind of integer.
    Integers(Vec<i64>),
}

/// An array as the file stores it.
pub struct Npy<'a> {
    /// Its shape.
    pub shape: Vec<usize>,
    /// NumPy's name of the type without byte order, such as `f4`.
    kind: &'a str,
    big_endian: bool,
    /// Whether the first index varies fastest.
    fortran: bool,
    data: &'a [u8],
}

impl<'a> Npy<'a> {
    /// Reads the header and checks the length.
    ///
    /// # Errors
    /// A file of another format, of a type that is neither a float nor an integer, or truncated.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let [b'\x93', b'N', b'U', b'M', b'P', b'Y', version, _, rest @ ..] = bytes else {
            bail!("no .npy file");
        };
        let (length, rest) = match (version, rest) {
            (1, [a, b, rest @ ..]) => (usize::from(u16::from_le_bytes([*a, *b])), rest),
            (2 | 3, [a, b, c, d, rest @ ..]) => {
                (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest)
            }
            _ => bail!("a .npy file of version {version}, expected 1 to 3"),
        };
        let (header, data) = rest
            .split_at_checked(length)
            .context("the header is cut off")?;
        let header = std::str::from_utf8(header).context("the header is no text")?;
        let after = |key: &str| -> Result<&'a str> {
            let at = header.find(&format!("'{key}':"));
            let at = at.with_context(|| format!("the header has no `{key}`"))?;
            Ok(header[at + key.len() + 3..].trim_start())
        };
        let fortran = after("fortran_order")?.starts_with("True");
        let inside = after("shape")?
            .strip_prefix('(')
            .and_then(|text| text.split_once(')'));
        let (inside, _) = inside.context("the header has no shape")?;
        let sizes = inside
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let shape = sizes
            .map(|text| {
                text.parse::<usize>()
                    .with_context(|| format!("shape ({inside})"))
            })
            .collect::<Result<Vec<_>>>()?;
        let quoted = after("descr")?
            .strip_prefix('\'')
            .and_then(|text| text.split_once('\''));
        let (descr, _) = quoted.context("a .npy file of records, expected one type")?;
        let (order, kind) = descr.split_at_checked(1).unwrap_or_default();
        let size = match kind {
            "i1" | "u1" => 1,
            "f2" | "i2" | "u2" => 2,
            "f4" | "i4" | "u4" => 4,
            "f8" | "i8" | "u8" => 8,
            _ => bail!("is of type {descr}, expected floats or integers of at most 8 bytes"),
        };
        let count = shape.iter().try_fold(size, |n: usize, s| n.checked_mul(*s));
        if count != Some(data.len()) {
            let found = data.len();
            bail!(
                "shape ({inside}) of type {descr} does not fit {found} bytes: the file is cut off or damaged"
            );
        }
        Ok(Self {
            shape,
            kind,
            big_endian: order == ">",
            fortran,
            data,
        })
    }

    /// The values in C order, floats as f32.
    ///
    /// # Errors
    /// An unsigned integer above the largest signed one.
    pub fn numbers(&self) -> Result<Numbers> {
        Ok(match self.kind {
            "f2" => Numbers::Floats(self.each(|b| f16::from_le_bytes(b).to_f32())),
            "f4" => Numbers::Floats(self.each(f32::from_le_bytes)),
            "f8" => Numbers::Floats(self.each(|b| f64::from_le_bytes(b) as f32)),
            "i1" => Numbers::Integers(self.each(|b| i64::from(i8::from_le_bytes(b)))),
            "u1" => Numbers::Integers(self.each(|b| i64::from(u8::from_le_bytes(b)))),
            "i2" => Numbers::Integers(self.each(|b| i64::from(i16::from_le_bytes(b)))),
            "u2" => Numbers::Integers(self.each(|b| i64::from(u16::from_le_bytes(b)))),
            "i4" => Numbers::Integers(self.each(|b| i64::from(i32::from_le_bytes(b)))),
            "u4" => Numbers::Integers(self.each(|b| i64::from(u32::from_le_bytes(b)))),
            "i8" => Numbers::Integers(self.each(i64::from_le_bytes)),
            // `u8`, by the check of `parse`.
            _ => {
                let wide: Vec<u64> = self.each(u64::from_le_bytes);
                let narrow = wide.into_iter().map(i64::try_from);
                let narrow = narrow.collect::<Result<Vec<_>, _>>();
                Numbers::Integers(narrow.with_context(|| format!("an integer above {}", i64::MAX))?)
            }
        })
    }

    /// The values in C order as f64.
    ///
    /// # Errors
    /// As [`Npy::numbers`].
    pub fn wide(&self) -> Result<Vec<f64>> {
        if self.kind == "f8" {
            return Ok(self.each(f64::from_le_bytes));
        }
        Ok(match self.numbers()? {
            Numbers::Floats(values) => values.into_iter().map(f64::from).collect(),
            Numbers::Integers(values) => values.into_iter().map(|value| value as f64).collect(),
        })
    }

    /// Every element, `N` bytes each, in C order.
    fn each<const N: usize, T: Copy>(&self, convert: impl Fn([u8; N]) -> T) -> Vec<T> {
        let elements = self.data.as_chunks::<N>().0.iter();
        let values: Vec<T> = elements
            .map(|bytes| {
                let mut bytes = *bytes;
                if self.big_endian {
                    bytes.reverse();
                }
                convert(bytes)
            })
            .collect();
        if !self.fortran || self.shape.len() < 2 {
            return values;
        }
        // The place of every element of the C order among those of the Fortran order, counted up like an odometer.
        let mut index = vec![0; self.shape.len()];
        let strides: Vec<usize> = (self.shape.iter())
            .scan(1, |stride, size| {
                let own = *stride;
                *stride *= size;
                Some(own)
            })
            .collect();
        let mut at = 0;
        let mut reordered = Vec::with_capacity(values.len());
        for _ in 0..values.len() {
            reordered.push(values[at]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= strides[axis] * index[axis];
                index[axis] = 0;
            }
        }
        reordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn header(kind: &str, shape: &str) -> String {
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}  \n")
    }

    fn parse(bytes: &[u8]) -> Result<(Vec<usize>, Numbers)> {
        let array = Npy::parse(bytes)?;
        let numbers = array.numbers()?;
        Ok((array.shape, numbers))
    }

    #[test]
    fn other_layouts_are_turned_round() {
        let big: Vec<u8> = [0.1f64, -2.5]
            .iter()
            .flat_map(|v| v.to_be_bytes())
            .collect();
        let bytes = file(&header(">f8", "(2,)"), &big);
        assert_eq!(Npy::parse(&bytes).unwrap().wide().unwrap(), [0.1, -2.5]);
        // [[[0, 1, 2], [3, 4, 5]]] of shape (1, 2, 3) in Fortran order.
        let fortran = header("|u1", "(1, 2, 3)").replace("False", "True");
        let bytes = file(&fortran, &[0, 3, 1, 4, 2, 5]);
        let values = Npy::parse(&bytes).unwrap().wide().unwrap();
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let empty = file(&header("<f4", "(0, 3)").replace("False", "True"), &[]);
        assert!(Npy::parse(&empty).unwrap().wide().unwrap().is_empty());
    }

    #[test]
    fn floats_and_integers_are_read() {
        let data: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let (shape, numbers) = parse(&file(&header("<f4", "(1, 2)"), &data)).unwrap();
        assert_eq!(shape, [1, 2]);
        assert!(matches!(numbers, Numbers::Floats(v) if v == [1.5, -2.0]));
        let (shape, numbers) = parse(&file(&header("|u1", "(3,)"), &[1, 2, 255])).unwrap();
        assert_eq!(shape, [3]);
        assert!(matches!(numbers, Numbers::Integers(v) if v == [1, 2, 255]));
        let (_, numbers) = parse(&file(&header("<u8", "(1,)"), &7u64.to_le_bytes())).unwrap();
        assert!(matches!(numbers, Numbers::Integers(v) if v == [7]));
    }

    #[test]
    fn other_files_are_refused() {
        let message = |bytes: &[u8]| format!("{:#}", parse(bytes).err().unwrap());
        assert!(message(b"PK").contains("no .npy"));
        assert!(message(&file(&header("<U5", "(1,)"), &[0; 4])).contains("<U5"));
        assert!(message(&file(&header("<f4", "(2,)"), &[0; 4])).contains("cut off"));
        assert!(
            message(&file(&header("<f4", "(9999999999, 9999999999)"), &[0; 4])).contains("cut off")
        );
        let most = file(&header("<u8", "(1,)"), &u64::MAX.to_le_bytes());
        assert!(message(&most).contains("above"));
        for end in 0..40 {
            let whole = file(&header("<f4", "(1,)"), &[0; 4]);
            assert!(parse(&whole[..end]).is_err());
        }
    }
}

//! NumPy's `.npy` files (NEP 1), versions 1 to 3.

use anyhow::{Context, Result, bail};
use half::f16;

/// Numbers of either kind, as the file stores them.
pub enum Numbers {
    /// Any kind of float.
    Floats(Vec<f32>),
    /// Any kind of integer.
    Integers(Vec<i64>),
}

/// Shape and values of an array in C order, little-endian.
///
/// # Errors
/// A file of another format, in Fortran order, of a type that is neither a float nor an integer, or truncated.
pub fn parse(bytes: &[u8]) -> Result<(Vec<usize>, Numbers)> {
    let [b'\x93', b'N', b'U', b'M', b'P', b'Y', version, _, rest @ ..] = bytes else {
        bail!("no .npy file");
    };
    let (length, rest) = match (version, rest) {
        (1, [a, b, rest @ ..]) => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        (2 | 3, [a, b, c, d, rest @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => bail!("a .npy file of version {version}, expected 1 to 3"),
    };
    let (header, data) = rest
        .split_at_checked(length)
        .context("the header is cut off")?;
    let header = std::str::from_utf8(header).context("the header is no text")?;
    let after = |key: &str| -> Result<&str> {
        let at = header.find(&format!("'{key}':"));
        let at = at.with_context(|| format!("the header has no `{key}`"))?;
        Ok(header[at + key.len() + 3..].trim_start())
    };
    if !after("fortran_order")?.starts_with("False") {
        bail!("is in Fortran order; save numpy.ascontiguousarray of it");
    }
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
    let (kind, _) = quoted.context("a .npy file of records, expected one type")?;
    let size = match kind.get(2..) {
        Some("1") => 1,
        Some("2") => 2,
        Some("4") => 4,
        Some("8") => 8,
        _ => bail!("is of type {kind}, expected floats or integers"),
    };
    let count = shape.iter().try_fold(size, |n: usize, s| n.checked_mul(*s));
    if count != Some(data.len()) {
        let found = data.len();
        bail!(
            "shape ({inside}) of type {kind} does not fit {found} bytes: the file is cut off or damaged"
        );
    }
    let twos = || data.as_chunks::<2>().0.iter();
    let fours = || data.as_chunks::<4>().0.iter();
    let eights = || data.as_chunks::<8>().0.iter();
    let numbers = match kind {
        "<f2" => Numbers::Floats(twos().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        "<f4" => Numbers::Floats(fours().map(|b| f32::from_le_bytes(*b)).collect()),
        "<f8" => Numbers::Floats(eights().map(|b| f64::from_le_bytes(*b) as f32).collect()),
        "|i1" => Numbers::Integers(data.iter().map(|b| i64::from(*b as i8)).collect()),
        "|u1" => Numbers::Integers(data.iter().map(|b| i64::from(*b)).collect()),
        "<i2" => Numbers::Integers(twos().map(|b| i64::from(i16::from_le_bytes(*b))).collect()),
        "<u2" => Numbers::Integers(twos().map(|b| i64::from(u16::from_le_bytes(*b))).collect()),
        "<i4" => Numbers::Integers(fours().map(|b| i64::from(i32::from_le_bytes(*b))).collect()),
        "<u4" => Numbers::Integers(fours().map(|b| i64::from(u32::from_le_bytes(*b))).collect()),
        "<i8" => Numbers::Integers(eights().map(|b| i64::from_le_bytes(*b)).collect()),
        "<u8" => {
            let narrow = eights().map(|b| i64::try_from(u64::from_le_bytes(*b)));
            let narrow = narrow.collect::<Result<Vec<_>, _>>();
            Numbers::Integers(narrow.with_context(|| format!("an integer above {}", i64::MAX))?)
        }
        _ => bail!("is of type {kind}, expected little-endian floats or integers"),
    };
    Ok((shape, numbers))
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
        assert!(message(&file(&header(">f4", "(1,)"), &[0; 4])).contains(">f4"));
        assert!(message(&file(&header("<U5", "(1,)"), &[0; 4])).contains("<U5"));
        assert!(message(&file(&header("<f4", "(2,)"), &[0; 4])).contains("cut off"));
        assert!(
            message(&file(&header("<f4", "(9999999999, 9999999999)"), &[0; 4])).contains("cut off")
        );
        let most = file(&header("<u8", "(1,)"), &u64::MAX.to_le_bytes());
        assert!(message(&most).contains("above"));
        let fortran = header("<f4", "(1,)").replace("False", "True");
        assert!(message(&file(&fortran, &[0; 4])).contains("ascontiguousarray"));
        for end in 0..40 {
            let whole = file(&header("<f4", "(1,)"), &[0; 4]);
            assert!(parse(&whole[..end]).is_err());
        }
    }
}

//! Float32 values of a tensor, in memory of their own or in a mapped file.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::Mmap;

/// Row-major values, read as a slice. Clones of mapped ones share the file.
#[derive(Clone)]
pub struct Floats(Held);

#[derive(Clone)]
enum Held {
    Own(Vec<f32>),
    /// Bytes of a file that are the values on this machine, aligned as they must be.
    Mapped(Arc<Mmap>, Range<usize>),
}

impl Floats {
    /// The `bytes` of a mapped file as little-endian values. `None` where they lie outside it, are no whole values or not
    /// aligned, or the machine is not little-endian.
    pub(crate) fn mapped(file: &Arc<Mmap>, bytes: Range<usize>) -> Option<Self> {
        let values = file.get(bytes.clone())?;
        let aligned = values.as_ptr().cast::<f32>().is_aligned();
        let whole = values.len().is_multiple_of(size_of::<f32>());
        (aligned && whole && cfg!(target_endian = "little"))
            .then(|| Self(Held::Mapped(file.clone(), bytes)))
    }

    /// The values in memory of their own.
    pub fn into_vec(self) -> Vec<f32> {
        match self.0 {
            Held::Own(values) => values,
            Held::Mapped(..) => self.to_vec(),
        }
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Held::Own(values) => values,
            Held::Mapped(file, bytes) => {
                let values = &file[bytes.clone()];
                // SAFETY: `values` is that many whole, aligned values (checked in `mapped`), any bits are a float, and the
                // slice lives no longer than the mapping.
                unsafe {
                    std::slice::from_raw_parts(
                        values.as_ptr().cast::<f32>(),
                        values.len() / size_of::<f32>(),
                    )
                }
            }
        }
    }
}

impl From<Vec<f32>> for Floats {
    fn from(values: Vec<f32>) -> Self {
        Self(Held::Own(values))
    }
}

impl PartialEq for Floats {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Floats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn mapped_values_are_those_of_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let values = [1.5f32, -2.0, f32::MAX, 0.25];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        file.write_all(&bytes).unwrap();
        // SAFETY: nothing else writes to a temporary file without a name.
        let file = Arc::new(unsafe { Mmap::map(&file) }.unwrap());
        let found = Floats::mapped(&file, 4..16).unwrap();
        assert_eq!(*found, values[1..]);
        assert_eq!(found, Floats::from(values[1..].to_vec()));
        assert_eq!(found.into_vec(), values[1..]);
        for wrong in [1..5, 0..6, 8..20, Range { start: 12, end: 8 }] {
            assert!(Floats::mapped(&file, wrong.clone()).is_none(), "{wrong:?}");
        }
    }
}

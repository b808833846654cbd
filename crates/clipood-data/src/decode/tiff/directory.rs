//! The first directory of a TIFF file, which describes its first picture.

/// The first directory: its entries with their tag, the size and number of their values, and the place of these.
pub struct Directory<'a> {
    bytes: &'a [u8],
    /// Whether numbers start with their low byte.
    pub little: bool,
    entries: Vec<(u16, usize, usize, usize)>,
}

impl<'a> Directory<'a> {
    /// `None` if the file ends before it.
    pub fn first(bytes: &'a [u8]) -> Option<Self> {
        let little = bytes.starts_with(b"II");
        let number = |at: usize, size: usize| number(bytes, at, size, little);
        let big = number(2, 2)? == 43;
        // Sizes of the count of entries, of a place, and of an entry.
        let (count, word, entry) = if big { (8, 8, 20) } else { (2, 4, 12) };
        let start = usize::try_from(number(word, word)?).ok()?;
        // Places behind the end need no more checks.
        bytes.get(start..)?;
        let mut entries = Vec::new();
        for index in 0..(number(start, count)? as usize).min(4096) {
            let at = start + count + index * entry;
            // Entries that the file does not hold whole are left out.
            let (Some(tag), Some(kind)) = (number(at, 2), number(at + 2, 2)) else {
                break;
            };
            let size = match kind {
                1 | 7 => 1,
                3 => 2,
                4 => 4,
                16 => 8,
                _ => continue,
            };
            let Some(values) = number(at + 4, word) else {
                break;
            };
            let (values, mut place) = (values as usize, at + 4 + word);
            if values.saturating_mul(size) > word {
                let Some(elsewhere) = number(place, word) else {
                    break;
                };
                place = elsewhere as usize;
            }
            entries.push((tag as u16, size, values, place));
        }
        Some(Directory {
            bytes,
            little,
            entries,
        })
    }

    /// Unsigned values of an entry; empty if there is none, or if the file ends before them.
    pub fn values(&self, tag: u16) -> Vec<u64> {
        let Some(&(_, size, count, place)) = self.entries.iter().find(|entry| entry.0 == tag)
        else {
            return Vec::new();
        };
        if count > self.bytes.len() {
            return Vec::new();
        }
        let value = |index| {
            number(
                self.bytes,
                place.checked_add(index * size)?,
                size,
                self.little,
            )
        };
        (0..count).map_while(value).collect()
    }

    /// The bytes of an entry of bytes; empty if there is none.
    pub fn bytes_of(&self, tag: u16) -> &'a [u8] {
        let entry = self.entries.iter().find(|entry| entry.0 == tag);
        entry
            .filter(|(_, size, ..)| *size == 1)
            .and_then(|(_, _, count, place)| self.bytes.get(*place..place.checked_add(*count)?))
            .unwrap_or_default()
    }

    /// The first of [`Self::values`].
    pub fn first_value(&self, tag: u16) -> Option<u64> {
        self.values(tag).first().copied()
    }
}

/// The unsigned number of `size` bytes at `at`.
fn number(bytes: &[u8], at: usize, size: usize, little: bool) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(size)?)?.iter();
    let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if little {
        found.rev().fold(0, join)
    } else {
        found.fold(0, join)
    })
}

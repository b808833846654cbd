//! [`Packed`]: how the tokens of many texts lie in one matrix, without padding.

use crate::error::{CudaError, Result};

/// Texts that share their first tokens. The rows of all tokens lie in one matrix: those of the prefix once, then each text's own
/// tokens up to its end.
///
/// Attention treats rows in groups of whole texts. The first group is the prefix itself; groups at the end may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Tokens that all texts begin with; at least the start token.
    pub prefix: usize,
    /// Own tokens of each text, the last of which is its end; at least one.
    pub lengths: Vec<usize>,
    /// First row of each group, and where the last one ends.
    pub starts: Vec<i32>,
    /// Most rows of a group: a multiple of 32.
    pub group_rows: usize,
}

impl Packed {
    /// Puts texts into groups, in their order.
    ///
    /// # Errors
    /// No prefix, or a text without a token of its own.
    pub fn new(prefix: usize, lengths: Vec<usize>) -> Result<Self> {
        if prefix == 0 || lengths.is_empty() || lengths.contains(&0) {
            return Err(CudaError::Unsupported(format!(
                "texts need a common first token and a token of their own each; found {prefix} common tokens and {} texts",
                lengths.len()
            )));
        }
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let group_rows = longest.max(prefix).next_multiple_of(32);
        Ok(Self::grouped(prefix, lengths, group_rows))
    }

    fn grouped(prefix: usize, lengths: Vec<usize>, group_rows: usize) -> Self {
        let (mut starts, mut row, mut held) = (vec![0, prefix as i32], prefix, 0);
        for length in &lengths {
            if held + length > group_rows {
                starts.push(row as i32);
                held = 0;
            }
            row += length;
            held += length;
        }
        starts.push(row as i32);
        Self {
            prefix,
            lengths,
            starts,
            group_rows,
        }
    }

    /// The same texts in groups of at least `group_rows` rows, with empty groups and copies of the last text's end up to the
    /// sizes of `capacity`: a batch that runs through launches made for the capacity.
    ///
    /// # Errors
    /// The texts exceed the capacity.
    pub fn padded(self, capacity: Capacity) -> Result<PaddedTexts> {
        let packed = Self::grouped(
            self.prefix,
            self.lengths,
            self.group_rows.max(capacity.group_rows),
        );
        let (rows, texts, groups) = (packed.rows(), packed.lengths.len(), packed.groups());
        if packed.group_rows != capacity.group_rows
            || rows > capacity.rows
            || texts > capacity.texts
            || groups > capacity.groups
        {
            return Err(CudaError::Unsupported(format!(
                "a batch of {texts} texts with {rows} tokens in {groups} groups of {}; {capacity:?}",
                packed.group_rows
            )));
        }
        let mut starts = packed.starts.clone();
        starts.resize(capacity.groups + 1, rows as i32);
        let mut first = packed.first();
        first.resize(capacity.rows, 0);
        let mut ends = packed.ends();
        ends.resize(capacity.texts, *ends.last().unwrap_or(&0));
        Ok(PaddedTexts {
            starts,
            first,
            ends,
            texts,
        })
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.prefix + self.lengths.iter().sum::<usize>()
    }

    /// Groups, the prefix's included.
    pub fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    /// First row of each row's text.
    pub fn first(&self) -> Vec<i32> {
        let (mut first, mut row) = (vec![0; self.prefix], self.prefix);
        for length in &self.lengths {
            first.extend(std::iter::repeat_n(row as i32, *length));
            row += length;
        }
        first
    }

    /// Position of each row in its text.
    pub fn positions(&self) -> Vec<i32> {
        let own = |length: &usize| self.prefix..self.prefix + length;
        let rows = (0..self.prefix).chain(self.lengths.iter().flat_map(own));
        rows.map(|position| position as i32).collect()
    }

    /// Row of each text's end.
    pub fn ends(&self) -> Vec<i32> {
        let mut row = self.prefix;
        let end = |length: &usize| {
            row += length;
            row as i32 - 1
        };
        self.lengths.iter().map(end).collect()
    }

    /// Of each row the text that it ends, -1 where it ends none.
    pub fn ended(&self) -> Vec<i32> {
        let mut ended = vec![-1; self.rows()];
        for (text, end) in self.ends().into_iter().enumerate() {
            ended[end as usize] = text as i32;
        }
        ended
    }

    /// What launches for exactly these texts hold.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            rows: self.rows(),
            texts: self.lengths.len(),
            groups: self.groups(),
            group_rows: self.group_rows,
        }
    }
}

/// Sizes that launches and memory are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Rows of all tokens.
    pub rows: usize,
    /// Texts.
    pub texts: usize,
    /// Groups of attention, the prefix's included.
    pub groups: usize,
    /// Rows of a group.
    pub group_rows: usize,
}

/// The index arrays of a batch that is filled up to a [`Capacity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddedTexts {
    /// `[groups + 1]`.
    pub starts: Vec<i32>,
    /// `[rows]`.
    pub first: Vec<i32>,
    /// `[texts]`.
    pub ends: Vec<i32>,
    /// Texts that are real.
    pub texts: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_of_three_texts() -> Result<()> {
        let packed = Packed::new(2, vec![3, 1, 30])?;
        assert_eq!((packed.rows(), packed.group_rows), (36, 32));
        assert_eq!(packed.starts, [0, 2, 6, 36]);
        assert_eq!(packed.first()[..7], [0, 0, 2, 2, 2, 5, 6]);
        assert_eq!(packed.positions()[..7], [0, 1, 2, 3, 4, 2, 2]);
        assert_eq!(packed.ends(), [4, 5, 35]);
        assert_eq!(packed.ended()[3..7], [-1, 0, 1, -1]);
        Ok(())
    }

    #[test]
    fn a_text_without_tokens_is_refused() {
        assert!(Packed::new(1, vec![2, 0]).is_err());
        assert!(Packed::new(0, vec![2]).is_err());
        assert!(Packed::new(1, vec![]).is_err());
    }

    proptest! {
        #[test]
        fn groups_hold_whole_texts(prefix in 1usize..40, lengths in prop::collection::vec(1usize..77, 1..60)) {
            let packed = Packed::new(prefix, lengths.clone()).expect("texts with tokens");
            let first = packed.first();
            let begins = |row: i32| row as usize == packed.rows() || first[row as usize] == row;
            for pair in packed.starts.windows(2).skip(1) {
                prop_assert!(pair[1] - pair[0] <= packed.group_rows as i32);
                prop_assert!(begins(pair[0]) && begins(pair[1]));
            }
            prop_assert_eq!(packed.starts.last().copied(), Some(packed.rows() as i32));
            prop_assert_eq!(packed.positions().len(), packed.rows());
            prop_assert_eq!(packed.ended().iter().filter(|text| **text >= 0).count(), lengths.len());
        }

        #[test]
        fn a_padded_batch_keeps_its_texts(lengths in prop::collection::vec(1usize..20, 1..30)) {
            let packed = Packed::new(1, lengths).expect("texts with tokens");
            let capacity = Capacity { rows: 700, texts: 32, groups: 60, group_rows: 64 };
            let ends = packed.ends();
            let padded = packed.padded(capacity).expect("it fits");
            prop_assert_eq!(padded.starts.len(), capacity.groups + 1);
            prop_assert_eq!(padded.first.len(), capacity.rows);
            prop_assert_eq!(&padded.ends[..ends.len()], &ends[..]);
            prop_assert!(padded.starts.windows(2).all(|pair| pair[1] - pair[0] <= 64 && pair[0] <= pair[1]));
        }
    }
}

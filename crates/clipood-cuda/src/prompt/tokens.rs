//! [`PromptTokens`]: the tokens of the prompts of a class list, some of which are learned.

use crate::error::{CudaError, Result};
use crate::text::pack::Packed;

/// The prompts of all classes: fixed tokens and learned context vectors.
#[derive(Debug, Clone, Copy)]
pub struct PromptTokens<'a> {
    /// Embeddings of the fixed tokens, `[fixed, width]`, positions not added.
    pub fixed: &'a [f32],
    /// Of each row of [`Packed`], its row in `fixed` or, beyond it, of the context: first the tokens that all prompts start with,
    /// then the others of each prompt up to its end.
    pub index: &'a [i32],
    /// Tokens that all prompts start with, at least one.
    pub shared: usize,
    /// Further tokens of each prompt, at least one.
    pub lengths: &'a [usize],
    /// Context vectors: one set for all classes, or one for each class.
    pub contexts: usize,
}

/// Where the context is among the rows of the tower's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContextRows {
    /// Context vector, position and row of each row that holds one.
    pub vectors: Vec<i32>,
    pub positions: Vec<i32>,
    pub rows: Vec<i32>,
    /// The rows of each vector: those of vector `c` are `rows_of[begin[c]..begin[c + 1]]`.
    pub begin: Vec<i32>,
    pub rows_of: Vec<i32>,
}

impl PromptTokens<'_> {
    /// The texts, without padding.
    ///
    /// # Errors
    /// Texts without tokens, or an index that does not fit them.
    pub(super) fn pack(&self, width: usize) -> Result<Packed> {
        let packed = Packed::new(self.shared, self.lengths.to_vec())?;
        let table = self.fixed.len() / width.max(1) + self.contexts;
        let inside = self.index.iter().all(|row| (0..table as i32).contains(row));
        if self.index.len() != packed.rows() || !inside {
            return Err(CudaError::Unsupported(format!(
                "prompts of {} tokens with an index of {} rows into {table}",
                packed.rows(),
                self.index.len()
            )));
        }
        Ok(packed)
    }

    /// Which rows hold context vectors.
    pub(super) fn context_rows(&self, packed: &Packed, width: usize) -> ContextRows {
        let fixed = (self.fixed.len() / width) as i32;
        let positions = packed.positions();
        let mut found = ContextRows {
            vectors: Vec::new(),
            positions: Vec::new(),
            rows: Vec::new(),
            begin: vec![0; self.contexts + 1],
            rows_of: Vec::new(),
        };
        for (row, index) in self
            .index
            .iter()
            .enumerate()
            .filter(|(_, index)| **index >= fixed)
        {
            found.vectors.push(index - fixed);
            found.positions.push(positions[row]);
            found.rows.push(row as i32);
            found.begin[(index - fixed) as usize + 1] += 1;
        }
        for vector in 0..self.contexts {
            found.begin[vector + 1] += found.begin[vector];
        }
        // Rows by vector, in ascending order within each.
        let mut next = found.begin.clone();
        found.rows_of = vec![0; found.rows.len()];
        for (vector, row) in found.vectors.iter().zip(&found.rows) {
            let place = &mut next[*vector as usize];
            found.rows_of[*place as usize] = *row;
            *place += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_context_in_the_middle() -> Result<()> {
        // Two prompts: [start] [c0] name [c1] . and one of two name tokens; width 1, four fixed tokens.
        let tokens = PromptTokens {
            fixed: &[0.0; 4],
            index: &[0, 4, 1, 5, 3, 2, 1, 5, 3],
            shared: 2,
            lengths: &[3, 4],
            contexts: 2,
        };
        let packed = tokens.pack(1)?;
        let rows = tokens.context_rows(&packed, 1);
        assert_eq!(rows.vectors, [0, 1, 1]);
        assert_eq!(rows.positions, [1, 3, 4]);
        assert_eq!(rows.rows, [1, 3, 7]);
        assert_eq!((rows.begin, rows.rows_of), (vec![0, 1, 3], vec![1, 3, 7]));
        Ok(())
    }

    #[test]
    fn an_index_beyond_the_tokens_is_refused() {
        let tokens = PromptTokens {
            fixed: &[0.0; 2],
            index: &[0, 3, 1],
            shared: 2,
            lengths: &[1],
            contexts: 1,
        };
        assert!(tokens.pack(1).is_err());
    }
}

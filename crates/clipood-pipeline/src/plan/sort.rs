//! Sorting rows of the plan by their keys. Layouts list images in the order in which they have them, and only some of a large
//! dataset fit into memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::spool::Spool;
use crate::error::{PipelineError, Result};
use crate::tables::ImageRow;

/// Rows that are sorted in memory.
const BUFFER: usize = 1 << 16;

/// Rows that come in any order.
pub(super) struct Sorter {
    /// Name of the dataset, for errors.
    dataset: String,
    buffer: Vec<ImageRow>,
    /// Sorted lists, each with its last key.
    runs: Vec<(Spool, String)>,
}

impl Sorter {
    /// No row yet.
    pub fn new(dataset: &str) -> Self {
        Self {
            dataset: dataset.to_string(),
            buffer: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// A temporary file that cannot be written, two rows of one key.
    pub fn push(&mut self, row: ImageRow) -> Result<()> {
        self.buffer.push(row);
        match self.buffer.len() < BUFFER {
            true => Ok(()),
            false => self.flush(),
        }
    }

    /// All rows, sorted by their keys.
    ///
    /// # Errors
    /// As [`Sorter::push`]; a temporary file that cannot be read.
    pub fn finish(mut self) -> Result<Spool> {
        self.flush()?;
        let mut runs = std::mem::take(&mut self.runs);
        if runs.len() <= 1 {
            return Ok(runs.pop().map_or_else(Spool::new, |(run, _)| run));
        }
        let mut sources = Vec::new();
        let mut heads = BinaryHeap::new();
        for (number, (run, _)) in runs.into_iter().enumerate() {
            let mut rows = run.into_rows()?;
            if let Some(row) = rows.next().transpose()? {
                heads.push(Reverse(Head::new(number, row)));
            }
            sources.push(rows);
        }
        let mut merged = Spool::new();
        let mut last = String::new();
        while let Some(Reverse(head)) = heads.pop() {
            if merged.len() > 0 && head.row.image_key == last {
                return Err(self.twice(&last));
            }
            last.clone_from(&head.row.image_key);
            if let Some(row) = sources[head.number].next().transpose()? {
                heads.push(Reverse(Head::new(head.number, row)));
            }
            merged.push(head.row)?;
        }
        Ok(merged)
    }

    /// Sorts the rows in memory, behind those of the last list if they follow them.
    fn flush(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.buffer);
        rows.sort_by(|a, b| a.image_key.cmp(&b.image_key));
        if let Some(pair) = rows
            .windows(2)
            .find(|pair| pair[0].image_key == pair[1].image_key)
        {
            return Err(self.twice(&pair[0].image_key));
        }
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(());
        };
        let last = last.image_key.clone();
        match self.runs.last_mut() {
            Some((_, end)) if *end < first.image_key => *end = last,
            Some((_, end)) if *end == first.image_key => return Err(self.twice(&last)),
            _ => self.runs.push((Spool::new(), last)),
        }
        if let Some((run, _)) = self.runs.last_mut() {
            rows.into_iter().try_for_each(|row| run.push(row))?;
        }
        Ok(())
    }

    fn twice(&self, key: &str) -> PipelineError {
        PipelineError::Usage(format!(
            "dataset `{}`: image {key} is listed twice",
            self.dataset
        ))
    }
}

/// The next row of a list, ordered by its key.
struct Head {
    number: usize,
    row: ImageRow,
}

impl Head {
    fn new(number: usize, row: ImageRow) -> Self {
        Self { number, row }
    }

    fn key(&self) -> (&str, usize) {
        (&self.row.image_key, self.number)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use clipood_core::SplitMix64;

    use super::*;

    fn row(number: usize) -> ImageRow {
        ImageRow {
            image_key: format!("set/test/{number:07}"),
            label: Some(number as u32),
            split: "test".to_string(),
            ..ImageRow::default()
        }
    }

    fn sorted(numbers: impl Iterator<Item = usize>) -> Result<Spool> {
        let mut sorter = Sorter::new("set");
        numbers.map(row).try_for_each(|row| sorter.push(row))?;
        sorter.finish()
    }

    #[test]
    fn rows_of_any_order_come_back_sorted() {
        let mut shuffled: Vec<usize> = (0..3 * BUFFER + 77).collect();
        let mut rng = SplitMix64::keyed(1, "order", 0);
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
        for count in [0, 1, BUFFER, BUFFER + 1, shuffled.len()] {
            for numbers in [(0..count).collect(), shuffled[..count].to_vec()] {
                let mut expected = numbers.clone();
                expected.sort_unstable();
                let spool = sorted(numbers.into_iter()).unwrap();
                assert_eq!(spool.len(), count);
                for (found, expected) in spool.into_rows().unwrap().zip(expected) {
                    assert_eq!(found.unwrap(), row(expected));
                }
            }
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_named() {
        let far = (1..2 * BUFFER).chain([0, 5]);
        let next = (0..BUFFER).chain([BUFFER - 1]);
        for numbers in [vec![3, 5, 5], far.collect(), next.collect()] {
            let error = sorted(numbers.into_iter()).err().unwrap().to_string();
            assert!(error.contains("is listed twice"), "{error}");
        }
    }
}

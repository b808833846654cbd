//! A list of rows of the plan in a temporary file, from one step to a later one.

use std::fs::File;
use std::io::{Read, Seek, Write};

use bytes::Bytes;

use crate::error::{PipelineError, Result};
use crate::tables::{FileMeta, ImageRow, read_images, write_images};

/// Rows per block of the file; at most one block is in memory.
const BLOCK: usize = 8192;

/// Blocks of bytes in a temporary file. It has no name, so it disappears however the process ends.
pub(super) struct Blocks {
    /// Made with the first block.
    file: Option<File>,
    /// Sizes of the blocks in the file, in bytes.
    sizes: Vec<usize>,
}

impl Blocks {
    pub fn new() -> Self {
        Self {
            file: None,
            sizes: Vec::new(),
        }
    }

    /// Adds a block. All blocks are added before the first is read.
    ///
    /// # Errors
    /// A temporary file that cannot be made or written.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile().map_err(failed)?),
        };
        file.write_all(bytes).map_err(failed)?;
        self.sizes.push(bytes.len());
        Ok(())
    }

    /// Calls `each` with every block in the order of [`Blocks::push`].
    ///
    /// # Errors
    /// A temporary file that cannot be read, the first error of `each`.
    pub fn for_each(&mut self, mut each: impl FnMut(Bytes) -> Result<()>) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.rewind().map_err(failed)?;
        for size in &self.sizes {
            let mut bytes = vec![0; *size];
            file.read_exact(&mut bytes).map_err(failed)?;
            each(Bytes::from(bytes))?;
        }
        Ok(())
    }
}

/// A list of rows of which only the last block is in memory.
pub(super) struct Spool {
    blocks: Blocks,
    /// Rows that are not in a block yet.
    last: Vec<ImageRow>,
    len: usize,
}

impl Spool {
    pub fn new() -> Self {
        Self {
            blocks: Blocks::new(),
            last: Vec::new(),
            len: 0,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a row.
    ///
    /// # Errors
    /// A temporary file that cannot be made or written.
    pub fn push(&mut self, row: ImageRow) -> Result<()> {
        self.last.push(row);
        self.len += 1;
        if self.last.len() == BLOCK {
            let bytes = write_images(&self.last, &FileMeta::default())?;
            self.blocks.push(&bytes)?;
            self.last.clear();
        }
        Ok(())
    }

    /// Calls `each` with every row in the order of [`Spool::push`]; the rows stay.
    ///
    /// # Errors
    /// A temporary file that cannot be read, the first error of `each`.
    pub fn for_each(&mut self, mut each: impl FnMut(&ImageRow) -> Result<()>) -> Result<()> {
        self.blocks.for_each(|bytes| {
            let rows = read_images(bytes, "temporary file of the plan")?;
            rows.iter().try_for_each(&mut each)
        })?;
        self.last.iter().try_for_each(each)
    }

    /// All rows, in the order of [`Spool::push`].
    ///
    /// # Errors
    /// A temporary file that cannot be read; the iterator returns this error too.
    pub fn into_rows(mut self) -> Result<impl Iterator<Item = Result<ImageRow>>> {
        if let Some(file) = &mut self.blocks.file {
            file.rewind().map_err(failed)?;
        }
        let mut file = self.blocks.file;
        let blocks = self.blocks.sizes.into_iter().map(move |size| {
            let mut bytes = vec![0; size];
            if let Some(file) = &mut file {
                file.read_exact(&mut bytes).map_err(failed)?;
            }
            Ok(read_images(
                Bytes::from(bytes),
                "temporary file of the plan",
            )?)
        });
        let last = std::iter::once(Ok(self.last));
        Ok(blocks.chain(last).flat_map(|block: Result<Vec<ImageRow>>| {
            let (rows, error) = match block {
                Ok(rows) => (rows, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            rows.into_iter().map(Ok).chain(error)
        }))
    }
}

/// The images of a dataset that the run uses; labels are indices into the chosen classes.
pub(super) struct Rows {
    pub test: Spool,
    pub val: Spool,
    /// Images that are in a few-shot split, in key order.
    pub train: Vec<ImageRow>,
}

fn failed(source: std::io::Error) -> PipelineError {
    PipelineError::File {
        path: std::env::temp_dir().display().to_string(),
        action: "temporary file of the plan (TMPDIR names another folder)",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_order_from_file_and_memory() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 17] {
            let row = |i: usize| ImageRow {
                image_key: format!("set/test/{i}.png"),
                uri: format!("/data/{i}.png"),
                length: i.is_multiple_of(3).then_some(i as u64),
                split: "test".to_string(),
                label: i.is_multiple_of(2).then_some(i as u32),
                class_name: i.is_multiple_of(5).then(|| "a".to_string()),
                ..ImageRow::default()
            };
            let mut spool = Spool::new();
            for i in 0..len {
                spool.push(row(i)).unwrap();
            }
            assert_eq!(spool.len(), len);
            assert_eq!(spool.blocks.sizes.len(), len / BLOCK);
            for _ in 0..2 {
                let mut rows = 0;
                let seen = spool.for_each(|found| {
                    assert_eq!(*found, row(rows));
                    rows += 1;
                    Ok(())
                });
                seen.unwrap();
                assert_eq!(rows, len);
            }
            let mut rows = 0;
            for (i, found) in spool.into_rows().unwrap().enumerate() {
                assert_eq!(found.unwrap(), row(i));
                rows += 1;
            }
            assert_eq!(rows, len);
        }
    }
}

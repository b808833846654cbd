//! Parquet files whose rows hold encoded images.
//!
//! Rows are decoded some at a time, and the last ones stay in memory, because images are read in the order of their rows by
//! several threads.

use std::io::{Error, ErrorKind, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::file::metadata::PageIndexPolicy;

use crate::byte_file::ByteFile;
use crate::decode::panic_message;
use crate::open_files::OpenFiles;

/// Bytes of images that are decoded at once, if rows are of average size.
const BLOCK_BYTES: u64 = 16 << 20;
/// Bytes of decoded images that are kept.
const KEPT_BYTES: usize = 256 << 20;

/// An open Parquet file.
pub(crate) struct Table {
    file: ByteFile,
    metadata: ArrowReaderMetadata,
    /// The first row of each row group, and the number of all rows.
    starts: Vec<u64>,
}

impl Table {
    /// Opens a file and reads its metadata.
    ///
    /// # Errors
    /// A file that cannot be read; [`ErrorKind::InvalidInput`] for one that is no Parquet file, or damaged.
    pub fn open(path: &Path) -> Result<Table> {
        let file = ByteFile::open(path)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, options).map_err(damaged))?;
        let mut starts = vec![0];
        let mut rows = 0_u64;
        for group in metadata.metadata().row_groups() {
            let more = u64::try_from(group.num_rows()).ok();
            rows = more
                .and_then(|more| rows.checked_add(more))
                .ok_or_else(|| damaged("a row group has an impossible number of rows"))?;
            starts.push(rows);
        }
        Ok(Table {
            file,
            metadata,
            starts,
        })
    }

    /// The metadata.
    pub fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Calls `each` with the first row and some columns, given by their places, of one batch of rows after the other.
    ///
    /// # Errors
    /// As [`Table::open`]; the inner error is the first of `each`.
    pub fn for_each_batch<E>(
        &self,
        roots: &[usize],
        mut each: impl FnMut(u64, &arrow::array::RecordBatch) -> std::result::Result<(), E>,
    ) -> Result<std::result::Result<(), E>> {
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::roots(schema, roots.iter().copied());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.file.clone(),
            self.metadata.clone(),
        );
        let mut batches = guarded(|| builder.with_projection(mask).build().map_err(damaged))?;
        let mut row = 0;
        while let Some(batch) = guarded(|| batches.next().transpose().map_err(damaged))? {
            if let Err(error) = each(row, &batch) {
                return Ok(Err(error));
            }
            row += batch.num_rows() as u64;
        }
        match row == self.rows() {
            true => Ok(Ok(())),
            false => Err(damaged(format!(
                "it has {row} rows, its footer says otherwise"
            ))),
        }
    }

    /// The rows that are decoded together with `row`: row group, first row in the group, number of rows.
    fn block(&self, row: u64) -> Option<(usize, u64, u64)> {
        let group = self
            .starts
            .partition_point(|start| *start <= row)
            .checked_sub(1)?;
        let rows = self
            .starts
            .get(group + 1)?
            .checked_sub(self.starts[group])?;
        let bytes = self.metadata.metadata().row_group(group).total_byte_size();
        let per_row = u64::try_from(bytes).unwrap_or(0) / rows.max(1);
        let step = (BLOCK_BYTES / per_row.max(1)).clamp(1, rows.max(1));
        let first = (row - self.starts[group]) / step * step;
        Some((group, first, step.min(rows - first)))
    }

    /// Decodes some rows of a column of bytes, given by its path such as `image.bytes`.
    fn decode(
        &self,
        column: &str,
        (group, first, rows): (usize, u64, u64),
    ) -> Result<Vec<Option<Bytes>>> {
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let leaf = (0..schema.num_columns()).find(|i| schema.column(*i).path().string() == column);
        let leaf = leaf.ok_or_else(|| damaged(format!("it has no column `{column}`")))?;
        let (first, rows) = (first as usize, rows as usize);
        let selection =
            RowSelection::from(vec![RowSelector::skip(first), RowSelector::select(rows)]);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.file.clone(),
            self.metadata.clone(),
        );
        let mut batches = builder
            .with_row_groups(vec![group])
            .with_projection(ProjectionMask::leaves(schema, [leaf]))
            .with_row_selection(selection)
            .with_batch_size(rows)
            .build()
            .map_err(damaged)?;
        let mut images = Vec::with_capacity(rows);
        while let Some(batch) = batches.next().transpose().map_err(damaged)? {
            take_bytes(batch.column(0), &mut images)?;
        }
        match images.len() == rows {
            true => Ok(images),
            false => Err(damaged(format!(
                "{} of {rows} rows are there",
                images.len()
            ))),
        }
    }
}

/// The bytes of a column, or of the only field of a struct.
fn take_bytes(array: &ArrayRef, to: &mut Vec<Option<Bytes>>) -> Result<()> {
    if let Some(of) = array.as_struct_opt() {
        let start = to.len();
        take_bytes(of.column(0), to)?;
        for (row, bytes) in to[start..].iter_mut().enumerate() {
            if of.is_null(row) {
                *bytes = None;
            }
        }
        return Ok(());
    }
    let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    match array.data_type() {
        DataType::Binary => to.extend(array.as_binary::<i32>().iter().map(copy)),
        DataType::LargeBinary => to.extend(array.as_binary::<i64>().iter().map(copy)),
        DataType::BinaryView => to.extend(array.as_binary_view().iter().map(copy)),
        other => return Err(damaged(format!("the column of images is of type {other}"))),
    }
    Ok(())
}

/// Reads the image in a row of a file, counted from 0.
///
/// # Errors
/// As [`Table::open`], and [`ErrorKind::InvalidInput`] for a row that is not there or has no bytes.
pub(crate) fn read_row(path: &Path, column: &str, row: u64) -> Result<Vec<u8>> {
    static TABLES: OpenFiles<Table> = OpenFiles::new();
    let table = TABLES.get(path, || Table::open(path))?;
    let Some(place) = table.block(row) else {
        let rows = table.rows();
        return Err(damaged(format!(
            "row {row} is not in the file, which has {rows} rows"
        )));
    };
    let block = cell(path, column, place);
    let decoded = match block.decoded.get() {
        Some(decoded) => decoded.clone(),
        None => decoded(&table, column, place, &block)?,
    };
    let image = decoded
        .images
        .get((row - table.starts[place.0] - place.1) as usize);
    match image.and_then(Option::as_ref) {
        Some(bytes) => Ok(bytes.to_vec()),
        None => Err(damaged(format!("row {row} has no image bytes"))),
    }
}

type Place = (usize, u64, u64);

/// The images of a block: decoded once, by the first thread that needs them.
#[derive(Default)]
struct Block {
    decoded: OnceLock<Arc<Decoded>>,
    decoding: Mutex<()>,
}

/// Images, and the number of their bytes.
struct Decoded {
    images: Vec<Option<Bytes>>,
    bytes: usize,
}

fn decoded(table: &Table, column: &str, place: Place, block: &Block) -> Result<Arc<Decoded>> {
    let _decoding = block
        .decoding
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(decoded) = block.decoded.get() {
        return Ok(decoded.clone());
    }
    let images = guarded(|| table.decode(column, place))?;
    let bytes = images.iter().flatten().map(Bytes::len).sum();
    let decoded = Arc::new(Decoded { images, bytes });
    Ok(block.decoded.get_or_init(|| decoded).clone())
}

/// Blocks in the order of their last use.
type Cells = Vec<((PathBuf, String, Place), Arc<Block>)>;

fn cell(path: &Path, column: &str, place: Place) -> Arc<Block> {
    static CELLS: Mutex<Cells> = Mutex::new(Vec::new());
    let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
    let found = cells
        .iter()
        .position(|((p, c, at), _)| *at == place && p == path && c == column);
    let cell = match found {
        Some(found) => cells.remove(found),
        None => (
            (path.to_path_buf(), column.to_string(), place),
            Arc::default(),
        ),
    };
    let block = cell.1.clone();
    cells.push(cell);
    let size = |block: &Block| match block.decoded.get() {
        Some(decoded) => decoded.bytes,
        None => BLOCK_BYTES as usize,
    };
    let mut kept = 0;
    let newest = cells.iter().rev().take_while(|(_, block)| {
        kept += size(block);
        kept <= KEPT_BYTES
    });
    let dropped = cells.len() - newest.count().max(1);
    cells.drain(..dropped);
    block
}

/// An error of a file that stays as it is.
fn damaged(problem: impl ToString) -> Error {
    Error::new(ErrorKind::InvalidInput, problem.to_string())
}

/// Calls `read`; a panic of the Parquet reader becomes an error.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    // Unwind safety: nothing that `read` has changed is used after a panic.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        Err(damaged(format!(
            "the Parquet reader failed: {}",
            panic_message(&*panic)
        )))
    })
}

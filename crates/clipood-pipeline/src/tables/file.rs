//! One Parquet file in memory: from record batches and metadata to bytes, and back.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use clipood_store::stamp;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::error::{Result, TableError};
use super::footer::{FileMeta, Footer, key_values, parse_footer};

/// Bytes of features per row group, which a writer keeps in memory.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Bytes of features that are converted to Arrow at once: few enough for the allocator to reuse the memory.
const BATCH_BYTES: usize = 4 << 20;
/// Bytes of features per page.
const PAGE_BYTES: usize = 1 << 20;
/// Rows that a reader decodes at once.
const BATCH_ROWS: usize = 8192;

/// A column of features. They hardly compress, so they are stored plain, without compression, dictionary and
/// statistics.
pub(super) struct RawColumn {
    /// Path of the Parquet leaf.
    pub path: Vec<String>,
    /// Bytes per row.
    pub row_bytes: usize,
    /// Values of the Parquet leaf per row.
    pub row_values: usize,
}

/// A file to be written.
pub(super) struct NewFile<'a> {
    /// Kind of table, for errors.
    pub table: &'a str,
    /// Its columns.
    pub schema: SchemaRef,
    /// Metadata that every table has.
    pub meta: &'a FileMeta,
    /// Metadata keys of this kind of table.
    pub own: &'a [(&'a str, String)],
    /// Its rows.
    pub rows: usize,
    /// Its column of features, if any.
    pub raw: Option<RawColumn>,
}

impl NewFile<'_> {
    /// Encodes the file; `batch` returns a range of rows, so that only a small part of a large table is copied to Arrow
    /// at a time.
    pub fn write(
        &self,
        mut batch: impl FnMut(Range<usize>) -> Result<RecordBatch>,
    ) -> Result<Vec<u8>> {
        let fail = |source: ParquetError| TableError::unwritable(self.table, source);
        let pairs = key_values(self.table, self.meta, self.own, self.rows)?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(pairs));
        let mut step = self.rows.max(1);
        let mut bytes = Vec::new();
        if let Some(raw) = &self.raw {
            let path = ColumnPath::new(raw.path.clone());
            let group_rows = (ROW_GROUP_BYTES / raw.row_bytes).max(1);
            step = (BATCH_BYTES / raw.row_bytes).max(1);
            // Pages end between write batches, whose size counts leaf values; the default is for small values only.
            let page_values = PAGE_BYTES / raw.row_bytes * raw.row_values;
            properties = properties
                .set_max_row_group_row_count(Some(group_rows))
                .set_write_batch_size(page_values.clamp(1, 1024))
                .set_column_compression(path.clone(), Compression::UNCOMPRESSED)
                .set_column_encoding(path.clone(), Encoding::PLAIN)
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_data_page_size_limit(path.clone(), PAGE_BYTES)
                .set_column_statistics_enabled(path, EnabledStatistics::None);
            bytes.reserve(raw.row_bytes * self.rows + self.rows * 128);
        }
        let schema = self.schema.clone();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, schema, Some(properties.build())).map_err(fail)?;
        for start in (0..self.rows).step_by(step) {
            let rows = batch(start..self.rows.min(start + step))?;
            writer.write(&rows).map_err(fail)?;
        }
        writer.close().map_err(fail)?;
        stamp(&mut bytes);
        Ok(bytes)
    }
}

/// An opened file, whose metadata is read and checked, but not its columns.
pub(super) struct OpenFile<'a> {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    /// Its name, for errors.
    pub file: &'a str,
    /// Its metadata.
    pub footer: Footer,
}

impl<'a> OpenFile<'a> {
    /// Reads the metadata.
    pub fn open(bytes: Bytes, file: &'a str) -> Result<Self> {
        let metadata = ArrowReaderMetadata::load(&bytes, Default::default())
            .map_err(|e| TableError::unreadable(file, e))?;
        let footer = parse_footer(metadata.metadata().file_metadata(), file)?;
        Ok(Self {
            bytes,
            metadata,
            file,
            footer,
        })
    }

    /// The columns, as Arrow sees them.
    pub fn schema(&self) -> &Schema {
        self.metadata.schema()
    }

    /// The column called `name`.
    pub fn field(&self, name: &str, expected: &str) -> Result<&Field> {
        self.schema()
            .field_with_name(name)
            .map_err(|_| TableError::column(self.file, name, expected, "no such column"))
    }

    /// Fails unless every one of `fields` exists with exactly its type.
    pub fn check<'f>(&self, fields: impl IntoIterator<Item = &'f Field>) -> Result<()> {
        for field in fields {
            let expected = field.data_type().to_string();
            let found = self.field(field.name(), &expected)?.data_type().to_string();
            if expected != found {
                return Err(TableError::column(self.file, field.name(), expected, found));
            }
        }
        Ok(())
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Decodes the rows in order, a batch at a time; `row_bytes` is the size of a row of features, 0 for other tables.
    pub fn read(
        self,
        row_bytes: usize,
        each: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        self.read_masked(ProjectionMask::all(), row_bytes, each)
    }

    /// Decodes some columns of the rows in order, a batch of rows at a time.
    pub fn read_columns(
        self,
        names: &[&str],
        each: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        // By index: a name with a dot, such as `score_mcm:t=0.5`, would be taken for a path.
        let fields = self.schema().fields().iter().enumerate();
        let places = fields.filter(|(_, field)| names.contains(&field.name().as_str()));
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::roots(schema, places);
        self.read_masked(mask, 0, each)
    }

    fn read_masked(
        self,
        columns: ProjectionMask,
        row_bytes: usize,
        mut each: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let file = self.file;
        let rows = match row_bytes {
            0 => BATCH_ROWS,
            _ => (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS),
        };
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes, self.metadata)
            .with_batch_size(rows)
            .with_projection(columns)
            .build()
            .map_err(|e| TableError::unreadable(file, e))?;
        let mut read = 0;
        for batch in batches {
            let batch = batch.map_err(|e| TableError::unreadable(file, e))?;
            read += batch.num_rows() as u64;
            each(&batch)?;
        }
        if read != self.footer.rows {
            let text = format!("expected {} rows, found {read}", self.footer.rows);
            return Err(TableError::unreadable(file, ParquetError::EOF(text)));
        }
        Ok(())
    }
}

//! Image features as the encoder returns them: projected, not normalised, without labels (join on `image_key`).
//!
//! Global and patch features are separate tables, so that reading the global features never reads the patches.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float32Array,
    Int16Array, RecordBatch, StringArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Schema};
use bytes::Bytes;
use half::f16;

use super::column::read_cells;
use super::error::{Result, TableError};
use super::file::{NewFile, OpenFile, RawColumn};
use super::footer::{FileMeta, extra_number};
use super::guard::guard;

const GLOBAL_TABLE: &str = "global feature table";
const LOCAL_TABLE: &str = "local feature table";
const DIM: &str = "clipood.dim";
const PATCHES: &str = "clipood.patches";
const STORED: &str = "clipood.stored_dtype";

/// Features of whole images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GlobalFeatures {
    /// Image key of each row.
    pub keys: Vec<String>,
    /// View of each row: -1 is the evaluation view, others are training crops.
    pub views: Vec<i16>,
    /// BLAKE3 hash of the image's bytes, hexadecimal.
    pub content_hashes: Vec<String>,
    /// Width D of a feature, at least 1.
    pub dim: usize,
    /// Row-major `[rows, dim]`.
    pub values: Vec<f32>,
}

/// Features of image patches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalFeatures {
    /// Image key of each row.
    pub keys: Vec<String>,
    /// View of each row: -1 is the evaluation view, others are training crops.
    pub views: Vec<i16>,
    /// Number of patches L per image, at least 1.
    pub patches: usize,
    /// Width D of a feature, at least 1.
    pub dim: usize,
    /// Row-major `[rows, patches, dim]`.
    pub values: Vec<f16>,
}

/// Stored type of global features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalType {
    /// Half precision: values beyond 65504 are rejected.
    F16,
    /// Single precision: exact.
    F32,
}

impl GlobalType {
    fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    fn arrow(self) -> DataType {
        match self {
            Self::F16 => DataType::Float16,
            Self::F32 => DataType::Float32,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Encodes global features: `image_key`, `view`, `content_hash`, `global` (a fixed-size list of `dim` values).
///
/// # Errors
/// [`TableError::Column`] if a column has another length than `keys`, or `values` than `keys.len() * dim`, or a value
/// does not fit the stored type; [`TableError::Metadata`] if `meta.extra` holds a key that the table writes itself.
pub fn write_global(
    features: &GlobalFeatures,
    stored: GlobalType,
    meta: &FileMeta,
) -> Result<Vec<u8>> {
    let (rows, dim) = (features.keys.len(), features.dim);
    // Lists count values, not bytes.
    let size = row_size(GLOBAL_TABLE, "global", dim, 1)? / 2;
    check_length(GLOBAL_TABLE, "view", rows, features.views.len())?;
    check_length(
        GLOBAL_TABLE,
        "content_hash",
        rows,
        features.content_hashes.len(),
    )?;
    check_values(GLOBAL_TABLE, "global", rows, dim, features.values.len())?;
    let item = Arc::new(Field::new("element", stored.arrow(), false));
    let schema = Arc::new(Schema::new(vec![
        Field::new("image_key", DataType::Utf8, false),
        Field::new("view", DataType::Int16, false),
        Field::new("content_hash", DataType::Utf8, false),
        Field::new("global", DataType::FixedSizeList(item.clone(), size), false),
    ]));
    let leaf = ["global", "list", "element"].map(str::to_owned);
    let file = NewFile {
        table: GLOBAL_TABLE,
        schema: schema.clone(),
        meta,
        own: &[(DIM, dim.to_string()), (STORED, stored.name().to_owned())],
        rows,
        raw: Some(RawColumn {
            path: leaf.into(),
            row_bytes: dim * stored.bytes(),
            row_values: dim,
        }),
    };
    file.write(|range| {
        let values = &features.values[range.start * dim..range.end * dim];
        let items: ArrayRef = match stored {
            GlobalType::F32 => Arc::new(Float32Array::from(values.to_vec())),
            GlobalType::F16 => Arc::new(Float16Array::from(to_f16(values)?)),
        };
        let lists = FixedSizeListArray::try_new(item.clone(), size, items, None)
            .map_err(|e| TableError::unwritable(GLOBAL_TABLE, e))?;
        let columns: Vec<ArrayRef> = vec![
            texts(&features.keys, &range),
            Arc::new(Int16Array::from(features.views[range.clone()].to_vec())),
            texts(&features.content_hashes, &range),
            Arc::new(lists),
        ];
        RecordBatch::try_new(schema.clone(), columns)
            .map_err(|e| TableError::unwritable(GLOBAL_TABLE, e))
    })
}

/// Reads what [`write_global`] wrote, whatever its stored type; `file` names it in errors.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's, lists whose length is not the
/// metadata's `clipood.dim`.
pub fn read_global(bytes: Bytes, file: &str) -> Result<GlobalFeatures> {
    guard(file, || {
        let open = OpenFile::open(bytes, file)?;
        open.check(&[
            Field::new("image_key", DataType::Utf8, false),
            Field::new("view", DataType::Int16, false),
            Field::new("content_hash", DataType::Utf8, false),
        ])?;
        let dim = extra_number(&open.footer, file, DIM)? as usize;
        let expected = format!("FixedSizeList of {dim} x Float16 or Float32");
        let found = open.field("global", &expected)?.data_type();
        let stored = match found {
            DataType::FixedSizeList(item, size) if usize::try_from(*size) == Ok(dim) => {
                [GlobalType::F16, GlobalType::F32]
                    .into_iter()
                    .find(|stored| stored.arrow() == *item.data_type())
            }
            _ => None,
        };
        let (Some(stored), 1..) = (stored, dim) else {
            return Err(TableError::column(
                file,
                "global",
                expected,
                found.to_string(),
            ));
        };
        let mut features = GlobalFeatures {
            dim,
            ..GlobalFeatures::default()
        };
        // The column is stored uncompressed, so the size of the file limits the number of values even if the footer is
        // corrupt.
        let most = open.size() / stored.bytes();
        features
            .values
            .reserve(most.min((open.footer.rows as usize).saturating_mul(dim)));
        open.read(dim * stored.bytes(), |batch| {
            features
                .keys
                .extend(read_cells::<String>(batch, file, "image_key")?);
            features
                .views
                .extend(read_cells::<i16>(batch, file, "view")?);
            let hashes = read_cells::<String>(batch, file, "content_hash")?;
            features.content_hashes.extend(hashes);
            append_lists(batch, stored, file, &mut features.values)
        })?;
        Ok(features)
    })
}

/// Encodes local features: `image_key`, `view`, `local` (patches x dim little-endian f16 in one binary value).
///
/// # Errors
/// [`TableError::Column`] if a column has another length than `keys`, or `values` than `keys.len() * patches * dim`;
/// [`TableError::Metadata`] if `meta.extra` holds a key that the table writes itself.
pub fn write_local(features: &LocalFeatures, meta: &FileMeta) -> Result<Vec<u8>> {
    let rows = features.keys.len();
    let size = row_size(LOCAL_TABLE, "local", features.dim, features.patches)?;
    let row_bytes = size as usize;
    let row_values = row_bytes / 2;
    check_length(LOCAL_TABLE, "view", rows, features.views.len())?;
    check_values(
        LOCAL_TABLE,
        "local",
        rows,
        row_values,
        features.values.len(),
    )?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("image_key", DataType::Utf8, false),
        Field::new("view", DataType::Int16, false),
        Field::new("local", DataType::FixedSizeBinary(size), false),
    ]));
    let file = NewFile {
        table: LOCAL_TABLE,
        schema: schema.clone(),
        meta,
        own: &[
            (DIM, features.dim.to_string()),
            (PATCHES, features.patches.to_string()),
            (STORED, "f16".to_owned()),
        ],
        rows,
        raw: Some(RawColumn {
            path: vec!["local".to_owned()],
            row_bytes,
            row_values: 1,
        }),
    };
    file.write(|range| {
        let values = &features.values[range.start * row_values..range.end * row_values];
        let mut bytes = vec![0; values.len() * 2];
        for (pair, value) in bytes.chunks_exact_mut(2).zip(values) {
            pair.copy_from_slice(&value.to_le_bytes());
        }
        let local = FixedSizeBinaryArray::try_new(size, Buffer::from_vec(bytes), None)
            .map_err(|e| TableError::unwritable(LOCAL_TABLE, e))?;
        let columns: Vec<ArrayRef> = vec![
            texts(&features.keys, &range),
            Arc::new(Int16Array::from(features.views[range.clone()].to_vec())),
            Arc::new(local),
        ];
        RecordBatch::try_new(schema.clone(), columns)
            .map_err(|e| TableError::unwritable(LOCAL_TABLE, e))
    })
}

/// Reads what [`write_local`] wrote; `file` names it in errors.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's, values whose size is not two bytes
/// for each of the metadata's `clipood.patches` x `clipood.dim`.
pub fn read_local(bytes: Bytes, file: &str) -> Result<LocalFeatures> {
    guard(file, || {
        let open = OpenFile::open(bytes, file)?;
        let dim = extra_number(&open.footer, file, DIM)? as usize;
        let patches = extra_number(&open.footer, file, PATCHES)? as usize;
        let size = row_size(file, "local", dim, patches)?;
        open.check(&[
            Field::new("image_key", DataType::Utf8, false),
            Field::new("view", DataType::Int16, false),
            Field::new("local", DataType::FixedSizeBinary(size), false),
        ])?;
        let mut features = LocalFeatures {
            patches,
            dim,
            ..LocalFeatures::default()
        };
        let row_values = size as usize / 2;
        let most = open.size() / 2;
        features
            .values
            .reserve(most.min((open.footer.rows as usize).saturating_mul(row_values)));
        open.read(size as usize, |batch| {
            features
                .keys
                .extend(read_cells::<String>(batch, file, "image_key")?);
            features
                .views
                .extend(read_cells::<i16>(batch, file, "view")?);
            append_binary(batch, file, &mut features.values)
        })?;
        Ok(features)
    })
}

/// Size in bytes of the f16 values of a row, which Arrow stores as an i32.
fn row_size(file: &str, column: &str, dim: usize, patches: usize) -> Result<i32> {
    patches
        .checked_mul(dim)
        .and_then(|values| values.checked_mul(2))
        .and_then(|bytes| i32::try_from(bytes).ok())
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| {
            let found = format!("{patches} patches of {dim} values");
            TableError::column(file, column, "rows of 2 bytes to 2 GiB of f16", found)
        })
}

fn check_length(table: &str, column: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let expected = format!("{expected} values, as `image_key`");
    Err(TableError::column(
        table,
        column,
        expected,
        found.to_string(),
    ))
}

fn check_values(table: &str, column: &str, rows: usize, row: usize, found: usize) -> Result<()> {
    if rows.checked_mul(row) == Some(found) {
        return Ok(());
    }
    let expected = format!("{rows} rows of {row} values");
    Err(TableError::column(
        table,
        column,
        expected,
        format!("{found} values"),
    ))
}

fn texts(all: &[String], range: &Range<usize>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(&all[range.clone()]))
}

/// Rounds to nearest even; a finite value that would become infinite is an error.
fn to_f16(values: &[f32]) -> Result<Vec<f16>> {
    let halves: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
    match halves
        .iter()
        .zip(values)
        .find(|(half, value)| half.is_infinite() && value.is_finite())
    {
        None => Ok(halves),
        Some((_, value)) => {
            let expected = "values in f16's range, -65504 to 65504";
            Err(TableError::column(
                GLOBAL_TABLE,
                "global",
                expected,
                value.to_string(),
            ))
        }
    }
}

fn append_lists(
    batch: &RecordBatch,
    stored: GlobalType,
    file: &str,
    to: &mut Vec<f32>,
) -> Result<()> {
    let lists = batch
        .column_by_name("global")
        .and_then(|a| a.as_fixed_size_list_opt());
    let whole = lists.filter(|lists| lists.null_count() == 0 && lists.values().null_count() == 0);
    let appended = whole.and_then(|lists| {
        match stored {
            GlobalType::F32 => {
                to.extend_from_slice(lists.values().as_primitive_opt::<Float32Type>()?.values())
            }
            GlobalType::F16 => {
                let halves = lists.values().as_primitive_opt::<Float16Type>()?.values();
                to.extend(halves.iter().map(|half| half.to_f32()));
            }
        }
        Some(())
    });
    appended.ok_or_else(|| TableError::column(file, "global", "lists without nulls", "nulls"))
}

fn append_binary(batch: &RecordBatch, file: &str, to: &mut Vec<f16>) -> Result<()> {
    let local = batch
        .column_by_name("local")
        .and_then(|a| a.as_fixed_size_binary_opt());
    let Some(local) = local.filter(|local| local.null_count() == 0) else {
        return Err(TableError::column(
            file,
            "local",
            "values without nulls",
            "nulls",
        ));
    };
    let pairs = local.value_data().chunks_exact(2);
    to.extend(pairs.map(|pair| f16::from_le_bytes([pair[0], pair[1]])));
    Ok(())
}

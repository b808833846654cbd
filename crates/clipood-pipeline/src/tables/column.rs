//! Columns of tables whose rows are structs: each is declared once, for both writing and reading.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int16Type, Int32Type, Schema, UInt32Type, UInt64Type,
};
use bytes::Bytes;

use super::error::{Result, TableError};
use super::file::{NewFile, OpenFile};
use super::footer::FileMeta;
use super::guard::guard;

/// The type of a field. `Option` is a column that may contain nulls.
pub(super) trait Cell: Sized {
    /// Whether the column may contain nulls.
    const NULLABLE: bool;
    /// Arrow type of the column.
    fn data_type() -> DataType;
    /// The column of some rows.
    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;
    /// The cells of a column; `None` if it has another type. [`read_cells`] rejects nulls.
    fn from_array(array: &dyn Array) -> Option<Vec<Self>>;
}

macro_rules! number_cells {
    ($($native:ty => $arrow:ty),* $(,)?) => {$(
        impl Cell for $native {
            const NULLABLE: bool = false;
            fn data_type() -> DataType {
                <$arrow>::DATA_TYPE
            }
            fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(PrimitiveArray::<$arrow>::from_iter_values(cells.copied()))
            }
            fn from_array(array: &dyn Array) -> Option<Vec<Self>> {
                Some(array.as_primitive_opt::<$arrow>()?.values().to_vec())
            }
        }
        impl Cell for Option<$native> {
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                <$arrow>::DATA_TYPE
            }
            fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(cells.copied().collect::<PrimitiveArray<$arrow>>())
            }
            fn from_array(array: &dyn Array) -> Option<Vec<Self>> {
                Some(array.as_primitive_opt::<$arrow>()?.iter().collect())
            }
        }
    )*};
}

number_cells! {
    i16 => Int16Type,
    i32 => Int32Type,
    u32 => UInt32Type,
    u64 => UInt64Type,
    f32 => Float32Type,
    f64 => Float64Type,
}

impl Cell for String {
    const NULLABLE: bool = false;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(cells))
    }
    fn from_array(array: &dyn Array) -> Option<Vec<Self>> {
        let texts = array.as_string_opt::<i32>()?;
        Some(
            texts
                .iter()
                .map(|text| text.unwrap_or_default().to_owned())
                .collect(),
        )
    }
}

impl Cell for Option<String> {
    const NULLABLE: bool = true;
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(cells.map(Option::as_deref).collect::<StringArray>())
    }
    fn from_array(array: &dyn Array) -> Option<Vec<Self>> {
        let texts = array.as_string_opt::<i32>()?;
        Some(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }
}

/// The stored type of strings that repeat: indices into the distinct ones.
pub fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The cells of one column of a batch, in row order.
///
/// # Errors
/// A column that is missing, has another type, or has nulls although it must not.
pub(super) fn read_cells<F: Cell>(batch: &RecordBatch, file: &str, name: &str) -> Result<Vec<F>> {
    let wrong = |found: String| TableError::column(file, name, F::data_type().to_string(), found);
    let array = batch
        .column_by_name(name)
        .ok_or_else(|| wrong("no such column".to_owned()))?;
    let plain = match array.data_type() {
        DataType::Dictionary(..) => {
            cast(array, &F::data_type()).map_err(|e| TableError::unreadable(file, e))?
        }
        _ => array.clone(),
    };
    if !F::NULLABLE && plain.null_count() > 0 {
        let found = format!("{} nulls in a batch of {}", plain.null_count(), plain.len());
        return Err(TableError::column(file, name, "no null", found));
    }
    F::from_array(&plain).ok_or_else(|| wrong(array.data_type().to_string()))
}

/// One column of a table of `R`.
pub(super) struct Column<R> {
    field: Field,
    /// Whether tables of earlier builds lack it.
    is_added: bool,
    write: Box<WriteColumn<R>>,
    read: Box<ReadColumn<R>>,
}

type WriteColumn<R> = dyn Fn(&[R]) -> ArrayRef;
type ReadColumn<R> = dyn Fn(&RecordBatch, &str, &mut [R]) -> Result<()>;

impl<R: 'static> Column<R> {
    /// A column that is stored as it is.
    pub fn plain<F: Cell + 'static>(
        name: &'static str,
        get: fn(&R) -> &F,
        get_mut: fn(&mut R) -> &mut F,
    ) -> Self {
        Self {
            field: Field::new(name, F::data_type(), F::NULLABLE),
            is_added: false,
            write: Box::new(move |rows| F::to_array(rows.iter().map(get))),
            read: Box::new(move |batch, file, rows| {
                for (row, cell) in rows.iter_mut().zip(read_cells::<F>(batch, file, name)?) {
                    *get_mut(row) = cell;
                }
                Ok(())
            }),
        }
    }

    /// A column of repeating strings, which readers see as categorical.
    pub fn words<F: Cell + 'static>(
        name: &'static str,
        get: fn(&R) -> &F,
        get_mut: fn(&mut R) -> &mut F,
    ) -> Self {
        let column = Self::plain(name, get, get_mut);
        let field = column.field.with_data_type(dictionary());
        Self { field, ..column }
    }

    /// A column of repeating strings that earlier builds did not write: its cells are then the defaults.
    pub fn added(
        name: &'static str,
        get: fn(&R) -> &Option<String>,
        get_mut: fn(&mut R) -> &mut Option<String>,
    ) -> Self {
        let column = Self::words(name, get, get_mut);
        Self {
            is_added: true,
            ..column
        }
    }

    /// A required column of a few words that encode a value; `set` returns `false` for a word that it does not know.
    pub fn coded(
        name: &'static str,
        expected: &'static str,
        get: fn(&R) -> &'static str,
        set: fn(&mut R, &str) -> bool,
    ) -> Self {
        Self {
            field: Field::new(name, dictionary(), false),
            is_added: false,
            write: Box::new(move |rows| {
                Arc::new(StringArray::from_iter_values(rows.iter().map(get)))
            }),
            read: Box::new(move |batch, file, rows| {
                let words = read_cells::<String>(batch, file, name)?;
                for (row, word) in rows.iter_mut().zip(words) {
                    if !set(row, &word) {
                        let found = format!("`{word}`");
                        return Err(TableError::column(file, name, expected, found));
                    }
                }
                Ok(())
            }),
        }
    }

    /// Name, stored type and nullability.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The column of some rows.
    pub fn array(&self, table: &str, rows: &[R]) -> Result<ArrayRef> {
        let array = (self.write)(rows);
        if array.data_type() == self.field.data_type() {
            return Ok(array);
        }
        cast(&array, self.field.data_type()).map_err(|e| TableError::unwritable(table, e))
    }
}

/// `columns!(Row: words a, plain b)`: columns for the fields `a` and `b`, with the names of the fields.
macro_rules! columns {
    ($row:ty: $($kind:ident $name:ident),* $(,)?) => {
        vec![$($crate::tables::column::Column::<$row>::$kind(
            stringify!($name),
            |row| &row.$name,
            |row| &mut row.$name,
        )),*]
    };
}
pub(super) use columns;

/// Encodes a table of structs.
pub(super) fn write_rows<R: 'static>(
    table: &str,
    columns: &[Column<R>],
    rows: &[R],
    meta: &FileMeta,
) -> Result<Vec<u8>> {
    let fields: Vec<Field> = columns.iter().map(|c| c.field.clone()).collect();
    let schema = Arc::new(Schema::new(fields));
    let file = NewFile {
        table,
        schema: schema.clone(),
        meta,
        own: &[],
        rows: rows.len(),
        raw: None,
    };
    file.write(|range| {
        let arrays = columns
            .iter()
            .map(|column| column.array(table, &rows[range.clone()]))
            .collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(schema.clone(), arrays).map_err(|e| TableError::unwritable(table, e))
    })
}

/// The rows of one batch.
pub(super) fn batch_rows<R: Default + 'static>(
    columns: &[Column<R>],
    batch: &RecordBatch,
    file: &str,
) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    rows.resize_with(batch.num_rows(), R::default);
    for column in columns {
        if column.is_added && batch.column_by_name(column.field.name()).is_none() {
            continue;
        }
        (column.read)(batch, file, &mut rows)?;
    }
    Ok(rows)
}

/// Reads a table of structs. Unknown columns are ignored.
pub(super) fn read_rows<R: Default + 'static>(
    columns: &[Column<R>],
    bytes: Bytes,
    file: &str,
) -> Result<Vec<R>> {
    guard(file, || {
        let open = OpenFile::open(bytes, file)?;
        let lacks = |column: &&Column<R>| {
            column.is_added && open.schema().index_of(column.field.name()).is_err()
        };
        let there = columns.iter().filter(|column| !lacks(column));
        open.check(there.map(Column::field))?;
        let mut rows = Vec::new();
        open.read(0, |batch| {
            rows.extend(batch_rows(columns, batch, file)?);
            Ok(())
        })?;
        Ok(rows)
    })
}

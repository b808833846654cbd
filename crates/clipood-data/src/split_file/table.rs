//! The Parquet form: one row per image with `path`, `label`, `class_name` and `split`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::{SplitFile, SplitImage, with_slashes};
use crate::record::Split;

/// File metadata: the hash of the split.
const HASH: &str = "clipood.split_hash";
/// Rows that are converted at once.
const ROWS: usize = 8192;
/// The columns.
const COLUMNS: [&str; 4] = ["path", "label", "class_name", "split"];

/// The images, and the hash that the file states.
pub(super) fn images(bytes: Bytes) -> Result<(Vec<SplitImage>, Option<String>), String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let meta = builder.metadata().file_metadata();
    let pairs = meta.key_value_metadata().into_iter().flatten();
    let mut stated = pairs.filter(|pair| pair.key == HASH);
    let hash = stated.next().and_then(|pair| pair.value.clone());
    let reader = builder.with_batch_size(ROWS).build();
    let mut images = Vec::new();
    for batch in reader.map_err(|e| e.to_string())? {
        add(&batch.map_err(|e| e.to_string())?, &mut images)?;
    }
    Ok((images, hash))
}

fn add(batch: &RecordBatch, images: &mut Vec<SplitImage>) -> Result<(), String> {
    let texts = |name: &str| -> Result<StringArray, String> {
        let column = named(batch, name)?;
        let column = arrow::compute::cast(&column, &DataType::Utf8).map_err(|e| e.to_string())?;
        Ok(column.as_string::<i32>().clone())
    };
    let (paths, names, splits) = (texts("path")?, texts("class_name")?, texts("split")?);
    let labels = named(batch, "label")?;
    let labels = arrow::compute::cast(&labels, &DataType::Int64).map_err(|e| e.to_string())?;
    let labels = labels.as_primitive::<arrow::datatypes::Int64Type>();
    for row in 0..batch.num_rows() {
        let number = images.len();
        let wrong =
            |column: &str, found: String| format!("row {number}: `{column}`: found {found}");
        let text = |column: &str, texts: &StringArray| match texts.is_null(row) {
            true => Err(wrong(column, "nothing, expected a text".to_string())),
            false => Ok(texts.value(row).to_string()),
        };
        let split = text("split", &splits)?;
        let label = match labels.is_null(row) {
            true => None,
            false => u32::try_from(labels.value(row)).ok(),
        };
        images.push(SplitImage {
            path: with_slashes(&text("path", &paths)?),
            split: Split::named(&split)
                .ok_or_else(|| wrong("split", format!("`{split}`, expected train, val or test")))?,
            label: label.ok_or_else(|| {
                wrong(
                    "label",
                    "no label, expected a whole number of at least 0".to_string(),
                )
            })?,
            class_name: text("class_name", &names)?,
        });
    }
    Ok(())
}

fn named(batch: &RecordBatch, name: &str) -> Result<ArrayRef, String> {
    batch.column_by_name(name).cloned().ok_or_else(|| {
        let schema = batch.schema();
        let found: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        format!(
            "found the columns {}, expected {}",
            found.join(", "),
            COLUMNS.join(", ")
        )
    })
}

/// The file of a split, in its order.
pub(super) fn bytes(split: &SplitFile) -> Result<Vec<u8>, String> {
    let dictionary = || DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
    let schema = Arc::new(Schema::new(vec![
        Field::new(COLUMNS[0], DataType::Utf8, false),
        Field::new(COLUMNS[1], DataType::Int32, false),
        Field::new(COLUMNS[2], dictionary(), false),
        Field::new(COLUMNS[3], dictionary(), false),
    ]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![KeyValue::new(
            HASH.to_string(),
            split.hash().to_string(),
        )]))
        .build();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema.clone(), Some(properties))
        .map_err(|e| e.to_string())?;
    for rows in split.images().chunks(ROWS) {
        let labels: Result<Vec<i32>, _> = rows.iter().map(|row| i32::try_from(row.label)).collect();
        let labels = labels.map_err(|_| format!("a label above {}", i32::MAX))?;
        let names: DictionaryArray<Int32Type> =
            rows.iter().map(|row| row.class_name.as_str()).collect();
        let splits: DictionaryArray<Int32Type> = rows.iter().map(|row| row.split.name()).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(
                rows.iter().map(|row| &row.path),
            )),
            Arc::new(Int32Array::from(labels)),
            Arc::new(names),
            Arc::new(splits),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| e.to_string())?;
        writer.write(&batch).map_err(|e| e.to_string())?;
    }
    writer.close().map_err(|e| e.to_string())?;
    Ok(file)
}

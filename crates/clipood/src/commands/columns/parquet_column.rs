//! Columns of Parquet files.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::choose::{Candidate, choose};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 65_536;

/// The wanted column, or the only one of numbers.
pub fn column(path: &Path, file: File, wanted: Option<&str>) -> Result<Vec<f64>> {
    let what = || format!("cannot read {}", path.display());
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(what)?;
    let at = choose_in(path, builder.schema(), wanted)?;
    let name = builder.schema().field(at).name().clone();
    let mask = ProjectionMask::roots(builder.parquet_schema(), [at]);
    let batches = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .with_context(what)?;
    let mut values = Vec::new();
    for batch in batches {
        let batch = batch.with_context(what)?;
        let array = cast(batch.column(0), &DataType::Float64).with_context(what)?;
        let numbers = array.as_primitive_opt::<Float64Type>().with_context(what)?;
        for row in 0..numbers.len() {
            let problem = match numbers.is_null(row) {
                true => "is null",
                false if numbers.value(row).is_nan() => "is NaN",
                false => continue,
            };
            let row = values.len() + row;
            bail!(
                "{}: column `{name}`, row {row} {problem}, expected a score",
                path.display()
            );
        }
        values.extend_from_slice(numbers.values());
    }
    Ok(values)
}

fn choose_in(path: &Path, schema: &Schema, wanted: Option<&str>) -> Result<usize> {
    let index = pandas_index(schema);
    let candidates: Vec<Candidate<'_>> = schema
        .fields()
        .iter()
        .map(|field| Candidate {
            name: field.name(),
            is_numeric: is_numeric(field.data_type()),
            is_index: index.contains(field.name()),
        })
        .collect();
    choose(path, &candidates, wanted)
}

fn is_numeric(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_numeric(values),
        DataType::RunEndEncoded(_, values) => is_numeric(values.data_type()),
        kind => kind.is_numeric(),
    }
}

/// The columns that pandas wrote as the index of its data frame, by its metadata or by their names.
fn pandas_index(schema: &Schema) -> Vec<String> {
    let metadata = schema.metadata().get("pandas");
    let metadata: Value = metadata
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    // An index that is a range is an object, and no column.
    let listed = metadata["index_columns"].as_array().into_iter().flatten();
    let listed = listed.filter_map(|name| name.as_str().map(str::to_owned));
    let names = schema.fields().iter().map(|field| field.name());
    let unnamed = names.filter(|name| name.starts_with("__index_level_"));
    listed.chain(unnamed.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Decimal128Array, Float32Array, Float64Array, Int64Array, LargeStringArray,
        RecordBatch,
    };
    use arrow::datatypes::{Field, Int32Type};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;

    use super::super::read_scores;
    use super::*;

    /// The scores of a table, or the error.
    fn read(
        columns: &[(&str, ArrayRef)],
        pandas: Option<&str>,
        codec: Compression,
        wanted: Option<&str>,
    ) -> Result<Vec<f64>, String> {
        let fields = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true));
        let metadata = pandas.map(|text| ("pandas".to_owned(), text.to_owned()));
        let metadata: HashMap<String, String> = metadata.into_iter().collect();
        let schema = Schema::new(fields.collect::<Vec<_>>()).with_metadata(metadata);
        let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
        let batch = RecordBatch::try_new(Arc::new(schema), arrays).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let properties = WriterProperties::builder().set_compression(codec).build();
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        read_scores(&path, wanted).map_err(|error| format!("{error:#}"))
    }

    fn names() -> ArrayRef {
        Arc::new(LargeStringArray::from(vec!["a", "b"]))
    }

    #[test]
    fn numbers_of_every_type_are_read_with_every_codec() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5, f64::NEG_INFINITY]));
        for codec in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::BROTLI(Default::default()),
            Compression::ZSTD(Default::default()),
            Compression::LZ4_RAW,
            // Framed as Hadoop did, before raw blocks had a name of their own.
            Compression::LZ4,
        ] {
            let columns = [("n", names()), ("s", floats.clone())];
            let found = read(&columns, None, codec, None);
            assert_eq!(found.unwrap(), [0.5, f64::NEG_INFINITY], "{codec}");
        }
        let half = cast(&Float32Array::from(vec![0.5, 2.0]), &DataType::Float16).unwrap();
        let decimals = Decimal128Array::from(vec![50, 200]);
        let decimals = decimals.with_precision_and_scale(10, 2).unwrap();
        let kinds = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Float64));
        let dictionary = cast(&Float64Array::from(vec![0.5, 2.0]), &kinds).unwrap();
        assert!(dictionary.as_dictionary_opt::<Int32Type>().is_some());
        for array in [half, Arc::new(decimals) as ArrayRef, dictionary] {
            let kind = array.data_type().clone();
            let found = read(
                &[("s", array), ("n", names())],
                None,
                Compression::SNAPPY,
                None,
            );
            assert_eq!(found.unwrap(), [0.5, 2.0], "{kind}");
        }
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let found = read(&[("s", counts)], None, Compression::SNAPPY, None);
        assert_eq!(found.unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn the_index_of_pandas_is_no_score() {
        let scores: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 2.0]));
        let rows: ArrayRef = Arc::new(Int64Array::from(vec![0, 1]));
        let table = |index: &'static str| [("s", scores.clone()), (index, rows.clone())];
        let codec = Compression::SNAPPY;
        let unnamed = table("__index_level_0__");
        assert_eq!(read(&unnamed, None, codec, None).unwrap(), [0.5, 2.0]);
        let named = Some("{\"index_columns\": [\"id\"]}");
        assert_eq!(read(&table("id"), named, codec, None).unwrap(), [0.5, 2.0]);
        // Named on purpose it is read.
        let wanted = Some("id");
        assert_eq!(
            read(&table("id"), named, codec, wanted).unwrap(),
            [0.0, 1.0]
        );
        let range = Some("{\"index_columns\": [{\"kind\": \"range\"}]}");
        let error = read(&table("id"), range, codec, None).unwrap_err();
        assert!(error.contains("--column: s, id"), "{error}");
    }

    #[test]
    fn missing_entries_and_words_are_named() {
        let codec = Compression::SNAPPY;
        let of = |values: Vec<Option<f64>>| -> [(&'static str, ArrayRef); 2] {
            [("n", names()), ("s", Arc::new(Float64Array::from(values)))]
        };
        let error = read(&of(vec![Some(1.0), None]), None, codec, None).unwrap_err();
        assert!(error.contains("column `s`, row 1 is null"), "{error}");
        let error = read(&of(vec![Some(f64::NAN), None]), None, codec, None).unwrap_err();
        assert!(error.contains("column `s`, row 0 is NaN"), "{error}");
        let error = read(&of(vec![Some(1.0); 2]), None, codec, Some("n")).unwrap_err();
        assert!(error.contains("`n` holds no numbers"), "{error}");
    }
}

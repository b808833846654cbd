//! Columns of Parquet files and of Arrow files (Feather).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{Candidate, choose};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 65_536;

pub fn parquet(path: &Path, file: File, wanted: Option<&str>) -> Result<Vec<f64>> {
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
    values(path, &name, batches)
}

pub fn ipc(path: &Path, file: BufReader<File>, wanted: Option<&str>) -> Result<Vec<f64>> {
    let what = || format!("cannot read {}", path.display());
    let reader = FileReader::try_new(file, None).with_context(what)?;
    let schema = reader.schema();
    let at = choose_in(path, &schema, wanted)?;
    let column = reader.map(|batch| batch?.project(&[at]));
    values(path, schema.field(at).name(), column)
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

/// The values of the only column of all batches.
fn values(
    path: &Path,
    name: &str,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<Vec<f64>> {
    let what = || format!("cannot read {}", path.display());
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

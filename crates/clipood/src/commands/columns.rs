//! Reading a list of scores: a column of a Parquet or CSV table, or a JSON array.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use clipood_core::nearest;
use clipood_pipeline::PipelineError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::arrays::extension;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 65_536;

/// Reads the column called `wanted`, or the only numeric column. A JSON array has no columns, so `wanted` is ignored
/// there.
pub fn read_scores(path: &Path, wanted: Option<&str>) -> Result<Vec<f64>> {
    match extension(path).as_str() {
        // The decoder panics on some corrupt files; that becomes an ordinary error.
        "parquet" => catch_unwind(AssertUnwindSafe(|| parquet_column(path, wanted)))
            .unwrap_or_else(|_| Err(anyhow!("{}: the Parquet file is corrupt", path.display()))),
        "csv" => csv_column(path, wanted),
        "json" => json_array(path),
        _ => Err(PipelineError::Usage(format!(
            "{}: expected a file named .parquet, .csv or .json",
            path.display()
        ))
        .into()),
    }
}

/// Index of the wanted column, or of the only numeric one. Columns are given as (name, whether it is numeric).
fn choose(path: &Path, columns: &[(&str, bool)], wanted: Option<&str>) -> Result<usize> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let numbers: Vec<usize> = (0..columns.len()).filter(|&at| columns[at].1).collect();
    let file = path.display();
    let problem = match (wanted, &numbers[..]) {
        (Some(wanted), _) => match names.iter().position(|name| *name == wanted) {
            Some(at) if columns[at].1 => return Ok(at),
            Some(_) => format!("{file}: column `{wanted}` holds no numbers"),
            None => {
                let hint = nearest(wanted, names.iter().copied())
                    .map_or(String::new(), |close| format!("; did you mean `{close}`?"));
                format!(
                    "{file}: no column `{wanted}`{hint} (columns: {})",
                    names.join(", ")
                )
            }
        },
        (None, [only]) => return Ok(*only),
        (None, []) => format!(
            "{file}: no column of numbers (columns: {})",
            names.join(", ")
        ),
        (None, several) => {
            let several: Vec<&str> = several.iter().map(|&at| names[at]).collect();
            format!(
                "{file}: several columns of numbers, choose one with --column: {}",
                several.join(", ")
            )
        }
    };
    Err(PipelineError::Usage(problem).into())
}

fn parquet_column(path: &Path, wanted: Option<&str>) -> Result<Vec<f64>> {
    let what = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(what)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(what)?;
    let schema = builder.schema().clone();
    let columns: Vec<(&str, bool)> = schema
        .fields()
        .iter()
        .map(|field| (field.name().as_str(), field.data_type().is_numeric()))
        .collect();
    let at = choose(path, &columns, wanted)?;
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
        if let Some(row) = (0..array.len()).find(|&row| array.is_null(row)) {
            let row = values.len() + row;
            bail!(
                "{}: column `{}`, row {row} is null",
                path.display(),
                columns[at].0
            );
        }
        let numbers = array.as_primitive_opt::<Float64Type>().with_context(what)?;
        values.extend_from_slice(numbers.values());
    }
    Ok(values)
}

/// A CSV column while it is read.
struct CsvColumn {
    name: String,
    values: Vec<f64>,
    /// Line and text of the first field that is not a number.
    bad: Option<(u64, String)>,
}

/// The first line holds the names, unless all its fields are numbers: then the columns are called 1, 2, and so on.
fn csv_column(path: &Path, wanted: Option<&str>) -> Result<Vec<f64>> {
    let what = || format!("cannot read {}", path.display());
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_path(path)
        .with_context(what)?;
    let mut columns: Vec<CsvColumn> = Vec::new();
    for record in reader.records() {
        let record = record.with_context(what)?;
        let line = record.position().map_or(0, csv::Position::line);
        if columns.is_empty() {
            let is_header = record.iter().any(|field| field.parse::<f64>().is_err());
            columns = (1..)
                .zip(&record)
                .map(|(number, field)| CsvColumn {
                    name: if is_header {
                        field.to_owned()
                    } else {
                        number.to_string()
                    },
                    values: Vec::new(),
                    bad: None,
                })
                .collect();
            if is_header {
                continue;
            }
        }
        for (column, field) in columns.iter_mut().zip(&record) {
            match field.parse::<f64>() {
                Ok(value) => column.values.push(value),
                Err(_) if column.bad.is_none() => column.bad = Some((line, field.to_owned())),
                Err(_) => {}
            }
        }
    }
    // The requested column, or the only one, is read in any case, so that its bad field is reported.
    let is_meant = |column: &CsvColumn| columns.len() == 1 || wanted == Some(column.name.as_str());
    let candidates: Vec<(&str, bool)> = columns
        .iter()
        .map(|column| {
            (
                column.name.as_str(),
                column.bad.is_none() || is_meant(column),
            )
        })
        .collect();
    let at = choose(path, &candidates, wanted)?;
    let column = columns.swap_remove(at);
    if let Some((line, text)) = column.bad {
        bail!(
            "{}: column `{}`, line {line}: `{text}` is no number",
            path.display(),
            column.name
        );
    }
    Ok(column.values)
}

fn json_array(path: &Path) -> Result<Vec<f64>> {
    let what = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).with_context(what)?;
    serde_json::from_str(&text)
        .with_context(|| format!("{}: expected a JSON array of numbers", path.display()))
}

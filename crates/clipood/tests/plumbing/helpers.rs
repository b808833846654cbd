//! Running the command and reading what it wrote.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float32Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use safetensors::tensor::{Dtype, TensorView};

/// Score pairs and their figures.
pub const METRICS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../clipood-ood/tests/data/metrics.json"
);

/// Runs the command with this standard input.
pub fn clipood(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_clipood"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input closes it early.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Standard output of a command that must succeed.
pub fn succeed(arguments: &[&str], input: &[u8]) -> String {
    let output = clipood(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A command must fail with this code and name all these words.
pub fn fail(arguments: &[&str], input: &[u8], code: i32, words: &[&str]) {
    let output = clipood(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{arguments:?}: no `{word}` in: {errors}"
        );
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Largest difference, relative to the largest absolute expected value.
pub fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let wide = |x: &f32| f64::from(*x);
    let largest = expected.iter().map(|x| wide(x).abs()).fold(0.0, f64::max);
    let pairs = found.iter().zip(expected);
    let worst = pairs
        .map(|(a, b)| (wide(a) - wide(b)).abs())
        .fold(0.0, f64::max);
    assert!(found.iter().all(|x| x.is_finite()));
    worst / largest
}

/// Values of an f32 array.
pub fn floats(tensor: &TensorView<'_>) -> Vec<f32> {
    assert_eq!(tensor.dtype(), Dtype::F32);
    tensor
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// A Parquet file as one batch.
pub fn table(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// A column of strings, plain or categorical.
pub fn words(table: &RecordBatch, column: &str) -> Vec<String> {
    let plain = cast(table.column_by_name(column).unwrap(), &DataType::Utf8).unwrap();
    plain
        .as_string::<i32>()
        .iter()
        .map(|word| word.unwrap().to_owned())
        .collect()
}

/// A column of f32.
pub fn f32_column(table: &RecordBatch, column: &str) -> Vec<f32> {
    let array = table
        .column_by_name(column)
        .unwrap_or_else(|| panic!("no column {column}"));
    array.as_primitive::<Float32Type>().values().to_vec()
}

/// Writes a Parquet file.
pub fn write_table(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

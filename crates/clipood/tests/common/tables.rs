//! Reading the tables of a run and comparing them.

use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use clipood_pipeline::tables::{Scores, read_scores};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{World, files};

/// Bytes of a file of the folder.
pub fn table(world: &World, path: &str) -> Bytes {
    let path = world.path(path);
    Bytes::from(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// All scores of a run by part.
pub fn scores(world: &World, run: &str) -> Vec<(String, Scores)> {
    let folder = world.path(&format!("{run}/scores"));
    files(&folder)
        .into_iter()
        .map(|part| {
            let bytes = table(world, &format!("{run}/scores/{part}"));
            let scores = read_scores(bytes, &part).unwrap();
            (part, scores)
        })
        .collect()
}

/// Equal rows, floats within 1e-6: which thread finished first must not show.
pub fn assert_same_scores(a: &[(String, Scores)], b: &[(String, Scores)]) {
    assert_eq!(a.len(), b.len());
    for ((name_a, a), (name_b, b)) in a.iter().zip(b) {
        assert_eq!(name_a, name_b);
        assert_eq!(a.rows.len(), b.rows.len());
        for (x, y) in a.rows.iter().zip(&b.rows) {
            assert_eq!(
                (&x.image_key, x.label, x.pred),
                (&y.image_key, y.label, y.pred)
            );
        }
        assert_eq!(a.detectors.len(), b.detectors.len(), "{name_a}");
        for (x, y) in a.detectors.iter().zip(&b.detectors) {
            assert_eq!(x.detector, y.detector);
            let (x, y) = (x.values.as_ref().unwrap(), y.values.as_ref().unwrap());
            assert_eq!(x.len(), y.len(), "{name_a}");
            for (x, y) in x.iter().zip(y) {
                assert!((x - y).abs() < 1e-6, "{name_a}: {x} and {y}");
            }
        }
    }
}

/// Two runs of one recipe have the same files with the same rows in all columns of their tables, numbers within 1e-6.
pub fn assert_same_tables(world: &World, one: &str, other: &str) {
    for folder in ["images", "scores", "validation", "metrics"] {
        let parts = |run: &str| {
            let folder = world.path(&format!("{run}/{folder}"));
            // Not every recipe validates.
            match folder.exists() {
                true => files(&folder),
                false => Vec::new(),
            }
        };
        let all = parts(one);
        assert_eq!(all, parts(other), "{folder} of {one} and {other}");
        for part in all {
            let cells = |run: &str| cells(world, &format!("{run}/{folder}/{part}"));
            let (a, b) = (cells(one), cells(other));
            assert_eq!(a.len(), b.len(), "{folder}/{part}");
            for (x, y) in a.iter().zip(&b) {
                let equal = match (x.parse::<f64>(), y.parse::<f64>()) {
                    (Ok(x), Ok(y)) => x == y || (x - y).abs() < 1e-6 || (x.is_nan() && y.is_nan()),
                    _ => x == y,
                };
                assert!(equal, "{folder}/{part} of {one} and {other}: {x} and {y}");
            }
        }
    }
}

/// Every cell of a table with the name of its column before each column's first.
fn cells(world: &World, path: &str) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(table(world, path)).unwrap();
    let mut cells = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            cells.push(field.name().clone());
            let format = ArrayFormatter::try_new(column, &FormatOptions::default()).unwrap();
            cells.extend((0..batch.num_rows()).map(|row| format.value(row).to_string()));
        }
    }
    cells
}

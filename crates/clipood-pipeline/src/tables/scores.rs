//! The scores of one shard under one prompt set: wide, one row an image, one column a detector.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;

use super::column::{Column, batch_rows, columns, read_cells};
use super::error::{Result, TableError};
use super::file::{NewFile, OpenFile, guard};
use super::footer::FileMeta;

const TABLE: &str = "scores table";
/// Detectors' columns are `score_<detector>`.
const PREFIX: &str = "score_";

/// One image and what the prompt set takes it for. Prompt set and dataset are the folder's hive keys, no columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreRow {
    /// `dataset/split/relative/path`.
    pub image_key: String,
    /// `test`, or another split that was scored.
    pub split: String,
    /// Whether the image is in-distribution: column `role`, `id` or `ood`.
    pub is_id: bool,
    /// Class, from 0; absent out of distribution.
    pub label: Option<i32>,
    /// Name of the class or folder.
    pub class_name: Option<String>,
    /// Class that the prompt set finds most likely.
    pub pred: i32,
    /// Its name.
    pub pred_name: String,
    /// Its probability, 0 to 1.
    pub prob: f32,
}

/// One detector's scores, higher = more in-distribution.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DetectorScores {
    /// Name of the detector, the column's name after `score_`.
    pub detector: String,
    /// One score a row; `None` where the detector is not defined for the prompt set, a column of nulls: every part of a run
    /// has the same columns, or readers of the directory would refuse it.
    pub values: Option<Vec<f32>>,
}

/// A table of scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// The images.
    pub rows: Vec<ScoreRow>,
    /// The detectors, each with as many values as there are rows.
    pub detectors: Vec<DetectorScores>,
}

fn score_columns() -> Vec<Column<ScoreRow>> {
    let mut all = columns!(ScoreRow:
        plain image_key,
        words split,
        plain label,
        words class_name,
        plain pred,
        words pred_name,
        plain prob,
    );
    let role = Column::coded(
        "role",
        "`id` or `ood`",
        |row: &ScoreRow| if row.is_id { "id" } else { "ood" },
        |row, word| {
            row.is_id = word == "id";
            row.is_id || word == "ood"
        },
    );
    all.insert(2, role);
    all
}

fn score_column(detector: &str) -> String {
    format!("{PREFIX}{detector}")
}

/// Encodes the scores of one part.
///
/// # Errors
/// [`TableError::Column`] if a detector has another number of values than there are rows or is listed twice,
/// [`TableError::Metadata`] if `meta.extra` holds a key that every table writes.
pub fn write_scores(scores: &Scores, meta: &FileMeta) -> Result<Vec<u8>> {
    let columns = score_columns();
    let mut fields: Vec<Field> = columns.iter().map(|c| c.field().clone()).collect();
    let mut names = BTreeSet::new();
    for DetectorScores { detector, values } in &scores.detectors {
        let name = score_column(detector);
        let found = values.as_ref().map_or(scores.rows.len(), Vec::len);
        if found != scores.rows.len() {
            let expected = format!("{} values", scores.rows.len());
            return Err(TableError::column(
                TABLE,
                &name,
                expected,
                found.to_string(),
            ));
        }
        if !names.insert(detector) {
            return Err(TableError::column(TABLE, &name, "one such column", "two"));
        }
        fields.push(Field::new(name, DataType::Float32, true));
    }
    let schema = Arc::new(Schema::new(fields));
    let file = NewFile {
        table: TABLE,
        schema: schema.clone(),
        meta,
        own: &[],
        rows: scores.rows.len(),
        raw: None,
    };
    file.write(|range| {
        let mut arrays = columns
            .iter()
            .map(|column| column.array(TABLE, &scores.rows[range.clone()]))
            .collect::<Result<Vec<_>>>()?;
        arrays.extend(scores.detectors.iter().map(|detector| -> ArrayRef {
            Arc::new(match &detector.values {
                Some(values) => Float32Array::from(values[range.clone()].to_vec()),
                None => Float32Array::new_null(range.len()),
            })
        }));
        RecordBatch::try_new(schema.clone(), arrays).map_err(|e| TableError::unwritable(TABLE, e))
    })
}

/// Reads what [`write_scores`] wrote; `file` names it in errors. Detectors come in the file's order.
///
/// # Errors
/// Bytes that are no Parquet file, metadata or columns that are not this table's, a role that is neither `id` nor `ood`.
pub fn read_scores(bytes: Bytes, file: &str) -> Result<Scores> {
    guard(file, || {
        let columns = score_columns();
        let open = OpenFile::open(bytes, file)?;
        open.check(columns.iter().map(Column::field))?;
        let mut scores = Scores::default();
        for field in open.schema().fields() {
            if let Some(detector) = field.name().strip_prefix(PREFIX) {
                open.check([&Field::new(field.name(), DataType::Float32, true)])?;
                scores.detectors.push(DetectorScores {
                    detector: detector.to_owned(),
                    values: None,
                });
            }
        }
        let mut cells: Vec<Vec<Option<f32>>> = vec![Vec::new(); scores.detectors.len()];
        open.read(0, |batch| {
            scores.rows.extend(batch_rows(&columns, batch, file)?);
            for (column, detector) in cells.iter_mut().zip(&scores.detectors) {
                let name = score_column(&detector.detector);
                column.extend(read_cells::<Option<f32>>(batch, file, &name)?);
            }
            Ok(())
        })?;
        for (column, detector) in cells.into_iter().zip(&mut scores.detectors) {
            let nulls = column.iter().filter(|cell| cell.is_none()).count();
            if nulls == 0 {
                detector.values = Some(column.into_iter().flatten().collect());
            } else if nulls < column.len() {
                return Err(TableError::column(
                    file,
                    &score_column(&detector.detector),
                    "scores, or nulls only",
                    format!("{nulls} nulls in {} rows", column.len()),
                ));
            }
        }
        Ok(scores)
    })
}

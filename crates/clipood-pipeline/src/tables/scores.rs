//! The scores of one shard under one prompt set: one row per image, one column per detector.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;

use super::column::{Column, batch_rows, columns, read_cells};
use super::error::{Result, TableError};
use super::file::{NewFile, OpenFile};
use super::footer::FileMeta;
use super::guard::guard;

const TABLE: &str = "scores table";
/// Detectors' columns are `score_<detector>`.
const PREFIX: &str = "score_";

/// One image and its predicted class. Prompt set and dataset are hive keys of the folder, not columns.
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
    /// One score per row. `None` if the detector is not defined for the prompt set: then the column contains nulls,
    /// because all parts of a run must have the same columns for readers of the directory.
    pub values: Option<Vec<f32>>,
}

/// A table of scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// The images.
    pub rows: Vec<ScoreRow>,
    /// The detectors, each with one value per row.
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

/// The numeric columns of a table of scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreValues {
    /// Class of each image; absent out of distribution.
    pub labels: Vec<Option<i32>>,
    /// Class that the prompt set finds most likely.
    pub preds: Vec<i32>,
    /// Its probability, 0 to 1.
    pub probs: Vec<f32>,
    /// The detectors, each with one value per row.
    pub detectors: Vec<DetectorScores>,
}

/// Reads what [`write_scores`] wrote; `file` names it in errors. Detectors come in the file's order.
///
/// # Errors
/// Bytes that are not a Parquet file, metadata or columns of another table, a role that is neither `id` nor `ood`.
pub fn read_scores(bytes: Bytes, file: &str) -> Result<Scores> {
    guard(file, || {
        let columns = score_columns();
        let open = OpenFile::open(bytes, file)?;
        open.check(columns.iter().map(Column::field))?;
        let mut rows = Vec::new();
        let mut cells = DetectorCells::of(&open)?;
        open.read(0, |batch| {
            rows.extend(batch_rows(&columns, batch, file)?);
            cells.add(batch, file)
        })?;
        Ok(Scores {
            rows,
            detectors: cells.finish(file)?,
        })
    })
}

/// Reads only the numeric columns of what [`write_scores`] wrote; `file` names it in errors.
///
/// # Errors
/// As of [`read_scores`].
pub fn read_score_values(bytes: Bytes, file: &str) -> Result<ScoreValues> {
    guard(file, || {
        let columns = score_columns();
        let open = OpenFile::open(bytes, file)?;
        open.check(columns.iter().map(Column::field))?;
        let mut values = ScoreValues::default();
        let mut cells = DetectorCells::of(&open)?;
        let names: Vec<String> = cells.names.iter().map(|name| score_column(name)).collect();
        let mut wanted = vec!["label", "pred", "prob"];
        wanted.extend(names.iter().map(String::as_str));
        open.read_columns(&wanted, |batch| {
            let labels = read_cells::<Option<i32>>(batch, file, "label")?;
            values.labels.extend(labels);
            values.preds.extend(read_cells::<i32>(batch, file, "pred")?);
            values.probs.extend(read_cells::<f32>(batch, file, "prob")?);
            cells.add(batch, file)
        })?;
        values.detectors = cells.finish(file)?;
        Ok(values)
    })
}

/// Collects the columns of the detectors while a file is read.
struct DetectorCells {
    names: Vec<String>,
    cells: Vec<Vec<f32>>,
    nulls: Vec<usize>,
}

impl DetectorCells {
    fn of(open: &OpenFile<'_>) -> Result<Self> {
        let mut names = Vec::new();
        for field in open.schema().fields() {
            if let Some(detector) = field.name().strip_prefix(PREFIX) {
                open.check([&Field::new(field.name(), DataType::Float32, true)])?;
                names.push(detector.to_owned());
            }
        }
        Ok(Self {
            cells: vec![Vec::new(); names.len()],
            nulls: vec![0; names.len()],
            names,
        })
    }

    fn add(&mut self, batch: &RecordBatch, file: &str) -> Result<()> {
        for (place, name) in self.names.iter().enumerate() {
            for cell in read_cells::<Option<f32>>(batch, file, &score_column(name))? {
                match cell {
                    Some(score) => self.cells[place].push(score),
                    None => self.nulls[place] += 1,
                }
            }
        }
        Ok(())
    }

    fn finish(self, file: &str) -> Result<Vec<DetectorScores>> {
        let mut detectors = Vec::new();
        for ((detector, values), nulls) in self.names.into_iter().zip(self.cells).zip(self.nulls) {
            if nulls > 0 && !values.is_empty() {
                return Err(TableError::column(
                    file,
                    &score_column(&detector),
                    "scores, or nulls only",
                    format!("{nulls} nulls in {} rows", nulls + values.len()),
                ));
            }
            detectors.push(DetectorScores {
                detector,
                values: (nulls == 0).then_some(values),
            });
        }
        Ok(detectors)
    }
}

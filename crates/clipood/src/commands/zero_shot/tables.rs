//! The Parquet tables of `clipood zero-shot`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeListArray, Float32Array, Int32Array, RecordBatch,
    StringArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use clipood_pipeline::Tally;
use clipood_pipeline::tables::{FileMeta, QuarantineRow, dictionary, write_quarantine};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::super::arrays::write_parquet;

/// Rows that are collected before they are written.
const BATCH_ROWS: usize = 1024;

/// `predictions.parquet` while it is written: `image`, the known `class_name` and its `label` (null if unknown),
/// `pred`, `pred_name`, `prob`, the lists `top_names` and `top_probs`, and the detector's score. Rows are written as
/// images come; the file gets its name when it is complete.
pub struct Predictions<'a> {
    /// Names of the classes.
    classes: &'a [String],
    path: PathBuf,
    partial: PathBuf,
    writer: ArrowWriter<File>,
    schema: SchemaRef,
    top: usize,
    rows: Rows,
}

/// Rows that are not written yet.
#[derive(Default)]
struct Rows {
    images: Vec<String>,
    class_names: Vec<Option<String>>,
    labels: Vec<Option<i32>>,
    preds: Vec<i32>,
    pred_names: Vec<String>,
    top_names: Vec<String>,
    top_probs: Vec<f32>,
    scores: Vec<f32>,
}

impl<'a> Predictions<'a> {
    /// Creates the file in `folder`, which is created if necessary; with `top` of the `classes` per row and scores of
    /// `detector`.
    pub fn create(
        folder: &Path,
        top: usize,
        detector: &str,
        classes: &'a [String],
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let size = i32::try_from(top).context("too many classes per row")?;
        let list = |item: &Arc<Field>| DataType::FixedSizeList(item.clone(), size);
        let (names, probs) = (name_item(), prob_item());
        let schema = Arc::new(Schema::new(vec![
            Field::new("image", DataType::Utf8, false),
            Field::new("class_name", dictionary(), true),
            Field::new("label", DataType::Int32, true),
            Field::new("pred", DataType::Int32, false),
            Field::new("pred_name", dictionary(), false),
            Field::new("prob", DataType::Float32, false),
            Field::new("top_names", list(&names), false),
            Field::new("top_probs", list(&probs), false),
            Field::new(format!("score_{detector}"), DataType::Float32, false),
        ]));
        let path = folder.join("predictions.parquet");
        let partial = folder.join("predictions.parquet.partial");
        let what = || format!("cannot write {}", partial.display());
        let file = File::create(&partial).with_context(what)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        let writer =
            ArrowWriter::try_new(file, schema.clone(), Some(properties)).with_context(what)?;
        Ok(Self {
            classes,
            path,
            partial,
            writer,
            schema,
            top,
            rows: Rows::default(),
        })
    }

    /// Adds one image: number and name of its known class, its most likely classes, its score.
    pub fn add(
        &mut self,
        image: String,
        label: Option<u32>,
        known: Option<&str>,
        top: &[(u32, f32)],
        score: f32,
    ) -> Result<()> {
        let rows = &mut self.rows;
        rows.images.push(image);
        rows.class_names.push(known.map(str::to_string));
        rows.labels.push(label.map(|label| label as i32));
        rows.scores.push(score);
        for (place, (class, probability)) in top.iter().enumerate() {
            let name = &self.classes[*class as usize];
            if place == 0 {
                rows.preds.push(*class as i32);
                rows.pred_names.push(name.clone());
            }
            rows.top_names.push(name.clone());
            rows.top_probs.push(*probability);
        }
        if rows.images.len() >= BATCH_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.images.is_empty() {
            return Ok(());
        }
        let size = i32::try_from(self.top).context("too many classes per row")?;
        let class_names: DictionaryArray<Int32Type> =
            rows.class_names.iter().map(Option::as_deref).collect();
        let pred_names: DictionaryArray<Int32Type> =
            rows.pred_names.iter().map(String::as_str).collect();
        let probabilities: Vec<f32> = rows.top_probs.iter().copied().step_by(self.top).collect();
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(&rows.top_names));
        let probs: ArrayRef = Arc::new(Float32Array::from(rows.top_probs));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(&rows.images)),
            Arc::new(class_names),
            Arc::new(Int32Array::from(rows.labels)),
            Arc::new(Int32Array::from(rows.preds)),
            Arc::new(pred_names),
            Arc::new(Float32Array::from(probabilities)),
            Arc::new(FixedSizeListArray::try_new(name_item(), size, names, None)?),
            Arc::new(FixedSizeListArray::try_new(prob_item(), size, probs, None)?),
            Arc::new(Float32Array::from(rows.scores)),
        ];
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        self.writer
            .write(&batch)
            .with_context(|| format!("cannot write {}", self.partial.display()))
    }

    /// Writes the remaining rows and gives the file its name.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        let what = || format!("cannot write {}", self.path.display());
        self.writer.close().with_context(what)?;
        std::fs::rename(&self.partial, &self.path).with_context(what)
    }
}

fn name_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Utf8, false))
}

fn prob_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Float32, false))
}

/// `classes.parquet`, one row per class in the order of the labels: `class_name`, `predicted`, `labelled`, `correct`, in images.
pub fn write_classes(folder: &Path, classes: &[String], tally: &Tally) -> Result<()> {
    let numbers = |of: fn(&clipood_pipeline::ClassCounts) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(tally.classes.iter().map(of)))
    };
    let schema = Arc::new(Schema::new(vec![
        Field::new("class_name", DataType::Utf8, false),
        Field::new("predicted", DataType::UInt64, false),
        Field::new("labelled", DataType::UInt64, false),
        Field::new("correct", DataType::UInt64, false),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(classes)),
        numbers(|counts| counts.predicted),
        numbers(|counts| counts.labelled),
        numbers(|counts| counts.correct),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    write_parquet(&folder.join("classes.parquet"), &schema, [Ok(batch)])
}

/// `confusion.parquet`, one row for each pair that occurs: the known class `true`, `predicted`, `count`, and the numbers
/// `label` and `pred` of the two classes, of which several may have one name; no row without known classes.
pub fn write_confusion(folder: &Path, classes: &[String], tally: &Tally) -> Result<()> {
    let name = |class: u32| classes[class as usize].as_str();
    let pairs = || tally.confusion.keys();
    let known: DictionaryArray<Int32Type> = pairs().map(|(known, _)| name(*known)).collect();
    let predicted: DictionaryArray<Int32Type> = pairs().map(|(_, class)| name(*class)).collect();
    let counts = UInt64Array::from_iter_values(tally.confusion.values().copied());
    let schema = Arc::new(Schema::new(vec![
        Field::new("true", dictionary(), false),
        Field::new("predicted", dictionary(), false),
        Field::new("count", DataType::UInt64, false),
        Field::new("label", DataType::Int32, false),
        Field::new("pred", DataType::Int32, false),
    ]));
    let labels = Int32Array::from_iter_values(pairs().map(|(known, _)| *known as i32));
    let preds = Int32Array::from_iter_values(pairs().map(|(_, class)| *class as i32));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(known),
        Arc::new(predicted),
        Arc::new(counts),
        Arc::new(labels),
        Arc::new(preds),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    write_parquet(&folder.join("confusion.parquet"), &schema, [Ok(batch)])
}

/// `quarantine.parquet`: the images that could not be read, with their reasons.
pub fn write_quarantined(folder: &Path, rows: &[QuarantineRow], model_hash: &str) -> Result<()> {
    let meta = FileMeta {
        fingerprint: model_hash.to_string(),
        recipe: "zero-shot".to_string(),
        ..FileMeta::default()
    };
    let path = folder.join("quarantine.parquet");
    std::fs::write(&path, write_quarantine(rows, &meta)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

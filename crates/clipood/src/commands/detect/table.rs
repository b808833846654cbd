//! The verdicts as a Parquet table.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, BooleanArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::super::arrays::write_parquet;
use super::Verdict;
use super::judge::Judge;

/// Writes one row per image: `image`, `in_distribution`, `score`, `pred_name`, `prob`.
pub fn write(out: &Path, verdicts: &[Verdict], judge: &Judge) -> Result<()> {
    let text = |of: &dyn Fn(&Verdict) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(verdicts.iter().map(of)))
    };
    let number = |of: fn(&Verdict) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(verdicts.iter().map(of)))
    };
    let inside: Vec<bool> = verdicts.iter().map(|verdict| verdict.inside).collect();
    let columns = vec![
        ("image", text(&|verdict| verdict.image.clone())),
        (
            "in_distribution",
            Arc::new(BooleanArray::from(inside)) as ArrayRef,
        ),
        ("score", number(|verdict| verdict.score)),
        (
            "pred_name",
            text(&|verdict| judge.classes[verdict.top[0].0 as usize].clone()),
        ),
        ("prob", number(|verdict| verdict.top[0].1)),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, DataType::clone(column.data_type()), false))
        .collect();
    let metadata: HashMap<String, String> = [
        ("clipood.detector", judge.detector.to_string()),
        ("clipood.threshold", judge.threshold.to_string()),
        ("clipood.threshold_from", judge.origin.clone()),
        ("clipood.model_hash", judge.model.hash.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let arrays = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    write_parquet(out, &schema, [Ok(batch)])
}

//! `clipood score`: detectors on features from anywhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{ArrayRef, DictionaryArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use clipood_ood::{
    DetectorKind, DetectorSpec, FitInputs, FittedDetector, LocalFeatures, Matrix, ScoreInputs, fit,
    score_all,
};
use clipood_pipeline::PipelineError;
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::arrays::{check_folder, write_parquet};

/// Options of `clipood score`.
#[derive(clap::Args)]
pub struct Args {
    /// A safetensors file with the arrays `text`, `id` and `ood`, and what the detectors ask for: `negative_text`,
    /// `train`, `train_labels`, `id_local`, `ood_local`. Features need not be normalised. Other arrays are passed over.
    #[arg(long)]
    bundle: PathBuf,
    /// Detectors, several apart by commas: `[alias=]kind[:key=value]...`; `clipood detectors` lists them.
    #[arg(long)]
    detectors: String,
    /// The Parquet file to write: `role` (id or ood) and a column `score_<alias or kind>` for each detector.
    #[arg(long)]
    out: PathBuf,
}

/// A feature array of the bundle.
struct Array {
    name: &'static str,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Scores the ID rows, then the OOD rows.
pub fn run(args: Args) -> Result<ExitCode> {
    let specs = DetectorSpec::parse_list(&args.detectors)
        .map_err(|e| PipelineError::Usage(format!("--detectors: {e}")))?;
    let names = column_names(&specs)?;
    check_folder(&args.out)?;
    let file = &args.bundle;
    let bytes = std::fs::read(file)
        .with_context(|| format!("cannot read the bundle {}", file.display()))?;
    let tensors = SafeTensors::deserialize(&bytes)
        .with_context(|| format!("{} is no safetensors file", file.display()))?;
    let [id, ood] = score(&tensors, &specs).with_context(|| file.display().to_string())?;
    write_table(&args.out, &names, &id, &ood)?;
    Ok(ExitCode::SUCCESS)
}

/// `score_<alias>`, or `score_<kind>` without alias.
fn column_names(specs: &[DetectorSpec]) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::with_capacity(specs.len());
    for spec in specs {
        let name = spec.name();
        // Only an alias makes the text differ from the name.
        let short = if spec.to_string() == name {
            spec.info().kind
        } else {
            &name
        };
        let column = format!("score_{short}");
        if names.contains(&column) {
            return Err(PipelineError::Usage(format!(
                "--detectors: two columns would be named `{column}`; give one an alias, as in alias={spec}"
            ))
            .into());
        }
        names.push(column);
    }
    Ok(names)
}

/// Fits the detectors; a column of scores for each, of the ID and of the OOD rows.
fn score(tensors: &SafeTensors<'_>, specs: &[DetectorSpec]) -> Result<[Vec<Vec<f32>>; 2]> {
    let text = required(tensors, "text", "the features of the class texts")?;
    let negative_text = optional(tensors, "negative_text")?;
    let train = optional(tensors, "train")?;
    let train_labels = labels(tensors, "train_labels")?;
    let text = text.matrix()?;
    let inputs = FitInputs {
        text,
        negative_text: negative_text.as_ref().map(Array::matrix).transpose()?,
        train: train.as_ref().map(Array::matrix).transpose()?,
        train_labels: train_labels.as_deref(),
    };
    let detectors = specs
        .iter()
        .map(|spec| fit(spec, &inputs))
        .collect::<Result<Vec<FittedDetector>, _>>()?;
    for detector in &detectors {
        for note in detector.notes() {
            eprintln!("note: {}: {note}", detector.name());
        }
    }
    let local_detector = specs.iter().find(|spec| {
        matches!(
            spec.kind(),
            DetectorKind::LMcm { .. } | DetectorKind::GlMcm { .. }
        )
    });
    let score = |role: &'static str, local_name: &'static str| -> Result<Vec<Vec<f32>>> {
        let global = required(tensors, role, "the features of the images to score")?;
        // Patches are large: they are read for the detectors that look at them only.
        let local = match local_detector {
            None => None,
            Some(spec) => {
                let reason = format!("the patch features that detector {spec} scores");
                Some(required(tensors, local_name, &reason)?)
            }
        };
        let inputs = ScoreInputs {
            global: global.matrix()?,
            local: local.as_ref().map(Array::local).transpose()?,
        };
        Ok(score_all(&detectors, &text, &inputs)?.columns)
    };
    Ok([score("id", "id_local")?, score("ood", "ood_local")?])
}

fn write_table(out: &Path, names: &[String], id: &[Vec<f32>], ood: &[Vec<f32>]) -> Result<()> {
    let rows = |columns: &[Vec<f32>]| columns.first().map_or(0, Vec::len);
    let roles: DictionaryArray<Int32Type> = std::iter::repeat_n("id", rows(id))
        .chain(std::iter::repeat_n("ood", rows(ood)))
        .collect();
    let word = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![Field::new("role", word, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(roles)];
    for ((name, id), ood) in names.iter().zip(id).zip(ood) {
        fields.push(Field::new(name, DataType::Float32, false));
        columns.push(Arc::new(Float32Array::from(
            [id.as_slice(), ood.as_slice()].concat(),
        )));
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    write_parquet(out, &schema, [Ok(batch)])
}

impl Array {
    /// As rows of features.
    fn matrix(&self) -> Result<Matrix<'_>> {
        match self.shape[..] {
            [rows, dim] => Ok(Matrix::new(self.name, &self.values, rows, dim)?),
            _ => Err(self.misshapen("[rows, features]")),
        }
    }

    /// As patches of images.
    fn local(&self) -> Result<LocalFeatures<'_>> {
        match self.shape[..] {
            [images, patches, dim] => Ok(LocalFeatures::new(
                self.name,
                &self.values,
                images,
                patches,
                dim,
            )?),
            _ => Err(self.misshapen("[images, patches, features]")),
        }
    }

    fn misshapen(&self, expected: &str) -> anyhow::Error {
        anyhow!(
            "array `{}` has shape {:?}, expected {expected}",
            self.name,
            self.shape
        )
    }
}

fn required(tensors: &SafeTensors<'_>, name: &'static str, what: &str) -> Result<Array> {
    optional(tensors, name)?.with_context(|| {
        let mut found = tensors.names();
        found.sort_unstable();
        format!("no array `{name}`, {what} (arrays: {})", found.join(", "))
    })
}

/// An array of float32, float16 or bfloat16.
fn optional(tensors: &SafeTensors<'_>, name: &'static str) -> Result<Option<Array>> {
    let Some(tensor) = find(tensors, name) else {
        return Ok(None);
    };
    let data = tensor.data();
    let pairs = data.as_chunks::<2>().0.iter();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Dtype::F16 => pairs.map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => pairs.map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        other => bail!("array `{name}` is of type {other:?}, expected F32, F16 or BF16"),
    };
    Ok(Some(Array {
        name,
        shape: tensor.shape().to_vec(),
        values,
    }))
}

/// Class numbers, int64 or int32, from 0.
fn labels(tensors: &SafeTensors<'_>, name: &'static str) -> Result<Option<Vec<u32>>> {
    let Some(tensor) = find(tensors, name) else {
        return Ok(None);
    };
    let data = tensor.data();
    let wide: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => data
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b))
            .collect(),
        Dtype::I32 => {
            let words = data.as_chunks::<4>().0.iter();
            words.map(|b| i64::from(i32::from_le_bytes(*b))).collect()
        }
        other => bail!("array `{name}` is of type {other:?}, expected I64 or I32"),
    };
    if tensor.shape().len() != 1 {
        bail!(
            "array `{name}` has shape {:?}, expected [rows]",
            tensor.shape()
        );
    }
    let labels = (0usize..).zip(wide).map(|(row, label)| {
        u32::try_from(label).map_err(|_| {
            anyhow!("array `{name}`, row {row}: {label} is no class number, expected 0 or more")
        })
    });
    Ok(Some(labels.collect::<Result<_>>()?))
}

fn find<'data>(tensors: &SafeTensors<'data>, name: &str) -> Option<TensorView<'data>> {
    // The one error of `tensor` is that there is none of the name.
    tensors.tensor(name).ok()
}

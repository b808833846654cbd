//! `clipood score`: detectors on features computed elsewhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, DictionaryArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use clipood_core::files::read_file;
use clipood_ood::{
    DetectorSpec, FitInputs, FittedDetector, Matrix, ScoreInputs, Stream, StreamInputs, fit,
    score_all, score_stream, stream_order,
};
use clipood_pipeline::PipelineError;
use clipood_pipeline::tables::dictionary;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::arrays::{LONGEST_FILE, check_output, write_parquet};
use super::features::{Array, Source, class_numbers, numbers};
use super::npy::Numbers;

/// Heading of the options for arrays, which explains ARRAY.
const ARRAYS: &str =
    "Arrays (FILE.npy, FILE.npz:ARRAY, FILE.safetensors:TENSOR or FILE.parquet:COLUMN)";

/// Options of `clipood score`.
#[derive(clap::Args)]
pub struct Args {
    /// A safetensors file with the arrays `text`, `id` and `ood`, and what the detectors need: `negative_text`,
    /// `train`, `train_labels`, `noise`, `id_local`, `ood_local`. Features need not be normalised. Other arrays are ignored.
    #[arg(long)]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
    /// Detectors, separated by commas: `[alias=]kind[:key=value]...`; `clipood detectors` lists them.
    #[arg(long)]
    detectors: String,
    /// Seed of the order in which detectors that score a stream see the ID and OOD images together; such scores depend on it.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    order: u64,
    /// The Parquet file to write: `role` (id or ood) and a column `score_<alias or kind>` for each detector.
    #[arg(long)]
    out: PathBuf,
}

/// Arrays from separate files, instead of those of the bundle.
#[derive(clap::Args)]
struct Files {
    /// Class texts `[classes, features]`.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    text: Option<Source>,
    /// Negative texts.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    negative_text: Option<Source>,
    /// Training images.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    train: Option<Source>,
    /// Their class numbers, integers.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    train_labels: Option<Source>,
    /// In-distribution images.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    id: Option<Source>,
    /// Out-of-distribution images.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    ood: Option<Source>,
    /// Noise images, which some streams start with.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    noise: Option<Source>,
    /// Patches of the in-distribution images `[images, patches, features]`.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    id_local: Option<Source>,
    /// Patches of the out-of-distribution images.
    #[arg(long, value_name = "ARRAY", help_heading = ARRAYS)]
    ood_local: Option<Source>,
}

/// The sources of arrays: separate files, or the bundle.
struct Given<'a> {
    files: &'a Files,
    bundle: Option<SafeTensors<'a>>,
}

/// Scores the ID rows, then the OOD rows.
pub fn run(args: Args) -> Result<ExitCode> {
    let specs = DetectorSpec::parse_list(&args.detectors)
        .map_err(|e| PipelineError::Usage(format!("--detectors: {e}")))?;
    let names = column_names(&specs)?;
    check_output(&args.out)?;
    let bytes = match &args.bundle {
        None => None,
        Some(file) => Some(
            read_file(file, LONGEST_FILE)
                .with_context(|| format!("cannot read the bundle {}", file.display()))?,
        ),
    };
    let mut given = Given {
        files: &args.files,
        bundle: None,
    };
    let mut place = "the arrays given".to_owned();
    if let (Some(file), Some(bytes)) = (&args.bundle, &bytes) {
        place = file.display().to_string();
        let tensors = SafeTensors::deserialize(bytes)
            .with_context(|| format!("{place} is no safetensors file"))?;
        given.bundle = Some(tensors);
    }
    let [id, ood] = score(&given, &specs, args.order).context(place)?;
    write_table(&args.out, &names, &id, &ood)?;
    Ok(ExitCode::SUCCESS)
}

/// `score_<alias>`, or `score_<kind>` without alias.
fn column_names(specs: &[DetectorSpec]) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::with_capacity(specs.len());
    for spec in specs {
        let name = spec.name();
        // The text differs from the name only if there is an alias.
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

/// One column of scores for each detector, of the ID rows and of the OOD rows.
fn score(given: &Given<'_>, specs: &[DetectorSpec], order: u64) -> Result<[Vec<Vec<f32>>; 2]> {
    let text = given.required("text", None, "the features of the class texts")?;
    let negative_text = given.features("negative_text", None)?;
    let is_stream = |spec: &&DetectorSpec| spec.needs().stream;
    let (streams, inductive): (Vec<&DetectorSpec>, Vec<&DetectorSpec>) =
        specs.iter().partition(is_stream);
    let arrays = (&text, negative_text.as_ref());
    let mut inductive = score_inductive(given, &inductive, arrays)?.map(Vec::into_iter);
    let mut streams = score_streams(given, &streams, arrays, order)?.map(Vec::into_iter);
    // Columns stand in the order of the detectors.
    let joined = [0, 1].map(|side| {
        let columns = specs.iter().map(|spec| match spec.needs().stream {
            true => streams[side].next(),
            false => inductive[side].next(),
        });
        columns.flatten().collect()
    });
    Ok(joined)
}

/// Scores of the detectors that see the ID and OOD images as one stream.
fn score_streams(
    given: &Given<'_>,
    specs: &[&DetectorSpec],
    (text, negative_text): (&Array, Option<&Array>),
    order: u64,
) -> Result<[Vec<Vec<f32>>; 2]> {
    let mut columns = [Vec::new(), Vec::new()];
    if specs.is_empty() {
        return Ok(columns);
    }
    let what = "the features of the images to score";
    let (id, ood) = (
        given.required("id", None, what)?,
        given.required("ood", None, what)?,
    );
    let noise = given.features("noise", None)?;
    let inputs = StreamInputs {
        text: text.matrix()?,
        negative_text: negative_text.map(Array::matrix).transpose()?,
        noise: noise.as_ref().map(Array::matrix).transpose()?,
    };
    let (first, second) = (id.matrix()?, ood.matrix()?);
    let width = inputs.text.cols();
    for (name, found) in [("id", first.cols()), ("ood", second.cols())] {
        if found != width {
            bail!("array `{name}` has features of width {found}, expected {width} as in `text`");
        }
    }
    let values = [first.data(), second.data()].concat();
    let images = Matrix::new("id and ood", &values, first.rows() + second.rows(), width)?;
    let order = stream_order(order, images.rows());
    for spec in specs {
        let mut stream = Stream::start(spec, &inputs)?;
        let scores = score_stream(&mut stream, &images, &order, |_| Ok::<_, anyhow::Error>(()))?;
        let (id, ood) = scores.split_at(first.rows());
        columns[0].push(id.to_vec());
        columns[1].push(ood.to_vec());
    }
    Ok(columns)
}

/// Fits the detectors that score images one by one, and scores.
fn score_inductive(
    given: &Given<'_>,
    specs: &[&DetectorSpec],
    (text, negative_text): (&Array, Option<&Array>),
) -> Result<[Vec<Vec<f32>>; 2]> {
    let train = given.features("train", None)?;
    let train_labels = given.labels("train_labels")?;
    let text = text.matrix()?;
    let inputs = FitInputs {
        text,
        negative_text: negative_text.map(Array::matrix).transpose()?,
        train: train.as_ref().map(Array::matrix).transpose()?,
        train_labels: train_labels.as_deref(),
        classifiers: &[],
    };
    let detectors = specs
        .iter()
        .map(|spec| fit(spec, &inputs))
        .collect::<Result<Vec<FittedDetector>, _>>()?;
    for detector in &detectors {
        for note in detector.notes() {
            clipood_pipeline::tell(&format!("note: {}: {note}", detector.name()));
        }
    }
    let local_detector = specs.iter().find(|spec| spec.needs().patches);
    let score = |role: &'static str, local_name: &'static str| -> Result<Vec<Vec<f32>>> {
        let global = given.required(role, None, "the features of the images to score")?;
        let rows = global.matrix()?;
        if rows.rows() == 0 {
            bail!("array `{role}` has no row, expected at least one image to score");
        }
        // Patches are large, so they are read only if a detector scores them.
        let local = match local_detector {
            None => None,
            Some(spec) => {
                let reason = format!("the patch features that detector {spec} scores");
                Some(given.required(local_name, Some(text.cols()), &reason)?)
            }
        };
        let inputs = ScoreInputs {
            global: rows,
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
    let mut fields = vec![Field::new("role", dictionary(), false)];
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

impl Given<'_> {
    fn source(&self, name: &str) -> Option<&Source> {
        let files = self.files;
        match name {
            "text" => files.text.as_ref(),
            "negative_text" => files.negative_text.as_ref(),
            "train" => files.train.as_ref(),
            "train_labels" => files.train_labels.as_ref(),
            "id" => files.id.as_ref(),
            "ood" => files.ood.as_ref(),
            "noise" => files.noise.as_ref(),
            "id_local" => files.id_local.as_ref(),
            "ood_local" => files.ood_local.as_ref(),
            _ => None,
        }
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        // The only error of `tensor` is that no tensor has this name.
        self.bundle.as_ref()?.tensor(name).ok()
    }

    fn required(&self, name: &'static str, dim: Option<usize>, what: &str) -> Result<Array> {
        self.features(name, dim)?.with_context(|| {
            let mut found = match &self.bundle {
                Some(bundle) => bundle.names(),
                None => Vec::new(),
            };
            found.sort_unstable();
            let option = name.replace('_', "-");
            format!(
                "no array `{name}`, {what}; give it with --{option} (arrays: {})",
                found.join(", ")
            )
        })
    }

    /// An array of floats; `dim` is the feature width, for patches stored flattened, one value per row.
    fn features(&self, name: &'static str, dim: Option<usize>) -> Result<Option<Array>> {
        if let Some(source) = self.source(name) {
            return source.features(name, dim).map(Some);
        }
        let Some(tensor) = self.tensor(name) else {
            return Ok(None);
        };
        match numbers(&tensor).with_context(|| format!("array `{name}`"))? {
            Numbers::Floats(values) => {
                let array = Array {
                    name,
                    shape: tensor.shape().to_vec(),
                    values,
                };
                array.warn_if_flat();
                Ok(Some(array))
            }
            Numbers::Integers(_) => {
                let found = tensor.dtype();
                bail!("array `{name}` is of type {found:?}, expected F32, F16 or BF16")
            }
        }
    }

    /// Class numbers, from 0.
    fn labels(&self, name: &'static str) -> Result<Option<Vec<u32>>> {
        if let Some(source) = self.source(name) {
            return source.labels(name).map(Some);
        }
        let Some(tensor) = self.tensor(name) else {
            return Ok(None);
        };
        let shape = tensor.shape();
        match numbers(&tensor).with_context(|| format!("array `{name}`"))? {
            Numbers::Integers(_) if shape.len() != 1 => {
                bail!("array `{name}` has shape {shape:?}, expected [rows]")
            }
            Numbers::Integers(values) => class_numbers(name, values).map(Some),
            Numbers::Floats(_) => {
                let found = tensor.dtype();
                bail!("array `{name}` is of type {found:?}, expected I64 or I32")
            }
        }
    }
}

//! `clipood encode`: features of images and texts.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch,
    StringArray,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use clipood_clip::model::{Devices, Model};
use clipood_clip::safetensors_file::NamedArray;
use clipood_core::stored;
use clipood_core::text_file::{lines, read_text};
use clipood_pipeline::feature_checks::check_rows;
use clipood_pipeline::tables::dictionary;
use clipood_pipeline::{Engine, PipelineError, encode_files};
use half::f16;
use serde_json::json;

use super::args::DeviceArgs;
use super::arrays::{check_output, extension, write_parquet, write_safetensors};
use super::check_dtype;
use super::images::{exit_of, named_images, none_readable, report_unreadable};
use super::models::ModelArgs;

/// Rows that are converted to Arrow at once; few, because patches are large.
const BATCH_ROWS: usize = 64;

/// Options of `clipood encode`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Image files, or folders that are searched for them. Those that cannot be read are listed on standard error and
    /// have no row; the exit code is 1 then.
    #[arg(long, num_args = 1.., value_name = "PATH")]
    images: Vec<PathBuf>,
    /// File with one text per line; nothing is added to them. Blank lines at its end are passed over.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// File to write, named .safetensors (whose metadata `images` lists the paths of the rows, as a JSON array) or
    /// .parquet.
    #[arg(long)]
    out: PathBuf,
    /// Write patch features of the images as well; Parquet files contain them in half precision.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Features of the inputs, row-major, not normalised.
struct Features {
    /// Width of a feature.
    dim: usize,
    /// Paths of the images that could be read, in the order given: the rows of `global` and `local`.
    images: Vec<String>,
    /// `[images, dim]`.
    global: Vec<f32>,
    /// `[images, patches, dim]`, if requested.
    local: Option<Vec<f32>>,
    /// `[texts, dim]`.
    text: Vec<f32>,
}

/// Encodes everything, then writes the file with the images that could be read; without any there is no file.
pub fn run(mut args: Args) -> Result<ExitCode> {
    let to_parquet = match extension(&args.out).as_str() {
        "parquet" => true,
        "safetensors" => false,
        _ => {
            let out = args.out.display();
            return usage(format!(
                "--out {out}: expected a file named .safetensors or .parquet"
            ));
        }
    };
    if args.images.is_empty() && args.texts.is_none() {
        return usage("nothing to encode: give --images, --texts or both".to_owned());
    }
    if args.local && args.images.is_empty() {
        return usage("--local: only images have patches, give --images".to_owned());
    }
    let devices = args.device.open()?;
    check_output(&args.out)?;
    let texts = match &args.texts {
        Some(path) => read_texts(path)?,
        None => Vec::new(),
    };
    if !args.images.is_empty() {
        let named = named_images(&args.images)?.into_iter();
        args.images = named.map(|image| image.path).collect();
    }
    let model = args.model.open()?;
    if !args.images.is_empty() {
        check_dtype(&model, &devices)?;
    }
    let features = encode(&model, &devices, &args, &texts)?;
    if to_parquet {
        write_table(&args, &texts, &features)?;
    } else {
        write_safetensors(&args.out, &tensors(&args, &features), metadata(&features))?;
    }
    Ok(exit_of(args.images.len() - features.images.len()))
}

fn usage(problem: String) -> Result<ExitCode> {
    Err(PipelineError::Usage(problem).into())
}

/// The lines of a file, at least one, without blank ones at its end.
pub fn read_texts(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path)?;
    let texts: Vec<String> = lines(&text).into_iter().map(str::to_owned).collect();
    if texts.is_empty() {
        bail!("{} holds no text", path.display());
    }
    Ok(texts)
}

fn encode(model: &Model, devices: &Devices, args: &Args, texts: &[String]) -> Result<Features> {
    let mut features = Features {
        dim: model.config.embed_dim,
        images: Vec::new(),
        global: Vec::new(),
        local: args.local.then(Vec::new),
        text: Vec::new(),
    };
    // Texts first: they are few, and a mistake in them shows before the long part.
    if let Some(path) = &args.texts {
        features.text = model
            .text_encoder(devices.first())?
            .encode(texts)
            .with_context(|| format!("cannot encode the texts {}", path.display()))?;
        check_rows(&features.text, features.dim, |row| {
            format!("text `{}`", texts[row])
        })?;
    }
    if args.images.is_empty() {
        return Ok(features);
    }
    let engine = Engine {
        local: args.local,
        ..Engine::for_files(model, devices).spread(args.images.len())
    };
    encode_files(&engine, &args.images, |image, outcome| {
        let path = &args.images[image];
        match outcome {
            Ok(encoded) => {
                features.images.push(stored(path));
                features.global.extend(encoded.global);
                if let Some(local) = &mut features.local {
                    local.extend(encoded.local);
                }
            }
            Err(reason) => report_unreadable(path, &reason),
        }
        Ok(())
    })?;
    match features.images.is_empty() {
        true => Err(none_readable(args.images.len())),
        false => Ok(features),
    }
}

impl Features {
    /// Patches of an image; 0 without local features.
    fn patches(&self) -> usize {
        let local = self.local.as_ref().map_or(0, Vec::len);
        local / self.global.len().max(1)
    }
}

fn tensors(args: &Args, features: &Features) -> Vec<NamedArray> {
    let (images, dim) = (features.images.len(), features.dim);
    let mut tensors = Vec::new();
    if images > 0 {
        tensors.push(NamedArray::f32(
            "image_global",
            vec![images, dim],
            &features.global,
        ));
    }
    if let Some(local) = &features.local {
        let shape = vec![images, features.patches(), dim];
        tensors.push(NamedArray::f32("image_local", shape, local));
    }
    if args.texts.is_some() {
        let texts = features.text.len() / dim.max(1);
        tensors.push(NamedArray::f32("text", vec![texts, dim], &features.text));
    }
    tensors
}

/// Which image each row is of.
fn metadata(features: &Features) -> Option<(&'static str, String)> {
    let images = &features.images;
    (!images.is_empty()).then(|| ("images", json!(images).to_string()))
}

/// One row per image, then one per text: `kind`, `source` (the path or the text), `global`, and `local` if asked for:
/// half precision, little-endian, `[patches, dim]` in one binary value, null for a text.
fn write_table(args: &Args, texts: &[String], features: &Features) -> Result<()> {
    let dim = features.dim;
    let item = Arc::new(Field::new("element", DataType::Float32, false));
    let list_size = i32::try_from(dim).context("features are too wide for Parquet")?;
    let mut fields = vec![
        Field::new("kind", dictionary(), false),
        Field::new("source", DataType::Utf8, false),
        Field::new(
            "global",
            DataType::FixedSizeList(item.clone(), list_size),
            false,
        ),
    ];
    let local_size = i32::try_from(features.patches() * dim * 2)
        .context("the patches of an image are too large for Parquet")?;
    if features.local.is_some() {
        fields.push(Field::new(
            "local",
            DataType::FixedSizeBinary(local_size),
            true,
        ));
    }
    let schema = Arc::new(Schema::new(fields));

    let images = features.images.len();
    let sources: Vec<String> = features.images.iter().chain(texts).cloned().collect();
    let values = [features.global.as_slice(), features.text.as_slice()].concat();
    let batch = |rows: Range<usize>| -> Result<RecordBatch> {
        let kinds: DictionaryArray<Int32Type> = rows
            .clone()
            .map(|row| if row < images { "image" } else { "text" })
            .collect();
        let items: ArrayRef = Arc::new(Float32Array::from(
            values[rows.start * dim..rows.end * dim].to_vec(),
        ));
        let global = FixedSizeListArray::try_new(item.clone(), list_size, items, None)?;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(kinds),
            Arc::new(StringArray::from_iter_values(&sources[rows.clone()])),
            Arc::new(global),
        ];
        if let Some(local) = &features.local {
            columns.push(Arc::new(local_column(
                local, images, local_size, &sources, rows,
            )?));
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    };
    let total = sources.len();
    let batches = (0..total)
        .step_by(BATCH_ROWS)
        .map(|start| batch(start..total.min(start + BATCH_ROWS)));
    write_parquet(&args.out, &schema, batches)
}

/// Patches of the rows, `size` bytes each; rows after the images are null.
fn local_column(
    local: &[f32],
    images: usize,
    size: i32,
    sources: &[String],
    rows: Range<usize>,
) -> Result<FixedSizeBinaryArray> {
    let width = local.len() / images.max(1);
    let mut bytes = Vec::with_capacity(rows.len() * width * 2);
    for row in rows.clone() {
        if row >= images {
            bytes.resize(bytes.len() + width * 2, 0);
            continue;
        }
        for value in &local[row * width..(row + 1) * width] {
            let half = f16::from_f32(*value);
            if half.is_infinite() {
                bail!(
                    "{}: patch feature {value} is beyond half precision, write .safetensors instead",
                    sources[row]
                );
            }
            bytes.extend_from_slice(&half.to_le_bytes());
        }
    }
    let present: Vec<bool> = rows.map(|row| row < images).collect();
    let nulls = NullBuffer::from(present);
    Ok(FixedSizeBinaryArray::try_new(
        size,
        Buffer::from_vec(bytes),
        Some(nulls),
    )?)
}

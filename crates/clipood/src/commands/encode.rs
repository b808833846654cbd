//! `clipood encode`: features of images and texts.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result, bail};
use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch,
    StringArray,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use clipood_clip::model::{Device, Devices, Model};
use clipood_data::{eval_view, normalise};
use clipood_pipeline::{PipelineError, share_out};
use half::f16;
use rayon::prelude::*;

use super::args::DeviceArgs;
use super::arrays::{
    Tensor, check_folder, extension, read_image, write_parquet, write_safetensors,
};
use super::check_dtype;
use super::models::ModelArgs;

/// Images that a thread takes through the image tower at once.
pub const IMAGE_BATCH: usize = 32;
/// Rows that go through Arrow at once, few because patches are large.
const BATCH_ROWS: usize = 64;

/// Options of `clipood encode`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Image files.
    #[arg(long, num_args = 1.., value_name = "PATH")]
    images: Vec<PathBuf>,
    /// File with one text a line; nothing is added to them.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// File to write, named .safetensors or .parquet.
    #[arg(long)]
    out: PathBuf,
    /// Features of the images' patches, too; Parquet holds them in half precision.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What the model makes of the inputs, row-major, not normalised.
struct Features {
    /// Width of a feature.
    dim: usize,
    /// Images x dim.
    global: Vec<f32>,
    /// Images x patches x dim, if asked for.
    local: Option<Vec<f32>>,
    /// Texts x dim.
    text: Vec<f32>,
}

/// Encodes everything, then writes the file: an input that cannot be read leaves none.
pub fn run(args: Args) -> Result<ExitCode> {
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
    check_folder(&args.out)?;
    let texts = match &args.texts {
        Some(path) => read_texts(path)?,
        None => Vec::new(),
    };
    let model = args.model.open()?;
    if !args.images.is_empty() {
        check_dtype(&model, &devices)?;
    }
    let features = encode(&model, &devices, &args, &texts)?;
    if to_parquet {
        write_table(&args, &texts, &features)?;
    } else {
        write_safetensors(&args.out, &tensors(&args, &features))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn usage(problem: String) -> Result<ExitCode> {
    Err(PipelineError::Usage(problem).into())
}

/// The lines of a file, at least one.
pub fn read_texts(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the texts {}", path.display()))?;
    let texts: Vec<String> = text.lines().map(str::to_owned).collect();
    if texts.is_empty() {
        bail!("{} holds no text", path.display());
    }
    Ok(texts)
}

fn encode(model: &Model, devices: &Devices, args: &Args, texts: &[String]) -> Result<Features> {
    let device = devices.first();
    let mut features = Features {
        dim: model.config.embed_dim,
        global: Vec::new(),
        local: args.local.then(Vec::new),
        text: Vec::new(),
    };
    // Texts first: they are few, and a mistake in them shows before the long part.
    if let Some(path) = &args.texts {
        features.text = model
            .text_encoder(device)?
            .encode(texts)
            .with_context(|| format!("cannot encode the texts {}", path.display()))?;
    }
    if args.images.is_empty() {
        return Ok(features);
    }
    let encoder = model.image_encoder_as(device, devices.dtype)?;
    let workers = match device {
        Device::Cpu => devices.workers.len().min(args.images.len()),
        _ => 1,
    };
    let batch = args.images.len().div_ceil(workers).min(IMAGE_BATCH);
    let (send, encoded) = mpsc::channel();
    let work = move |number: usize, paths: &[PathBuf]| -> Result<ControlFlow<()>> {
        let pixels = paths
            .par_iter()
            .map(|path| input(model, path))
            .collect::<Result<Vec<_>>>()?;
        let encoded = encoder.encode(pixels.concat(), args.local)?;
        Ok(match send.send((number, encoded)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    };
    share_out("encode", workers, args.images.chunks(batch), work)?;
    let mut encoded: Vec<_> = encoded.into_iter().collect();
    encoded.sort_by_key(|(number, _)| *number);
    for (_, encoded) in encoded {
        features.global.extend(encoded.global);
        if let Some(local) = &mut features.local {
            local.extend(encoded.local);
        }
    }
    Ok(features)
}

/// The image tower's input, channels x rows x columns.
pub fn input(model: &Model, path: &Path) -> Result<Vec<f32>> {
    let image = read_image(path)?;
    let side =
        u32::try_from(model.config.image.size).context("the model's images are too large")?;
    Ok(normalise(
        &eval_view(&image, side),
        model.config.mean,
        model.config.std,
    ))
}

impl Features {
    /// Patches of an image; 0 without local features.
    fn patches(&self) -> usize {
        let local = self.local.as_ref().map_or(0, Vec::len);
        local / self.global.len().max(1)
    }
}

fn tensors(args: &Args, features: &Features) -> Vec<Tensor> {
    let (images, dim) = (args.images.len(), features.dim);
    let mut tensors = Vec::new();
    if images > 0 {
        tensors.push(Tensor::f32(
            "image_global",
            vec![images, dim],
            &features.global,
        ));
    }
    if let Some(local) = &features.local {
        let shape = vec![images, features.patches(), dim];
        tensors.push(Tensor::f32("image_local", shape, local));
    }
    if args.texts.is_some() {
        let texts = features.text.len() / dim.max(1);
        tensors.push(Tensor::f32("text", vec![texts, dim], &features.text));
    }
    tensors
}

/// Images, then texts, a row each: `kind`, `source` (the path or the text), `global`, and `local` if asked for: half
/// precision, little-endian, patches x dim in one binary value, null for a text.
fn write_table(args: &Args, texts: &[String], features: &Features) -> Result<()> {
    let dim = features.dim;
    let item = Arc::new(Field::new("element", DataType::Float32, false));
    let list_size = i32::try_from(dim).context("features are too wide for Parquet")?;
    let word = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("kind", word, false),
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

    let images = args.images.len();
    let sources: Vec<String> = args
        .images
        .iter()
        .map(|path| path.display().to_string())
        .chain(texts.iter().cloned())
        .collect();
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

/// Patches of the rows, `size` bytes each; rows behind the images are null.
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

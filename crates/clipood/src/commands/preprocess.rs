//! `clipood preprocess`: from image files to the input of CLIP's image tower.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clipood_clip::config::{OPENAI_MEAN, OPENAI_STD};
use clipood_clip::safetensors_file::{Dtype, NO_METADATA, NamedArray};
use clipood_core::{Resize, shown};
use clipood_data::normalise;
use clipood_pipeline::{PipelineError, Unreadable, read_eval_view_as};
use rayon::prelude::*;

use super::arrays::{check_output, write_safetensors};
use super::images::{Named, exit_of, named_images, none_readable, report_unreadable};

/// Options of `clipood preprocess`.
#[derive(clap::Args)]
pub struct Args {
    /// Image files, or folders that are searched for them. Each file gives one array, named like the file without its
    /// folder, or by its path below the folder that is searched. Files that cannot be read are listed on standard error
    /// and have no array; the exit code is 1 then.
    #[arg(required = true, value_name = "IMG")]
    images: Vec<PathBuf>,
    /// Side of the square that is cropped from the centre, in pixels.
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: u32,
    /// The safetensors file to write.
    #[arg(long)]
    out: PathBuf,
    /// Bytes, rows x columns x RGB, instead of normalised floats, RGB x rows x columns.
    #[arg(long)]
    pixels: bool,
    /// The version of Pillow whose resizing is reproduced bit for bit: pillow12 (up to 12.3) or pillow13.
    #[arg(long, default_value = "pillow12", value_parser = resize)]
    resize: Resize,
}

fn resize(text: &str) -> Result<Resize, String> {
    let all = [Resize::Pillow12, Resize::Pillow13];
    let found = all.into_iter().find(|version| version.name() == text);
    found.ok_or_else(|| "allowed: pillow12, pillow13".to_string())
}

/// Reads all images, then writes the file with those that could be read; without any there is no file.
pub fn run(args: Args) -> Result<ExitCode> {
    check_output(&args.out)?;
    let images = named_images(&args.images)?;
    check_names(&images)?;
    let read: Vec<_> = images
        .par_iter()
        .map(|image| tensor(&image.name, &image.path, &args))
        .collect();
    let mut tensors = Vec::with_capacity(images.len());
    for (image, tensor) in images.iter().zip(read) {
        match tensor {
            Ok(tensor) => tensors.push(tensor),
            Err(reason) => report_unreadable(&image.path, &reason),
        }
    }
    if tensors.is_empty() {
        return Err(none_readable(images.len()));
    }
    write_safetensors(&args.out, &tensors, NO_METADATA)?;
    Ok(exit_of(images.len() - tensors.len()))
}

fn tensor(name: &str, path: &Path, args: &Args) -> Result<NamedArray, Unreadable> {
    let view = read_eval_view_as(path, args.size, args.resize)?;
    let side = args.size as usize;
    if args.pixels {
        return Ok(NamedArray {
            name: name.to_owned(),
            dtype: Dtype::U8,
            shape: vec![side, side, 3],
            bytes: view,
        });
    }
    let values = normalise(&view, OPENAI_MEAN, OPENAI_STD);
    Ok(NamedArray::f32(name, vec![3, side, side], &values))
}

/// Checks that the names of the arrays differ.
fn check_names(images: &[Named]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for Named { name, path } in images {
        if let Some(other) = seen.insert(name, path) {
            return Err(PipelineError::Usage(format!(
                "{} and {} are both named `{name}`, by which their arrays are called; rename one or write two files",
                shown(other),
                shown(path)
            ))
            .into());
        }
    }
    Ok(())
}

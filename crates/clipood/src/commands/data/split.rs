//! `clipood data split`: splits as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clipood_core::{Fingerprint, SubsampleClasses, shown};
use clipood_data::{Reroot, Split, SplitFile, SplitImage, few_shot_split};
use clipood_pipeline::{Interrupt, PipelineError, Reporting, fetch_dataset, list_images, split_of};

use super::super::args::DataArgs;
use super::super::{arrays::extension, print};
use super::named::manifest;

/// Options of `clipood data split`.
#[derive(clap::Args)]
pub struct Args {
    /// A split file (CoOp's split_zhou_*.json or .pkl, or one that was exported here), or a dataset by the name or the file of
    /// its manifest.
    source: String,
    /// The file to write, .json or .parquet.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folder in which the images lie on this machine: the paths are then those below it, and images that are missing are
    /// listed.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Classes to take, as CoOp does: the first half of the sorted labels, rounded up, is base; labels then count from 0.
    #[arg(long, value_enum, default_value_t = Classes::All)]
    classes: Classes,
    /// Of a dataset: draw this many training images of each class, as a run does, instead of taking the whole split.
    #[arg(long, requires = "seed")]
    shots: Option<usize>,
    /// Seed of the draw.
    #[arg(long, requires = "shots")]
    seed: Option<u64>,
    /// Another split file: say what differs, and end with exit code 1 if anything does.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Classes {
    All,
    Base,
    New,
}

impl From<Classes> for SubsampleClasses {
    fn from(classes: Classes) -> Self {
        match classes {
            Classes::All => Self::All,
            Classes::Base => Self::Base,
            Classes::New => Self::New,
        }
    }
}

/// Reads, shows, compares and writes.
pub fn run(args: &Args) -> Result<ExitCode> {
    let usage = |problem: String| PipelineError::Usage(problem);
    let path = Path::new(&args.source);
    let is_file = path.is_file() && extension(path) != "toml";
    let mut split = match is_file {
        true if args.shots.is_some() => {
            let problem = "--shots: found with a split file, allowed: with a dataset".to_string();
            return Err(usage(problem).into());
        }
        true => SplitFile::read(path).map_err(PipelineError::from)?,
        false => of_dataset(args)?,
    };
    let mut missing = Vec::new();
    if let Some(root) = &args.root {
        (split, missing) =
            below(&split, root).map_err(|problem| usage(format!("{}: {problem}", args.source)))?;
    }
    let split = (split.subsampled(args.classes.into()))
        .map_err(|problem| usage(format!("{}, --classes: {problem}", args.source)))?;
    print(&description(&split)?)?;
    if let Some(first) = missing.first() {
        print(&format!(
            "missing: {} images, the first is {first}\n",
            missing.len()
        ))?;
    }
    if let Some(out) = &args.out {
        write(&split, out)?;
        print(&format!("written: {}\n", out.display()))?;
    }
    let mut code = match missing.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    if let Some(path) = &args.compare {
        let other = SplitFile::read(path).map_err(PipelineError::from)?;
        match split.difference(&other) {
            None => print(&format!("same as {}\n", path.display()))?,
            Some(difference) => {
                print(&format!(
                    "differs from {}, which has hash {}:\n{difference}",
                    path.display(),
                    other.hash()
                ))?;
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The split of a dataset, or the shots that a run would draw from it.
fn of_dataset(args: &Args) -> Result<SplitFile> {
    let mut manifest = manifest(&args.source, &args.data.manifests)?;
    fetch_dataset(&mut manifest, Reporting::Human, &Interrupt::default())?;
    let data = &args.data.images.data;
    let mut records = list_images(&manifest, data, Reporting::Human)?;
    if let (Some(shots), Some(seed)) = (args.shots, args.seed) {
        let drawn = few_shot_split(&manifest.name, &records, shots, seed, false)
            .map_err(PipelineError::from)?;
        let places: BTreeMap<&str, usize> = drawn.keys().zip(0..).collect();
        records.retain(|record| places.contains_key(record.image_key.as_str()));
        records.sort_by_key(|record| places.get(record.image_key.as_str()));
    }
    Ok(split_of(&manifest, data, &records)?)
}

/// The same split with paths below `root`, and those of its images that are not there.
fn below(split: &SplitFile, root: &Path) -> Result<(SplitFile, Vec<String>), String> {
    let exists = |path: &str| std::fs::symlink_metadata(root.join(path)).is_ok();
    let Some(reroot) = Reroot::find(split, exists) else {
        return Err(format!(
            "its first image, {}, is not in {}, nor is the end of that path",
            split.images()[0].path,
            shown(root)
        ));
    };
    let images: Vec<SplitImage> = (split.images().iter())
        .map(|image| SplitImage {
            path: reroot.path(image).to_string(),
            ..image.clone()
        })
        .collect();
    let missing = images
        .iter()
        .map(|image| &image.path)
        .filter(|path| !exists(path));
    let missing = missing.cloned().collect();
    Ok((SplitFile::of(images)?, missing))
}

fn description(split: &SplitFile) -> Result<String> {
    let mut text = String::new();
    for part in [Split::Train, Split::Val, Split::Test] {
        let mut classes: BTreeMap<u32, usize> = BTreeMap::new();
        for image in split.part(part) {
            *classes.entry(image.label).or_default() += 1;
        }
        let images: usize = classes.values().sum();
        if let (Some(least), Some(most)) = (classes.values().min(), classes.values().max()) {
            let each = match least == most {
                true => format!("{least} of each"),
                false => format!("{least} to {most} of each"),
            };
            text += &format!(
                "{:<5}  {images} images of {} classes, {each}\n",
                part.name(),
                classes.len()
            );
        }
    }
    let hash: Fingerprint = split.hash();
    text += &format!(
        "paths begin with {}\nhash   {hash}\n",
        match split.shared() {
            "" => "no common folder",
            shared => shared,
        }
    );
    Ok(text)
}

fn write(split: &SplitFile, out: &Path) -> Result<()> {
    let bytes = match extension(out).as_str() {
        "json" => split.to_json().into_bytes(),
        "parquet" => match split.to_parquet() {
            Ok(bytes) => bytes,
            Err(problem) => bail!("{}: {problem}", out.display()),
        },
        other => {
            let problem = format!(
                "--out {}: found a file named .{other}, expected .json or .parquet",
                out.display()
            );
            return Err(PipelineError::Usage(problem).into());
        }
    };
    std::fs::write(out, bytes).with_context(|| format!("cannot write {}", out.display()))
}

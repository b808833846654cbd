//! `clipood data check`: compares what lies on this machine with what manifests expect.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clipood_core::{DatasetManifest, Recipe, Role, first_of, shown};
use clipood_data::{Census, Split, SplitFile, census, sample, settle};
use clipood_pipeline::{Interrupt, PipelineError, Reporting, draw_demo, fetch_dataset};

use super::super::args::DataArgs;
use super::super::{print, recipes};
use super::named::manifest;

/// Missing files and classes that are listed without `--all`.
const LISTED: usize = 10;

/// Options of `clipood data check`.
#[derive(clap::Args)]
pub struct Args {
    /// A recipe or a dataset manifest, by its name or its file.
    target: String,
    /// List every missing file, not only the first ones.
    #[arg(long)]
    all: bool,
    /// Read and decode this many images of each dataset.
    #[arg(long, value_name = "IMAGES", default_value_t = 32)]
    decode: usize,
    #[command(flatten)]
    data: DataArgs,
}

/// Checks every dataset. Exit code 1 if anything is missing or differs.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut wrong = 0;
    let Targets { manifests, shots } = targets(&args.target, &args.data.manifests)?;
    for manifest in &manifests {
        let problems = check(manifest, args)?;
        wrong += usize::from(problems > 0);
    }
    for file in &shots {
        wrong += usize::from(!check_shots(file, &args.data.images.data)?);
    }
    let datasets = manifests.len() + shots.len();
    print(&match wrong {
        0 => format!("all {datasets} are as expected\n"),
        _ => format!("{wrong} of {datasets} are not as expected\n"),
    })?;
    Ok(match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What is checked.
struct Targets {
    manifests: Vec<DatasetManifest>,
    /// Files that name the shots of a recipe, as the recipe names them.
    shots: BTreeSet<String>,
}

/// The datasets of a recipe with the files of its shots, or the one dataset.
fn targets(name: &str, folder: &Path) -> Result<Targets> {
    if is_recipe(name)? {
        let found = recipes::find(name)?;
        let recipe = Recipe::parse(&found.text, &found.place())?;
        let data = &recipe.data;
        let names = [&data.id]
            .into_iter()
            .chain(&data.ood)
            .chain(&data.validation_ood);
        let seeds = recipe.seeds.iter().flat_map(|seed| {
            let shots = recipe.shots.iter();
            shots.filter_map(|shots| data.few_shot_file(*shots, *seed))
        });
        return Ok(Targets {
            manifests: names
                .map(|name| manifest(name, folder))
                .collect::<Result<_>>()?,
            shots: seeds.collect(),
        });
    }
    match manifest(name, folder) {
        Ok(manifest) => Ok(Targets {
            manifests: vec![manifest],
            shots: BTreeSet::new(),
        }),
        // A name that is neither: both lists help.
        Err(error) => Err(match recipes::find(name) {
            Err(recipe) if !Path::new(name).exists() => {
                PipelineError::Usage(format!("{recipe:#}; {error:#}")).into()
            }
            _ => error,
        }),
    }
}

/// Checks that a file of shots can be read, and prints what it holds.
fn check_shots(file: &str, data: &Path) -> Result<bool> {
    let (is_read, line) = match SplitFile::read(&data.join(file)) {
        Ok(split) => {
            let images = split.part(Split::Train).count();
            let line = format!("{images} images to train on, hash {}", split.hash());
            (images > 0, line)
        }
        Err(error) => (false, format!("missing: {error}")),
    };
    print(&format!("shots {file}\n  {line}\n"))?;
    Ok(is_read)
}

/// Whether a name is that of a recipe: a file with `detectors`, or a name that no manifest has.
fn is_recipe(name: &str) -> Result<bool> {
    let Ok(found) = recipes::find(name) else {
        return Ok(false);
    };
    let mut lines = found.text.lines();
    Ok(lines.any(|line| line.trim_start().starts_with("detectors")))
}

/// Checks one dataset, prints what was found, and returns the number of problems.
fn check(manifest: &DatasetManifest, args: &Args) -> Result<usize> {
    let mut manifest = manifest.clone();
    let data = &args.data.images.data;
    print(&format!("{} ({})\n", manifest.name, manifest.layout.name()))?;
    let listed = fetch_dataset(&mut manifest, Reporting::Human, &Interrupt::default())
        .and_then(|()| draw_demo(&manifest, data, Reporting::Human))
        .and_then(|()| {
            settle(&mut manifest, data)?;
            Ok(census(&manifest, data)?)
        });
    let (mut lines, mut problems) = (Vec::new(), 0);
    match listed {
        Ok(census) => problems += counts(&manifest, &census, args, &mut lines),
        Err(error @ (PipelineError::Data(_) | PipelineError::Hub(_))) => {
            problems += 1;
            lines.push(format!("missing: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    if problems > 0 {
        lines.push(format!("expected at {}", shown(manifest.root_in(data))));
    }
    let about = &manifest.about;
    if problems > 0 || args.all {
        lines.extend(about.source.iter().map(|text| format!("get it: {text}")));
        lines.extend(about.licence.iter().map(|text| format!("licence: {text}")));
    }
    lines.extend(about.note.iter().map(|text| format!("note: {text}")));
    let text: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    print(&text)?;
    Ok(problems)
}

/// Compares the counts; returns the number of problems.
fn counts(
    manifest: &DatasetManifest,
    census: &Census,
    args: &Args,
    lines: &mut Vec<String>,
) -> usize {
    let about = &manifest.about;
    let mut problems = 0;
    let mut compare = |what: String, found: usize, expected: Option<usize>| {
        let differs = expected.is_some_and(|expected| expected != found);
        problems += usize::from(differs);
        let expected = match expected {
            None => String::new(),
            Some(expected) if differs => format!(", EXPECTED {expected}"),
            Some(_) => ", as expected".to_string(),
        };
        lines.push(format!("{what}: {found}{expected}"));
    };
    for split in [Split::Train, Split::Val, Split::Test] {
        let (found, expected) = (census.of(split), about.images(split.name()));
        if found > 0 || expected.is_some() {
            compare(format!("{} images", split.name()), found, expected);
        }
    }
    if let Some(expected) = manifest.expected_images {
        compare("images".to_string(), census.images(), Some(expected));
    }
    if manifest.role == Role::Id || about.classes.is_some() {
        let named = census
            .classes
            .keys()
            .filter(|(label, name)| label.is_some() || !name.is_empty());
        compare("classes".to_string(), named.count(), about.classes);
    }
    // Which classes of the manifest have no image says more than a number.
    let present = |name: &String| census.classes.keys().any(|(_, found)| found == name);
    let absent: Vec<&String> = manifest
        .class_names
        .values()
        .filter(|name| !present(name))
        .collect();
    if !absent.is_empty() {
        problems += 1;
        let names = list(
            absent.iter().map(|name| format!("`{name}`")),
            absent.len(),
            args.all,
        );
        lines.push(format!("classes without an image: {names}"));
    }
    for (what, count, files) in [
        (
            "listed files that do not exist",
            census.missing_count,
            &census.missing,
        ),
        ("empty files", census.empty_count, &census.empty),
    ] {
        if count > 0 {
            problems += 1;
            lines.push(format!("{what}: {count}"));
            lines.extend(paths(files, args.all));
            if args.all && count > files.len() {
                lines.push(format!("  and {} more", count - files.len()));
            }
        }
    }
    let sample = sample(census, args.decode);
    if !sample.unreadable.is_empty() {
        problems += 1;
        lines.push(format!(
            "{} of {} images that were read cannot be decoded",
            sample.unreadable.len(),
            sample.images
        ));
        let named = sample.unreadable.iter().take(LISTED);
        lines.extend(named.map(|(path, reason)| format!("  {path}: {reason}")));
    }
    lines.extend(census.notes.iter().cloned());
    if !census.left_out.is_only_junk() {
        lines.push(census.left_out.to_string());
    }
    problems
}

fn paths(files: &[PathBuf], all: bool) -> Vec<String> {
    let shown_files = files.iter().take(if all { files.len() } else { LISTED });
    let mut lines: Vec<String> = shown_files
        .map(|path| format!("  {}", shown(path)))
        .collect();
    if files.len() > lines.len() {
        lines.push("  ... (--all lists more)".to_string());
    }
    lines
}

fn list(names: impl Iterator<Item = String>, count: usize, all: bool) -> String {
    first_of(names, count, if all { count } else { LISTED })
}

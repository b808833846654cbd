//! The images to classify, the classes, and what is known about each image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clipood_core::class_list;
use clipood_data::{At, EXTENSIONS, Split, find_images};
use clipood_pipeline::{PipelineError, Reporting, list_images, open_manifest};

use super::task::Task;

/// What is classified.
pub struct Inputs {
    /// The files.
    pub files: Vec<PathBuf>,
    /// For each file, the name of its class or folder, if any.
    pub known: Vec<Option<String>>,
    /// For each file, the index of that name among the classes, if it is one of them.
    pub labels: Vec<Option<u32>>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Description of where the files come from.
    pub source: String,
}

impl Inputs {
    /// Lists the images (for a dataset those of `split`, unless the task names another one) and finds the
    /// classes, unless they are given.
    ///
    /// # Errors
    /// No image, no class, a class list that is malformed, a dataset that cannot be listed.
    pub fn gather(task: &Task, split: Split, classes: Option<Vec<String>>) -> Result<Self> {
        let (images, source) = match &task.dataset {
            Some(name) => {
                let split = match &task.split {
                    Some(name) => named_split(name)?,
                    None => split,
                };
                let source = format!("{} images of {name}", split.name());
                (of_dataset(task, name, split)?, source)
            }
            None if task.images.is_empty() => {
                let problem = "name images with --images or --dataset".to_owned();
                return Err(PipelineError::Usage(problem).into());
            }
            None => {
                let paths = task.images.iter().map(|path| path.display().to_string());
                let source = paths.collect::<Vec<_>>().join(" ");
                (of_paths(&task.images)?, source)
            }
        };
        if images.is_empty() {
            bail!(
                "no image in {source}; expected files named {}",
                EXTENSIONS.join(", ")
            );
        }
        let classes = match (classes, &task.texts.classes) {
            (Some(classes), _) => classes,
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the class list {}", path.display()))?;
                class_list(&text, &path.display().to_string())?
            }
            (None, None) => folder_names(&images)?,
        };
        let number_of: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let label = |name: &String| number_of.get(name.as_str()).copied();
        let labels: Vec<Option<u32>> = images
            .iter()
            .map(|(_, name)| name.as_ref().and_then(label))
            .collect();
        let others: BTreeSet<&str> = images
            .iter()
            .zip(&labels)
            .filter(|(_, label)| label.is_none())
            .filter_map(|((_, name), _)| name.as_deref())
            .collect();
        if let Some(first) = others.first() {
            clipood_pipeline::tell(&format!(
                "{} folders are not named as a class, the first is `{first}`: their images do not count for the accuracy",
                others.len()
            ));
        }
        let (files, known) = images.into_iter().unzip();
        Ok(Self {
            files,
            known,
            labels,
            classes,
            source,
        })
    }
}

/// An image, and the readable name of its class or folder.
type Image = (PathBuf, Option<String>);

/// The images of a split of a dataset.
fn of_dataset(task: &Task, name: &str, split: Split) -> Result<Vec<Image>> {
    let manifest = open_manifest(&task.data.manifests, name)?;
    let records = list_images(&manifest, &task.data.images.data, Reporting::Human)?;
    let tested = records.into_iter().filter(|record| record.split == split);
    tested
        .map(|record| match record.source.at {
            At::Whole => Ok((record.source.uri.into(), record.class_name)),
            At::Bytes(_) => bail!(
                "{} lies inside {}; only images in separate files can be classified here",
                record.image_key,
                record.source.uri
            ),
        })
        .collect()
}

fn named_split(name: &str) -> Result<Split> {
    let all = [Split::Train, Split::Val, Split::Test];
    let found = all.into_iter().find(|split| split.name() == name);
    found.ok_or_else(|| {
        PipelineError::Usage(format!("--split {name}: expected train, val or test")).into()
    })
}

/// The files themselves, whatever their folders are called.
///
/// # Errors
/// A path that does not exist.
pub fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = find_images(path).map_err(PipelineError::from)?;
            files.extend(found.into_iter().map(|image| image.path));
        } else {
            check_file(path)?;
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// The files, and the images below the folders.
fn of_paths(paths: &[PathBuf]) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    let mut folder_of: BTreeMap<String, String> = BTreeMap::new();
    for path in paths {
        if !path.is_dir() {
            check_file(path)?;
            images.push((path.clone(), None));
            continue;
        }
        for found in find_images(path).map_err(PipelineError::from)? {
            let name = found.top_folder.map(|folder| {
                let name = folder.replace(['_', '-'], " ");
                let first = folder_of
                    .entry(name.clone())
                    .or_insert_with(|| folder.clone());
                (name, first.clone(), folder)
            });
            if let Some((name, first, folder)) = &name
                && first != folder
            {
                return Err(PipelineError::Usage(format!(
                    "class folders `{first}` and `{folder}` are both read as `{name}`; rename one"
                ))
                .into());
            }
            images.push((found.path, name.map(|(name, ..)| name)));
        }
    }
    Ok(images)
}

fn check_file(path: &Path) -> Result<()> {
    std::fs::metadata(path)
        .map(|_| ())
        .with_context(|| format!("cannot read {}", path.display()))
}

/// The class names that the folders give, in the order of the images.
fn folder_names(images: &[Image]) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for (path, name) in images {
        let Some(name) = name else {
            return Err(PipelineError::Usage(format!(
                "{} lies in no class folder; give the classes with --classes FILE, one name per line",
                path.display()
            ))
            .into());
        };
        if seen.insert(name) {
            names.push(name.clone());
        }
    }
    Ok(names)
}

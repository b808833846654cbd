//! The images to classify, the classes, and what is known about each image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clipood_core::{
    ClassList, DatasetManifest, ImageFolder, Layout, classes_of_folders, nearest, shown, spaced,
};
use clipood_data::{EXTENSIONS, ImageRecord, Source, Split};
use clipood_pipeline::{
    Interrupt, PipelineError, Reporting, fetch_dataset, fetch_split, list_images, manifest_of_hub,
    open_manifest,
};

use super::super::class_list::{note_equal, read_class_list};
use super::super::images::{check_file, images_below};
use super::task::LabelledArgs;

/// What is classified.
pub struct Inputs {
    /// The images.
    pub files: Vec<Source>,
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
    /// Lists the images (for a dataset those of `split`, unless `asked` names another one) and finds the
    /// classes, unless they are given.
    ///
    /// # Errors
    /// No image, no class, a class list that is malformed, a dataset that cannot be listed.
    pub fn gather(
        asked: &LabelledArgs,
        split: Split,
        classes: Option<Vec<String>>,
    ) -> Result<Self> {
        let (
            Images {
                images,
                classes: own,
            },
            source,
        ) = match &asked.dataset {
            Some(name) => {
                let is_on_hub = name.starts_with("hub:");
                let split = match &asked.split {
                    _ if is_on_hub => Split::Test,
                    Some(name) => named_split(name)?,
                    None => split,
                };
                let source = match is_on_hub {
                    true => name.clone(),
                    false => format!("{} images of {name}", split.name()),
                };
                (of_dataset(asked, name, split)?, source)
            }
            None if asked.images.is_empty() => {
                let problem = "name images with --images or --dataset".to_owned();
                return Err(PipelineError::Usage(problem).into());
            }
            None => {
                let paths = asked.images.iter().map(shown);
                let source = paths.collect::<Vec<_>>().join(" ");
                let images = of_paths(&asked.images)?;
                let classes = None;
                (Images { images, classes }, source)
            }
        };
        if images.is_empty() {
            bail!(
                "no image in {source}; expected files named {}",
                EXTENSIONS.join(", ")
            );
        }
        let given = match (classes, &asked.texts.classes) {
            (Some(classes), _) => {
                note_equal(&classes);
                Some(ClassList::of(classes))
            }
            (None, Some(path)) => Some(read_class_list(path)?),
            (None, None) => None,
        };
        let (classes, class_of) = match given {
            Some(list) => {
                let class_of = classes_by_name(&list, &images);
                (list.names, class_of)
            }
            None => {
                let class_of = match own {
                    Some(classes) => classes,
                    None => classes_by_folder(&images)?,
                };
                let mut folders: Vec<_> = class_of.iter().collect();
                folders.sort_by_key(|(_, class)| **class);
                let classes: Vec<String> = folders
                    .into_iter()
                    .map(|(folder, _)| folder.name.clone())
                    .collect();
                note_equal(&classes);
                (classes, class_of)
            }
        };
        let label = |folder: &ImageFolder| class_of.get(folder).copied();
        let labels = images
            .iter()
            .map(|(_, folder)| folder.as_ref().and_then(label))
            .collect();
        let (files, known) = images
            .into_iter()
            .map(|(file, folder)| (file, folder.map(|folder| folder.name)))
            .unzip();
        Ok(Self {
            files,
            known,
            labels,
            classes,
            source,
        })
    }
}

/// An image, and its class folder.
type Image = (Source, Option<ImageFolder>);

/// Images, and their classes by label if they are those of a dataset that says so.
struct Images {
    images: Vec<Image>,
    classes: Option<BTreeMap<ImageFolder, u32>>,
}

/// The images of a split of a dataset: of a manifest, or of the hub.
fn of_dataset(asked: &LabelledArgs, name: &str, split: Split) -> Result<Images> {
    let manifest = match name.strip_prefix("hub:") {
        Some(name) => of_hub(asked, name)?,
        None => {
            let mut manifest = open_manifest(&asked.data.manifests, name)?;
            fetch_dataset(&mut manifest, Reporting::Human, &Interrupt::default())?;
            manifest
        }
    };
    let records = list_images(&manifest, &asked.data.images.data, Reporting::Human)?;
    let by_folder = manifest.layout == Layout::ImageFolder;
    let repeated = repeated_names(&records);
    let folder_of = |record: &ImageRecord| {
        let name = record.class_name.clone()?;
        // `dataset/split/class folder/file`
        let of_key = record.image_key.split('/').nth(2).filter(|_| by_folder);
        let folder = match (of_key, record.label) {
            (Some(folder), _) => folder.to_owned(),
            // Without folders, the labels tell classes of one name apart.
            (None, Some(label)) if repeated.contains(&name) => format!("{name} (class {label})"),
            (None, _) => name.clone(),
        };
        Some(ImageFolder { folder, name })
    };
    let mut classes: BTreeMap<u32, ImageFolder> = BTreeMap::new();
    let mut images = Vec::new();
    for record in records {
        let folder = folder_of(&record);
        if let (Some(label), Some(folder)) = (record.label, &folder) {
            classes.entry(label).or_insert_with(|| folder.clone());
        }
        if record.split == split {
            images.push((record.source, folder));
        }
    }
    let classes: BTreeMap<ImageFolder, u32> = classes.into_values().zip(0..).collect();
    Ok(Images {
        images,
        classes: (!classes.is_empty()).then_some(classes),
    })
}

/// The names that several labels have.
fn repeated_names(records: &[ImageRecord]) -> BTreeSet<String> {
    let mut label_of: BTreeMap<&str, u32> = BTreeMap::new();
    let mut repeated = BTreeSet::new();
    for record in records {
        if let (Some(label), Some(name)) = (record.label, &record.class_name)
            && *label_of.entry(name).or_insert(label) != label
        {
            repeated.insert(name.clone());
        }
    }
    repeated
}

/// The manifest of a dataset of the hub, of which only the split that is classified is fetched, as its test split.
fn of_hub(asked: &LabelledArgs, name: &str) -> Result<DatasetManifest> {
    let (mut manifest, own) = manifest_of_hub(name)?;
    let names = match (&asked.split, own) {
        (Some(_), Some(own)) => {
            let problem = format!(
                "--split: found beside the split `{own}` of --dataset, expected one of the two"
            );
            return Err(PipelineError::Usage(problem).into());
        }
        (Some(split), None) => vec![split.clone()],
        (None, Some(own)) => vec![own],
        (None, None) => ["test", "validation"].map(str::to_owned).to_vec(),
    };
    fetch_split(
        &mut manifest,
        names,
        Reporting::Human,
        &Interrupt::default(),
    )?;
    Ok(manifest)
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
/// A path that does not exist or leads to a FIFO, a device or the like.
pub fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = images_below(path)?;
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
    for path in paths {
        if !path.is_dir() {
            check_file(path)?;
            images.push((Source::found(path), None));
            continue;
        }
        for found in images_below(path)? {
            let folder = found.top_folder().map_err(PipelineError::from)?;
            let known = folder.map(|folder| ImageFolder {
                name: spaced(folder),
                folder: folder.to_owned(),
            });
            images.push((Source::found(&found.path), known));
        }
    }
    Ok(images)
}

/// The class of each folder when the folders are the classes, in the order of the images. Folders of the same readable
/// name are classes of their own.
fn classes_by_folder(images: &[Image]) -> Result<BTreeMap<ImageFolder, u32>> {
    let mut class_of = BTreeMap::new();
    for (path, folder) in images {
        let Some(folder) = folder else {
            return Err(PipelineError::Usage(format!(
                "{path} lies in no class folder; give the classes with --classes FILE, one name per line"
            ))
            .into());
        };
        if !class_of.contains_key(folder) {
            class_of.insert(folder.clone(), class_of.len() as u32);
        }
    }
    Ok(class_of)
}

/// The class of each folder that is named as one of a list; the others are counted on standard error.
fn classes_by_name(list: &ClassList, images: &[Image]) -> BTreeMap<ImageFolder, u32> {
    let folders: BTreeSet<&ImageFolder> = images.iter().filter_map(|(_, f)| f.as_ref()).collect();
    let folders: Vec<ImageFolder> = folders.into_iter().cloned().collect();
    let found = classes_of_folders(list, &folders);
    let (mut class_of, mut others) = (BTreeMap::new(), Vec::new());
    for (folder, class) in folders.into_iter().zip(found) {
        match class {
            Some(class) => drop(class_of.insert(folder, class)),
            None => others.push(folder.name),
        }
    }
    if let Some(first) = others.first() {
        let names = list.names.iter().map(String::as_str);
        let hint =
            nearest(first, names).map_or(String::new(), |n| format!(" (nearest class: `{n}`)"));
        clipood_pipeline::tell(&format!(
            "{} folders are not named as a class, the first is `{first}`{hint}: their images do not count for the accuracy",
            others.len()
        ));
    }
    class_of
}

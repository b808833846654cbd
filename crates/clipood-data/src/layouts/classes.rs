//! From the label that a layout has for an image to its class.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use clipood_core::{ClassList, DatasetManifest, Role, nearest, shown};

use crate::error::DataError;
use crate::place::read_text;

/// Largest label: more classes than any dataset has, and few enough to be held in memory.
const MAX_LABEL: i64 = 1 << 24;

/// What a layout says about the class of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label<'a> {
    /// Nothing.
    Unknown,
    /// An index; negative for an image of no class.
    Number(i64),
    /// A name or the id of a folder.
    Text(&'a str),
}

/// The classes of a dataset.
pub(super) struct Classes<'a> {
    manifest: &'a DatasetManifest,
    /// Names of the classes by label, with where they come from.
    list: Option<(String, ClassList)>,
    /// The texts of labels, and their numbers: indices among all, sorted.
    texts: BTreeMap<String, u32>,
    /// Whether an image has had a class without a name.
    nameless: bool,
    /// The classes of the list that images have had.
    seen: BTreeSet<u32>,
}

impl<'a> Classes<'a> {
    /// Reads the class list of the manifest, if it names one.
    ///
    /// # Errors
    /// A list that cannot be read.
    pub fn open(manifest: &'a DatasetManifest, root: &Path) -> Result<Self, DataError> {
        Ok(Self {
            manifest,
            list: read_list(manifest, root)?,
            texts: BTreeMap::new(),
            nameless: false,
            seen: BTreeSet::new(),
        })
    }

    /// Takes the names that a file of the dataset states, unless the manifest names a list.
    ///
    /// # Errors
    /// Names that differ from those of another file.
    pub fn state(&mut self, origin: &str, names: Vec<String>) -> Result<(), DataError> {
        if self.manifest.class_list.is_some() {
            return Ok(());
        }
        let Some((other, list)) = &self.list else {
            self.list = Some((origin.to_string(), ClassList::of(names)));
            return Ok(());
        };
        if list.names == names {
            return Ok(());
        }
        let place = (list.names.iter().zip(&names)).position(|(a, b)| a != b);
        let differs = match place {
            Some(label) => {
                format!(
                    "class {label} is `{}`, there `{}`",
                    names[label], list.names[label]
                )
            }
            None => format!("{} classes, there {}", names.len(), list.names.len()),
        };
        Err(DataError::Content {
            dataset: self.manifest.name.clone(),
            place: origin.to_string(),
            problem: format!("its class names are not those of {other}: {differs}"),
        })
    }

    /// Names the classes by their texts, once all are known.
    pub fn number(&mut self, texts: BTreeSet<String>) {
        self.texts = texts.into_iter().zip(0..).collect();
    }

    /// Whether texts are looked up in a list, so that [`Classes::number`] is not needed.
    pub fn has_list(&self) -> bool {
        self.list.is_some()
    }

    /// Label and name of the class; neither for an image that has none. An out-of-distribution image has no label.
    ///
    /// # Errors
    /// What is wrong with the label: none or a negative one in distribution, one beyond the names, an unknown text.
    pub fn of(&mut self, label: Label<'_>) -> Result<(Option<u32>, Option<String>), String> {
        let is_id = self.manifest.role == Role::Id;
        let (number, name) = match label {
            Label::Unknown if is_id => {
                return Err(
                    "no label, expected one for every image of an in-distribution dataset"
                        .to_string(),
                );
            }
            Label::Number(number) if number < 0 && is_id => {
                return Err(format!(
                    "label {number}, expected 0 or more in an in-distribution dataset"
                ));
            }
            Label::Unknown => return Ok((None, None)),
            Label::Number(number) if number < 0 => return Ok((None, None)),
            Label::Number(number) => self.numbered(number)?,
            Label::Text(text) => self.named(text)?,
        };
        self.seen.insert(number);
        Ok((is_id.then_some(number), name))
    }

    fn numbered(&mut self, number: i64) -> Result<(u32, Option<String>), String> {
        if let Some((origin, list)) = &self.list {
            let classes = list.names.len();
            let found = usize::try_from(number).ok().and_then(|n| list.names.get(n));
            return match found {
                Some(name) => Ok((number as u32, Some(name.clone()))),
                None => Err(format!(
                    "label {number} is out of range: {origin} names {classes} classes, 0 to {}",
                    classes.saturating_sub(1)
                )),
            };
        }
        if number > MAX_LABEL {
            return Err(format!("label {number}, allowed: at most {MAX_LABEL}"));
        }
        let name = self.manifest.class_names.get(&number.to_string());
        self.nameless |= name.is_none();
        let is_id = self.manifest.role == Role::Id;
        let name = name.cloned().or_else(|| is_id.then(|| number.to_string()));
        Ok((number as u32, name))
    }

    fn named(&self, text: &str) -> Result<(u32, Option<String>), String> {
        let Some((origin, list)) = &self.list else {
            let number = self.texts.get(text).copied();
            let name = Some(self.manifest.class_name(text));
            return match number {
                Some(number) => Ok((number, name)),
                None if self.manifest.role == Role::Ood => Ok((0, name)),
                None => Err(format!(
                    "class `{text}` was not there when the classes were counted"
                )),
            };
        };
        let position = |of: &[String]| of.iter().position(|known| known == text);
        let number = list.ids.as_deref().and_then(position);
        match number.or_else(|| position(&list.names)) {
            Some(number) => Ok((number as u32, Some(list.names[number].clone()))),
            None if self.manifest.role == Role::Ood => {
                Ok((0, Some(self.manifest.class_name(text))))
            }
            None => {
                let ids = list.ids.as_deref().unwrap_or(&list.names);
                let close = nearest(text, ids.iter().map(String::as_str));
                let close = close.map_or(String::new(), |c| format!("; the nearest is `{c}`"));
                Err(format!("class `{text}` is not in {origin}{close}"))
            }
        }
    }

    /// What a user should know about the classes once all images were seen.
    pub fn note(&self) -> Option<String> {
        if self.manifest.role == Role::Ood {
            return None;
        }
        if self.nameless {
            let text = "classes without a name are called by their numbers; name them with `class_list` or `class_names`";
            return Some(text.to_string());
        }
        let (origin, list) = self.list.as_ref()?;
        let is_seen = |class: &usize| self.seen.contains(&(*class as u32));
        let unseen = (0..list.names.len()).find(|class| !is_seen(class))?;
        Some(format!(
            "{} of the {} classes in {origin} have no image and are left out; the first is class {unseen}, `{}`",
            list.names.len().saturating_sub(self.seen.len()),
            list.names.len(),
            list.names[unseen]
        ))
    }
}

/// The class list of a manifest with its place; `None` if it names none. Classes with ids are sorted by them: a label is the
/// index of the sorted folder, not of the line.
pub(super) fn read_list(
    manifest: &DatasetManifest,
    root: &Path,
) -> Result<Option<(String, ClassList)>, DataError> {
    let Some(file) = &manifest.class_list else {
        return Ok(None);
    };
    let path = root.join(file);
    let text = read_text(&path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => DataError::NoFiles {
            dataset: manifest.name.clone(),
            key: "class_list".to_string(),
            path: root.to_path_buf(),
            pattern: file.to_string_lossy().into_owned(),
        },
        _ => DataError::Io {
            path: path.clone(),
            source,
        },
    })?;
    let mut list = ClassList::parse(&text, &shown(&path))?;
    if let Some(ids) = list.ids.take() {
        let mut pairs: Vec<(String, String)> = ids.into_iter().zip(list.names).collect();
        pairs.sort();
        (list.ids, list.names) = {
            let (ids, names) = pairs.into_iter().unzip();
            (Some(ids), names)
        };
    }
    Ok(Some((shown(&path), list)))
}

/// The manifest with the names of its class list as `class_names` of these folders: by their ids, or else in their order,
/// sorted.
///
/// # Errors
/// A list that cannot be read, a folder that it does not name, another number of names than of folders.
pub(super) fn with_names(
    manifest: &DatasetManifest,
    root: &Path,
    folders: &BTreeSet<&str>,
) -> Result<Option<DatasetManifest>, DataError> {
    let Some((origin, list)) = read_list(manifest, root)? else {
        return Ok(None);
    };
    let wrong = |problem| DataError::Content {
        dataset: manifest.name.clone(),
        place: origin.clone(),
        problem,
    };
    let is_id = manifest.role == Role::Id;
    let names = match list.ids {
        Some(ids) => {
            let names: BTreeMap<String, String> = ids.into_iter().zip(list.names).collect();
            let lost: Vec<&str> = folders
                .iter()
                .copied()
                .filter(|folder| !names.contains_key(*folder))
                .collect();
            if let (Some(first), true) = (lost.first(), is_id) {
                return Err(wrong(format!(
                    "it names {} classes, but not the folder `{first}`{}",
                    names.len(),
                    match lost.len() {
                        1 => String::new(),
                        count => format!(" and {} others", count - 1),
                    }
                )));
            }
            names
        }
        None if list.names.len() != folders.len() => {
            return Err(wrong(format!(
                "{} names for {} class folders; expected one name per folder, in the order of the sorted folders, or lines \
                 that begin with the folder's WordNet id",
                list.names.len(),
                folders.len()
            )));
        }
        None => {
            let folders = folders.iter().map(|folder| folder.to_string());
            folders.zip(list.names).collect()
        }
    };
    Ok(Some(DatasetManifest {
        class_names: names,
        ..manifest.clone()
    }))
}

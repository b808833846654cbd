//! Text files with the path of an image and its label on each line, as OpenOOD's `benchmark_imglist`.
//!
//! A line is `path label`, where the label is a number, -1 for an image of no class, or a dictionary such as
//! `{ "group_label": 0 ,"class_label": 0 }`, of which `columns.label` names the key (`class_label`). It may be absent out of
//! distribution. Paths start from the folder `images` of the manifest, or from the root. Blanks at the end of a line and blank
//! lines are passed over; a path with blanks is read up to the last of them.
//!
//! OpenOOD's lists have the validation images of ImageNet directly in `imagenet_1k/val`. Where a listed file does not exist,
//! but one of its name lies in exactly one folder beside it, that one is read: `val/n01440764/ILSVRC2012_val_00000293.JPEG`.
//! Any other file that does not exist stays an image of the dataset, so that it is reported as one that cannot be read.

use std::path::Path;

use clipood_core::{DatasetManifest, image_key, shown};

use super::classes::{Classes, Label};
use super::files::split_files;
use super::listed::{Files, below, key_of};
use crate::error::DataError;
use crate::place::for_each_line;
use crate::record::{Found, ImageRecord, Split};
use crate::source::Source;

/// Lines whose files are looked up together.
const BLOCK: usize = 4096;
/// Key of the class in a dictionary.
const CLASS: &str = "class_label";

/// A line of a list.
struct Line {
    number: u64,
    path: String,
    label: Option<i64>,
}

/// Calls `visit` with the images that the lists of the manifest name, in the order of the lists.
pub fn visit<E: From<DataError>>(
    manifest: &DatasetManifest,
    root: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let base = match &manifest.images {
        Some(folder) => root.join(folder),
        None => root.to_path_buf(),
    };
    let mut images = Images {
        manifest,
        files: Files::new(base),
        classes: Classes::open(manifest, root)?,
    };
    for lists in split_files(manifest, root, &[])? {
        let split = lists.split.unwrap_or(Split::Test);
        for list in &lists.files {
            visit(Found::List(list.clone()))?;
            let mut block = Vec::with_capacity(BLOCK);
            let read = for_each_line(list, |number, text| {
                if let Some(line) = images.parse(list, number, text)? {
                    block.push(line);
                }
                if block.len() < BLOCK {
                    return Ok(());
                }
                images.visit(list, split, std::mem::take(&mut block), visit)
            });
            read.map_err(|source| {
                let path = list.clone();
                DataError::Io { path, source }
            })??;
            images.visit(list, split, block, visit)?;
        }
    }
    for note in images
        .files
        .notes()
        .into_iter()
        .chain(images.classes.note())
    {
        visit(Found::Note(note))?;
    }
    Ok(())
}

struct Images<'a> {
    manifest: &'a DatasetManifest,
    files: Files,
    classes: Classes<'a>,
}

impl Images<'_> {
    fn parse(&self, list: &Path, number: u64, text: &str) -> Result<Option<Line>, DataError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let key = self.manifest.columns.label.as_deref().unwrap_or(CLASS);
        let (path, label) = parse_line(text, key).map_err(|problem| DataError::Content {
            dataset: self.manifest.name.clone(),
            place: format!("{}, line {number}", shown(list)),
            problem,
        })?;
        let path = path.to_string();
        Ok(Some(Line {
            number,
            path,
            label,
        }))
    }

    fn visit<E: From<DataError>>(
        &mut self,
        list: &Path,
        split: Split,
        block: Vec<Line>,
        visit: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let wrong = |line: &Line, problem| DataError::Content {
            dataset: self.manifest.name.clone(),
            place: format!("{}, line {}", shown(list), line.number),
            problem,
        };
        let names = block
            .iter()
            .map(|line| below(&line.path).map_err(|p| wrong(line, p)));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let paths = self.files.find(&names)?;
        for ((line, name), path) in block.iter().zip(&names).zip(paths) {
            let label = line.label.map_or(Label::Unknown, Label::Number);
            let (label, class_name) = self.classes.of(label).map_err(|p| wrong(line, p))?;
            visit(Found::Image(ImageRecord {
                image_key: image_key(&self.manifest.name, split.name(), &key_of(name))
                    .map_err(DataError::from)?,
                source: Source::found(&path),
                split,
                label,
                class_name,
            }))?;
        }
        Ok(())
    }
}

/// Path and label of a line that is not blank; an error says what is wrong with it.
fn parse_line<'a>(text: &'a str, key: &str) -> Result<(&'a str, Option<i64>), String> {
    if let Some(start) = text.find('{') {
        let path = text[..start].trim_end();
        if path.is_empty() {
            return Err("no path before the dictionary".to_string());
        }
        return Ok((path, Some(in_dictionary(&text[start..], key)?)));
    }
    let Some((path, last)) = text.rsplit_once(char::is_whitespace) else {
        return Ok((text, None));
    };
    if let Ok(label) = last.parse() {
        return Ok((path.trim_end(), Some(label)));
    }
    // A path with blanks and without a label ends like a file.
    match last.contains('.') && last.parse::<f64>().is_err() {
        true => Ok((text, None)),
        false => Err(format!(
            "found `{last}` behind the path, expected a label such as 12 or -1"
        )),
    }
}

/// The value of a key in a dictionary, as Python or JSON writes it.
fn in_dictionary(text: &str, key: &str) -> Result<i64, String> {
    let json = text.replace('\'', "\"");
    let wrong = || format!("found `{text}`, expected a dictionary such as {{\"{key}\": 12}}");
    let value: serde_json::Value = serde_json::from_str(&json).map_err(|_| wrong())?;
    let label = value.get(key).ok_or_else(|| {
        let keys = value.as_object().into_iter().flat_map(|o| o.keys());
        let keys: Vec<String> = keys.map(|key| format!("`{key}`")).collect();
        format!(
            "no key `{key}` in the dictionary, found {}; name another with `columns.label`",
            keys.join(", ")
        )
    })?;
    label.as_i64().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_is_read() {
        let mos = "a/b.jpg { \"group_label\": 3 ,\"class_label\": 7 }";
        for (line, expected) in [
            ("a/b.jpg 12", ("a/b.jpg", Some(12))),
            ("a/b.jpg -1", ("a/b.jpg", Some(-1))),
            ("a/b.jpg\t12", ("a/b.jpg", Some(12))),
            ("a/b.jpg", ("a/b.jpg", None)),
            ("my photos/b c.jpg 12", ("my photos/b c.jpg", Some(12))),
            ("my photos/b c.jpg", ("my photos/b c.jpg", None)),
            (mos, ("a/b.jpg", Some(7))),
            ("a/b.jpg {'class_label': -1}", ("a/b.jpg", Some(-1))),
        ] {
            assert_eq!(parse_line(line, CLASS).unwrap(), expected, "{line}");
        }
        assert_eq!(parse_line(mos, "group_label").unwrap().1, Some(3));
        for (line, said) in [
            ("a/b.jpg cat", "expected a label"),
            ("a/b.jpg 1.5", "expected a label"),
            ("a/b.jpg {1: 2", "expected a dictionary"),
            ("a/b.jpg {\"label\": 2}", "found `label`"),
            ("a/b.jpg {\"class_label\": \"x\"}", "expected a dictionary"),
            ("{\"class_label\": 1}", "no path"),
        ] {
            let error = parse_line(line, CLASS).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}

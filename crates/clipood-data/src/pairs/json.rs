//! Pairs in JSON: COCO's captions, the splits of Karpathy, and lists of objects, whole or one per line.

use std::collections::HashMap;
use std::path::Path;

use clipood_core::files::read_file;
use clipood_core::text_file::decode_text;
use serde_json::{Map, Value};

use super::{CAPTIONS, IMAGES, PairColumns, PairImage, PairRow, column, filled, wrong};
use crate::error::DataError;

/// Most bytes of a file.
const LONGEST: u64 = 2 << 30;
/// What such a file may be, for messages.
const EXPECTED: &str = "expected a list of objects with an image and captions, COCO's `images` and `annotations`, or `images` with `sentences`";

pub(super) fn of_json(path: &Path, columns: &PairColumns) -> Result<Vec<PairRow>, DataError> {
    let bytes = read_file(path, LONGEST).map_err(|source| DataError::Io {
        path: path.to_path_buf(),
        source,
    })?;
    let origin = path.display().to_string();
    let text = decode_text(bytes, &origin).map_err(|problem| wrong(path, problem))?;
    let rows = match serde_json::from_str(&text) {
        Ok(Value::Object(file)) => of_object(file, columns),
        Ok(Value::Array(entries)) => of_objects(&entries, columns),
        Ok(_) => Err(EXPECTED.to_owned()),
        Err(whole) => match lines(&text) {
            Ok(entries) => of_objects(&entries, columns),
            // A file whose first line is an object has one per line.
            Err((number, problem)) if number > 1 => Err(format!("line {number}: {problem}")),
            Err(_) => Err(whole.to_string()),
        },
    };
    rows.map_err(|problem| wrong(path, problem))
}

fn of_object(file: Map<String, Value>, columns: &PairColumns) -> Result<Vec<PairRow>, String> {
    match (objects(&file, "images"), objects(&file, "annotations")) {
        (Some(images), Some(captions)) => of_coco(images, captions),
        (Some(images), None) => of_karpathy(images),
        (None, _) => match by_column(&file) {
            Some(entries) => of_objects(&entries, columns),
            // One line of a file with one object per line.
            None => of_objects(&[Value::Object(file)], columns),
        },
    }
}

/// The list of objects below a key.
fn objects<'a>(file: &'a Map<String, Value>, key: &str) -> Option<&'a [Value]> {
    let list = file.get(key)?.as_array()?;
    list.iter().all(Value::is_object).then_some(list)
}

/// Entries from columns, as pandas writes them: objects or lists of as many values each.
fn by_column(file: &Map<String, Value>) -> Option<Vec<Value>> {
    let keys: Vec<String> = match file.values().next()? {
        Value::Object(first) => {
            let mut keys: Vec<String> = first.keys().cloned().collect();
            // pandas' index: "10" stands behind "9".
            keys.sort_by_key(|key| key.parse::<u64>().unwrap_or(u64::MAX));
            keys
        }
        Value::Array(first) => (0..first.len()).map(|row| row.to_string()).collect(),
        _ => return None,
    };
    let is_column = |value: &Value| match value {
        Value::Object(column) => {
            column.len() == keys.len() && keys.iter().all(|k| column.contains_key(k))
        }
        Value::Array(column) => column.len() == keys.len(),
        _ => false,
    };
    if !file.values().all(is_column) {
        return None;
    }
    let cell = |column: &Value, row: usize| match column {
        Value::Array(column) => column[row].clone(),
        column => column[keys[row].as_str()].clone(),
    };
    let entry = |row: usize| {
        let cells = file
            .iter()
            .map(|(name, column)| (name.clone(), cell(column, row)));
        Value::Object(cells.collect())
    };
    Some((0..keys.len()).map(entry).collect())
}

/// One object per line; blank lines are passed over.
fn lines(text: &str) -> Result<Vec<Value>, (usize, serde_json::Error)> {
    let filled = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line)| serde_json::from_str(line).map_err(|error| (number, error));
    filled.map(read).collect()
}

/// Objects with an image and a caption, or a list of captions, under the names of columns.
fn of_objects(entries: &[Value], columns: &PairColumns) -> Result<Vec<PairRow>, String> {
    let mut names: Vec<&str> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let Value::Object(entry) = entry else {
            return Err(format!("entry {number}: {EXPECTED}"));
        };
        // Keys of the first objects: all have the same, or leave some out.
        if number < 100 {
            let new = entry.keys().map(String::as_str);
            let new: Vec<&str> = new.filter(|key| !names.contains(key)).collect();
            names.extend(new);
        }
    }
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let image = names[column(columns.image.as_deref(), &IMAGES, "images", &names)?];
    let caption = names[column(columns.caption.as_deref(), &CAPTIONS, "captions", &names)?];
    let rows = entries.iter().enumerate().map(|(number, entry)| PairRow {
        number: number as u64,
        image: named(&entry[image]),
        captions: texts(&entry[caption]),
    });
    Ok(rows.collect())
}

/// COCO: images with a number and a name, annotations with the number of their image and a caption.
fn of_coco(images: &[Value], annotations: &[Value]) -> Result<Vec<PairRow>, String> {
    let mut names = HashMap::new();
    for (number, image) in images.iter().enumerate() {
        let (Some(id), Some(name)) = (id(&image["id"]), image["file_name"].as_str()) else {
            return Err(format!(
                "image {number}: expected an `id` and a `file_name`"
            ));
        };
        names.insert(id, name);
    }
    if annotations.iter().all(|one| one["caption"].is_null()) && !annotations.is_empty() {
        return Err("no annotation has a `caption`: is it COCO's file of objects?".to_owned());
    }
    let row = |(number, annotation): (usize, &Value)| {
        let name = id(&annotation["image_id"]).and_then(|id| names.get(&id));
        match name {
            Some(name) => Ok(PairRow {
                number: number as u64,
                image: filled(name).map(PairImage::Named),
                captions: texts(&annotation["caption"]),
            }),
            None => Err(format!(
                "annotation {number}: `image_id` {} is none of the {} images",
                annotation["image_id"],
                names.len()
            )),
        }
    };
    annotations.iter().enumerate().map(row).collect()
}

/// The files of Karpathy's splits: images with a folder, a name and sentences.
fn of_karpathy(images: &[Value]) -> Result<Vec<PairRow>, String> {
    let row = |(number, image): (usize, &Value)| {
        let (Some(name), Some(sentences)) =
            (image["filename"].as_str(), image["sentences"].as_array())
        else {
            return Err(format!(
                "image {number}: expected a `filename` and `sentences`"
            ));
        };
        let path = match image["filepath"].as_str() {
            Some(folder) if !folder.is_empty() => format!("{folder}/{name}"),
            _ => name.to_owned(),
        };
        Ok(PairRow {
            number: number as u64,
            image: filled(&path).map(PairImage::Named),
            captions: sentences
                .iter()
                .flat_map(|one| texts(&one["raw"]))
                .collect(),
        })
    };
    images.iter().enumerate().map(row).collect()
}

/// A number or a text as the name of an image.
fn id(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn named(value: &Value) -> Option<PairImage> {
    value.as_str().and_then(filled).map(PairImage::Named)
}

/// The texts of a caption, or of a list of captions, that are not empty.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => filled(text).into_iter().collect(),
        Value::Array(all) => all
            .iter()
            .filter_map(Value::as_str)
            .filter_map(filled)
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::PairRows;
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let found = PairRows::read(&path, &PairColumns::default()).map_err(|e| e.to_string())?;
        let rows = found.rows.iter().map(|row| {
            let image = match &row.image {
                Some(PairImage::Named(name)) => name.clone(),
                _ => String::new(),
            };
            (image, row.captions.join("+"))
        });
        Ok(rows.collect())
    }

    fn pairs(all: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let owned = |(image, captions): &(&str, &str)| ((*image).into(), (*captions).into());
        Ok(all.iter().map(owned).collect())
    }

    #[test]
    fn captions_of_coco_name_their_images_by_number() {
        let text = r#"{"info": {}, "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 4, "file_name": "4.jpg"}],
            "annotations": [{"image_id": 4, "id": 1, "caption": "a dog\n"}, {"image_id": 9, "id": 2, "caption": "two cats"}]}"#;
        let expected = [("4.jpg", "a dog"), ("9.jpg", "two cats")];
        assert_eq!(read("c.json", text), pairs(&expected));
        let error = read(
            "c.json",
            &text.replace("\"image_id\": 4", "\"image_id\": 5"),
        );
        assert!(
            error
                .unwrap_err()
                .contains("annotation 0: `image_id` 5 is none of the 2")
        );
        let error = read("c.json", &text.replace("caption", "bbox"));
        assert!(error.unwrap_err().contains("no annotation has a `caption`"));
    }

    #[test]
    fn splits_of_karpathy_hold_sentences() {
        let text = r#"{"images": [{"filepath": "val2014", "filename": "a.jpg", "split": "test",
            "sentences": [{"raw": "one"}, {"raw": "two"}]}, {"filename": "b.jpg", "sentences": []}], "dataset": "coco"}"#;
        assert_eq!(
            read("k.json", text),
            pairs(&[("val2014/a.jpg", "one+two"), ("b.jpg", "")])
        );
    }

    #[test]
    fn lists_of_objects_are_read_whole_and_by_line() {
        let expected = [("a.jpg", "one+two"), ("b.jpg", "three"), ("", "")];
        let whole = r#"[{"image": "a.jpg", "caption": ["one", "two"]}, {"image": "b.jpg", "caption": "three"}, {"id": 1}]"#;
        assert_eq!(read("b.json", whole), pairs(&expected));
        let lines = "{\"image\": \"a.jpg\", \"text\": [\"one\", \"two\"]}\r\n{\"image\": \"b.jpg\", \"text\": \"three\"}\n\n{}\n";
        assert_eq!(read("b.jsonl", lines), pairs(&expected));
        assert_eq!(read("b.JSON", lines), pairs(&expected));
        let one = "{\"image\": \"a.jpg\", \"text\": \"x\", \"meta\": {\"w\": 1}}\n";
        assert_eq!(read("b.jsonl", one), pairs(&[("a.jpg", "x")]));
    }

    #[test]
    fn columns_of_pandas_are_read() {
        let whole = |n: usize| {
            let column = |word: &str| {
                let cells = (0..n).map(|i| format!("\"{i}\": \"{word}{i}\""));
                cells.collect::<Vec<_>>().join(", ")
            };
            format!(
                "{{\"image\": {{{}}}, \"caption\": {{{}}}}}",
                column("a"),
                column("c")
            )
        };
        let found = read("p.json", &whole(12)).unwrap();
        assert_eq!(found.len(), 12);
        assert_eq!(found[10], ("a10".to_owned(), "c10".to_owned()));
        let lists = r#"{"image": ["a", "b"], "caption": ["x", ["y", "z"]]}"#;
        assert_eq!(read("p.json", lists), pairs(&[("a", "x"), ("b", "y+z")]));
    }

    #[test]
    fn what_is_no_list_of_pairs_is_refused_in_words() {
        for (text, word) in [
            ("[]", "holds no pair"),
            ("{}", "no column of images"),
            (
                "{\"a\": {\"b\": 1}, \"c\": 2}",
                "no column of images: found a, c",
            ),
            ("3", "expected a list of objects"),
            ("[3]", "entry 0"),
            (
                "[{\"image\": \"a\", \"label\": 1}]",
                "no column of captions: found image, label",
            ),
            ("{\"image\": 1,", "EOF"),
            (
                "{\"image\": \"a\", \"text\": \"b\"}\n{\"image\"",
                "line 2: ",
            ),
            ("{\"images\": [{}]}", "image 0: expected a `filename`"),
            (
                "{\"images\": [{}], \"annotations\": []}",
                "image 0: expected an `id`",
            ),
            ("", "holds no pair"),
        ] {
            let error = read("x.json", text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}

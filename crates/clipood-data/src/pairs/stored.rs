//! Pairs in Parquet files and in WebDataset's archives, which may hold the images themselves.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};

use super::{CAPTIONS, IMAGES, PairColumns, PairImage, PairRow, column, filled, wrong};
use crate::error::DataError;
use crate::layouts::{Beside, image_column, index};
use crate::source::{At, Source};
use crate::table::Table;
use crate::uri::uri_of;

/// Images that are bytes in a column, or named in one.
enum Images {
    /// Path of the column of bytes.
    Bytes(String),
    /// Place of the column of names.
    Names(usize),
}

/// The pairs of a Parquet file. A caption may be a list of captions, as Flickr's on the hub.
pub(super) fn of_parquet(path: &Path, columns: &PairColumns) -> Result<Vec<PairRow>, DataError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        ErrorKind::InvalidInput => wrong(path, format!("no readable Parquet file: {source}")),
        _ => DataError::Io {
            path: path.to_path_buf(),
            source,
        },
    };
    let table = Table::open(path).map_err(unreadable)?;
    let schema = table.metadata().schema().clone();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let place = |named: &Option<String>, usual: &[&str], what: &str| {
        column(named.as_deref(), usual, what, &names).map_err(|problem| wrong(path, problem))
    };
    let caption = place(&columns.caption, &CAPTIONS, "captions")?;
    // Without a name a column of bytes may also hold hashes or embeddings: one with a usual heading comes first.
    let usual = column(None, &IMAGES, "images", &names).ok();
    let wanted = columns.image.as_deref().or(usual.map(|place| names[place]));
    let images = match image_column(&schema, wanted) {
        Ok((_, bytes)) => Images::Bytes(bytes),
        Err(_) => Images::Names(place(&columns.image, &IMAGES, "images")?),
    };
    let mut roots = vec![caption];
    if let Images::Names(place) = images {
        roots.push(place);
    }
    let uri = uri_of(path);
    let mut rows = Vec::new();
    let read = table.for_each_batch(&roots, |first, batch| {
        let array = |place: usize| {
            batch
                .column_by_name(names[place])
                .ok_or_else(|| wrong(path, format!("no column `{}`", names[place])))
        };
        let texts = |place: usize| {
            cast(array(place)?, &DataType::Utf8)
                .map(|array| array.as_string::<i32>().clone())
                .map_err(|error| wrong(path, format!("column `{}`: {error}", names[place])))
        };
        let captions = captions(array(caption)?)
            .map_err(|error| wrong(path, format!("column `{}`: {error}", names[caption])))?;
        let named = match images {
            Images::Names(place) => Some(texts(place)?),
            Images::Bytes(_) => None,
        };
        for (row, captions) in captions.into_iter().enumerate() {
            let number = first + row as u64;
            let image = match (&images, &named) {
                (Images::Bytes(column), _) => Some(PairImage::Stored(Source {
                    uri: uri.clone(),
                    at: At::Row {
                        column: column.clone(),
                        row: number,
                    },
                })),
                (Images::Names(_), named) => named
                    .as_ref()
                    .and_then(|names| text_at(names, row))
                    .map(PairImage::Named),
            };
            rows.push(PairRow {
                number,
                image,
                captions,
            });
        }
        Ok::<(), DataError>(())
    });
    read.map_err(unreadable)??;
    Ok(rows)
}

/// The captions of each row of a column of texts, or of lists of texts.
fn captions(array: &ArrayRef) -> Result<Vec<Vec<String>>, arrow::error::ArrowError> {
    let is_list = matches!(
        array.data_type(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
    );
    if !is_list {
        let texts = cast(array, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let rows = (0..texts.len()).map(|row| text_at(texts, row).into_iter().collect());
        return Ok(rows.collect());
    }
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let lists = cast(array, &DataType::List(item))?;
    let lists = lists.as_list::<i32>();
    let of_row = |row: usize| {
        if lists.is_null(row) {
            return Vec::new();
        }
        let texts = lists.value(row);
        let texts = texts.as_string::<i32>();
        (0..texts.len()).filter_map(|i| text_at(texts, i)).collect()
    };
    Ok((0..lists.len()).map(of_row).collect())
}

fn text_at(texts: &StringArray, row: usize) -> Option<String> {
    (!texts.is_null(row))
        .then(|| filled(texts.value(row)))
        .flatten()
}

/// The pairs of a tar file: the image of a sample, and its caption from `NAME.txt` or a key of `NAME.json`.
pub(super) fn of_archive(path: &Path, columns: &PairColumns) -> Result<Vec<PairRow>, DataError> {
    if let Some(name) = &columns.image {
        let problem = format!(
            "the image of a sample is the file named as one, so the column `{name}` of images means nothing in an archive"
        );
        return Err(wrong(path, problem));
    }
    let index = index(path, Beside::Caption(columns.caption.as_deref()));
    let index = index.map_err(|source| match source.kind() {
        ErrorKind::InvalidData => wrong(path, source),
        _ => DataError::Io {
            path: path.to_path_buf(),
            source,
        },
    })?;
    let uri = uri_of(path);
    let rows: Vec<PairRow> = (0..)
        .zip(index.samples)
        .map(|(number, sample)| PairRow {
            number,
            image: sample.image.map(|(_, range)| {
                PairImage::Stored(Source {
                    uri: uri.clone(),
                    at: At::Bytes(range),
                })
            }),
            captions: sample
                .caption
                .as_deref()
                .and_then(filled)
                .into_iter()
                .collect(),
        })
        .collect();
    if rows.iter().all(|row| row.captions.is_empty()) {
        let problem = match &columns.caption {
            Some(name) => format!("no sample has a file `NAME.{name}` or a key `{name}` in `NAME.json`"),
            None => "no sample has a caption, expected `NAME.txt`, or `caption`, `text` or `title` in `NAME.json`".to_owned(),
        };
        return Err(wrong(path, problem));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, ListBuilder, RecordBatch, StringBuilder};
    use parquet::arrow::ArrowWriter;

    use super::super::PairRows;
    use super::*;

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn parquet_files_name_images_or_hold_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("named.parquet");
        let texts = |values: Vec<Option<&str>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
        let (urls, titles) = (
            texts(vec![Some("a.jpg"), None]),
            texts(vec![Some(" a dog "), Some("")]),
        );
        write(&path, vec![("url", urls), ("TITLE", titles)]);
        let found = PairRows::read(&path, &PairColumns::default()).unwrap();
        assert_eq!(
            found.rows[0].image,
            Some(PairImage::Named("a.jpg".to_owned()))
        );
        assert_eq!(found.rows[0].captions, ["a dog"]);
        assert_eq!(
            (&found.rows[1].image, found.rows[1].captions.len()),
            (&None, 0)
        );
        assert_eq!(found.place(&found.rows[1]), "row 1");

        let path = folder.path().join("held.parquet");
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("one"), None, Some("two")]);
        lists.append_null();
        let bytes = BinaryArray::from(vec![&b"x"[..], &b"y"[..]]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("image", Arc::new(bytes)),
            ("caption", Arc::new(lists.finish())),
        ];
        write(&path, columns);
        let found = PairRows::read(&path, &PairColumns::default()).unwrap();
        assert_eq!(found.rows[0].captions, ["one", "two"]);
        assert!(found.rows[1].captions.is_empty());
        let Some(PairImage::Stored(source)) = &found.rows[1].image else {
            panic!("the image is a row of the file")
        };
        let read = crate::source::read(source, &crate::source::Roots::default()).unwrap();
        assert_eq!(read, b"y");
        let named = PairColumns {
            image: Some("picture".to_owned()),
            caption: None,
        };
        let message = PairRows::read(&path, &named).unwrap_err().to_string();
        assert!(
            message.contains("no column `picture` of images"),
            "{message}"
        );
    }

    #[test]
    fn archives_hold_captions_as_text_or_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        add("0.jpg", b"first");
        add("0.txt", b"a dog\n");
        add(
            "0.json",
            br#"{"caption": "not this one", "alt": "of json"}"#,
        );
        add("1.json", br#"{"caption": "a cat"}"#);
        add("1.png", b"second");
        add("2.jpg", b"third");
        tar.finish().unwrap();
        drop(tar);
        let captions = |columns: &PairColumns| {
            let found = PairRows::read(&path, columns).map_err(|error| error.to_string())?;
            let captions = found.rows.iter().map(|row| row.captions.join("+"));
            Ok::<Vec<String>, String>(captions.collect())
        };
        assert_eq!(
            captions(&PairColumns::default()).unwrap(),
            ["a dog", "a cat", ""]
        );
        let named = |name: &str| PairColumns {
            image: None,
            caption: Some(name.to_owned()),
        };
        assert_eq!(captions(&named("alt")).unwrap(), ["of json", "", ""]);
        let message = captions(&named("title")).unwrap_err();
        assert!(
            message.contains("no sample has a file `NAME.title`"),
            "{message}"
        );
    }
}

//! Writers of the files that layouts read, by the crates that others write them with.

// Each test uses some of them.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

/// A picture of 2 x 2 pixels in one shade.
pub fn ppm(shade: u8) -> Vec<u8> {
    let mut file = b"P6\n2 2\n255\n".to_vec();
    file.extend([shade; 12]);
    file
}

/// A column of a Parquet file.
#[derive(Clone, Copy)]
pub enum Column<'a> {
    /// `struct<bytes, path>`, as `datasets` writes images.
    Image(&'a str, &'a [Option<Vec<u8>>]),
    Bytes(&'a str, &'a [Option<Vec<u8>>]),
    Numbers(&'a str, &'a [i64]),
    Words(&'a str, &'a [&'a str]),
}

/// Writes a file of two row groups, with the metadata of `datasets`.
pub fn write_parquet(path: &Path, columns: &[Column<'_>], metadata: Option<&str>) {
    let binary = |bytes: &[Option<Vec<u8>>]| -> ArrayRef {
        Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>())
    };
    let array = |column: &Column<'_>| -> (String, ArrayRef) {
        match column {
            Column::Image(name, images) => {
                let fields = Fields::from(vec![
                    Field::new("bytes", DataType::Binary, true),
                    Field::new("path", DataType::Utf8, true),
                ]);
                let paths: ArrayRef =
                    Arc::new(StringArray::from(vec![Some("x.png"); images.len()]));
                let of = StructArray::new(fields, vec![binary(images), paths], None);
                (name.to_string(), Arc::new(of))
            }
            Column::Bytes(name, images) => (name.to_string(), binary(images)),
            Column::Numbers(name, numbers) => (
                name.to_string(),
                Arc::new(Int64Array::from(numbers.to_vec())),
            ),
            Column::Words(name, words) => (
                name.to_string(),
                Arc::new(StringArray::from(words.to_vec())),
            ),
        }
    };
    let batch = RecordBatch::try_from_iter(columns.iter().map(array)).unwrap();
    let pairs =
        metadata.map(|text| vec![KeyValue::new("huggingface".to_string(), text.to_string())]);
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2))
        .set_key_value_metadata(pairs)
        .build();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Writes a tar file.
pub fn write_tar(path: &Path, files: &[(&str, &[u8])]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap();
}

/// Records of the binary version of CIFAR.
pub struct Cifar;

impl Cifar {
    /// CIFAR-10, one record per label.
    pub fn ten(labels: &[u8]) -> Vec<u8> {
        let records = labels.iter().zip(0..);
        records
            .flat_map(|(label, image)| [vec![*label], planes(image)].concat())
            .collect()
    }

    /// CIFAR-100, one record per coarse and fine label.
    pub fn hundred(labels: &[(u8, u8)]) -> Vec<u8> {
        let records = labels.iter().zip(0..);
        records
            .flat_map(|((coarse, fine), image)| [vec![*coarse, *fine], planes(image)].concat())
            .collect()
    }

    /// The first `count` pixels of an image, interleaved.
    pub fn pixels(image: u8, count: usize) -> Vec<u8> {
        let planes = planes(image);
        (0..count)
            .flat_map(|i| [planes[i], planes[1024 + i], planes[2048 + i]])
            .collect()
    }
}

fn planes(image: u8) -> Vec<u8> {
    (0..3 * 1024_usize)
        .map(|i| (i * 7 + i / 1024 * 31) as u8 ^ image)
        .collect()
}

//! Wrong tables are errors that name file, column, expected and found.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float32Array, Int16Array, Int32Array, RecordBatch,
    StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use bytes::Bytes;
use clipood_pipeline::tables::*;
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

/// The metadata that every table of `rows` rows has.
fn own_metadata(rows: usize) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("clipood.schema_version", "1".to_owned()),
        ("clipood.fingerprint", "f".to_owned()),
        ("clipood.recipe", "r".to_owned()),
        ("clipood.rows", rows.to_string()),
        ("clipood.quarantined", "0".to_owned()),
        ("clipood.quarantine", "[]".to_owned()),
    ])
}

/// A Parquet file that this crate's writers would not make.
fn forge(columns: &[(&str, ArrayRef)], metadata: &BTreeMap<&'static str, String>) -> Bytes {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.iter().map(|(_, array)| array.clone()).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let pairs = metadata
        .iter()
        .map(|(k, v)| KeyValue::new((*k).to_owned(), v.clone()));
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(pairs.collect()))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    Bytes::from(bytes)
}

fn words(word: &str) -> ArrayRef {
    Arc::new(
        [Some(word)]
            .into_iter()
            .collect::<DictionaryArray<Int32Type>>(),
    )
}

fn texts(text: Option<&str>) -> ArrayRef {
    Arc::new(StringArray::from(vec![text]))
}

type Columns = Vec<(&'static str, ArrayRef)>;

/// The columns of an images table of one row.
fn image_columns() -> Columns {
    vec![
        ("image_key", texts(Some("a/test/1"))),
        ("uri", texts(Some("/1"))),
        ("offset", Arc::new(UInt64Array::from(vec![None]))),
        ("length", Arc::new(UInt64Array::from(vec![Some(3)]))),
        ("content_hash", texts(Some("00"))),
        ("split", words("test")),
        ("label", Arc::new(UInt32Array::from(vec![Some(1)]))),
        ("class_name", words("cat")),
        ("shard", Arc::new(UInt32Array::from(vec![0]))),
    ]
}

fn error<T: std::fmt::Debug>(result: Result<T, TableError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn further_columns_are_passed_over() {
    let mut columns = image_columns();
    columns.push(("note", texts(Some("by hand"))));
    let rows = read_images(forge(&columns, &own_metadata(1)), "i.parquet").unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].class_name.as_deref(), Some("cat"));
    assert_eq!(
        (rows[0].offset, rows[0].length, rows[0].label),
        (None, Some(3), Some(1))
    );
}

#[test]
fn wrong_columns_are_named() {
    let forged = |change: &dyn Fn(&mut Columns)| {
        let mut columns = image_columns();
        change(&mut columns);
        error(read_images(forge(&columns, &own_metadata(1)), "i.parquet"))
    };
    assert_eq!(
        forged(&|columns| drop(columns.remove(1))),
        "i.parquet: column `uri`: expected Utf8, found no such column"
    );
    assert_eq!(
        forged(&|columns| columns[6].1 = texts(Some("1"))),
        "i.parquet: column `label`: expected UInt32, found Utf8"
    );
    assert_eq!(
        forged(&|columns| columns[0].1 = texts(None)),
        "i.parquet: column `image_key`: expected no null, found 1 nulls in a batch of 1"
    );
    let empty_images = Bytes::from(write_images(&[], &FileMeta::default()).unwrap());
    assert_eq!(
        error(read_ood(empty_images, "ood.parquet")),
        "ood.parquet: column `prompt`: expected Dictionary(Int32, Utf8), found no such column"
    );
}

#[test]
fn wrong_metadata_is_named() {
    let with = |key: &'static str, value: Option<&str>| {
        let mut metadata = own_metadata(1);
        match value {
            Some(value) => metadata.insert(key, value.to_owned()),
            None => metadata.remove(key),
        };
        let bytes = forge(&image_columns(), &metadata);
        let footer = error(read_footer(&bytes, "i.parquet"));
        assert!(store_footer(&bytes).is_none());
        assert_eq!(error(read_images(bytes, "i.parquet")), footer);
        footer
    };
    assert_eq!(
        with("clipood.fingerprint", None),
        "i.parquet: metadata `clipood.fingerprint`: expected a value, found none"
    );
    assert_eq!(
        with("clipood.schema_version", Some("2")),
        "i.parquet: metadata `clipood.schema_version`: expected at most 1 (a newer clipood wrote the file), found 2"
    );
    assert_eq!(
        with("clipood.rows", Some("7")),
        "i.parquet: metadata `clipood.rows`: expected the file's 1 rows, found 7"
    );
    assert_eq!(
        with("clipood.rows", Some("many")),
        "i.parquet: metadata `clipood.rows`: expected a whole number, found `many`"
    );
    assert_eq!(
        with("clipood.quarantined", Some("1")),
        "i.parquet: metadata `clipood.quarantined`: expected the 0 listed rows, found 1"
    );
    assert!(with("clipood.quarantine", Some("[{}]")).starts_with(
        "i.parquet: metadata `clipood.quarantine`: expected a JSON list of rows, found"
    ));
}

#[test]
fn a_foreign_file_is_no_part() {
    let foreign = forge(&image_columns(), &BTreeMap::new());
    assert!(store_footer(&foreign).is_none());
    assert_eq!(
        error(read_images(foreign, "theirs.parquet")),
        "theirs.parquet: metadata `clipood.schema_version`: expected a value, found none"
    );
    let text = Bytes::from_static(b"image_key,uri\na,b\n");
    assert_eq!(
        error(read_images(text, "i.csv")),
        "i.csv: not a readable Parquet file"
    );
}

#[test]
fn keys_of_the_table_itself_are_refused_as_extra() {
    for key in ["clipood.rows", "clipood.dim", "ARROW:schema"] {
        let meta = FileMeta {
            extra: BTreeMap::from([(key.to_owned(), "1".to_owned())]),
            ..FileMeta::default()
        };
        assert_eq!(
            error(write_global(&global(), GlobalType::F32, &meta)),
            format!(
                "global feature table: metadata `{key}`: expected a key that the table does not write itself, found the same key"
            )
        );
    }
}

#[test]
fn an_unknown_role_is_named() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("image_key", texts(Some("a/test/1"))),
        ("split", words("test")),
        ("role", words("maybe")),
        ("label", Arc::new(Int32Array::from(vec![None]))),
        ("class_name", words("cat")),
        ("pred", Arc::new(Int32Array::from(vec![0]))),
        ("pred_name", words("dog")),
        ("prob", Arc::new(Float32Array::from(vec![0.5]))),
    ];
    assert_eq!(
        error(read_scores(forge(&columns, &own_metadata(1)), "s.parquet")),
        "s.parquet: column `role`: expected `id` or `ood`, found `maybe`"
    );
    let mut wrong = columns;
    wrong[2].1 = words("id");
    wrong.push(("score_mcm", texts(Some("high"))));
    assert_eq!(
        error(read_scores(forge(&wrong, &own_metadata(1)), "s.parquet")),
        "s.parquet: column `score_mcm`: expected Float32, found Utf8"
    );
}

pub fn global() -> GlobalFeatures {
    GlobalFeatures {
        keys: (0..12).map(|i| format!("k{i}")).collect(),
        views: vec![-1; 12],
        content_hashes: vec!["h".into(); 12],
        dim: 4,
        values: (0..48).map(|i| i as f32).collect(),
    }
}

pub fn local() -> LocalFeatures {
    LocalFeatures {
        keys: (0..12).map(|i| format!("k{i}")).collect(),
        views: vec![-1; 12],
        patches: 2,
        dim: 4,
        values: (0..96).map(|i| f16::from_f32(i as f32)).collect(),
    }
}

pub fn scores() -> Scores {
    let row = ScoreRow {
        image_key: "k".into(),
        pred_name: "cat".into(),
        ..ScoreRow::default()
    };
    let column = |name: &str| DetectorScores {
        detector: name.into(),
        values: Some(vec![0.25; 12]),
    };
    Scores {
        rows: vec![row; 12],
        detectors: vec![column("mcm"), column("msp")],
    }
}

#[test]
fn arrays_that_do_not_fit_together_are_not_written() {
    let meta = FileMeta::default();
    let write = |change: fn(&mut GlobalFeatures)| {
        let mut features = global();
        change(&mut features);
        error(write_global(&features, GlobalType::F16, &meta))
    };
    assert_eq!(
        write(|f| f.views.truncate(11)),
        "global feature table: column `view`: expected 12 values, as `image_key`, found 11"
    );
    assert_eq!(
        write(|f| f.content_hashes.truncate(11)),
        "global feature table: column `content_hash`: expected 12 values, as `image_key`, found 11"
    );
    assert_eq!(
        write(|f| f.dim = 5),
        "global feature table: column `global`: expected 12 rows of 5 values, found 48 values"
    );
    assert_eq!(
        write(|f| f.values[7] = 70000.0),
        "global feature table: column `global`: expected values in f16's range, -65504 to 65504, found 70000"
    );
    assert!(write(|f| f.dim = 0).contains("found 1 patches of 0 values"));
    assert!(write(|f| f.dim = usize::MAX).contains("expected rows of 2 bytes to 2 GiB"));

    let features = LocalFeatures { dim: 5, ..local() };
    assert_eq!(
        error(write_local(&features, &meta)),
        "local feature table: column `local`: expected 12 rows of 10 values, found 96 values"
    );
    let mut twice = scores();
    twice.detectors[1].detector = "mcm".into();
    assert_eq!(
        error(write_scores(&twice, &meta)),
        "scores table: column `score_mcm`: expected one such column, found two"
    );
    let mut short = scores();
    short.detectors[1].values.as_mut().unwrap().pop();
    assert_eq!(
        error(write_scores(&short, &meta)),
        "scores table: column `score_msp`: expected 12 values, found 11"
    );
}

#[test]
fn features_whose_shape_is_not_the_metadatas_are_refused() {
    let forged = |name: &'static str, dim: &str, array: ArrayRef| {
        let mut metadata = own_metadata(array.len());
        metadata.insert("clipood.dim", dim.to_owned());
        metadata.insert("clipood.patches", "2".to_owned());
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("image_key", texts(Some("k"))),
            ("view", Arc::new(Int16Array::from(vec![-1]))),
            ("content_hash", texts(Some("h"))),
            (name, array),
        ];
        forge(&columns, &metadata)
    };
    let lists = |items: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("element", items.data_type().clone(), true));
        let size = items.len() as i32;
        Arc::new(arrow::array::FixedSizeListArray::new(
            field, size, items, None,
        ))
    };
    let three = || lists(Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0])));
    let read = |dim: &str, array: ArrayRef| read_global(forged("global", dim, array), "g.parquet");
    assert_eq!(read("3", three()).unwrap().values, [1.0, 2.0, 3.0]);
    let message = error(read("4", three()));
    assert!(
        message.starts_with(
            "g.parquet: column `global`: expected FixedSizeList of 4 x Float16 or Float32, found FixedSizeList(3"
        ),
        "{message}"
    );
    let message = error(read("3", lists(Arc::new(Int32Array::from(vec![1, 2, 3])))));
    assert!(
        message.contains("found FixedSizeList(3 x Int32"),
        "{message}"
    );
    assert_eq!(
        error(read(
            "3",
            lists(Arc::new(Float32Array::from(vec![
                Some(1.0),
                None,
                Some(3.0)
            ])))
        )),
        "g.parquet: column `global`: expected lists without nulls, found nulls"
    );
    assert_eq!(
        error(read("wide", three())),
        "g.parquet: metadata `clipood.dim`: expected a whole number, found `wide`"
    );

    let binary = |value: &[u8]| -> ArrayRef {
        let values = std::iter::once(Some(value));
        let size = value.len() as i32;
        Arc::new(
            arrow::array::FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, size)
                .unwrap(),
        )
    };
    let read =
        |dim: &str, value: &[u8]| read_local(forged("local", dim, binary(value)), "l.parquet");
    let values = read("1", &[0, 0x3c, 0, 0x40]).unwrap().values;
    assert_eq!(values, [f16::from_f32(1.0), f16::from_f32(2.0)]);
    assert_eq!(
        error(read("3", &[0; 8])),
        format!(
            "l.parquet: column `local`: expected {}, found {}",
            DataType::FixedSizeBinary(12),
            DataType::FixedSizeBinary(8)
        )
    );
}

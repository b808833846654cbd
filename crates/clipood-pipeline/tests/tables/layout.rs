//! The layout that notebooks rely on: columns, types, encodings and pages.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;
use clipood_pipeline::tables::*;
use half::f16;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, PageType};
use parquet::file::reader::{FileReader, SerializedFileReader};

fn schema(bytes: Vec<u8>) -> Schema {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    reader.schema().as_ref().clone()
}

/// Column names; those of dictionary columns in brackets.
fn columns(bytes: Vec<u8>) -> String {
    let schema = schema(bytes);
    let name = |field: &arrow::datatypes::FieldRef| match field.data_type() {
        DataType::Dictionary(_, _) => format!("[{}]", field.name()),
        _ => field.name().clone(),
    };
    schema
        .fields()
        .iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn columns_are_the_documented_ones_even_without_rows() {
    let meta = FileMeta::default();
    assert_eq!(
        columns(write_images(&[], &meta).unwrap()),
        "image_key uri offset length content_hash [split] label [class_name] shard [form]"
    );
    assert_eq!(
        columns(write_quarantine(&[], &meta).unwrap()),
        "image_key uri [stage] [error_kind] message content_hash"
    );
    assert_eq!(
        columns(write_ood(&[], &meta).unwrap()),
        "[prompt] [method] shots seed [id_dataset] [ood_dataset] [detector] [selection] [scaling] \
         [hyperparameters] views [classes_hash] [weights_hash] n_id n_ood n_excluded auroc aupr_in aupr_out fpr95 fpr95_openood \
         aupr_in_openood aupr_out_openood threshold95 detection_accuracy balanced_accuracy ties \
         score_resolution auroc_lo \
         auroc_hi fpr95_lo fpr95_hi [notes]"
    );
    assert_eq!(
        columns(write_accuracy(&[], &meta).unwrap()),
        "[prompt] [method] shots seed [id_dataset] n top1 top5 ece views [classes_hash] [weights_hash]"
    );
    assert_eq!(
        columns(write_train_log(&[], &meta).unwrap()),
        "epoch step loss accuracy lr"
    );
    let scores = Scores {
        rows: Vec::new(),
        detectors: vec![DetectorScores {
            detector: "mcm".into(),
            values: None,
        }],
    };
    assert_eq!(
        columns(write_scores(&scores, &meta).unwrap()),
        "image_key [split] [role] label [class_name] pred [pred_name] prob score_mcm"
    );
}

fn few_features() -> (GlobalFeatures, LocalFeatures) {
    let keys: Vec<String> = (0..40).map(|i| format!("pets/test/{i:03}.png")).collect();
    let views = vec![-1; 40];
    let global = GlobalFeatures {
        keys: keys.clone(),
        views: views.clone(),
        content_hashes: vec!["ab".repeat(32); 40],
        dim: 8,
        values: vec![0.5; 40 * 8],
    };
    let local = LocalFeatures {
        keys,
        views,
        patches: 4,
        dim: 8,
        values: vec![f16::from_f32(0.5); 40 * 4 * 8],
    };
    (global, local)
}

#[test]
fn feature_tables_have_fixed_size_columns_and_say_their_shape() {
    let (global, local) = few_features();
    let meta = FileMeta {
        extra: BTreeMap::from([("clipood.model".to_owned(), "tiny".to_owned())]),
        ..FileMeta::default()
    };
    for (stored, name, expected) in [
        (GlobalType::F16, "f16", DataType::Float16),
        (GlobalType::F32, "f32", DataType::Float32),
    ] {
        let bytes = write_global(&global, stored, &meta).unwrap();
        let footer = read_footer(&Bytes::from(bytes.clone()), "part").unwrap();
        let extra = footer.meta.extra;
        assert_eq!(extra["clipood.model"], "tiny");
        assert_eq!(extra["clipood.dim"], "8");
        assert_eq!(extra["clipood.stored_dtype"], name);
        let schema = schema(bytes);
        match schema.field_with_name("global").unwrap().data_type() {
            DataType::FixedSizeList(item, 8) => assert_eq!(*item.data_type(), expected),
            other => panic!("global is {other}"),
        }
    }
    let bytes = write_local(&local, &meta).unwrap();
    let footer = read_footer(&Bytes::from(bytes.clone()), "part").unwrap();
    assert_eq!(footer.meta.extra["clipood.patches"], "4");
    assert_eq!(footer.meta.extra["clipood.dim"], "8");
    assert_eq!(
        *schema(bytes).field_with_name("local").unwrap().data_type(),
        DataType::FixedSizeBinary(64)
    );
}

#[test]
fn local_values_are_little_endian_halves() {
    let (_, mut local) = few_features();
    local.values[..2].copy_from_slice(&[f16::from_bits(0x1234), f16::from_bits(0xabcd)]);
    let bytes = Bytes::from(write_local(&local, &FileMeta::default()).unwrap());
    let mut batches = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap();
    let batch = batches.next().unwrap().unwrap();
    let column =
        arrow::array::AsArray::as_fixed_size_binary(batch.column_by_name("local").unwrap());
    assert_eq!(column.value(0)[..4], [0x34, 0x12, 0xcd, 0xab]);
}

#[test]
fn features_are_stored_plain_and_everything_else_is_compressed() {
    let (global, local) = few_features();
    let meta = FileMeta::default();
    for bytes in [
        write_global(&global, GlobalType::F16, &meta).unwrap(),
        write_global(&global, GlobalType::F32, &meta).unwrap(),
        write_local(&local, &meta).unwrap(),
    ] {
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        let group = reader.get_row_group(0).unwrap();
        let columns = group.metadata().columns();
        for (i, column) in columns.iter().enumerate() {
            if i + 1 < columns.len() {
                assert_eq!(
                    column.compression(),
                    Compression::SNAPPY,
                    "{}",
                    column.column_path()
                );
                continue;
            }
            assert_eq!(
                column.compression(),
                Compression::UNCOMPRESSED,
                "{}",
                column.column_path()
            );
            assert!(column.statistics().is_none());
            let mut pages = group.get_column_page_reader(i).unwrap();
            while let Some(page) = pages.get_next_page().unwrap() {
                assert_ne!(page.page_type(), PageType::DICTIONARY_PAGE);
                assert_eq!(page.encoding(), Encoding::PLAIN);
            }
        }
    }
}

#[test]
fn a_large_part_has_many_row_groups_small_pages_and_its_order() {
    // 1500 rows of 25 x 1024 halves: 77 MB, more than the 64 MiB of a row group.
    let (rows, patches, dim) = (1500, 25, 1024);
    let row = patches * dim;
    let local = LocalFeatures {
        keys: (0..rows).map(|i| format!("k{i}")).collect(),
        views: (0..rows as i16).collect(),
        patches,
        dim,
        values: (0..rows * row)
            .map(|i| f16::from_bits((i / row + i) as u16))
            .collect(),
    };
    let bytes = Bytes::from(write_local(&local, &FileMeta::default()).unwrap());
    let reader = SerializedFileReader::new(bytes.clone()).unwrap();
    assert_eq!(reader.num_row_groups(), 2);
    let mut pages = reader
        .get_row_group(0)
        .unwrap()
        .get_column_page_reader(2)
        .unwrap();
    while let Some(page) = pages.get_next_page().unwrap() {
        assert!(
            page.buffer().len() <= 2 << 20,
            "{} bytes in a page",
            page.buffer().len()
        );
    }
    let back = read_local(bytes, "part").unwrap();
    assert_eq!(back.keys, local.keys);
    assert_eq!(back.views, local.views);
    let same = back
        .values
        .iter()
        .zip(&local.values)
        .all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same && back.values.len() == local.values.len());
}

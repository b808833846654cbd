//! Corrupt bytes are errors, never a panic.

use bytes::Bytes;
use clipood_pipeline::tables::*;
use proptest::prelude::*;

use crate::wrong::{global, local, scores};

/// Everything that reads; `Ok` only for whole tables, whose columns then fit together.
fn read_all(bytes: &Bytes) {
    let rows = read_footer(bytes, "f").map(|footer| footer.rows as usize);
    let same = |found: Option<usize>| {
        if let Some(found) = found {
            assert_eq!(Some(found), rows.as_ref().ok().copied());
        }
    };
    same(read_images(bytes.clone(), "f").ok().map(|r| r.len()));
    same(read_quarantine(bytes.clone(), "f").ok().map(|r| r.len()));
    same(read_ood(bytes.clone(), "f").ok().map(|r| r.len()));
    same(read_accuracy(bytes.clone(), "f").ok().map(|r| r.len()));
    same(read_train_log(bytes.clone(), "f").ok().map(|r| r.len()));
    if let Ok(scores) = read_scores(bytes.clone(), "f") {
        same(Some(scores.rows.len()));
        for detector in scores.detectors {
            same(detector.values.map(|values| values.len()));
        }
    }
    if let Ok(f) = read_global(bytes.clone(), "f") {
        same(Some(f.keys.len()));
        same(Some(f.views.len()));
        same(Some(f.content_hashes.len()));
        assert_eq!(f.values.len(), f.keys.len() * f.dim);
    }
    if let Ok(f) = read_local(bytes.clone(), "f") {
        same(Some(f.keys.len()));
        same(Some(f.views.len()));
        assert_eq!(f.values.len(), f.keys.len() * f.patches * f.dim);
    }
}

/// One file of each kind of table, small but with every kind of column filled.
fn whole_files() -> Vec<Vec<u8>> {
    let row = |i: u32| ImageRow {
        image_key: format!("a/test/{i}"),
        split: "test".into(),
        label: Some(i % 3),
        class_name: i.is_multiple_of(2).then(|| format!("c{}", i % 3)),
        ..ImageRow::default()
    };
    let images: Vec<ImageRow> = (0..30).map(row).collect();
    let quarantine = QuarantineRow {
        image_key: "a/test/0".into(),
        stage: "extract".into(),
        ..QuarantineRow::default()
    };
    let meta = FileMeta {
        quarantined: vec![quarantine.clone()],
        ..FileMeta::default()
    };
    vec![
        write_images(&images, &meta).unwrap(),
        write_quarantine(&[quarantine], &meta).unwrap(),
        write_ood(&vec![OodRow::default(); 5], &meta).unwrap(),
        write_accuracy(&[AccuracyRow::default()], &meta).unwrap(),
        write_summary(&[SummaryRow::default()], &meta).unwrap(),
        write_paired(&[PairedRow::default()], &meta).unwrap(),
        write_train_log(&vec![TrainLogRow::default(); 5], &meta).unwrap(),
        write_scores(&scores(), &meta).unwrap(),
        write_global(&global(), GlobalType::F16, &meta).unwrap(),
        write_global(&global(), GlobalType::F32, &meta).unwrap(),
        write_local(&local(), &meta).unwrap(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A panic, an abort or columns of different lengths would fail it.
    #[test]
    fn corrupt_files_are_errors_or_whole(
        file in 0..whole_files().len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 1..4),
        in_footer in any::<bool>(),
    ) {
        let mut bytes = whole_files().swap_remove(file);
        let footer = bytes.len() - 8 - u32::from_le_bytes(
            bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap(),
        ) as usize;
        let start = if in_footer { footer } else { 0 };
        for (place, change) in flips {
            let place = start + place.index(bytes.len() - start);
            bytes[place] ^= change;
        }
        read_all(&Bytes::from(bytes));
    }

    #[test]
    fn bytes_of_any_kind_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut framed = b"PAR1".to_vec();
        framed.extend(&bytes);
        framed.extend((bytes.len() as u32).to_le_bytes());
        framed.extend(b"PAR1");
        for bytes in [Bytes::from(bytes), Bytes::from(framed)] {
            prop_assert!(read_footer(&bytes, "f").is_err());
            read_all(&bytes);
        }
    }
}

#[test]
fn any_single_byte_of_a_table_may_be_wrong() {
    // The decoder itself panics on some of these.
    let whole = whole_files().swap_remove(0);
    for place in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[place] ^= change;
            let bytes = Bytes::from(bytes);
            let footer = read_footer(&bytes, "f");
            if let Ok(rows) = read_images(bytes, "f") {
                assert_eq!(footer.unwrap().rows, rows.len() as u64);
            }
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_no_part() {
    for whole in whole_files() {
        let whole = Bytes::from(whole);
        assert!(store_footer(&whole).is_some());
        for end in (0..whole.len()).step_by(7) {
            let cut = whole.slice(..end);
            assert!(store_footer(&cut).is_none());
            read_all(&cut);
        }
    }
}

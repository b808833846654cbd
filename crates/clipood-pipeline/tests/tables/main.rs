//! Every table comes back as it was written, bit for bit.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod damaged;
mod layout;
mod wrong;

use std::fmt::Debug;

use bytes::Bytes;
use clipood_pipeline::tables::*;
use half::f16;
use proptest::collection::vec;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,8}", "[a-c]"]
}

fn number() -> impl Strategy<Value = f64> {
    use prop::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE
}

/// Any bit pattern, NaN included.
fn any_f32() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

prop_compose! {
    fn quarantine_row()(t in vec(text(), 6)) -> QuarantineRow {
        QuarantineRow {
            image_key: t[0].clone(),
            uri: t[1].clone(),
            stage: t[2].clone(),
            error_kind: t[3].clone(),
            message: t[4].clone(),
            content_hash: t[5].clone(),
        }
    }
}

prop_compose! {
    fn meta()(
        fingerprint in text(),
        recipe in text(),
        quarantined in vec(quarantine_row(), 0..3),
        extra in prop::collection::btree_map("x\\.[a-z]{1,4}", text(), 0..3),
    ) -> FileMeta {
        FileMeta { fingerprint, recipe, quarantined, extra }
    }
}

prop_compose! {
    fn image_row()(
        t in vec(text(), 4),
        offset in any::<Option<u64>>(),
        length in any::<Option<u64>>(),
        label in any::<Option<u32>>(),
        class_name in prop::option::of(text()),
        shard in any::<u32>(),
        form in prop::option::of(text()),
    ) -> ImageRow {
        ImageRow {
            image_key: t[0].clone(),
            uri: t[1].clone(),
            offset,
            length,
            content_hash: t[2].clone(),
            split: t[3].clone(),
            label,
            class_name,
            shard,
            form,
        }
    }
}

prop_compose! {
    fn ood_row()(
        t in vec(text(), 8),
        f in vec(number(), 8),
        o in vec(prop::option::of(number()), 5),
        n in any::<[u64; 4]>(),
        shots in any::<Option<u32>>(),
        seed in any::<Option<u64>>(),
        views in any::<Option<u32>>(),
        scaling in prop::option::of(text()),
        hyperparameters in prop::option::of(text()),
    ) -> OodRow {
        OodRow {
            prompt: t[0].clone(),
            method: t[1].clone(),
            shots,
            seed,
            id_dataset: t[2].clone(),
            ood_dataset: t[3].clone(),
            detector: t[4].clone(),
            selection: t[5].clone(),
            scaling,
            notes: hyperparameters.clone(),
            hyperparameters,
            views,
            classes_hash: t[6].clone(),
            weights_hash: t[7].clone(),
            n_id: n[0],
            n_ood: n[1],
            n_excluded: n[2],
            auroc: f[0],
            aupr_in: f[1],
            aupr_out: f[2],
            fpr95: f[3],
            fpr95_openood: f[4],
            aupr_in_openood: f[5],
            aupr_out_openood: f[6],
            threshold95: o[0],
            detection_accuracy: f[7],
            balanced_accuracy: f[0] / 2.0,
            ties: n[3],
            score_resolution: f[1] / 3.0,
            auroc_lo: o[1],
            auroc_hi: o[2],
            fpr95_lo: o[3],
            fpr95_hi: o[4],
        }
    }
}

prop_compose! {
    fn summary_row()(
        t in vec(text(), 5),
        f in vec(number(), 6),
        o in vec(prop::option::of(number()), 6),
        shots in any::<Option<u32>>(),
        seeds in any::<u32>(),
        scaling in prop::option::of(text()),
    ) -> SummaryRow {
        SummaryRow {
            method: t[0].clone(),
            shots,
            id_dataset: t[1].clone(),
            ood_dataset: t[2].clone(),
            detector: t[3].clone(),
            selection: t[4].clone(),
            scaling,
            seeds,
            auroc: f[0],
            auroc_std: o[0],
            fpr95: f[1],
            fpr95_std: o[1],
            fpr95_openood: f[2],
            fpr95_openood_std: o[2],
            aupr_in: f[3],
            aupr_in_std: o[3],
            aupr_out: f[4],
            aupr_out_std: o[4],
            top1: f[5],
            top1_std: o[5],
        }
    }
}

prop_compose! {
    fn paired_row()(
        t in vec(text(), 6),
        f in vec(number(), 8),
        shots in any::<Option<u32>>(),
        seed in any::<Option<u64>>(),
    ) -> PairedRow {
        PairedRow {
            prompt: t[0].clone(),
            method: t[1].clone(),
            shots,
            seed,
            baseline: t[2].clone(),
            id_dataset: t[3].clone(),
            ood_dataset: t[4].clone(),
            detector: t[5].clone(),
            auroc_diff: f[0],
            auroc_diff_lo: f[1],
            auroc_diff_hi: f[2],
            auroc_larger: f[3],
            fpr95_diff: f[4],
            fpr95_diff_lo: f[5],
            fpr95_diff_hi: f[6],
            fpr95_smaller: f[7],
        }
    }
}

prop_compose! {
    fn accuracy_row()(
        t in vec(text(), 5),
        f in vec(number(), 3),
        n in any::<u64>(),
        shots in any::<Option<u32>>(),
        seed in any::<Option<u64>>(),
        views in any::<Option<u32>>(),
    ) -> AccuracyRow {
        AccuracyRow {
            prompt: t[0].clone(),
            method: t[1].clone(),
            shots,
            seed,
            id_dataset: t[2].clone(),
            n,
            top1: f[0],
            top5: f[1],
            ece: f[2],
            views,
            classes_hash: t[3].clone(),
            weights_hash: t[4].clone(),
        }
    }
}

prop_compose! {
    fn train_log_row()(
        epoch in any::<u64>(), step in any::<u64>(), f in vec(number(), 3),
    ) -> TrainLogRow {
        TrainLogRow { epoch, step, loss: f[0], accuracy: f[1], lr: f[2] }
    }
}

prop_compose! {
    fn score_row()(
        t in vec(text(), 3),
        is_id in any::<bool>(),
        label in any::<Option<i32>>(),
        class_name in prop::option::of(text()),
        pred in any::<i32>(),
        prob in 0.0f32..=1.0,
    ) -> ScoreRow {
        ScoreRow {
            image_key: t[0].clone(),
            split: t[1].clone(),
            is_id,
            label,
            class_name,
            pred,
            pred_name: t[2].clone(),
            prob,
        }
    }
}

fn scores() -> impl Strategy<Value = Scores> {
    (
        vec(score_row(), 0..20),
        prop::collection::btree_set("[a-z_=:.0-9]{1,6}", 0..4),
    )
        .prop_flat_map(|(rows, names)| {
            let n = rows.len();
            let columns: Vec<_> = names
                .into_iter()
                .rev()
                .map(|detector| (Just(detector), prop::option::of(vec(any_f32(), n))))
                .collect();
            (Just(rows), columns)
        })
        .prop_map(|(rows, columns)| Scores {
            rows,
            detectors: columns
                .into_iter()
                .map(|(detector, values)| DetectorScores { detector, values })
                .collect(),
        })
}

fn global() -> impl Strategy<Value = GlobalFeatures> {
    (0usize..9, 1usize..5).prop_flat_map(|(rows, dim)| {
        let strings = || vec(text(), rows);
        (
            strings(),
            vec(any::<i16>(), rows),
            strings(),
            vec(any_f32(), rows * dim),
        )
            .prop_map(
                move |(keys, views, content_hashes, values)| GlobalFeatures {
                    keys,
                    views,
                    content_hashes,
                    dim,
                    values,
                },
            )
    })
}

fn local() -> impl Strategy<Value = LocalFeatures> {
    (0usize..7, 1usize..4, 1usize..5).prop_flat_map(|(rows, patches, dim)| {
        let values = vec(any::<u16>().prop_map(f16::from_bits), rows * patches * dim);
        (vec(text(), rows), vec(any::<i16>(), rows), values).prop_map(
            move |(keys, views, values)| LocalFeatures {
                keys,
                views,
                patches,
                dim,
                values,
            },
        )
    })
}

/// Writes, reads back and compares rows and metadata.
fn round_trip<R: PartialEq + Debug>(
    rows: &[R],
    meta: &FileMeta,
    write: fn(&[R], &FileMeta) -> Result<Vec<u8>, TableError>,
    read: fn(Bytes, &str) -> Result<Vec<R>, TableError>,
) -> Result<(), TestCaseError> {
    let bytes = Bytes::from(write(rows, meta).unwrap());
    let footer = read_footer(&bytes, "part").unwrap();
    prop_assert_eq!(footer.schema_version, SCHEMA_VERSION);
    prop_assert_eq!(footer.rows, rows.len() as u64);
    prop_assert_eq!(&footer.meta, meta);
    let part = store_footer(&bytes).unwrap();
    prop_assert_eq!(&part.fingerprint, &meta.fingerprint);
    prop_assert_eq!(part.rows, rows.len() as u64);
    prop_assert_eq!(part.quarantined, meta.quarantined.len() as u64);
    prop_assert_eq!(read(bytes, "part").unwrap(), rows);
    Ok(())
}

proptest! {
    #[test]
    fn images_come_back(rows in vec(image_row(), 0..20), meta in meta()) {
        round_trip(&rows, &meta, write_images, read_images)?;
    }

    #[test]
    fn quarantine_comes_back(rows in vec(quarantine_row(), 0..20), meta in meta()) {
        round_trip(&rows, &meta, write_quarantine, read_quarantine)?;
    }

    #[test]
    fn metrics_come_back(
        ood in vec(ood_row(), 0..10),
        accuracy in vec(accuracy_row(), 0..10),
        summary in vec(summary_row(), 0..10),
        paired in vec(paired_row(), 0..10),
        meta in meta(),
    ) {
        round_trip(&summary, &meta, write_summary, read_summary)?;
        round_trip(&paired, &meta, write_paired, read_paired)?;
        round_trip(&ood, &meta, write_ood, read_ood)?;
        round_trip(&accuracy, &meta, write_accuracy, read_accuracy)?;
    }

    #[test]
    fn training_logs_come_back(rows in vec(train_log_row(), 0..20), meta in meta()) {
        round_trip(&rows, &meta, write_train_log, read_train_log)?;
    }

    #[test]
    fn scores_come_back(scores in scores(), meta in meta()) {
        let bytes = Bytes::from(write_scores(&scores, &meta).unwrap());
        prop_assert_eq!(&read_footer(&bytes, "part").unwrap().meta, &meta);
        let back = read_scores(bytes, "part").unwrap();
        prop_assert_eq!(&back.rows, &scores.rows);
        prop_assert_eq!(back.detectors.len(), scores.detectors.len());
        for (found, expected) in back.detectors.iter().zip(&scores.detectors) {
            prop_assert_eq!(&found.detector, &expected.detector);
            let values = |d: &DetectorScores| d.values.as_deref().map(bits);
            // A column without rows cannot tell whether it would have been empty.
            if !scores.rows.is_empty() {
                prop_assert_eq!(values(found), values(expected));
            }
        }
    }

    #[test]
    fn global_features_come_back_bit_for_bit(features in global(), meta in meta()) {
        let bytes = Bytes::from(write_global(&features, GlobalType::F32, &meta).unwrap());
        let back = read_global(bytes, "part").unwrap();
        prop_assert_eq!(bits(&back.values), bits(&features.values));
        let empty = GlobalFeatures::default();
        prop_assert_eq!(
            GlobalFeatures { values: Vec::new(), ..back },
            GlobalFeatures { values: empty.values, ..features }
        );
    }

    #[test]
    fn half_precision_features_are_the_nearest_halves(features in global()) {
        let values = features.values.iter().map(|v| if v.is_finite() { v % 65504.0 } else { *v });
        let features = GlobalFeatures { values: values.collect(), ..features };
        let meta = FileMeta::default();
        let bytes = Bytes::from(write_global(&features, GlobalType::F16, &meta).unwrap());
        let back = read_global(bytes, "part").unwrap();
        for (found, exact) in back.values.iter().zip(&features.values) {
            // Half precision has 11 significant bits, and steps of 2^-24 near zero.
            let error = (found - exact).abs();
            let near = error <= exact.abs() * 2f32.powi(-11) + 2f32.powi(-25);
            prop_assert!(near || found == exact || (found.is_nan() && exact.is_nan()));
        }
        prop_assert_eq!(back.values.len(), features.values.len());
    }

    #[test]
    fn local_features_come_back_bit_for_bit(features in local(), meta in meta()) {
        let bytes = Bytes::from(write_local(&features, &meta).unwrap());
        let back = read_local(bytes, "part").unwrap();
        let bits = |f: &LocalFeatures| f.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&back), bits(&features));
        prop_assert_eq!((back.patches, back.dim), (features.patches, features.dim));
        prop_assert_eq!((back.keys, back.views), (features.keys, features.views));
    }
}

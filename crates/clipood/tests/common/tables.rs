//! Reading the tables of a run and comparing them.

use bytes::Bytes;
use clipood_pipeline::tables::{Scores, read_ood, read_scores};

use super::{World, files};

/// Bytes of a file of the folder.
pub fn table(world: &World, path: &str) -> Bytes {
    let path = world.path(path);
    Bytes::from(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// All scores of a run by part.
pub fn scores(world: &World, run: &str) -> Vec<(String, Scores)> {
    let folder = world.path(&format!("{run}/scores"));
    files(&folder)
        .into_iter()
        .map(|part| {
            let bytes = table(world, &format!("{run}/scores/{part}"));
            let scores = read_scores(bytes, &part).unwrap();
            (part, scores)
        })
        .collect()
}

/// Equal rows, floats within 1e-6: which thread finished first must not show.
pub fn assert_same_scores(a: &[(String, Scores)], b: &[(String, Scores)]) {
    assert_eq!(a.len(), b.len());
    for ((name_a, a), (name_b, b)) in a.iter().zip(b) {
        assert_eq!(name_a, name_b);
        assert_eq!(a.rows.len(), b.rows.len());
        for (x, y) in a.rows.iter().zip(&b.rows) {
            assert_eq!(
                (&x.image_key, x.label, x.pred),
                (&y.image_key, y.label, y.pred)
            );
        }
        assert_eq!(a.detectors.len(), b.detectors.len(), "{name_a}");
        for (x, y) in a.detectors.iter().zip(&b.detectors) {
            assert_eq!(x.detector, y.detector);
            let (x, y) = (x.values.as_ref().unwrap(), y.values.as_ref().unwrap());
            assert_eq!(x.len(), y.len(), "{name_a}");
            for (x, y) in x.iter().zip(y) {
                assert!((x - y).abs() < 1e-6, "{name_a}: {x} and {y}");
            }
        }
    }
}

/// Two runs of one recipe have the same rows in all tables of scores and metrics, floats within 1e-6.
pub fn assert_same_tables(world: &World, one: &str, other: &str) {
    assert_same_scores(&scores(world, one), &scores(world, other));
    let path = |run: &str| format!("{run}/metrics/ood.parquet");
    let rows = |run: &str| read_ood(table(world, &path(run)), &path(run)).unwrap();
    let (a, b) = (rows(one), rows(other));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(
            (&a.prompt, &a.detector, &a.selection, &a.ood_dataset),
            (&b.prompt, &b.detector, &b.selection, &b.ood_dataset)
        );
        assert_eq!(
            (a.n_id, a.n_ood, a.n_excluded),
            (b.n_id, b.n_ood, b.n_excluded)
        );
        for (x, y) in [
            (a.auroc, b.auroc),
            (a.fpr95, b.fpr95),
            (a.aupr_in, b.aupr_in),
            (a.aupr_out, b.aupr_out),
            (a.score_resolution, b.score_resolution),
        ] {
            assert!((x - y).abs() < 1e-6, "{a:?} and {b:?}");
        }
    }
}

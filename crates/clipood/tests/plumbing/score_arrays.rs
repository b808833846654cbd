//! `score` on arrays in files of their own: what cannot be used is refused by name, and fallbacks are told.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, LargeListArray, ListArray, StringArray};
use arrow::datatypes::{Float32Type, Float64Type};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use crate::helpers::{clipood, f32_column, fail, floats, succeed, table, text, write_table};
use crate::score::{BUNDLE, npy};

const NAMES: [&str; 6] = [
    "text",
    "negative_text",
    "train",
    "train_labels",
    "id",
    "ood",
];
/// Width of the bundle's features.
const DIM: usize = 64;

/// A folder with every global array of the reference bundle as a file of its own.
struct Arrays(TempDir);

impl Arrays {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let bytes = std::fs::read(BUNDLE).unwrap();
        let bundle = SafeTensors::deserialize(&bytes).unwrap();
        for name in NAMES {
            let array = npy(&bundle.tensor(name).unwrap());
            std::fs::write(dir.path().join(format!("{name}.npy")), array).unwrap();
        }
        Self(dir)
    }

    fn path(&self, file: &str) -> String {
        text(&self.0.path().join(file)).to_owned()
    }

    /// Writes a `.npy` file.
    fn write(&self, file: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        std::fs::write(self.path(file), npy(&view)).unwrap();
    }

    /// Writes rows of `dim` floats.
    fn write_rows(&self, file: &str, values: &[f32], dim: usize) {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.write(file, Dtype::F32, &[values.len() / dim, dim], &bytes);
    }

    fn write_labels(&self, file: &str, labels: &[i64]) {
        let bytes: Vec<u8> = labels.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.write(file, Dtype::I64, &[labels.len()], &bytes);
    }

    /// A command line on the bundle's arrays but for those that `changes` names with another file.
    fn arguments(&self, detectors: &str, changes: &[(&str, &str)]) -> Vec<String> {
        let out = self.path("scores.parquet");
        let mut arguments = ["score", "--detectors", detectors, "--out", &out]
            .map(str::to_owned)
            .to_vec();
        for name in NAMES {
            let change = changes.iter().find(|(changed, _)| *changed == name);
            let file = change.map_or(format!("{name}.npy"), |(_, file)| (*file).to_owned());
            arguments.extend([format!("--{}", name.replace('_', "-")), self.path(&file)]);
        }
        arguments
    }

    /// The table written.
    fn score(&self, detectors: &str, changes: &[(&str, &str)]) -> Vec<u8> {
        let arguments = self.arguments(detectors, changes);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        succeed(&arguments, b"");
        std::fs::read(self.path("scores.parquet")).unwrap()
    }

    fn refused(&self, detectors: &str, changes: &[(&str, &str)], code: i32, words: &[&str]) {
        let arguments = self.arguments(detectors, changes);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fail(&arguments, b"", code, words);
        assert!(!self.0.path().join("scores.parquet").exists());
    }
}

/// Values of an array of the bundle.
fn values(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(BUNDLE).unwrap();
    let bundle = SafeTensors::deserialize(&bytes).unwrap();
    floats(&bundle.tensor(name).unwrap())
}

#[test]
fn values_that_are_no_numbers_are_named_in_every_array() {
    let arrays = Arrays::new();
    for name in ["text", "negative_text", "train", "id", "ood"] {
        for (bad, word) in [
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
            (f32::NEG_INFINITY, "-inf"),
        ] {
            let mut changed = values(name);
            changed[3 * DIM + 5] = bad;
            arrays.write_rows("bad.npy", &changed, DIM);
            let place = format!("{name}: row 3, column 5 is {word}");
            arrays.refused(
                "mcm,knn,neglabel",
                &[(name, "bad.npy")],
                1,
                &[&place, "expected a finite number"],
            );
        }
    }
    // Beyond float32, which features are scored in.
    let large: Vec<u8> = values("id")
        .iter()
        .flat_map(|x| (f64::from(*x) * 1e300).to_le_bytes())
        .collect();
    arrays.write("large.npy", Dtype::F64, &[40, DIM], &large);
    arrays.refused("mcm", &[("id", "large.npy")], 1, &["id: row 0", "inf"]);
    let mut zero = values("ood");
    zero[2 * DIM..3 * DIM].fill(0.0);
    arrays.write_rows("zero.npy", &zero, DIM);
    arrays.refused(
        "mcm",
        &[("ood", "zero.npy")],
        1,
        &["ood: row 2 is all zeros"],
    );
}

#[test]
fn empty_sets_are_refused() {
    let arrays = Arrays::new();
    arrays.write("none.npy", Dtype::F32, &[0, DIM], &[]);
    for (name, detector, problem) in [
        ("id", "mcm", "array `id` has no row"),
        ("ood", "mcm", "array `ood` has no row"),
        ("text", "max_cosine", "text has 0 classes"),
        (
            "train",
            "vim:dim=8",
            "train: expected at least 1 rows, found 0",
        ),
        (
            "negative_text",
            "neglabel",
            "negative_text: expected at least 1 rows, found 0",
        ),
    ] {
        arrays.refused(detector, &[(name, "none.npy")], 1, &[problem]);
    }
}

#[test]
fn arrays_that_cannot_carry_a_detector_are_refused() {
    let arrays = Arrays::new();
    arrays.write_rows("one_class.npy", &values("text")[..DIM], DIM);
    let one_class = [("text", "one_class.npy")];
    arrays.refused("mcm", &one_class, 1, &["text has 1 classes", "at least 2"]);

    // A shot a class has no spread inside classes.
    arrays.write_rows("eight.npy", &values("train")[..8 * DIM], DIM);
    arrays.write_labels("eight_labels.npy", &[0, 1, 2, 3, 4, 5, 6, 7]);
    let eight = [("train", "eight.npy"), ("train_labels", "eight_labels.npy")];
    arrays.refused("mahalanobis", &eight, 1, &["covariance is zero"]);
    arrays.refused("mahalanobis", &eight[..1], 1, &["expected 8", "found 128"]);

    arrays.write_rows("narrow.npy", &values("id"), DIM / 2);
    arrays.refused(
        "mcm",
        &[("id", "narrow.npy")],
        1,
        &["expected 64 (as in text) columns, found 32"],
    );
    for detector in ["vim:dim=64", "residual:dim=65", "vim"] {
        arrays.refused(detector, &[], 1, &[detector, "must be below 64"]);
    }
    arrays.refused("neglabel:groups=25", &[], 1, &["25 groups of 24"]);
    arrays.refused("unknown_prompt:count=25", &[], 1, &["above the 24"]);
    arrays.refused("knn:k=0", &[], 2, &["k must be", "at least 1"]);
    // What a softmax over classes cannot do, the largest cosine can.
    arrays.score("max_cosine", &one_class);
}

#[test]
fn fallbacks_are_told() {
    let arrays = Arrays::new();
    arrays.write_rows("few.npy", &values("train")[..16 * DIM], DIM);
    let labels: Vec<i64> = (0..16).map(|row| row % 4).collect();
    arrays.write_labels("few_labels.npy", &labels);
    let few = [("train", "few.npy"), ("train_labels", "few_labels.npy")];
    let arguments = arrays.arguments("far=knn:k=500,last=knn:k=16,mahalanobis", &few);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = clipood(&arguments, b"");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    for note in [
        "note: far: k was lowered from 500 to 16, the number of shots",
        "note: mahalanobis: 4 of 8 classes have no shots and no mean",
        "note: mahalanobis: the within-class covariance has rank 12 of 64",
    ] {
        assert!(log.contains(note), "no `{note}` in {log}");
    }
    assert!(!log.contains("last:"), "{log}");
    let rows = table(&arrays.0.path().join("scores.parquet"));
    assert_eq!(
        f32_column(&rows, "score_far"),
        f32_column(&rows, "score_last")
    );
    let distances = f32_column(&rows, "score_mahalanobis");
    assert!(distances.iter().all(|x| x.is_finite()), "{distances:?}");
}

#[test]
fn every_kind_of_list_and_integer_gives_the_same_scores() {
    let arrays = Arrays::new();
    let detectors = "mcm,mahalanobis";
    let plain = arrays.score(detectors, &[]);
    let id = values("id");
    let single = || {
        id.chunks(DIM)
            .map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>()))
    };
    let double = || {
        id.chunks(DIM)
            .map(|row| Some(row.iter().map(|x| Some(f64::from(*x))).collect::<Vec<_>>()))
    };
    let width = DIM as i32;
    let lists: [(&str, ArrayRef); 4] = [
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(double())),
        ),
        (
            "large",
            Arc::new(LargeListArray::from_iter_primitive::<Float32Type, _, _>(
                single(),
            )),
        ),
        (
            "large_double",
            Arc::new(LargeListArray::from_iter_primitive::<Float64Type, _, _>(
                double(),
            )),
        ),
        (
            "fixed",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(single(), width)),
        ),
    ];
    for (name, list) in &lists {
        let file = format!("{name}.parquet");
        write_table(
            &arrays.0.path().join(&file),
            vec![("features", list.clone())],
        );
        let column = format!("{file}:features");
        let found = arrays.score(detectors, &[("id", &column)]);
        assert!(found == plain, "{name}");
    }
    // Labels without sign, as some programs keep them.
    let bytes = std::fs::read(BUNDLE).unwrap();
    let bundle = SafeTensors::deserialize(&bytes).unwrap();
    let labels = bundle.tensor("train_labels").unwrap();
    assert_eq!(labels.dtype(), Dtype::I32);
    let words = labels.data().as_chunks::<4>().0.iter();
    let wide: Vec<u8> = words
        .flat_map(|b| u64::from(u32::from_le_bytes(*b)).to_le_bytes())
        .collect();
    arrays.write("labels.npy", Dtype::U64, labels.shape(), &wide);
    assert!(arrays.score(detectors, &[("train_labels", "labels.npy")]) == plain);

    // From here on nothing is written.
    std::fs::remove_file(arrays.path("scores.parquet")).unwrap();
    let ragged = id.chunks(DIM).enumerate().map(|(row, values)| {
        let length = if row == 5 { 10 } else { DIM };
        Some(
            values[..length]
                .iter()
                .copied()
                .map(Some)
                .collect::<Vec<_>>(),
        )
    });
    let ragged: ArrayRef = Arc::new(LargeListArray::from_iter_primitive::<Float32Type, _, _>(
        ragged,
    ));
    write_table(
        &arrays.0.path().join("ragged.parquet"),
        vec![("features", ragged)],
    );
    arrays.refused(
        "mcm",
        &[("id", "ragged.parquet:features")],
        1,
        &["`features`, row 5: expected 64 values, found 10"],
    );
    // A column `kind` says which rows are images, as in tables of `encode`.
    let kinds: ArrayRef = Arc::new(StringArray::from_iter_values(["photo"; 40]));
    let columns = vec![("features", lists[1].1.clone()), ("kind", kinds)];
    write_table(&arrays.0.path().join("kinds.parquet"), columns);
    arrays.refused(
        "mcm",
        &[("id", "kinds.parquet:features")],
        1,
        &["no row whose `kind` is `image`"],
    );
}

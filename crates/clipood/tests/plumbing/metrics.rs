//! `metrics`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, StringArray};
use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{METRICS, fail, succeed, text, write_table};

fn metrics(id: &Path, ood: &Path, more: &[&str]) -> Value {
    let arguments = [
        &["metrics", "--id", text(id), "--ood", text(ood), "--json"][..],
        more,
    ]
    .concat();
    serde_json::from_str(&succeed(&arguments, b"")).unwrap()
}

#[test]
fn metrics_gives_the_reference_values_from_every_format() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(METRICS).unwrap()).unwrap();
    assert_eq!(cases.len(), 11);
    // Ours and the reference file's names.
    let figures = [
        ("auroc", "auroc"),
        ("aupr_in", "aupr_in"),
        ("aupr_out", "aupr_out"),
        ("fpr95", "fpr95"),
        ("fpr95_openood", "openood_fpr95"),
        ("aupr_in_openood", "openood_aupr_in"),
        ("aupr_out_openood", "openood_aupr_out"),
        ("fpr_at_tpr_ge_95", "fpr_at_tpr_ge_95"),
        ("balanced_accuracy", "best_balanced_accuracy"),
        ("detection_accuracy", "best_accuracy"),
    ];
    for case in &cases {
        let scores = |key: &str| -> Vec<f64> {
            case[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|x| x.as_f64().unwrap())
                .collect()
        };
        for key in ["id", "ood"] {
            std::fs::write(path(&format!("{key}.json")), case[key].to_string()).unwrap();
            let lines: String = scores(key)
                .iter()
                .map(|x| format!("\"a,b\",{x:?}\n"))
                .collect();
            std::fs::write(path(&format!("{key}.csv")), format!("name,score\n{lines}")).unwrap();
            let names = vec!["a"; scores(key).len()];
            let other = vec![0.5; names.len()];
            let columns: Vec<(&str, ArrayRef)> = vec![
                ("name", Arc::new(StringArray::from(names)) as ArrayRef),
                ("other", Arc::new(Float64Array::from(other)) as ArrayRef),
                (
                    "score",
                    Arc::new(Float64Array::from(scores(key))) as ArrayRef,
                ),
            ];
            write_table(&path(&format!("{key}.parquet")), columns);
        }
        let found = metrics(&path("id.json"), &path("ood.json"), &[]);
        for (ours, theirs) in figures {
            let (value, expected) = (
                found[ours].as_f64().unwrap(),
                case[theirs].as_f64().unwrap(),
            );
            let name = &case["name"];
            assert!(
                (value - expected).abs() <= 1e-12,
                "{name} {ours}: {value}, not {expected}"
            );
        }
        let distinct: BTreeSet<u64> = scores("id")
            .iter()
            .chain(&scores("ood"))
            .map(|x| (x + 0.0).to_bits())
            .collect();
        assert_eq!(found["n_id"], scores("id").len());
        assert_eq!(found["n_ood"], scores("ood").len());
        assert_eq!(
            found["ties"],
            scores("id").len() + scores("ood").len() - distinct.len()
        );
        assert_eq!(found.as_object().unwrap().len(), figures.len() + 7);
        assert_eq!(metrics(&path("id.csv"), &path("ood.csv"), &[]), found);
        let column = ["--column", "score"];
        assert_eq!(
            metrics(&path("id.parquet"), &path("ood.csv"), &column),
            found
        );
    }
}

#[test]
fn metrics_keeps_single_precision_and_infinite_thresholds() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (id, ood) = (vec![0.1f32, 0.2, 0.3], vec![0.2f32, 0.4]);
    write_table(
        &path("id.parquet"),
        vec![("s", Arc::new(Float32Array::from(id)) as ArrayRef)],
    );
    write_table(
        &path("ood.parquet"),
        vec![("s", Arc::new(Float32Array::from(ood)) as ArrayRef)],
    );
    let found = metrics(&path("id.parquet"), &path("ood.parquet"), &[]);
    assert_eq!(found["ties"], 1);
    assert_eq!(found["auroc"].as_f64(), Some(1.5 / 6.0));
    // No threshold beats chance, and the best that can be done is to accept every image.
    assert_eq!(found["balanced_threshold"], Value::Null);
    assert_eq!(
        found["detection_threshold"].as_f64(),
        Some(f64::from(0.1f32))
    );

    let shown = succeed(
        &[
            "metrics",
            "--id",
            text(&path("id.parquet")),
            "--ood",
            text(&path("ood.parquet")),
        ],
        b"",
    );
    let line = |name: &str| -> Vec<&str> {
        let line = shown
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        line.unwrap().split_whitespace().collect()
    };
    assert_eq!(line("auroc"), ["auroc", "0.25"]);
    assert_eq!(line("balanced_threshold"), ["balanced_threshold", "inf"]);
    assert_eq!(line("n_id"), ["n_id", "3"]);
}

#[test]
fn metrics_bootstraps_on_request() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    // Apart in f64, equal in f32: the resamples must not see ties.
    let id: Vec<f64> = (1..=30).map(|i| 1.0 + f64::from(i) * 1e-12).collect();
    let ood: Vec<f64> = (1..=30).map(|i| 1.0 - f64::from(i) * 1e-12).collect();
    std::fs::write(path("id.json"), serde_json::to_string(&id).unwrap()).unwrap();
    std::fs::write(path("ood.json"), serde_json::to_string(&ood).unwrap()).unwrap();
    let found = metrics(&path("id.json"), &path("ood.json"), &["--bootstrap", "50"]);
    for (name, value) in [
        ("auroc_lo", 1.0),
        ("auroc_hi", 1.0),
        ("fpr95_lo", 0.0),
        ("fpr95_hi", 0.0),
    ] {
        assert_eq!(found[name].as_f64(), Some(value), "{name}");
    }
    let id: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 40)).collect();
    let ood: Vec<f64> = (0..40).map(|i| f64::from(i * 3 % 40) - 10.0).collect();
    std::fs::write(path("id.json"), serde_json::to_string(&id).unwrap()).unwrap();
    std::fs::write(path("ood.json"), serde_json::to_string(&ood).unwrap()).unwrap();
    let found = metrics(&path("id.json"), &path("ood.json"), &["--bootstrap", "200"]);
    let value = |name: &str| found[name].as_f64().unwrap();
    assert!(
        value("auroc_lo") < value("auroc") && value("auroc") < value("auroc_hi"),
        "{found}"
    );
    assert!(value("auroc_hi") - value("auroc_lo") < 0.4, "{found}");
}

/// File name and content, arguments, exit code, words of the error.
type BadInput<'a> = (&'a str, &'a [u8], &'a [&'a str], i32, &'a [&'a str]);

#[test]
fn metrics_names_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        text(&path).to_owned()
    };
    let good = write("good.json", b"[1, 2.5]");
    let cases: [BadInput<'_>; 11] = [
        ("a.json", b"[1, null]", &[], 1, &["a.json", "null"]),
        ("a.json", b"[]", &[], 1, &["a.json"]),
        (
            "a.json",
            b"{\"x\": 1}",
            &[],
            1,
            &["a.json", "array of numbers"],
        ),
        ("a.xyz", b"", &[], 2, &["a.xyz", ".csv"]),
        (
            "a.csv",
            b"x,y\n1,2\n",
            &[],
            2,
            &["a.csv", "x, y", "--column"],
        ),
        (
            "a.csv",
            b"x,yes\n1,2\n",
            &["--column", "yse"],
            2,
            &["`yse`", "`yes`"],
        ),
        (
            "a.csv",
            b"x,y\n1,2\n1,two\n",
            &["--column", "y"],
            1,
            &["`y`", "line 3", "`two`"],
        ),
        ("a.csv", b"x,y\n1,2\n1\n", &[], 1, &["a.csv"]),
        ("a.csv", b"x\n1\nnan\n", &[], 1, &["a.csv", "NaN"]),
        ("a.csv", b"", &[], 2, &["a.csv"]),
        ("a.parquet", b"PAR1 no table PAR1", &[], 1, &["a.parquet"]),
    ];
    for (name, content, more, code, words) in cases {
        let bad = write(name, content);
        fail(
            &[&["metrics", "--id", &good, "--ood", &bad][..], more].concat(),
            b"",
            code,
            words,
        );
    }
    let gone = dir.path().join("gone.csv");
    fail(
        &["metrics", "--id", &good, "--ood", text(&gone)],
        b"",
        1,
        &["gone.csv"],
    );
    let table = dir.path().join("null.parquet");
    write_table(
        &table,
        vec![(
            "s",
            Arc::new(Float64Array::from(vec![Some(1.0), None])) as ArrayRef,
        )],
    );
    fail(
        &["metrics", "--id", text(&table), "--ood", &good],
        b"",
        1,
        &["`s`", "row 1", "null"],
    );
    // Lists of numbers without a header.
    let plain = write("plain.csv", b"1\n2.5\n");
    let found = metrics(Path::new(&plain), Path::new(&good), &[]);
    assert_eq!(
        (&found["n_id"], &found["auroc"]),
        (&Value::from(2), &Value::from(0.5))
    );
}

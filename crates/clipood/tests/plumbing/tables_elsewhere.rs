//! `metrics` on tables and arrays of other programs.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{fail, succeed, text};

const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tables");

fn metrics(id: &Path, ood: &Path) -> Value {
    let arguments = ["metrics", "--id", text(id), "--ood", text(ood), "--json"];
    serde_json::from_str(&succeed(&arguments, b"")).unwrap()
}

#[test]
fn every_codec_and_container_gives_the_same_figures() {
    let of =
        |id: &str, ood: &str| metrics(&Path::new(TABLES).join(id), &Path::new(TABLES).join(ood));
    let expected = of("zstd_id.parquet", "zstd_ood.parquet");
    let auroc = expected["auroc"].as_f64().unwrap();
    // Counted over all pairs of an ID and an OOD score.
    assert!((auroc - 45508.0 / 60000.0).abs() < 1e-12, "{auroc}");
    for (id, ood) in [
        ("gzip_id.parquet", "gzip_ood.parquet"),
        ("brotli_id.parquet", "brotli_ood.parquet"),
        ("lz4_id.parquet", "lz4_ood.parquet"),
        ("savez_id.npz", "savez_ood.npz"),
        ("savez_compressed_id.npz", "savez_compressed_ood.npz"),
        ("savez_id.npz", "zstd_ood.parquet"),
    ] {
        assert_eq!(of(id, ood), expected, "{id}");
    }
}

#[test]
fn the_kind_follows_from_the_content_and_others_are_refused_with_advice() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, content: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let good = write("good.csv", b"1\n2.5\n");
    let parquet = std::fs::read(Path::new(TABLES).join("zstd_id.parquet")).unwrap();
    let found = metrics(&write("table.csv", &parquet), &good);
    assert_eq!(found["n_id"], 300);
    for (name, content, code, words) in [
        (
            "a.pt",
            &b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"[..],
            1,
            &["a.pt", "torch.save", "numpy.save"][..],
        ),
        ("a.pkl", b"\x80\x04K\x01.", 1, &["pickle", "numpy.save"]),
        ("a.xlsx", b"PK\x03\x04", 1, &["Excel", "CSV"]),
        ("a.xls", b"\xd0\xcf\x11\xe0", 1, &["Excel", "CSV"]),
        ("a.csv.gz", b"\x1f\x8b\x08", 1, &["decompress"]),
        ("a.feather", b"ARROW1", 1, &["Feather", "Parquet"]),
        ("a.npy", b"\x93NUMPY\x09\x00", 1, &["a.npy", "version 9"]),
        ("a.npz", b"PK\x03\x04", 1, &["a.npz", "cut off"]),
        ("a.xyz", b"1\n", 2, &[".csv", ".npz"]),
        (
            "a.csv",
            b"n,s\na,0.5\n\"b,1\n",
            1,
            &["a.csv", "line 3", "never closed"],
        ),
        (
            "a.csv",
            b"n,s\na,0.5\nb,\n",
            1,
            &["`s`", "line 3", "missing"],
        ),
        ("a.json", b"[1, NaN]", 1, &["row 1", "NaN"]),
    ] {
        let bad = write(name, content);
        let arguments = ["metrics", "--id", text(&good), "--ood", text(&bad)];
        fail(&arguments, b"", code, words);
    }
    let arguments = ["metrics", "--id", text(&good), "--ood", text(&good)];
    let absurd = ["--bootstrap", "1000000000000"];
    fail(
        &[&arguments[..], &absurd].concat(),
        b"",
        2,
        &["--bootstrap", "1..=1000000"],
    );
}

#[test]
fn ties_are_warned_about() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, scores: &[f64]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, serde_json::to_string(scores).unwrap()).unwrap();
        path
    };
    let own: Vec<f64> = (0..50).map(f64::from).collect();
    let id = write("id.json", &own);
    let warning = |same: u32| -> String {
        let ood: Vec<f64> = (0..50)
            .map(|i| f64::from(i) + if i < same { 0.0 } else { 0.5 })
            .collect();
        let ood = write("ood.json", &ood);
        let output =
            crate::helpers::clipood(&["metrics", "--id", text(&id), "--ood", text(&ood)], b"");
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(warning(10), "");
    let many = warning(11);
    assert!(
        many.contains("warning: 89 distinct scores among 100 images (89.00%)"),
        "{many}"
    );
}

//! `score`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use crate::helpers::{METRICS, difference, f32_column, fail, floats, succeed, table, text, words};

/// Features and reference scores.
pub const BUNDLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../clipood-ood/tests/data/detectors.safetensors"
);

/// Detectors by their names in the reference file, which serve as aliases.
const DETECTORS: &str = "mcm_t1=mcm,mcm_scale10=mcm:t=0.1,l_mcm_t1=l_mcm,gl_mcm_t1=gl_mcm,\
    gl_mcm_scale10_half=gl_mcm:t=0.1:weight=0.5,msp,max_logit,max_cosine,energy_t1=energy,\
    energy_cosine=energy:on=cosine,neg_entropy,gen,mahalanobis,\
    mahalanobis_ledoit_wolf=mahalanobis:covariance=ledoit_wolf,relative_mahalanobis,\
    knn_k1_sq_l2=knn:k=1,knn_k5_sq_l2=knn:k=5,vim_dim32=vim:dim=32,residual_dim32=residual:dim=32,\
    one_class_svm_rbf_g1_nu0.1=one_class_svm:gamma=1:nu=0.1,neglabel_scale100=neglabel,\
    neglabel_scale100_groups4=neglabel:groups=4,unknown_prompt=unknown_prompt:count=1,dpm_neg_min_kl";

#[test]
fn score_gives_the_reference_values_of_every_detector() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("scores.parquet");
    succeed(
        &[
            "score",
            "--bundle",
            BUNDLE,
            "--detectors",
            DETECTORS,
            "--out",
            text(&out),
        ],
        b"",
    );
    let bytes = std::fs::read(BUNDLE).unwrap();
    let bundle = SafeTensors::deserialize(&bytes).unwrap();
    // The fused dual-pattern scores belong to a pair of data sets, not to a detector.
    let names: BTreeSet<&str> = bundle
        .names()
        .into_iter()
        .filter_map(|key| key.strip_prefix("expected/")?.split('/').next())
        .filter(|name| !name.starts_with("dpm_transductive_"))
        .collect();
    let rows = table(&out);
    let roles = [vec!["id"; 40], vec!["ood"; 40]].concat();
    assert_eq!(words(&rows, "role"), roles);
    assert_eq!(rows.num_columns(), 1 + names.len());
    assert_eq!(names.len(), 24);
    for name in names {
        let found = f32_column(&rows, &format!("score_{name}"));
        for (role, found) in ["id", "ood"].into_iter().zip(found.chunks(40)) {
            let expected = floats(&bundle.tensor(&format!("expected/{name}/{role}")).unwrap());
            let error = difference(found, &expected);
            assert!(error < 1e-4, "{name}/{role}: off by {error:e}");
        }
    }
}

/// The reference bundle with some arrays left out and others in another type.
fn other_bundle(path: &Path, change: impl Fn(&str, &TensorView<'_>) -> Option<(Dtype, Vec<u8>)>) {
    let bytes = std::fs::read(BUNDLE).unwrap();
    let bundle = SafeTensors::deserialize(&bytes).unwrap();
    let mut arrays = BTreeMap::new();
    for (name, tensor) in bundle.tensors() {
        if let Some((dtype, data)) = change(&name, &tensor) {
            arrays.insert(name, (dtype, tensor.shape().to_vec(), data));
        }
    }
    let views = arrays.iter().map(|(name, (dtype, shape, data))| {
        (
            name.as_str(),
            TensorView::new(*dtype, shape.clone(), data).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn score_reads_half_precision_and_int64_and_names_columns_by_kind() {
    let dir = TempDir::new().unwrap();
    let (bundle, out) = (
        dir.path().join("half.safetensors"),
        dir.path().join("scores.parquet"),
    );
    other_bundle(&bundle, |name, tensor| {
        let wide = || floats(tensor).into_iter();
        Some(match name {
            "text" | "train" => (
                Dtype::F16,
                wide()
                    .flat_map(|x| f16::from_f32(x).to_le_bytes())
                    .collect(),
            ),
            "id" | "ood" => (
                Dtype::BF16,
                wide()
                    .flat_map(|x| bf16::from_f32(x).to_le_bytes())
                    .collect(),
            ),
            "train_labels" => {
                let labels = tensor.data().as_chunks::<4>().0.iter();
                let labels = labels.map(|b| i64::from(i32::from_le_bytes(*b)));
                (Dtype::I64, labels.flat_map(i64::to_le_bytes).collect())
            }
            // Global detectors need no patches.
            "id_local" | "ood_local" => return None,
            _ => (tensor.dtype(), tensor.data().to_vec()),
        })
    });
    let specs = "max_cosine,knn:k=5,m=mahalanobis";
    succeed(
        &[
            "score",
            "--bundle",
            text(&bundle),
            "--detectors",
            specs,
            "--out",
            text(&out),
        ],
        b"",
    );
    let rows = table(&out);
    let names: Vec<String> = rows
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names, ["role", "score_max_cosine", "score_knn", "score_m"]);
    let bytes = std::fs::read(BUNDLE).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    for (column, name) in [
        ("score_max_cosine", "max_cosine"),
        ("score_knn", "knn_k5_sq_l2"),
        ("score_m", "mahalanobis"),
    ] {
        let found = f32_column(&rows, column);
        for (role, found) in ["id", "ood"].into_iter().zip(found.chunks(40)) {
            let expected = floats(
                &reference
                    .tensor(&format!("expected/{name}/{role}"))
                    .unwrap(),
            );
            let error = difference(found, &expected);
            // bfloat16 keeps 8 bits: near, but not the same.
            assert!(
                error < 0.03 && error > 1e-6,
                "{name}/{role}: off by {error:e}"
            );
        }
    }
}

#[test]
fn score_names_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let (bundle, out) = (
        dir.path().join("bad.safetensors"),
        dir.path().join("scores.parquet"),
    );
    let score = |bundle: &str, specs: &str, code, words: &[&str]| {
        let arguments = [
            "score",
            "--bundle",
            bundle,
            "--detectors",
            specs,
            "--out",
            text(&out),
        ];
        fail(&arguments, b"", code, words);
        assert!(!out.exists());
    };
    score(BUNDLE, "mmc", 2, &["mmc", "mcm"]);
    score(BUNDLE, "mcm,mcm:t=0.1", 2, &["`score_mcm`", "alias"]);
    score("gone.safetensors", "mcm", 1, &["gone.safetensors"]);
    score(METRICS, "mcm", 1, &["metrics.json"]);
    let path = text(&bundle);
    for (gone, specs) in [
        ("ood", "mcm"),
        ("ood_local", "l_mcm"),
        ("train", "knn"),
        ("train_labels", "mahalanobis"),
    ] {
        other_bundle(&bundle, |name, tensor| {
            (name != gone).then(|| (tensor.dtype(), tensor.data().to_vec()))
        });
        score(path, specs, 1, &["bad.safetensors", gone]);
    }
    other_bundle(&bundle, |name, tensor| {
        let mut data = tensor.data().to_vec();
        if name == "train_labels" {
            data[8..12].copy_from_slice(&(-1i32).to_le_bytes());
        }
        Some((tensor.dtype(), data))
    });
    score(path, "mahalanobis", 1, &["`train_labels`", "row 2", "-1"]);
    other_bundle(&bundle, |name, tensor| {
        let dtype = if name == "id" {
            Dtype::I32
        } else {
            tensor.dtype()
        };
        Some((dtype, tensor.data().to_vec()))
    });
    score(path, "mcm", 1, &["`id`", "I32", "BF16"]);
    other_bundle(&bundle, |name, tensor| {
        let mut data = tensor.data().to_vec();
        if name == "ood" {
            data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some((tensor.dtype(), data))
    });
    score(path, "mcm", 1, &["bad.safetensors", "ood", "row 0", "NaN"]);
}

/// A `.npy` file of the tensor's own bytes.
pub fn npy(tensor: &TensorView<'_>) -> Vec<u8> {
    let kind = match tensor.dtype() {
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        Dtype::I64 => "<i8",
        Dtype::U64 => "<u8",
        Dtype::I32 => "<i4",
        other => panic!("{other:?}"),
    };
    let shape: Vec<String> = tensor.shape().iter().map(|n| format!("{n},")).collect();
    let header = format!(
        "{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}",
        shape.join(" ")
    );
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(tensor.data());
    bytes
}

#[test]
fn arrays_in_files_of_their_own_give_what_the_bundle_gives() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let bytes = std::fs::read(BUNDLE).unwrap();
    let bundle = SafeTensors::deserialize(&bytes).unwrap();
    let names = [
        "text",
        "negative_text",
        "train",
        "train_labels",
        "id",
        "ood",
        "id_local",
        "ood_local",
    ];
    for name in names {
        let file = dir.path().join(format!("{name}.npy"));
        std::fs::write(file, npy(&bundle.tensor(name).unwrap())).unwrap();
    }
    let out = |name: &str| path(&format!("{name}.parquet"));
    let detectors = ["--detectors", DETECTORS];
    let score = |more: &[&str], to: &str| {
        let to = out(to);
        let arguments = [&["score"][..], more, &detectors, &["--out", &to]].concat();
        succeed(&arguments, b"");
        std::fs::read(to).unwrap()
    };
    let whole = score(&["--bundle", BUNDLE], "bundle");
    let options: Vec<String> = names
        .iter()
        .flat_map(|name| {
            [
                format!("--{}", name.replace('_', "-")),
                path(&format!("{name}.npy")),
            ]
        })
        .collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    assert!(score(&options, "arrays") == whole);
    // One array in place of the bundle's, from another bundle.
    let id = format!("{BUNDLE}:ood");
    let swapped = score(
        &[
            "--bundle",
            BUNDLE,
            "--id",
            &id,
            "--id-local",
            &format!("{BUNDLE}:ood_local"),
        ],
        "swapped",
    );
    assert!(swapped != whole);
    let rows = table(std::path::Path::new(&out("swapped")));
    let found = f32_column(&rows, "score_msp");
    assert_eq!(found[..40], found[40..]);

    let error = |more: &[&str], words: &[&str]| {
        let to = out("none");
        let arguments = [&["score", "--detectors", "mcm", "--out", &to][..], more].concat();
        fail(&arguments, b"", 1, words);
    };
    error(
        &["--bundle", BUNDLE, "--id", BUNDLE],
        &["say which array", "ood_local"],
    );
    error(
        &["--bundle", BUNDLE, "--id", &format!("{BUNDLE}:idd")],
        &["`idd`", "arrays:"],
    );
    error(
        &["--text", &path("text.npy"), "--id", &path("id.npy")],
        &["no array `ood`", "--ood"],
    );
    error(
        &["--bundle", BUNDLE, "--id", &path("train_labels.npy")],
        &["train_labels.npy", "floats"],
    );
    error(
        &["--bundle", BUNDLE, "--id", &path("id_local.npy")],
        &["[rows, features]"],
    );
    std::fs::write(
        dir.path().join("cut.npy"),
        &npy(&bundle.tensor("id").unwrap())[..999],
    )
    .unwrap();
    error(
        &["--bundle", BUNDLE, "--id", &path("cut.npy")],
        &["cut.npy", "cut off"],
    );
}

#[test]
fn tables_of_encode_are_features() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let images = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../clipood-data/tests/data/preprocess"
    );
    let (a, b) = (
        format!("{images}/rgb_32x32.png"),
        format!("{images}/rgb_90x60.png"),
    );
    let texts = path("texts.txt");
    std::fs::write(&texts, "a star\na fish\n").unwrap();
    for (out, local) in [("t.parquet", true), ("t.safetensors", true)] {
        let out = path(out);
        let mut arguments = vec![
            "encode", "--model", "demo", "--out", &out, "--texts", &texts, "--images", &a, &b,
        ];
        if local {
            arguments.push("--local");
        }
        succeed(&arguments, b"");
    }
    let score = |kind: &str, columns: [&str; 3], to: &str| {
        let source = |column: &str| format!("{}:{column}", path(kind));
        let (text, global, local) = (source(columns[0]), source(columns[1]), source(columns[2]));
        let to = path(to);
        let arguments = [
            "score",
            "--text",
            &text,
            "--id",
            &global,
            "--ood",
            &global,
            "--id-local",
            &local,
            "--ood-local",
            &local,
            "--detectors",
            "mcm,gl_mcm",
            "--out",
            &to,
        ];
        succeed(&arguments, b"");
        let rows = table(std::path::Path::new(&to));
        (
            f32_column(&rows, "score_mcm"),
            f32_column(&rows, "score_gl_mcm"),
        )
    };
    let parquet = score("t.parquet", ["global", "global", "local"], "a.parquet");
    let tensors = score(
        "t.safetensors",
        ["text", "image_global", "image_local"],
        "b.parquet",
    );
    assert_eq!(parquet.0, tensors.0);
    assert_eq!(parquet.0.len(), 4);
    // Patches are kept in half precision in tables.
    for (x, y) in parquet.1.iter().zip(&tensors.1) {
        assert!((x - y).abs() < 1e-3, "{x} {y}");
    }
}

//! Manifests for Kubernetes. `make check-kubernetes` also validates the snapshots against the schemas of the API.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use clipood_core::ClusterManifest;
use clipood_launch::kubernetes::{manifests, yaml};
use clipood_launch::{Campaign, OpenStage, builtin, jobs};

fn rendered(text: &str, recipe: &str, open: &[(&str, usize)]) -> String {
    let manifest = ClusterManifest::parse(text, "test.toml").unwrap();
    let campaign = Campaign {
        recipe: recipe.into(),
        fingerprint: "0123456789abcdef".into(),
        run: "/clipood/runs/demo".into(),
        store: "s3://bucket/store".into(),
        data: "/clipood/data".into(),
        program: "clipood".into(),
        number: 2,
    };
    let open = open.iter().map(|(stage, open)| OpenStage {
        stage: stage.to_string(),
        open: *open,
    });
    let wanted = jobs(&manifest, &open.collect::<Vec<_>>());
    yaml(&manifests(&campaign, &manifest, &wanted)).unwrap()
}

/// Compares with the file `tests/data/<name>`, which is written if UPDATE_SNAPSHOTS is set.
fn same_as_file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text, kept,
        "{name}: run the test with UPDATE_SNAPSHOTS=1 if the change is meant"
    );
}

#[test]
fn the_example_with_every_stage_open() {
    let text = builtin::cluster("kubernetes-example").unwrap();
    let open = [("extract", 40), ("train", 3), ("score", 20), ("report", 1)];
    same_as_file("kubernetes-example.yaml", &rendered(text, "demo", &open));
}

#[test]
fn every_option_of_the_manifest() {
    let text = r#"
engine = "kubernetes"
workers = 100
devices = "cuda:0"
dtype = "f16"
container = "registry.example.org/clipood:0.1.0"
retries = 5
shared = ["/clipood"]
[resources]
gpus = 2
cpus = 16
memory = "128G"
[environment]
AWS_REGION = "eu-central-1"
NUMBER = "1"
TRUTH = "yes"
[kubernetes]
namespace = "team"
secrets = ["s3-keys"]
service_account = "clipood"
node_selector = { "gpu.example.org/kind" = "a100", spot = "true" }
tolerations = ["nvidia.com/gpu", "spot"]
priority_class = "low"
gpu_resource = "amd.com/gpu"
grace_seconds = 30
"#;
    let open = [("score", 7), ("report", 1)];
    let name = "A Recipe_with.a-very-long name and (signs)";
    same_as_file("kubernetes-all.yaml", &rendered(text, name, &open));
}

#[test]
fn only_what_is_missing_is_submitted() {
    let text = builtin::cluster("kubernetes-example").unwrap();
    let report = rendered(text, "demo", &[("extract", 0), ("report", 1)]);
    assert_eq!(report.matches("kind: Job").count(), 1);
    assert!(
        report.contains("-2-report") && !report.contains("gpu: "),
        "{report}"
    );
}

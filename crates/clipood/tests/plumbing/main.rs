//! The plumbing commands, as a script would call them, against reference values.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

mod bench;
mod checkpoints;
mod flat_features;
mod helpers;
mod inputs;
mod metrics;
mod score;
mod score_arrays;
mod similarity;
mod tables_elsewhere;

use helpers::succeed;
use serde_json::Value;

#[test]
fn detectors_lists_every_kind() {
    let listing = succeed(&["detectors"], b"");
    let all: Vec<Value> = serde_json::from_str(&succeed(&["detectors", "--json"], b"")).unwrap();
    assert_eq!(listing.lines().count(), all.len());
    for (line, entry) in listing.lines().zip(&all) {
        let (kind, summary) = (
            entry["kind"].as_str().unwrap(),
            entry["summary"].as_str().unwrap(),
        );
        assert!(line.starts_with(kind) && line.ends_with(summary), "{line}");
        for parameter in entry["parameters"].as_array().unwrap() {
            let (key, default) = (&parameter["key"], &parameter["default"]);
            let both = format!("{}={}", key.as_str().unwrap(), default.as_str().unwrap());
            assert!(line.contains(&both), "{line}");
        }
    }
    let svm = listing
        .lines()
        .find(|line| line.starts_with("one_class_svm"))
        .unwrap();
    assert!(
        svm.split_whitespace()
            .take(3)
            .eq(["one_class_svm", "gamma=1", "nu=0.1"]),
        "{svm}"
    );
}

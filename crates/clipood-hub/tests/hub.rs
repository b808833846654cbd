//! Names resolved against local servers that imitate the hub, including its failures.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod server;

use std::path::PathBuf;
use std::time::Duration;

use clipood_hub::{Event, HubError, HubOptions, Name, Snapshot, resolve};
use server::{Hub, Reply, git_sha1, sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn weights() -> Vec<u8> {
    (0..700_000u32)
        .map(|i| (i.wrapping_mul(7919) >> 5) as u8)
        .collect()
}

/// `org/tiny` with a small configuration and large weights.
fn hub() -> Hub {
    Hub::new(
        COMMIT,
        &[
            ("config.json", b"{}".to_vec()),
            ("model.safetensors", weights()),
        ],
    )
}

struct World {
    dir: TempDir,
    options: HubOptions,
}

fn world(hub: &Hub) -> World {
    let dir = TempDir::new().unwrap();
    let mut options = HubOptions::from_lookup(|_| None).unwrap();
    options.cache = dir.path().join("hub");
    options.endpoint = hub.url();
    options.pause = Duration::from_millis(1);
    World { dir, options }
}

impl World {
    fn resolve(&self, name: &str) -> Result<Snapshot, HubError> {
        resolve(
            &Name::parse(name).unwrap().unwrap(),
            &self.options,
            &mut |_| true,
        )
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("hub/models--org--tiny")
    }

    fn blob(&self) -> PathBuf {
        self.repository().join("blobs").join(sha256(&weights()))
    }
}

fn message(found: Result<Snapshot, HubError>) -> String {
    found.unwrap_err().to_string()
}

#[test]
fn files_are_placed_like_those_of_hugging_face_and_not_requested_again() {
    let hub = hub();
    let mut world = world(&hub);
    world.options.token = Some("secret".into());
    let mut last = 0;
    let name = Name::parse("hf-hub:org/tiny").unwrap().unwrap();
    let found = resolve(&name, &world.options, &mut |event| {
        if let Event::Received(progress) = event
            && progress.file == "model.safetensors"
        {
            assert_eq!(progress.total, Some(700_000));
            assert!(progress.done > last);
            last = progress.done;
        }
        true
    })
    .unwrap();
    assert_eq!(last, 700_000);
    assert_eq!(found.commit, COMMIT);
    assert_eq!(found.files, ["config.json", "model.safetensors"]);
    assert_eq!(
        found.folder,
        world.repository().join("snapshots").join(COMMIT)
    );
    assert_eq!(
        std::fs::read(found.folder.join("model.safetensors")).unwrap(),
        weights()
    );
    let link = |file: &str| std::fs::read_link(found.folder.join(file)).unwrap();
    let blob = PathBuf::from("../../blobs").join(sha256(&weights()));
    assert_eq!(link("model.safetensors"), blob);
    assert_eq!(
        link("config.json"),
        PathBuf::from("../../blobs").join(git_sha1(b"{}"))
    );
    let main = std::fs::read_to_string(world.repository().join("refs/main")).unwrap();
    assert_eq!(main, COMMIT);

    // The large file is on another host, which must not receive the token.
    let (own, other) = (hub.requests(), hub.other_requests());
    assert!(
        own.iter()
            .all(|r| r.header("authorization") == Some("Bearer secret"))
    );
    assert!(!other.is_empty());
    assert!(other.iter().all(|r| r.header("authorization").is_none()));

    let again = world.resolve("org/tiny").unwrap();
    assert_eq!(again, found);
    assert_eq!(hub.requests().len(), own.len() + 1, "only the listing");
    // Offline, by branch and by commit.
    world.options.offline = true;
    drop(hub);
    assert_eq!(world.resolve("org/tiny").unwrap(), found);
    assert_eq!(world.resolve(&format!("org/tiny@{COMMIT}")).unwrap(), found);
}

#[test]
fn a_broken_download_resumes_where_it_stopped() {
    let hub = hub();
    let world = world(&hub);
    // Every answer ends after 300,000 bytes.
    hub.cut_content(300_000);
    let found = world.resolve("org/tiny").unwrap();
    assert_eq!(
        std::fs::read(found.folder.join("model.safetensors")).unwrap(),
        weights()
    );
    let ranges: Vec<Option<String>> = hub
        .other_requests()
        .iter()
        .map(|r| r.header("range").map(str::to_owned))
        .collect();
    let range = |from: &str| Some(from.to_owned());
    assert_eq!(
        ranges,
        [None, range("bytes=300000-"), range("bytes=600000-")]
    );
}

#[test]
fn what_an_earlier_process_left_is_kept_or_replaced() {
    let hub = hub();
    let world = world(&hub);
    let incomplete = world.blob().with_extension("incomplete");
    std::fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    std::fs::write(&incomplete, &weights()[..500_000]).unwrap();
    world.resolve("org/tiny").unwrap();
    assert_eq!(
        hub.other_requests()[0].header("range"),
        Some("bytes=500000-")
    );
    assert!(!incomplete.exists());

    // A server without ranges sends everything, and everything is taken once.
    let plain = self::hub();
    plain.without_ranges();
    let other = self::world(&plain);
    let incomplete = other.blob().with_extension("incomplete");
    std::fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    std::fs::write(&incomplete, b"something else").unwrap();
    other.resolve("org/tiny").unwrap();
    assert_eq!(std::fs::read(other.blob()).unwrap(), weights());
}

#[test]
fn content_with_another_hash_is_deleted() {
    let hub = hub();
    let world = world(&hub);
    hub.corrupt_content();
    let text = message(world.resolve("org/tiny"));
    assert!(
        text.contains("sha256") && text.contains("model.safetensors"),
        "{text}"
    );
    assert!(!world.blob().exists() && !world.blob().with_extension("incomplete").exists());
}

#[test]
fn permanent_failures_are_reported_at_once() {
    let hub = hub();
    let world = world(&hub);
    for (status, code, words) in [
        (401, "", ["401", "HF_TOKEN"]),
        (403, "GatedRepo", ["403", "gated"]),
        (404, "RepoNotFound", ["404", "repository"]),
        (404, "RevisionNotFound", ["404", "revision"]),
        (418, "", ["418", "tiny"]),
    ] {
        let before = hub.requests().len();
        hub.answer_next(Reply::status(status).with("X-Error-Code", code));
        let text = message(world.resolve("org/tiny"));
        for word in words {
            assert!(text.contains(word), "{status}: {text}");
        }
        assert_eq!(hub.requests().len(), before + 1);
    }
}

#[test]
fn transient_failures_are_retried() {
    let hub = hub();
    let world = world(&hub);
    hub.answer_next(Reply::status(503));
    hub.answer_next(Reply::status(429).with("Retry-After", "0"));
    assert!(world.resolve("org/tiny").is_ok());
    for _ in 0..5 {
        hub.answer_next(Reply::status(500));
    }
    // After the last attempt the cache has it.
    assert!(world.resolve("org/tiny").is_ok());
    for _ in 0..5 {
        hub.answer_next(Reply::status(500));
    }
    let text = message(world.resolve("org/tiny@v2"));
    assert!(
        text.contains("500") && text.contains("5 attempts"),
        "{text}"
    );
}

#[test]
fn offline_errors_name_the_files_and_their_place() {
    let hub = hub();
    let mut world = world(&hub);
    world.options.offline = true;
    let text = message(world.resolve("org/tiny"));
    let place = world.repository().join("snapshots");
    for word in [
        "HF_HUB_OFFLINE",
        "model.safetensors",
        &place.display().to_string(),
    ] {
        assert!(text.contains(word), "{text}");
    }
    assert!(hub.requests().is_empty());
    // No server listens.
    world.options.offline = false;
    world.options.attempts = 1;
    drop(hub);
    let text = message(world.resolve("org/tiny"));
    assert!(
        text.contains("cannot be reached") && text.contains("config.json"),
        "{text}"
    );
}

#[test]
fn split_weights_are_complete() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let hub = Hub::new(
        COMMIT,
        &[
            ("config.json", b"{}".to_vec()),
            ("model.safetensors.index.json", index.to_vec()),
            ("model-1.safetensors", vec![1; 10]),
            ("model-2.safetensors", vec![2; 20]),
            ("pytorch_model.bin", vec![3; 30]),
        ],
    );
    let mut world = world(&hub);
    let found = world.resolve("org/tiny").unwrap();
    assert_eq!(found.files.len(), 4);
    assert!(!found.folder.join("pytorch_model.bin").exists());
    world.options.offline = true;
    assert_eq!(world.resolve("org/tiny").unwrap(), found);
    std::fs::remove_file(found.folder.join("model-2.safetensors")).unwrap();
    let text = message(world.resolve("org/tiny"));
    assert!(text.contains("model-2.safetensors"), "{text}");
}

#[test]
fn two_threads_download_a_file_once() {
    let hub = hub();
    let world = world(&hub);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| world.resolve("org/tiny").unwrap());
        }
    });
    assert_eq!(hub.other_requests().len(), 1);
    assert_eq!(std::fs::read(world.blob()).unwrap(), weights());
}

#[test]
fn a_repository_without_a_checkpoint_is_reported() {
    let hub = Hub::new(COMMIT, &[("README.md", b"hello".to_vec())]);
    let text = message(world(&hub).resolve("org/tiny"));
    assert!(
        text.contains("org/tiny") && text.contains("config.json"),
        "{text}"
    );
}

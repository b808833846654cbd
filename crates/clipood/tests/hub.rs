//! Models by their name on a hub that runs on this machine, through the real command.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../clipood-hub/tests/server/mod.rs"]
mod server;

use std::process::{Command, Output};

use common::{RECIPE, World, files, stderr};
use server::{Hub, Manner, Reply};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The demo's model as `org/tiny`.
fn hub() -> Hub {
    let demo = clipood_demo::model_files();
    Hub::new(
        COMMIT,
        &[
            ("README.md", b"a model".to_vec()),
            ("open_clip_config.json", demo.config.as_bytes().to_vec()),
            ("open_clip_model.safetensors", demo.weights.to_vec()),
        ],
    )
}

fn with_hub(command: &mut Command, world: &World, hub: &Hub) -> Output {
    command
        .env("HF_HUB_CACHE", world.path("cache"))
        .env("HF_ENDPOINT", hub.url())
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_TOKEN")
        .output()
        .unwrap()
}

fn encode(world: &World, model: &str, out: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clipood"));
    command
        .current_dir(world.path("."))
        .args(["encode", "--model", model, "--out", out])
        .args(["--images", "data/id/test/star/00.png"]);
    command
}

#[test]
fn a_name_of_the_hub_is_a_model() {
    let world = World::new();
    let hub = hub();
    // The first answer breaks off, the second goes on.
    hub.cut_content(3_000_000);
    let first = with_hub(
        &mut encode(&world, "hf-hub:org/tiny", "hub.safetensors"),
        &world,
        &hub,
    );
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(
        stderr(&first).contains("open_clip_model.safetensors"),
        "{}",
        stderr(&first)
    );
    let demo = with_hub(
        &mut encode(&world, "demo", "demo.safetensors"),
        &world,
        &hub,
    );
    assert!(demo.status.success(), "{}", stderr(&demo));
    let bytes = |name: &str| std::fs::read(world.path(name)).unwrap();
    let values = |name: &str| {
        let bytes = bytes(name);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor("image_global").unwrap().data().to_vec()
    };
    assert_eq!(values("hub.safetensors"), values("demo.safetensors"));

    // Nothing is asked for when there is no network; what is not there says where it belongs.
    let offline = |name: &str| {
        let mut command = encode(&world, name, "offline.safetensors");
        command
            .env("HF_HUB_CACHE", world.path("cache"))
            .env("HF_HUB_OFFLINE", "1");
        command.output().unwrap()
    };
    let again = offline("org/tiny");
    assert!(again.status.success(), "{}", stderr(&again));
    let missing = offline("org/other");
    assert_eq!(missing.status.code(), Some(2));
    let log = stderr(&missing);
    assert!(
        log.contains("HF_HUB_OFFLINE") && log.contains("models--org--other"),
        "{log}"
    );
}

#[test]
fn a_run_is_of_one_commit() {
    let world = World::new();
    let hub = hub();
    world.write("recipe.toml", RECIPE.replace("\"demo\"", "\"org/tiny\""));
    let arguments = ["--methods", "zero-shot", "--detectors", "mcm"];
    let run = with_hub(&mut world.command("run", &arguments), &world, &hub);
    assert!(run.status.success(), "{}", stderr(&run));
    let text = std::fs::read_to_string(world.path("run/run.json")).unwrap();
    assert!(text.contains(COMMIT), "{text}");
    let before = files(&world.path("run"));
    let again = with_hub(&mut world.command("run", &arguments), &world, &hub);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(files(&world.path("run")), before);

    // The repository has moved on: another configuration, told by its field.
    let demo = clipood_demo::model_files();
    let moved = Hub::new(
        &COMMIT.replace('0', "f"),
        &[
            ("open_clip_config.json", demo.config.as_bytes().to_vec()),
            ("open_clip_model.safetensors", demo.weights.to_vec()),
        ],
    );
    let later = with_hub(&mut world.command("run", &arguments), &world, &moved);
    assert_eq!(later.status.code(), Some(2));
    assert!(
        stderr(&later).contains("model_revision"),
        "{}",
        stderr(&later)
    );

    hub.answer_next(Reply::status(404).with("X-Error-Code", "RepoNotFound"));
    let gone = with_hub(&mut world.command("other", &arguments), &world, &hub);
    assert_eq!(gone.status.code(), Some(2));
    assert!(stderr(&gone).contains("404"), "{}", stderr(&gone));
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_download_at_any_moment() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let signals = ["-INT", "-TERM"];
    let manners = [
        // Before the header of the listing, in its pause, and within the weights.
        ("silent", Some(Reply::status(200).sent(Manner::Silent))),
        ("waits", Some(Reply::status(503).with("Retry-After", "50"))),
        ("slow", None),
    ];
    for (number, (run, listing)) in manners.into_iter().enumerate() {
        let world = World::new();
        let hub = hub();
        world.write("recipe.toml", RECIPE.replace("\"demo\"", "\"org/tiny\""));
        match listing {
            Some(reply) => hub.answer_next(reply),
            None => {
                hub.change_content(|_, reply| reply.sent(Manner::Slow(Duration::from_millis(20))))
            }
        }
        let child = world
            .command(run, &["--store", "store"])
            .env("HF_HUB_CACHE", world.path("cache"))
            .env("HF_ENDPOINT", hub.url())
            .env_remove("HF_HUB_OFFLINE")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let asked = || match run {
            "slow" => hub.other_requests().len(),
            _ => hub.requests().len(),
        };
        let begun = Instant::now();
        while asked() == 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{run}: no request"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        let id = child.id().to_string();
        let sent = Command::new("kill")
            .args([signals[number % 2], &id])
            .status();
        assert!(sent.unwrap().success());
        let signalled = Instant::now();
        let ended = child.wait_with_output().unwrap();
        // Each of these goes on for at least half a minute if nobody stops it.
        let took = signalled.elapsed();
        assert!(took < Duration::from_secs(10), "{run}: {took:?}");
        println!("{run}: ended {} ms after the signal", took.as_millis());
        assert_eq!(ended.status.code(), Some(3), "{run}: {}", stderr(&ended));
    }
}

#[test]
fn a_server_that_asks_for_patience_is_named_to_the_user() {
    let world = World::new();
    let hub = hub();
    hub.answer_next(Reply::status(429).with("Retry-After", "1"));
    let mut command = encode(&world, "org/tiny", "a.safetensors");
    let waited = with_hub(&mut command, &world, &hub);
    assert!(waited.status.success(), "{}", stderr(&waited));
    let log = stderr(&waited);
    assert!(
        log.contains("429") && log.contains("trying again in 1 s"),
        "{log}"
    );
    let mut command = encode(&world, "org/tiny", "b.safetensors");
    command.env("CLIPOOD_HUB_TIMEOUT", "soon");
    let wrong = with_hub(&mut command, &world, &hub);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        stderr(&wrong).contains("CLIPOOD_HUB_TIMEOUT=soon"),
        "{}",
        stderr(&wrong)
    );
}

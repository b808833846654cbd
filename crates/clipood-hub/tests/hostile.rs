//! Servers that misbehave: too much, too little, too slow, something else, or never.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clipood_hub::{Event, HubError, HubOptions, Name, Snapshot, resolve};
use server::{Hub, Manner, Reply, sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn weights() -> Vec<u8> {
    (0..5_000u32)
        .map(|i| (i.wrapping_mul(7919) >> 5) as u8)
        .collect()
}

fn hub() -> Hub {
    let files = [
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights()),
    ];
    Hub::new(COMMIT, &files)
}

struct World {
    dir: TempDir,
    options: HubOptions,
}

/// A client with little patience.
fn world(hub: &Hub) -> World {
    let dir = TempDir::new().unwrap();
    let mut options = HubOptions::from_lookup(|_| None).unwrap();
    options.cache = dir.path().join("hub");
    options.endpoint = hub.url();
    options.pause = Duration::from_millis(1);
    options.attempts = 2;
    options.timeout = Duration::from_secs(1);
    World { dir, options }
}

impl World {
    /// The result, and the sentences for the user.
    fn resolve(&self) -> (Result<Snapshot, HubError>, Vec<String>) {
        let name = Name::parse("org/tiny").unwrap().unwrap();
        let mut notes = Vec::new();
        let found = resolve(&name, &self.options, &mut |event| {
            if let Event::Note(note) = event {
                notes.push(note.to_owned());
            }
            true
        });
        (found, notes)
    }

    fn message(&self) -> String {
        self.resolve().0.unwrap_err().to_string()
    }

    fn blob(&self) -> PathBuf {
        let blobs = self.dir.path().join("hub/models--org--tiny/blobs");
        blobs.join(sha256(&weights()))
    }

    /// Puts the first bytes of the weights where an earlier process would have left them.
    fn leave(&self, bytes: &[u8]) {
        let incomplete = self.blob().with_extension("incomplete");
        std::fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
        std::fs::write(incomplete, bytes).unwrap();
    }
}

#[test]
fn what_comes_beyond_the_stated_size_is_not_read() {
    let hub = hub();
    let world = world(&hub);
    // The hub states 5,000 bytes; the body has no length and no end.
    hub.change_content(|_, reply| reply.sent(Manner::EndlessBody));
    let (found, _) = world.resolve();
    let file = found.unwrap().folder.join("model.safetensors");
    assert_eq!(std::fs::read(file).unwrap(), weights());
}

#[test]
fn an_answer_that_states_another_size_is_refused() {
    let hub = hub();
    let world = world(&hub);
    hub.change_content(|_, _| Reply::text("a page instead of the weights"));
    let text = world.message();
    assert!(text.contains("29 bytes") && text.contains("5000"), "{text}");
    let incomplete = world.blob().with_extension("incomplete");
    assert_eq!(std::fs::metadata(incomplete).map_or(0, |m| m.len()), 0);
}

#[test]
fn a_file_of_unstated_size_has_a_limit() {
    let hub = hub();
    let mut world = world(&hub);
    world.options.unstated_limit = 12_000;
    // The head of the file states a hash and no size.
    let head = || {
        Reply::status(302)
            .with("Location", "/nowhere")
            .with("X-Linked-Etag", sha256(&weights()))
    };
    // The listing, then head and content of the configuration, then the head of the weights.
    let listing = format!(
        "{{\"sha\": \"{COMMIT}\", \"siblings\": [{{\"rfilename\": \"config.json\"}}, {{\"rfilename\": \"model.safetensors\"}}]}}"
    );
    hub.answer_next(Reply::text(&listing));
    hub.answer_next(Reply::text("{}").with("ETag", server::git_sha1(b"{}")));
    hub.answer_next(Reply::text("{}"));
    hub.answer_next(head());
    hub.change_content(|_, reply| reply.sent(Manner::EndlessBody));
    let text = world.message();
    assert!(
        text.contains("12000 bytes") && text.contains("CLIPOOD_HUB_MAX_BYTES"),
        "{text}"
    );
}

#[test]
fn another_range_than_the_one_asked_for_is_not_appended() {
    let hub = hub();
    let world = world(&hub);
    world.leave(&weights()[..2_000]);
    // Asked for the bytes from 2,000 on, it says that it sends those from 1,000 on.
    hub.change_content(|request, reply| match request.header("range") {
        Some(_) => reply.instead("Content-Range", "bytes 1000-4999/5000"),
        None => reply,
    });
    let (found, _) = world.resolve();
    let file = found.unwrap().folder.join("model.safetensors");
    assert_eq!(std::fs::read(file).unwrap(), weights());
    let ranges: Vec<bool> = hub
        .other_requests()
        .iter()
        .map(|request| request.header("range").is_some())
        .collect();
    assert_eq!(
        ranges,
        [true, false],
        "once with a range, then from the start"
    );
}

#[test]
fn a_server_that_sends_a_byte_now_and_then_is_given_up() {
    let hub = hub();
    let world = world(&hub);
    hub.change_content(|_, reply| reply.sent(Manner::Slow(Duration::from_millis(50))));
    let begun = Instant::now();
    let text = world.message();
    assert!(text.contains("bytes per second"), "{text}");
    assert!(text.contains("CLIPOOD_HUB_MIN_RATE"), "{text}");
    // The whole file would take 250 s.
    assert!(begun.elapsed() < Duration::from_secs(60));
    // What has come is kept for the next attempt.
    let incomplete = world.blob().with_extension("incomplete");
    assert!(std::fs::metadata(incomplete).unwrap().len() > 0);
}

#[test]
fn a_deadline_ends_any_download() {
    let hub = hub();
    let mut world = world(&hub);
    world.options.min_rate = 0;
    world.options.deadline = Some(Duration::from_millis(500));
    hub.change_content(|_, reply| reply.sent(Manner::Slow(Duration::from_millis(50))));
    let text = world.message();
    assert!(
        text.contains("not finished within 0.5 s") && text.contains("CLIPOOD_HUB_DEADLINE"),
        "{text}"
    );
}

#[test]
fn silence_and_headers_without_end_are_failed_attempts() {
    for manner in [Manner::Silent, Manner::EndlessHeaders] {
        let hub = hub();
        let world = world(&hub);
        for _ in 0..2 {
            hub.answer_next(Reply::status(200).sent(manner));
        }
        let text = world.message();
        assert!(text.contains("2 attempts"), "{manner:?}: {text}");
        // The third answer is a good one.
        assert!(world.resolve().0.is_ok(), "{manner:?}");
    }
}

#[test]
fn a_pause_that_the_server_asks_for_is_kept_announced_and_limited() {
    let hub = hub();
    let world = world(&hub);
    for status in [429, 503] {
        hub.answer_next(Reply::status(status).with("Retry-After", "1"));
        let begun = Instant::now();
        let (found, notes) = world.resolve();
        assert!(found.is_ok());
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(notes.len(), 1);
        let status = status.to_string();
        assert!(
            notes[0].contains(&status) && notes[0].contains("1 s"),
            "{notes:?}"
        );
    }
    // By a date that is over: at once.
    let over = "Sun, 06 Nov 1994 08:49:37 GMT";
    hub.answer_next(Reply::status(503).with("Retry-After", over));
    assert!(world.resolve().0.is_ok());
    // More than the limit: the copy in the cache, with a word; without a copy an error.
    for _ in 0..2 {
        hub.answer_next(Reply::status(429).with("Retry-After", "3600"));
    }
    let (found, notes) = world.resolve();
    assert!(found.is_ok());
    assert!(
        notes[0].contains("3600 s") && notes[0].contains("cache"),
        "{notes:?}"
    );
    let empty = self::world(&hub);
    let text = empty.message();
    assert!(
        text.contains("3600 s") && text.contains("CLIPOOD_HUB_MAX_WAIT"),
        "{text}"
    );
}

#[test]
fn redirects_are_bounded_and_take_no_token_to_another_host() {
    let hub = hub();
    let mut world = world(&hub);
    world.options.token = Some("secret".into());
    for _ in 0..20 {
        hub.answer_next(Reply::status(302).with("Location", "/api/again"));
    }
    let text = world.message();
    assert!(text.contains("redirects without end"), "{text}");
    assert!(hub.requests().len() <= 10, "{}", hub.requests().len());

    let other = self::hub();
    let hub = self::hub();
    world.options.endpoint = hub.url();
    let to = format!("{}/api/models/org/tiny/revision/main", other.url());
    hub.answer_next(Reply::status(302).with("Location", to));
    world.resolve().0.unwrap();
    assert_eq!(
        hub.requests()[0].header("authorization"),
        Some("Bearer secret")
    );
    assert_eq!(other.requests().len(), 1);
    assert!(other.requests()[0].header("authorization").is_none());
}

#[test]
fn a_page_instead_of_the_description_is_named() {
    let hub = hub();
    let world = world(&hub);
    hub.answer_next(Reply::text("<html>please log in</html>"));
    let text = world.message();
    assert!(
        text.contains("not a description of a repository") && text.contains("<html>"),
        "{text}"
    );
}

#[test]
fn a_listener_stops_the_download() {
    let hub = hub();
    let world = world(&hub);
    let name = Name::parse("org/tiny").unwrap().unwrap();
    let stopped = resolve(&name, &world.options, &mut |_| false);
    assert!(matches!(stopped, Err(HubError::Stopped)));
    assert!(world.resolve().0.is_ok());
}

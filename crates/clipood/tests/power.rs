//! The order in which a run writes to disk, as the kernel sees it: what a power cut leaves. `make test-crash` runs this; it
//! needs `strace`.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use common::{World, files, stderr};

/// A call that matters for durability, in the order of completion; those that publish a name count from their start.
#[derive(Debug)]
enum Event {
    Write(String),
    Sync(String),
    /// A link or a rename: the staged file and its new name.
    Publish(String, String),
    MakeDir(String),
}

/// Thread and event of each line of the trace that succeeded.
fn events(log: &str) -> Vec<(String, Event)> {
    let mut begun: HashMap<String, (usize, String)> = HashMap::new();
    let mut found: Vec<(usize, String, Event)> = Vec::new();
    for (line_number, line) in log.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread.to_owned(), (line_number, start.to_owned()));
            continue;
        }
        let (start, call) = match rest.strip_prefix("<... ") {
            None => (line_number, rest.to_owned()),
            Some(resumed) => {
                let (start, mut call) = begun.remove(thread).unwrap();
                call += resumed.split_once("resumed>").unwrap().1;
                (start, call)
            }
        };
        let Some((_, answer)) = call.rsplit_once(" = ") else {
            continue;
        };
        if answer.starts_with('-') || answer.starts_with('?') {
            continue;
        }
        let name = call.split('(').next().unwrap_or_default();
        let quoted: Vec<String> = call
            .split('"')
            .skip(1)
            .step_by(2)
            .map(String::from)
            .collect();
        // With -y a file descriptor is followed by its path: `fsync(7</path>)`.
        let of_descriptor = || {
            let (_, rest) = call.split_once('<')?;
            Some(rest.split_once(">")?.0.to_owned())
        };
        let event = match name {
            "fsync" | "fdatasync" => (line_number, of_descriptor().map(Event::Sync)),
            "write" | "pwrite64" | "writev" => (line_number, of_descriptor().map(Event::Write)),
            "link" | "linkat" | "rename" | "renameat" | "renameat2" => (
                start,
                Some(Event::Publish(quoted[0].clone(), quoted[1].clone())),
            ),
            "mkdir" | "mkdirat" => (start, Some(Event::MakeDir(quoted[0].clone()))),
            _ => continue,
        };
        if let (at, Some(event)) = event {
            found.push((at, thread.to_owned(), event));
        }
    }
    found.sort_by_key(|(at, ..)| *at);
    found
        .into_iter()
        .map(|(_, thread, event)| (thread, event))
        .collect()
}

fn parent(path: &str) -> String {
    Path::new(path).parent().unwrap().display().to_string()
}

#[test]
#[ignore = "needs strace; make test-crash runs it"]
fn parts_are_on_disk_before_their_records_and_both_before_they_count() {
    let world = World::new();
    let log = world.path("trace.log");
    let command = world.command("run", &["--store", "store"]);
    let traced = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-o"])
        .arg(&log)
        .args([
            "-e",
            "trace=write,pwrite64,writev,fsync,fdatasync,link,linkat,rename,renameat,renameat2,mkdir,mkdirat",
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(world.path(""))
        .output();
    let traced =
        traced.unwrap_or_else(|e| panic!("strace is needed for this test and does not start: {e}"));
    assert!(traced.status.success(), "{}", stderr(&traced));
    let root = world.path("").canonicalize().unwrap().display().to_string();
    let root = root.trim_end_matches('/').to_owned();
    let ours = |path: &str| {
        path.starts_with(&format!("{root}/run")) || path.starts_with(&format!("{root}/store"))
    };
    let events = events(&std::fs::read_to_string(&log).unwrap());
    let mut synced: HashSet<&str> = HashSet::new();
    // New folders whose own name is not on disk yet.
    let mut loose: HashSet<&str> = HashSet::new();
    // By name, the position after which it survives a power cut.
    let mut safe: HashMap<&str, usize> = HashMap::new();
    let mut published_at: HashMap<&str, usize> = HashMap::new();
    let mut published = 0;
    for (number, (thread, event)) in events.iter().enumerate() {
        match event {
            Event::Write(path) if ours(path) => {
                assert!(path.contains('#'), "{path} is written in place");
                synced.remove(path.as_str());
            }
            Event::Sync(path) => {
                synced.insert(path);
                loose.retain(|folder| parent(folder) != *path);
            }
            Event::MakeDir(path) if ours(path) => {
                loose.insert(path);
            }
            Event::Publish(from, to) if ours(to) => {
                published += 1;
                assert!(
                    synced.contains(from.as_str()),
                    "{to} appears before its bytes are on disk"
                );
                let folder = parent(to);
                // The same thread flushes the folder next, and only then reports success.
                let next = events[number + 1..]
                    .iter()
                    .enumerate()
                    .find(|(_, (t, _))| t == thread);
                let (further, (_, next)) = next.unwrap();
                assert!(
                    matches!(next, Event::Sync(path) if *path == folder),
                    "{to}: its folder is not flushed: {next:?}"
                );
                published_at.insert(to, number);
                safe.insert(to, number + 1 + further);
                let above = loose
                    .iter()
                    .find(|made| to.starts_with(&format!("{made}/")));
                assert_eq!(
                    above, None,
                    "{to} appears in a folder that a power cut removes"
                );
            }
            _ => {}
        }
    }
    assert!(published > 50, "only {published} files");
    let mut records = 0;
    for (store, ledger) in [
        ("run", "run/_run"),
        ("store/prompts", "store/prompts/_commits"),
    ] {
        for name in files(&world.path(&format!("{ledger}/commits"))) {
            let record = format!("{root}/{ledger}/commits/{name}");
            let json = std::fs::read(&record).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let Some(part) = json["part"].as_str() else {
                continue;
            };
            let part = format!("{root}/{store}/{part}");
            assert!(
                safe[part.as_str()] < published_at[record.as_str()],
                "{record} is on disk before {part}"
            );
            records += 1;
        }
    }
    assert!(records > 10, "only {records} records");
    let syncs = events
        .iter()
        .filter(|(_, e)| matches!(e, Event::Sync(path) if ours(path)))
        .count();
    println!(
        "{published} files published with {syncs} flushes; {records} records after their parts"
    );
}

//! Standard output and error that are closed, full or gone; looking without permission to write; logs in JSON.
#![cfg(target_os = "linux")]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output, Stdio};

use common::{RECIPE, World, files, stderr, stdout, succeeds};

/// A quick recipe: one method, nothing trained.
fn world() -> World {
    let world = World::new();
    let recipe = RECIPE.replace("[\"zero-shot\", \"locoop\"]", "[\"zero-shot\"]");
    world.write("recipe.toml", recipe);
    world
}

/// `sh -c SCRIPT` in the folder, where `$CLIPOOD` is the command and `$RUN` runs the recipe as `run`.
fn shell(world: &World, script: &str) -> Output {
    let command = env!("CARGO_BIN_EXE_clipood");
    Command::new("bash")
        .args(["-c", script])
        .current_dir(world.path(""))
        .env("CLIPOOD", command)
        .env(
            "RUN",
            format!("{command} run recipe.toml --manifests manifests --store store --run"),
        )
        .output()
        .unwrap()
}

/// The exit codes of a pipe, as `PIPESTATUS` prints them on the last line.
fn codes(world: &World, script: &str) -> (String, String) {
    let done = shell(world, &format!("{script}; echo \"${{PIPESTATUS[*]}}\""));
    let text = stdout(&done);
    let last = text.lines().last().unwrap_or_default().to_owned();
    (last, stderr(&done))
}

#[test]
fn a_reader_that_goes_ends_no_work() {
    let world = world();
    // Standard error: the run goes on, and its results are files.
    let (code, _) = codes(&world, "$RUN a 2>&1 >/dev/null | head -c 1 >/dev/null");
    assert_eq!(code, "0 0");
    let report = world.clipood(&["report", "a"]).output().unwrap();
    assert!(report.status.success(), "{}", stderr(&report));
    // Standard output: the same, and no panic.
    for script in [
        "$RUN b | true",
        "$RUN b 2>&1 | true",
        "$RUN b --json-log 2>&1 | true",
        "$CLIPOOD report b | true",
        "$CLIPOOD status b --store store | true",
        "$CLIPOOD --help | true",
        "$CLIPOOD detectors | true",
        "$CLIPOOD recipes | true",
        "yes fish | head -n 20000 | $CLIPOOD tokenize | head -n 1 >/dev/null",
    ] {
        let (code, log) = codes(&world, script);
        assert!(code.ends_with("0 0"), "{script}: {code}: {log}");
        assert!(!log.contains("panicked"), "{script}: {log}");
    }
    assert!(world.path("b/report/index.html").exists());
}

#[test]
fn an_error_without_a_reader_is_still_an_exit_code() {
    let world = world();
    for (script, expected) in [
        ("$CLIPOOD report nowhere 2>&1 | true", "2 0"),
        ("$CLIPOOD run --nonsense 2>&1 | true", "2 0"),
        ("$CLIPOOD --trace nonsense recipes 2>&1 | true", "2 0"),
    ] {
        // The reader goes at once.
        let (code, log) = codes(&world, script);
        assert_eq!(code, expected, "{script}: {log}");
    }
}

#[test]
fn traces_without_a_reader_are_lost_and_nothing_else() {
    let world = world();
    for script in [
        "$RUN a --trace trace 2>&1 >/dev/null | head -n 1 >/dev/null",
        "$RUN b --trace trace --json-log 2>&1 >/dev/null | head -n 1 >/dev/null",
    ] {
        let (code, log) = codes(&world, script);
        assert_eq!(code, "0 0", "{script}: {log}");
    }
}

#[test]
fn standard_output_that_is_full_is_an_error_with_a_word() {
    let world = world();
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    for script in [
        "$RUN run > /dev/full",
        "$CLIPOOD report run > /dev/full",
        "$CLIPOOD status run --store store > /dev/full",
        "$CLIPOOD detectors > /dev/full",
        "$CLIPOOD --help > /dev/full",
        "echo fish | $CLIPOOD tokenize > /dev/full",
    ] {
        let done = shell(&world, script);
        let log = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{script}: {log}");
        assert!(
            log.contains("cannot write to standard output"),
            "{script}: {log}"
        );
    }
}

#[test]
fn closed_descriptors_are_no_reason_to_fail() {
    let world = world();
    for script in [
        "$RUN run >&-",
        "$RUN run 2>&-",
        "$RUN run <&- >&- 2>&-",
        "$RUN other <&- >&- 2>&-",
        "$CLIPOOD report run 2>&-",
    ] {
        let done = shell(&world, script);
        assert!(done.status.success(), "{script}: {}", stderr(&done));
    }
    // The files of the run are what they would be: nothing was written into a file that took a closed descriptor.
    let audit = ["status", "other", "--audit", "--store", "store"];
    let audit = world.clipood(&audit).output().unwrap();
    assert!(audit.status.success(), "{}", stdout(&audit));
}

#[test]
fn looking_needs_no_permission_to_write() {
    let world = world();
    let run = world.run("disk/run", &["--store", "disk/store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let before = files(&world.path("disk"));
    // A read-only mount in a mount namespace of its own: permissions alone would not stop root.
    let script = r#"
set -u
mount --bind disk disk
mount -o remount,bind,ro disk
if touch disk/probe 2>/dev/null; then echo "not read-only" >&2; exit 90; fi
clipood=$1
check() { "$@" > out 2>&1 || { echo "failed: $*" >&2; cat out >&2; exit 91; }; }
check $clipood status disk/run --store disk/store
check $clipood status disk/run --audit --store disk/store
check $clipood explain disk/run train/zero-shot --store disk/store
check $clipood gc disk/run --store disk/store
check $clipood report disk/run
check $clipood run recipe.toml --manifests manifests --run disk/run --store disk/store
grep -q "planned = " out || exit 92
"#;
    let looked = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(env!("CARGO_BIN_EXE_clipood"))
        .current_dir(world.path(""))
        .output()
        .unwrap();
    assert!(
        looked.status.success(),
        "{}{}",
        stdout(&looked),
        stderr(&looked)
    );
    assert_eq!(files(&world.path("disk")), before);
}

#[test]
fn a_json_log_is_json_whatever_happens() {
    let world = world();
    world.write("data/textures/any/03.png", b"not a picture");
    let recipe = std::fs::read_to_string(world.path("recipe.toml")).unwrap();
    world.write(
        "strict.toml",
        recipe.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.0"),
    );
    let mut kinds = std::collections::BTreeSet::new();
    for (words, code) in [
        (
            vec!["run", "strict.toml", "--run", "a", "--trace", "debug"],
            1,
        ),
        (
            vec!["run", "recipe.toml", "--run", "b", "--shots", "many"],
            2,
        ),
        (vec!["run", "recipe.toml", "--run", "b", "--wrong"], 2),
        (vec!["run", "--wrong"], 2),
        (vec!["worker", "nowhere"], 2),
        (
            vec!["run", "recipe.toml", "--run", "b", "--trace", "loud"],
            2,
        ),
        (vec!["nonsense"], 2),
    ] {
        let mut command = world.clipood(&words);
        if words[0] == "run" {
            command.args(["--manifests", "manifests"]);
        }
        let done = command.arg("--json-log").output().unwrap();
        let log = stderr(&done);
        assert_eq!(done.status.code(), Some(code), "{words:?}: {log}");
        assert!(!log.is_empty());
        for line in log.lines() {
            let object: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{words:?}: {error}: {line}"));
            let object = object.as_object().unwrap();
            kinds.extend(object.keys().cloned());
        }
    }
    for kind in ["error", "trace", "stage", "note"] {
        assert!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }
}

#[test]
fn a_run_inside_its_store_is_refused_and_one_that_is_there_survives_gc() {
    let world = world();
    let refused = world.run("store/prompts/mine", &["--store", "store"]);
    assert_eq!(refused.status.code(), Some(2));
    let log = stderr(&refused);
    assert!(
        log.contains("store/prompts") && log.contains("lies inside"),
        "{log}"
    );
    assert!(!world.path("store").exists());
    let refused = world.run("run", &["--store", "run/scores/store"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));

    // As an older version would have left it.
    let name = "0123456789abcdef0123456789abcdef";
    let run = world.run("elsewhere", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let nested = world.path("store/prompts").join(name);
    std::fs::rename(world.path("elsewhere"), &nested).unwrap();
    let inside = files(&nested);
    let kept = world.run("kept", &["--store", "store", "--shots", "1"]);
    assert!(kept.status.success(), "{}", stderr(&kept));
    let words = ["gc", "kept", "--store", "store", "--delete"];
    let gc = world.clipood(&words).output().unwrap();
    assert!(gc.status.success(), "{}", stderr(&gc));
    assert_eq!(files(&nested), inside);
}

#[test]
fn a_finished_run_names_what_it_has_lost_and_makes_it_again() {
    let world = world();
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let table = "scores/prompt=zero-shot/dataset=scenes/part-00000.parquet";
    let path = world.path("run").join(table);
    let bytes = std::fs::read(&path).unwrap();
    let lost = |words: &[&str]| {
        let audit = ["status", "run", "--store", "store", "--audit"];
        let audit = world.clipood(&audit).output().unwrap();
        assert_eq!(audit.status.code(), Some(1), "{}", stdout(&audit));
        let again = world.run("run", &["--store", "store"]);
        assert!(again.status.success(), "{}", stderr(&again));
        let log = stderr(&again);
        for word in words {
            assert!(log.contains(word), "{word}: {log}");
        }
    };
    std::fs::remove_file(&path).unwrap();
    lost(&[table, "found no such file", "made again"]);
    assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len());

    let metrics = files(&world.path("run/metrics"));
    for file in &metrics {
        std::fs::remove_file(world.path("run/metrics").join(file)).unwrap();
    }
    lost(&["run/metrics/", "found no such file", "made again"]);
    assert_eq!(files(&world.path("run/metrics")).len(), metrics.len());
}

#[test]
fn names_of_files_cannot_move_the_cursor() {
    let world = world();
    let name = "data/scenes/any/\u{1b}[2Jevil.png";
    world.write(name, b"not a picture");
    let recipe = std::fs::read_to_string(world.path("recipe.toml")).unwrap();
    world.write(
        "recipe.toml",
        recipe.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.5"),
    );
    let mut outputs = vec![world.run("run", &["--store", "store"])];
    for words in [
        vec!["status", "run", "--store", "store"],
        vec!["zero-shot", "--classes", "classes.txt", name],
    ] {
        world.write("classes.txt", "fish\nhouse\n");
        outputs.push(world.clipood(&words).stdin(Stdio::null()).output().unwrap());
    }
    let mut named = 0;
    for output in outputs {
        for text in [output.stdout, output.stderr] {
            assert!(!text.contains(&0x1b), "{}", String::from_utf8_lossy(&text));
            named += usize::from(String::from_utf8_lossy(&text).contains("evil.png"));
        }
    }
    assert!(named > 0);
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let world = World::empty();
    let list = succeeds(&world.clipood(&["--help"]).output().unwrap());
    assert!(list.contains("  completions "), "{list}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeeds(&world.clipood(&["completions", shell]).output().unwrap());
        for word in ["zero-shot", "--features", "search"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    succeeds(&world.clipood(&["man", "pages/man1"]).output().unwrap());
    for page in ["clipood.1", "clipood-run.1", "clipood-search.1"] {
        let text = std::fs::read_to_string(world.path("pages/man1").join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}

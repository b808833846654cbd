//! The real command on a disk that fills up: a small tmpfs in a mount namespace of the test's own.
#![cfg(target_os = "linux")]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::tables::assert_same_tables;
use common::{World, stderr, stdout};

/// Runs `"$@"` on a disk of 48 KB, which grows by half each time it is full; then keeps what the run has made. Prints `full`
/// and the command's errors for each attempt that failed.
const SCRIPT: &str = r#"
set -eu
size=48
mkdir disk
mount -t tmpfs -o size=${size}k tmpfs disk
until "$@" 2> log; do
    code=$?
    [ $code -eq 1 ] || { cat log >&2; exit 90; }
    echo full "$(grep '^error:' log)"
    size=$((size * 3 / 2))
    [ $size -lt 100000 ] || { cat log >&2; exit 91; }
    mount -o remount,size=${size}k disk
done
cp -r disk kept
"#;

#[test]
fn a_full_disk_is_a_clear_error_and_loses_nothing() {
    let world = World::new();
    let whole = world.run("whole", &["--store", "store"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    let on_disk = world.command("disk/run", &["--store", "disk/store"]);
    let grown = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .arg(on_disk.get_program())
        .args(on_disk.get_args())
        .current_dir(world.path(""))
        .output()
        .unwrap();
    let (printed, log) = (stdout(&grown), stderr(&grown));
    assert!(grown.status.success(), "{log}{printed}");
    let full: Vec<&str> = printed.lines().filter(|l| l.starts_with("full")).collect();
    assert!(full.len() >= 3, "{printed}");
    for line in &full {
        assert!(
            line.contains("disk/") && line.contains("no space left to"),
            "{line}"
        );
    }
    println!("the disk was full {} times", full.len());
    assert_same_tables(&world, "whole", "kept/run");
    let words = ["status", "kept/run", "--audit", "--store", "kept/store"];
    let audit = world.clipood(&words).output().unwrap();
    assert!(
        audit.status.success(),
        "{}{}",
        stdout(&audit),
        stderr(&audit)
    );
}

//! What a run records about its images, and what a later call and a second planner do when theirs are others.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Output, Stdio};

use common::{World, files, refused, stderr, succeeds, unsealed};

/// `clipood plan` into the run directory `run`.
fn planned(world: &World) {
    let words = ["plan", "recipe.toml", "--manifests", "manifests"];
    let plan = world.clipood(&words).args(["--run", "run"]).output();
    succeeds(&plan.unwrap());
}

fn copy_folder(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&file), target).unwrap();
    }
}

#[test]
fn a_run_says_where_its_images_were_and_refuses_others() {
    let world = World::new();
    let first = succeeds(&world.run("run", &[]));
    let root = std::fs::canonicalize(world.path("data/id")).unwrap();
    let origin = format!("from {} (id, 40 files)", root.display());
    assert!(
        first.contains("planned on 20") && first.contains(&origin),
        "{first}"
    );
    let again = world.run("run", &[]);
    assert_eq!(
        (succeeds(&again), stderr(&again).as_str()),
        (first.clone(), "")
    );

    // Other pictures in another folder.
    copy_folder(&world.path("data"), &world.path("other"));
    std::fs::remove_file(world.path("other/id/test/star/05.png")).unwrap();
    std::fs::copy(
        world.path("data/scenes/any/00.png"),
        world.path("other/id/test/fish/new.png"),
    )
    .unwrap();
    std::fs::copy(
        world.path("data/scenes/any/01.png"),
        world.path("other/textures/any/02.png"),
    )
    .unwrap();
    let words = [
        "1 added (test/fish/new.png)",
        "1 removed (test/star/05.png)",
        "1 of another size or content (any/02.png)",
        "other/id",
        "--run NEW",
        "--accept-changed-data",
        "planned on 20",
    ];
    refused(&world, "run", &["--data", "other"], 2, &words);
    let accepted = world.run("run", &["--data", "other", "--accept-changed-data"]);
    assert_eq!(succeeds(&accepted), first);
    assert!(
        stderr(&accepted).contains("1 added"),
        "{}",
        stderr(&accepted)
    );
    let planned = world
        .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", "run", "--data", "other"])
        .output()
        .unwrap();
    assert_eq!(planned.status.code(), Some(2), "{}", stderr(&planned));

    // The same files in another folder: named, and accepted only on demand.
    copy_folder(&world.path("data"), &world.path("copy"));
    refused(
        &world,
        "run",
        &["--data", "copy"],
        2,
        &["planned from", "now", "--accept-changed-data"],
    );
    succeeds(&world.run("run", &["--data", "copy", "--accept-changed-data"]));
    let worker = world
        .clipood(&["worker", "run", "--data", "copy"])
        .output()
        .unwrap();
    succeeds(&worker);
    assert!(
        stderr(&worker).contains("other folders"),
        "{}",
        stderr(&worker)
    );
    let worker = world
        .clipood(&["worker", "run", "--data", "other"])
        .output()
        .unwrap();
    assert_eq!(worker.status.code(), Some(2), "{}", stderr(&worker));

    // No images at all, as on a machine that only reads the tables.
    let absent = world.run("run", &["--data", "nowhere"]);
    assert_eq!(succeeds(&absent), first);
    assert!(
        stderr(&absent).contains("nowhere/id"),
        "{}",
        stderr(&absent)
    );
}

#[test]
fn changes_in_the_folder_itself_are_noticed_and_touching_a_file_is_none() {
    let world = World::new();
    // Pictures without compression: equal sizes, whatever they show.
    let ppm = |shade: u8| [b"P6 4 4 255 ".to_vec(), vec![shade; 48]].concat();
    for image in 0..3 {
        world.write(&format!("data/scenes/any/p{image}.ppm"), ppm(40 * image));
    }
    let first = succeeds(&world.run("run", &[]));
    let path = world.path("data/scenes/any/p1.ppm");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
    let touch = || {
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(later)
    };
    touch().unwrap();
    assert_eq!(succeeds(&world.run("run", &[])), first);
    world.write("data/scenes/any/p1.ppm", ppm(200));
    touch().unwrap();
    refused(
        &world,
        "run",
        &[],
        2,
        &["scenes: 1 of another content (any/p1.ppm)"],
    );
    world.write("data/scenes/any/p1.ppm", ppm(40));
    assert_eq!(succeeds(&world.run("run", &[])), first);
    // A new training image that no split uses changes the draws, too.
    std::fs::copy(
        world.path("data/scenes/any/00.png"),
        world.path("data/id/train/fish/new.png"),
    )
    .unwrap();
    refused(&world, "run", &[], 2, &["id: 1 added (train/fish/new.png)"]);
    std::fs::remove_file(world.path("data/id/train/fish/new.png")).unwrap();
    std::fs::remove_dir_all(world.path("data/id/test/fish")).unwrap();
    refused(&world, "run", &[], 2, &["id: ", "fish"]);
}

#[test]
fn a_run_of_an_earlier_build_goes_on_with_a_note() {
    let world = World::new();
    planned(&world);
    let folder = world.path("run/_run/commits/plan");
    for name in files(&folder) {
        let path = folder.join(name);
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let extra = record["extra"].as_object_mut().unwrap();
        extra.remove("data").unwrap();
        extra.remove("classes").unwrap();
        std::fs::write(&path, unsealed(&record.to_string())).unwrap();
    }
    std::fs::remove_dir_all(world.path("run/_run/files")).unwrap();
    let run = world.run("run", &[]);
    let text = succeeds(&run);
    assert!(!text.contains("planned on"), "{text}");
    assert!(stderr(&run).contains("earlier build"), "{}", stderr(&run));
}

#[test]
fn of_two_planners_with_other_images_one_is_refused_and_the_plan_is_whole() {
    let world = World::new();
    copy_folder(&world.path("data"), &world.path("fewer"));
    for image in ["02.png", "03.png"] {
        std::fs::remove_file(world.path(&format!("fewer/id/train/fish/{image}"))).unwrap();
    }
    for round in 0..6 {
        let run = format!("run-{round}");
        let planners: Vec<_> = ["data", "fewer"]
            .iter()
            .map(|data| {
                world
                    .clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
                    .args(["--run", &run, "--data", data])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let done: Vec<Output> = planners
            .into_iter()
            .map(|planner| planner.wait_with_output().unwrap())
            .collect();
        let codes: Vec<_> = done.iter().map(|output| output.status.code()).collect();
        assert!(
            codes == [Some(0), Some(2)] || codes == [Some(2), Some(0)],
            "{codes:?}: {}{}",
            stderr(&done[0]),
            stderr(&done[1])
        );
        let winner = if codes[0] == Some(0) { "data" } else { "fewer" };
        let trained = world
            .clipood(&["worker", &run, "--data", winner])
            .output()
            .unwrap();
        let log = stderr(&trained);
        succeeds(&trained);
        assert!(!log.contains("instead of"), "{log}");
    }
}

#[test]
fn a_plan_whose_shots_or_classes_are_not_its_own_is_refused() {
    let world = World::new();
    planned(&world);
    let classes = world.path("run/_run/classes.json");
    let text = std::fs::read_to_string(&classes).unwrap();
    let other = text.replacen("id/train/fish/", "id/train/fish/x", 1);
    assert_ne!(text, other);
    std::fs::write(&classes, unsealed(&other)).unwrap();
    let worker = world.clipood(&["worker", "run"]).output().unwrap();
    assert_eq!(worker.status.code(), Some(1));
    assert!(
        stderr(&worker).contains("classes.json"),
        "{}",
        stderr(&worker)
    );
    // Records of earlier builds have no digest: the missing image is found by its name.
    let folder = world.path("run/_run/commits/plan");
    for name in files(&folder) {
        let path = folder.join(name);
        let record = std::fs::read_to_string(&path).unwrap();
        let record = record.replace("\"classes\"", "\"ignored\"");
        std::fs::write(&path, unsealed(&record)).unwrap();
    }
    let worker = world.clipood(&["worker", "run"]).output().unwrap();
    assert_eq!(worker.status.code(), Some(1));
    assert!(
        stderr(&worker).contains("id/train/fish/x"),
        "{}",
        stderr(&worker)
    );
}

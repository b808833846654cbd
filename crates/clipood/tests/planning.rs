//! What a plan refuses, what it records about its images, and what a later call does when they have changed.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Output, Stdio};

use common::{CLASSES, OOD, RECIPE, TEST, World, files, stderr, stdout};

/// `clipood run`, which has to fail with `code` and a message with all `words`.
fn refused(world: &World, run: &str, more: &[&str], code: i32, words: &[&str]) -> String {
    let output = world.run(run, more);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{log}");
    for word in words {
        assert!(log.contains(word), "no `{word}` in: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    log
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    stdout(output)
}

fn copy_folder(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&file), target).unwrap();
    }
}

#[test]
fn a_refused_plan_leaves_no_run_directory_and_the_corrected_recipe_is_planned() {
    let world = World::new();
    let long = "word ".repeat(80);
    let manifest = std::fs::read_to_string(world.path("manifests/id.toml")).unwrap();
    let cases = [
        ("shots = [2]", "shots = [5]", "", "5 shots"),
        ("n_ctx = 4", "n_ctx = 73\nctx_init = \"!!!\"", "", ""),
        ("[prompt]", "[locoop]\ntop_k = 4\n[prompt]", "", "locoop.top_k"),
        ("\"gl_mcm\"]", "\"gl_mcm\", \"vim:dim=8\"]", "", "vim"),
        ("", "", &long, "class_names.fish"),
        ("ood = [\"scenes\"", "overlap = \"error\"\nood = [\"scenes\"", "", ""),
    ];
    for (from, to, name, word) in cases {
        world.write("recipe.toml", RECIPE.replace(from, to));
        if !name.is_empty() {
            let names = format!("{manifest}\n[class_names]\nfish = \"{name}\"\n");
            world.write("manifests/id.toml", names);
        }
        if !word.is_empty() {
            refused(&world, "run", &[], 2, &[word]);
            assert!(!world.path("run").exists(), "{word}: {:?}", files(&world.path("run")));
            assert!(!world.path("store").exists(), "{word}");
        }
        world.write("manifests/id.toml", &manifest);
    }
    world.write("recipe.toml", RECIPE);
    succeeds(&world.run("run", &[]));
}

#[test]
fn texts_that_are_too_long_are_refused_before_extraction_with_class_and_place() {
    let world = World::new();
    let manifest = std::fs::read_to_string(world.path("manifests/id.toml")).unwrap();
    let named = |words: usize| {
        let name = vec!["word"; words].join(" ");
        let text = format!("{manifest}\n[class_names]\nstar = \"{name}\"\n");
        world.write("manifests/id.toml", text);
    };
    // 77 tokens: start, `a photo of a`, 71 words, end. A full stop and 4 vectors leave room for 70 words.
    named(72);
    let words = ["`id`", "`word word", "class_names.star", "a photo of a {}", "78", "77"];
    refused(&world, "run", &["--methods", "zero-shot"], 2, &words);
    named(71);
    refused(&world, "run", &[], 2, &["class_names.star", "4 context vectors", "78"]);
    assert!(!world.path("store").exists());
    named(70);
    succeeds(&world.run("run", &["--methods", "zero-shot,locoop"]));

    // Every template counts, and a class that is named by its folder.
    world.write("manifests/id.toml", &manifest);
    let folder = vec!["word"; 40].join("_");
    for split in ["train", "test"] {
        let path = world.path(&format!("data/id/{split}"));
        std::fs::rename(path.join("tree"), path.join(&folder)).unwrap();
    }
    let long = format!("{} {{}}", vec!["long"; 40].join(" "));
    let templates = format!("[prompt]\ntemplates = [\"a {{}}\", \"{long}\"]");
    world.write("recipe.toml", RECIPE.replace("[prompt]", &templates));
    refused(&world, "other", &[], 2, &["named as its folder", "long long", "82"]);
}

#[test]
fn too_many_unreadable_images_are_refused_before_extraction() {
    let world = World::new();
    // One image of a small set may be lost, two of 24 are more than one in a hundred.
    world.write("data/id/test/star/00.png", b"not a picture");
    let one = succeeds(&world.run("one", &["--store", "store-a"]));
    assert!(one.contains("+ 1 quarantined"), "{one}");
    world.write("data/id/test/star/01.png", b"");
    let words = ["engine.max_quarantine_fraction = 0.01", "id: 2 of 32", "allowed: 1", "star/0"];
    refused(&world, "two", &["--store", "store-b"], 1, &words);
    assert!(!world.path("two").exists() && !world.path("store-b").exists());
    let strict = RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.0");
    world.write("recipe.toml", strict);
    std::fs::copy(world.path("data/id/test/star/02.png"), world.path("data/id/test/star/01.png"))
        .unwrap();
    refused(&world, "none", &["--store", "store-b"], 1, &["1 of 32", "allowed: 0"]);
    // A class without a readable shot.
    world.write("recipe.toml", RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.9"));
    for shot in 0..4 {
        world.write(&format!("data/id/train/house/{shot:02}.png"), b"GIF");
    }
    refused(&world, "shots", &["--store", "store-b"], 2, &["`house`", "2 shots"]);
    assert!(!world.path("store-b").exists());
}

#[test]
fn extraction_stops_when_the_limit_is_passed() {
    let world = World::new();
    // Only decoding finds out.
    for image in ["scenes/any/00.png", "scenes/any/01.png"] {
        let path = world.path(&format!("data/{image}"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let words = ["engine.max_quarantine_fraction", "scenes: 2 of 8", "allowed: 1"];
    refused(&world, "run", &[], 1, &words);
    // The second dataset was not begun: nothing of it is in the store, and the run is no longer than the first.
    let status = stdout(&world.clipood(&["status", "run"]).output().unwrap());
    let extract = status.lines().find(|line| line.trim().starts_with("extract")).unwrap();
    let counts: Vec<usize> = extract.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    assert!(counts[1] < counts[0], "{status}");
    // The same again, however much is done by then.
    refused(&world, "run", &[], 1, &words);
}

#[test]
fn a_run_says_where_its_images_were_and_refuses_others() {
    let world = World::new();
    let first = succeeds(&world.run("run", &[]));
    let root = std::fs::canonicalize(world.path("data/id")).unwrap();
    let origin = format!("from {} (id, 40 files)", root.display());
    assert!(first.contains("planned on 20") && first.contains(&origin), "{first}");
    let again = world.run("run", &[]);
    assert_eq!((succeeds(&again), stderr(&again).as_str()), (first.clone(), ""));

    // Other pictures in another folder.
    copy_folder(&world.path("data"), &world.path("other"));
    std::fs::remove_file(world.path("other/id/test/star/05.png")).unwrap();
    std::fs::copy(world.path("data/scenes/any/00.png"), world.path("other/id/test/fish/new.png"))
        .unwrap();
    std::fs::copy(world.path("data/scenes/any/01.png"), world.path("other/textures/any/02.png"))
        .unwrap();
    let words = [
        "1 added (test/fish/new.png)",
        "1 removed (test/star/05.png)",
        "1 of another size (any/02.png)",
        "other/id",
        "--run NEW",
        "--accept-changed-data",
        "planned on 20",
    ];
    refused(&world, "run", &["--data", "other"], 2, &words);
    let accepted = world.run("run", &["--data", "other", "--accept-changed-data"]);
    assert_eq!(succeeds(&accepted), first);
    assert!(stderr(&accepted).contains("1 added"), "{}", stderr(&accepted));
    let planned = world.clipood(&["plan", "recipe.toml", "--manifests", "manifests"])
        .args(["--run", "run", "--data", "other"])
        .output()
        .unwrap();
    assert_eq!(planned.status.code(), Some(2), "{}", stderr(&planned));

    // The same files in another folder: named, and accepted only on demand.
    copy_folder(&world.path("data"), &world.path("copy"));
    refused(&world, "run", &["--data", "copy"], 2, &["planned from", "now", "--accept-changed-data"]);
    succeeds(&world.run("run", &["--data", "copy", "--accept-changed-data"]));
    let worker = world.clipood(&["worker", "run", "--data", "copy"]).output().unwrap();
    succeeds(&worker);
    assert!(stderr(&worker).contains("other folders"), "{}", stderr(&worker));
    let worker = world.clipood(&["worker", "run", "--data", "other"]).output().unwrap();
    assert_eq!(worker.status.code(), Some(2), "{}", stderr(&worker));

    // No images at all, as on a machine that only reads the tables.
    let absent = world.run("run", &["--data", "nowhere"]);
    assert_eq!(succeeds(&absent), first);
    assert!(stderr(&absent).contains("nowhere/id"), "{}", stderr(&absent));
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
    let touch = || std::fs::File::options().write(true).open(&path).unwrap().set_modified(later);
    touch().unwrap();
    assert_eq!(succeeds(&world.run("run", &[])), first);
    world.write("data/scenes/any/p1.ppm", ppm(200));
    touch().unwrap();
    refused(&world, "run", &[], 2, &["scenes: 1 of another content (any/p1.ppm)"]);
    world.write("data/scenes/any/p1.ppm", ppm(40));
    assert_eq!(succeeds(&world.run("run", &[])), first);
    // A new training image that no split uses changes the draws, too.
    std::fs::copy(world.path("data/scenes/any/00.png"), world.path("data/id/train/fish/new.png"))
        .unwrap();
    refused(&world, "run", &[], 2, &["id: 1 added (train/fish/new.png)"]);
    std::fs::remove_file(world.path("data/id/train/fish/new.png")).unwrap();
    std::fs::remove_dir_all(world.path("data/id/test/fish")).unwrap();
    refused(&world, "run", &[], 2, &["id: ", "fish"]);
}

#[test]
fn a_run_of_an_earlier_build_goes_on_with_a_note() {
    let world = World::new();
    let plan = ["plan", "recipe.toml", "--manifests", "manifests", "--run", "run"];
    succeeds(&world.clipood(&plan).output().unwrap());
    let folder = world.path("run/_run/commits/plan");
    for name in files(&folder) {
        let path = folder.join(name);
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let extra = record["extra"].as_object_mut().unwrap();
        extra.remove("data").unwrap();
        extra.remove("classes").unwrap();
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
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
        let trained = world.clipood(&["worker", &run, "--data", winner]).output().unwrap();
        let log = stderr(&trained);
        succeeds(&trained);
        assert!(!log.contains("instead of"), "{log}");
    }
}

#[test]
fn a_plan_whose_shots_or_classes_are_not_its_own_is_refused() {
    let world = World::new();
    let plan = ["plan", "recipe.toml", "--manifests", "manifests", "--run", "run"];
    succeeds(&world.clipood(&plan).output().unwrap());
    let classes = world.path("run/_run/classes.json");
    let text = std::fs::read_to_string(&classes).unwrap();
    let other = text.replacen("id/train/fish/", "id/train/fish/x", 1);
    assert_ne!(text, other);
    std::fs::write(&classes, &other).unwrap();
    let worker = world.clipood(&["worker", "run"]).output().unwrap();
    assert_eq!(worker.status.code(), Some(1));
    assert!(stderr(&worker).contains("classes.json"), "{}", stderr(&worker));
    // Records of earlier builds have no digest: the missing image is found by its name.
    let folder = world.path("run/_run/commits/plan");
    for name in files(&folder) {
        let path = folder.join(name);
        let record = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, record.replace("\"classes\"", "\"ignored\"")).unwrap();
    }
    let worker = world.clipood(&["worker", "run"]).output().unwrap();
    assert_eq!(worker.status.code(), Some(1));
    assert!(stderr(&worker).contains("id/train/fish/x"), "{}", stderr(&worker));
}

#[test]
fn images_in_two_sets_are_reported_dropped_or_refused() {
    let world = World::new();
    let copy = |from: &str, to: &str| {
        std::fs::copy(world.path(&format!("data/{from}")), world.path(&format!("data/{to}"))).unwrap();
    };
    // All training images of a class are shots under four shots.
    copy("id/train/fish/00.png", "id/test/fish/00.png");
    copy("id/test/star/01.png", "scenes/any/00.png");
    copy("id/test/tree/02.png", "id/test/tree/x.png");
    world.write("data/textures/any/00.png", b"");
    world.write("data/id/test/star/05.png", b"");
    let recipe = RECIPE
        .replace("shots = [2]", "shots = [4]")
        .replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.2");
    let all = CLASSES.len() * TEST + 1 + 2 * OOD;
    world.write("recipe.toml", &recipe);
    let report = world.run("report", &[]);
    let text = succeeds(&report);
    let lines = [
        "id test: 1 images are also in id train (id/test/fish/00.png = id/train/fish/00.png)",
        "id test: 1 images repeat earlier images of the set (id/test/tree/x.png = id/test/tree/02.png)",
        "scenes test: 1 images are also in id test (scenes/test/any/00.png = id/test/star/01.png)",
    ];
    let page = std::fs::read_to_string(world.path("report/report/index.html")).unwrap();
    for line in lines {
        assert!(text.contains(line) && stderr(&report).contains(line), "{text}{}", stderr(&report));
        assert!(page.contains(line), "{page}");
    }
    assert!(!text.contains("textures test:"), "{text}");
    assert!(text.contains(&format!("{all} planned")), "{text}");

    let with = |word: &str| recipe.replace("[data]", &format!("[data]\noverlap = \"{word}\""));
    world.write("recipe.toml", with("drop"));
    let dropped = succeeds(&world.run("drop", &[]));
    assert!(dropped.contains(&format!("{} planned", all - 3)), "{dropped}");
    assert!(dropped.contains("are also in id train, left out"), "{dropped}");
    world.write("recipe.toml", with("error"));
    refused(&world, "error", &[], 2, &["data.overlap", lines[0], lines[1], lines[2]]);
    assert!(!world.path("error").exists());
}

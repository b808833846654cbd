//! `clipood search` on the features of a run, on a folder, and on files of features.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

mod common;

use common::{CLASSES, OOD, TEST, World, stderr, stdout};
use serde_json::Value;

/// The hits of each query, as names with cosines.
fn search(world: &World, words: &[&str]) -> Vec<Vec<(String, f64)>> {
    let output = world
        .clipood(&[&["search", "--json"], words].concat())
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    let lines = stdout(&output);
    let hits = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let hits = line["hits"].as_array().unwrap().iter();
        hits.map(|hit| {
            (
                hit["name"].as_str().unwrap().to_owned(),
                hit["cosine"].as_f64().unwrap(),
            )
        })
        .collect()
    };
    lines.lines().map(hits).collect()
}

/// The page that a search writes, and how many images it shows.
fn page(world: &World, words: &[&str]) -> (String, usize) {
    let words = [&["search", "--page", "sheet.html"], words].concat();
    let output = world.clipood(&words).output().unwrap();
    let errors = stderr(&output);
    assert!(
        output.status.success() && errors.contains("page: sheet.html"),
        "{words:?}: {errors}"
    );
    let page = std::fs::read_to_string(world.path("sheet.html")).unwrap();
    let images = page.matches("src=\"data:image/jpeg;base64,").count();
    (page, images)
}

fn fails(world: &World, words: &[&str], code: i32, parts: &[&str]) {
    let output = world
        .clipood(&[&["search"], words].concat())
        .output()
        .unwrap();
    let errors = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
    for part in parts {
        assert!(errors.contains(part), "{words:?}: no `{part}` in: {errors}");
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn images_of_a_store_are_found_by_words_and_by_images() {
    let world = World::new();
    let output = world.run("run", &[]);
    assert!(output.status.success(), "{}", stderr(&output));

    // The model of the store is taken without being named.
    let found = search(
        &world,
        &[
            "a photo of a star",
            "a photo of a fish",
            "--features",
            "store",
            "--top",
            "500",
        ],
    );
    let tests = CLASSES.len() * TEST + 2 * OOD;
    assert_eq!(found.len(), 2);
    for (hits, class) in found.iter().zip(["star", "fish"]) {
        // Evaluation views only, each image once.
        let scored = hits
            .iter()
            .filter(|(name, _)| name.contains("/test/"))
            .count();
        assert_eq!(scored, tests, "{hits:?}");
        assert!(hits.is_sorted_by(|a, b| a.1 >= b.1), "{hits:?}");
        let right = hits[..TEST]
            .iter()
            .filter(|(name, _)| name.contains(&format!("/{class}/")));
        assert!(right.count() >= TEST - 2, "{class}: {hits:?}");
    }

    // An image finds itself, and `similarity` gives the same cosine.
    let image = "data/id/test/tree/03.png";
    let itself = search(
        &world,
        &[
            "--image",
            image,
            "--features",
            "store",
            "--dataset",
            "id",
            "--top",
            "1",
        ],
    );
    assert_eq!(itself[0][0].0, "id/test/tree/03.png");
    assert!((itself[0][0].1 - 1.0).abs() < 1e-6, "{itself:?}");

    let few = search(
        &world,
        &[
            "star",
            "--features",
            "store",
            "--dataset",
            "scenes",
            "--top",
            "100",
        ],
    );
    assert!(few[0].len() == OOD && few[0].iter().all(|(name, _)| name.starts_with("scenes/")));

    // The page: the images of a store lie where the manifests say.
    let words = [
        "a photo of a <star>",
        "--image",
        image,
        "--features",
        "store",
        "--split",
        "test",
        "--manifests",
        "manifests",
        "--top",
        "5",
    ];
    let (sheet, images) = page(&world, &words);
    // Five hits of the text, the query image and its five hits.
    assert_eq!(images, 11);
    for part in [
        "a photo of a &lt;star&gt;",
        "the query",
        "1 · 1.0000",
        "id/test/tree/03.png",
    ] {
        assert!(sheet.contains(part), "no `{part}`");
    }
    assert!(!sheet.contains("no picture:"));
    // One of them is gone, one is no image any more, and then there is no manifest.
    let first = &search(&world, &words)[1][1].0;
    let file = world.path("data").join(
        first
            .replace("scenes/test/", "scenes/")
            .replace("textures/test/", "textures/"),
    );
    let kept = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"not a picture").unwrap();
    let (sheet, images) = page(&world, &words);
    assert!(
        images < 11 && sheet.contains("cannot be decoded"),
        "{first}: {images}"
    );
    std::fs::remove_file(&file).unwrap();
    let (sheet, images) = page(&world, &words);
    assert!(
        images < 11 && sheet.contains("has no such image below data any more"),
        "{first}"
    );
    std::fs::write(&file, kept).unwrap();
    let away = [&words[..7], &["--manifests", "nowhere", "--top", "5"]].concat();
    let (sheet, images) = page(&world, &away);
    assert_eq!(images, 1);
    assert!(sheet.contains("no dataset manifest nowhere/id.toml"));

    // An index gives the same; a store that has grown makes it anew.
    let words = [
        "star",
        "--features",
        "store",
        "--split",
        "test",
        "--top",
        "7",
    ];
    let plain = search(&world, &words);
    let indexed = [&words[..], &["--index", "index.safetensors"]].concat();
    assert_eq!(search(&world, &indexed), plain);
    let first = std::fs::metadata(world.path("index.safetensors"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(search(&world, &indexed), plain);
    let second = std::fs::metadata(world.path("index.safetensors"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(first, second);

    fails(
        &world,
        &["star", "--features", "store", "--dataset", "scene"],
        2,
        &["did you mean `scenes`?"],
    );
    fails(
        &world,
        &["star", "--features", "nowhere"],
        2,
        &["nowhere", "no such store"],
    );
    fails(
        &world,
        &["--features", "store"],
        2,
        &["nothing to look for"],
    );
    fails(
        &world,
        &["", "--features", "store"],
        2,
        &["query 1 of 1 is empty"],
    );
    fails(
        &world,
        &["star", "--features", "store", "--fingerprint", "0000"],
        2,
        &["model demo", "f32 on cpu"],
    );
}

#[test]
fn folders_files_and_class_lists_are_searched() {
    let world = World::new();
    let folder = search(
        &world,
        &[
            "a photo of a star",
            "--features",
            "data/id/test",
            "--top",
            "6",
        ],
    );
    // By chance a quarter of the hits would be stars.
    let stars = folder[0].iter().filter(|(name, _)| name.contains("star/"));
    assert!(stars.count() >= 3, "{folder:?}");

    for out in ["f.parquet", "f.safetensors"] {
        world.write("texts.txt", "a photo of a star\n");
        let words = [
            "encode",
            "--model",
            "demo",
            "--images",
            "data/id/test",
            "--texts",
            "texts.txt",
            "--out",
            out,
        ];
        let output = world.clipood(&words).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let file = search(
            &world,
            &["a photo of a star", "--features", out, "--top", "6"],
        );
        assert_eq!(file, folder, "{out}");
    }

    world.write("classes.txt", "star\nhouse\nfish\n");
    let classes = search(
        &world,
        &[
            "a little cottage house",
            "--classes",
            "classes.txt",
            "--top",
            "1",
        ],
    );
    assert_eq!(classes[0][0].0, "house");

    // Pages of folders and of files of features, which name their images by path.
    for features in ["data/id/test", "f.parquet", "f.safetensors"] {
        let (sheet, images) = page(
            &world,
            &["a photo of a star", "--features", features, "--top", "6"],
        );
        assert_eq!(images, 6, "{features}");
        assert!(sheet.contains(&folder[0][0].0), "{features}");
    }
    fails(
        &world,
        &["star", "--classes", "classes.txt", "--page", "sheet.html"],
        2,
        &["cannot be used with"],
    );
    fails(
        &world,
        &[
            "star",
            "--features",
            "data/id/test",
            "--page",
            "no/sheet.html",
        ],
        1,
        &["no folder no"],
    );
    fails(
        &world,
        &["star", "--features", "data/id/test", "--page", "data"],
        1,
        &["cannot write data: it is a folder"],
    );

    // The rows of the texts are no images.
    let texts = search(
        &world,
        &["a photo of a star", "--features", "f.safetensors:text"],
    );
    assert_eq!(texts[0].len(), 1, "{texts:?}");
    assert_eq!(texts[0][0].0, "row 0");
    let (sheet, images) = page(
        &world,
        &["a photo of a star", "--features", "f.safetensors:text"],
    );
    assert!(images == 0 && sheet.contains("does not name its images"));

    // A blank image among others costs nothing but itself.
    world.write("data/id/test/star/broken.png", b"not a picture");
    let output = world
        .clipood(&["search", "star", "--features", "data/id/test", "--top", "2"])
        .output()
        .unwrap();
    assert!(
        output.status.success() && stderr(&output).contains("broken.png"),
        "{}",
        stderr(&output)
    );

    let output = world
        .clipood(&["search", "星星", "--features", "data/id/test"])
        .output()
        .unwrap();
    assert!(
        output.status.success() && stderr(&output).contains("try it in English"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_is_empty_blank_or_unfinished_is_named() {
    let world = World::empty();
    world.write("empty/readme.txt", "");
    fails(&world, &["star", "--features", "empty"], 1, &["no image"]);
    world.write("blank.txt", "star\n\nfish\n");
    fails(
        &world,
        &["a star", "--classes", "blank.txt"],
        2,
        &["blank.txt:2", "blank line"],
    );
    // Names that repeat are noted, and both are found.
    let output = world
        .clipood(&["search", "a star", "--classes", "star,fish,star"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("note: "), "{}", stderr(&output));
    assert_eq!(stdout(&output).matches("  star").count(), 2);
    // A store whose runs have extracted nothing yet.
    world.write("store/features/abc/_commits/readme.txt", "");
    fails(
        &world,
        &["star", "--features", "store"],
        2,
        &["holds no features", "run a recipe"],
    );
}

#[test]
fn recall_of_captions_is_counted_in_both_directions() {
    let world = World::new();
    let mut pairs = "filepath\ttitle\n".to_owned();
    for class in CLASSES {
        pairs += &format!("{class}/00.png\ta photo of a {class}\n");
    }
    world.write("pairs.tsv", pairs);
    let words = [
        "search",
        "--pairs",
        "pairs.tsv",
        "--features",
        "data/id/test",
        "--json",
    ];
    let output = world.clipood(&words).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for (line, way) in stdout(&output)
        .lines()
        .zip(["text to image", "image to text"])
    {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["direction"], way);
        assert_eq!(
            (line["queries"].as_u64(), line["candidates"].as_u64()),
            (Some(4), Some(4))
        );
        assert!(
            line["recall"]["recall@1"].as_f64().unwrap() >= 0.5,
            "{line}"
        );
        assert_eq!(line["recall"]["recall@5"], 1.0);
    }
    world.write("pairs.tsv", "filepath\ttitle\nstar/99.png\ta star\n");
    fails(
        &world,
        &["--pairs", "pairs.tsv", "--features", "data/id/test"],
        2,
        &["star/99.png is not among"],
    );
}

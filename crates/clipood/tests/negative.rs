//! `clipood run` with texts of no class: negative labels from word lists, and prompts for the unknown.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use clipood_ood::{FittedDetector, Matrix, ScoreInputs, score_all};
use clipood_pipeline::tables::{read_global, read_ood, read_scores};
use common::{CLASSES, RECIPE, World, files, stderr};
use safetensors::SafeTensors;

const SECTION: &str = "[negative_labels]\nkeep = 0.5\n[[negative_labels.lists]]\nwords = \"things\"\n\
    [[negative_labels.lists]]\nwords = \"data.adj\"\ntemplate = \"a {} photo\"\n";

fn recipe(section: &str) -> String {
    let text = RECIPE.replace(
        "\"gl_mcm\"]",
        "\"neglabel\", \"unknown_prompt\", \"knn:k=2\", \"two=neglabel:groups=2\"]",
    );
    format!("{text}\n{section}")
}

fn world() -> World {
    let world = World::new();
    // `fish` and `Star` are classes.
    world.write(
        "words/things.txt",
        "# things\nfish\nStar\nswan\nkettle\nice_cream\nswan\nmud\n",
    );
    world.write(
        "words/data.adj",
        "  1 a licence\n00001 00 a 02 abundant 0 galore(ip) 0 001 & 00002 a 0000 | plenty\n",
    );
    world.write("recipe.toml", recipe(SECTION));
    world
}

/// The texts of the one unit of the stage `negative` in the store.
fn texts(world: &World) -> Vec<String> {
    let store = world.path("store/prompts");
    let all = files(&store);
    let commit = all
        .iter()
        .find(|path| path.starts_with("_commits/commits/negative/"));
    let key = commit
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .to_owned();
    let part = all.iter().find(|path| path.starts_with(&key)).unwrap();
    let bytes = std::fs::read(store.join(part)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()["clipood.classes"]).unwrap()
}

#[test]
fn words_that_are_no_class_serve_as_negative_labels() {
    let world = world();
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    // Half of the four things that are no class, half of the two adjectives, and the unknown.
    let texts = texts(&world);
    assert_eq!(texts.len(), 2 + 1 + 1, "{texts:?}");
    let things = ["swan", "kettle", "ice cream", "mud"].map(|word| format!("a photo of a {word}"));
    assert!(
        texts[..2].iter().all(|text| things.contains(text)),
        "{texts:?}"
    );
    assert!(
        ["a abundant photo", "a galore photo"].contains(&texts[2].as_str()),
        "{texts:?}"
    );
    assert_eq!(texts[3], "a photo of an unknown object");

    let bytes = |path: &str| bytes::Bytes::from(std::fs::read(world.path(path)).unwrap());
    let rows = read_ood(bytes("run/metrics/ood.parquet"), "ood").unwrap();
    for detector in ["neglabel", "unknown_prompt"] {
        assert_eq!(
            rows.iter().filter(|row| row.detector == detector).count(),
            2 * 3
        );
    }
    let part = "run/scores/prompt=zero-shot/dataset=id/part-00000.parquet";
    let scores = read_scores(bytes(part), part).unwrap();
    let column = |name: &str| {
        let found = scores.detectors.iter().find(|c| c.detector == name);
        found.unwrap().values.clone().unwrap()
    };
    // One is a mass, the other the negative of one; they see different texts.
    assert!(column("neglabel").iter().all(|s| (0.0..=1.0).contains(s)));
    assert!(
        column("unknown_prompt")
            .iter()
            .all(|s| (-1.0..=0.0).contains(s))
    );
    let sums = column("neglabel")
        .iter()
        .zip(&column("unknown_prompt"))
        .map(|(a, b)| a - b)
        .collect::<Vec<_>>();
    assert!(sums.iter().any(|sum| (sum - 1.0).abs() > 1e-4), "{sums:?}");

    // The table names what a detector did about texts that do not make equal groups.
    for row in &rows {
        let note = row.notes.as_deref().unwrap_or_default();
        assert_eq!(
            note.contains("1 of 3 negative texts were dropped"),
            row.detector == "two",
            "{row:?}"
        );
    }
    // Detectors that are fitted on something are kept with the run, and score what the run scored.
    let fitted = |prompt: &str| files(&world.path(&format!("run/_run/fitted/prompt={prompt}")));
    assert_eq!(
        fitted("zero-shot"),
        ["neglabel.json", "two.json", "unknown_prompt.json"]
    );
    let trained = "locoop-2shot-seed1";
    assert_eq!(
        fitted(trained),
        [
            "knn-3ak-3d2.json",
            "neglabel.json",
            "two.json",
            "unknown_prompt.json"
        ]
    );
    let json = std::fs::read(world.path(&format!(
        "run/_run/fitted/prompt={trained}/knn-3ak-3d2.json"
    )));
    let knn: FittedDetector = serde_json::from_slice(&json.unwrap()).unwrap();
    let mut features = std::collections::BTreeMap::new();
    for path in files(&world.path("store/features")) {
        if path.contains("/global/") && path.ends_with(".parquet") {
            let table = read_global(bytes(&format!("store/features/{path}")), &path).unwrap();
            for (row, key) in table.keys.iter().enumerate() {
                let feature = table.values[row * table.dim..(row + 1) * table.dim].to_vec();
                features.insert((key.clone(), table.views[row]), feature);
            }
        }
    }
    let part = format!("run/scores/prompt={trained}/dataset=id/part-00000.parquet");
    let scores = read_scores(bytes(&part), &part).unwrap();
    let rows: Vec<f32> = scores
        .rows
        .iter()
        .flat_map(|row| features[&(row.image_key.clone(), -1)].clone())
        .collect();
    let dim = rows.len() / scores.rows.len();
    let images = Matrix::new("images", &rows, scores.rows.len(), dim).unwrap();
    let text = vec![1.0; CLASSES.len() * dim];
    let text = Matrix::new("text", &text, CLASSES.len(), dim).unwrap();
    let inputs = ScoreInputs {
        global: images,
        local: None,
    };
    let again = score_all(&[knn], &text, &inputs).unwrap();
    let column = scores.detectors.iter().find(|c| c.detector == "knn:k=2");
    let column = column.unwrap().values.clone().unwrap();
    for (a, b) in column.iter().zip(&again.columns[0]) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }

    let before = files(&world.path("."));
    let again = world.run("run", &["--store", "store"]);
    assert!(
        again.status.success() && stderr(&again).is_empty(),
        "{}",
        stderr(&again)
    );
    assert_eq!(files(&world.path(".")), before);
    // Other words: other scores, other run.
    world.write("words/things.txt", "swan\nkettle\nmud\nrope\n");
    let other = world.run("run", &["--store", "store"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("words"), "{}", stderr(&other));
}

#[test]
fn words_that_are_missing_or_none_are_named() {
    let world = world();
    let cases: [(String, &[&str]); 7] = [
        (recipe(""), &["neglabel", "negative_labels.lists"]),
        (
            recipe(&SECTION.replace("\"things\"", "\"thigns\"")),
            &["thigns", "`things`"],
        ),
        (
            recipe(&SECTION.replace("keep = 0.5", "keep = 2.0")),
            &["negative_labels.keep", "2"],
        ),
        (
            recipe(&SECTION.replace("a {} photo", "a photo")),
            &["template", "{}"],
        ),
        (
            recipe(&SECTION.replace("keep =", "kepe =")),
            &["kepe", "keep"],
        ),
        (
            recipe(&SECTION.replace("keep = 0.5", "keep = 0.01")),
            &["things", "keep"],
        ),
        (
            recipe(&SECTION.replace("keep = 0.5", "keep = 0.5\nexclude_above = -1.0")),
            &["things", "none"],
        ),
    ];
    for (recipe, words) in cases {
        world.write("recipe.toml", &recipe);
        let run = world.run("bad", &[]);
        let log = stderr(&run);
        assert_eq!(run.status.code(), Some(2), "{log}");
        for word in words {
            assert!(log.contains(word), "no `{word}` in {log}");
        }
        let _ = std::fs::remove_dir_all(world.path("bad"));
    }
}

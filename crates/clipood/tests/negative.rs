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

/// The 0.95 quantile of the cosines of a word to the classes, interpolated linearly between order statistics, in plain f64.
fn nearness(word: &[f32], classes: &[Vec<f32>]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let cosine = |class: &Vec<f32>| dot(word, class) / (dot(word, word) * dot(class, class)).sqrt();
    let mut cosines: Vec<f64> = classes.iter().map(cosine).collect();
    cosines.sort_by(f64::total_cmp);
    let at = 0.95 * (cosines.len() - 1) as f64;
    let (low, high) = (cosines[at.floor() as usize], cosines[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[test]
fn the_words_of_all_lists_are_compared_with_the_same_class_texts() {
    let world = World::new();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/words");
    let mut lists = Vec::new();
    for name in ["demo-nouns", "demo-adjectives"] {
        let text = std::fs::read_to_string(format!("{root}/{name}.txt")).unwrap();
        let words = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let words: Vec<String> = words
            .filter(|word| !CLASSES.contains(&word.to_lowercase().as_str()))
            .map(|word| word.replace('_', " "))
            .collect();
        assert!(words.len() > 20, "{name}");
        lists.push(words);
    }
    let section = "[negative_labels]\nkeep = 0.5\n\
        [[negative_labels.lists]]\nwords = \"demo-nouns\"\ntemplate = \"the nice {}\"\n\
        [[negative_labels.lists]]\nwords = \"demo-adjectives\"\ntemplate = \"this is a {} photo\"\n";
    world.write("recipe.toml", recipe(section));
    let run = world.run("run", &["--store", "store"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let found = texts(&world);

    // The features of these texts by another command.
    let encode = |texts: &[String]| -> Vec<Vec<f32>> {
        world.write("texts.txt", texts.join("\n"));
        let words = [
            "encode",
            "--model",
            "demo",
            "--texts",
            "texts.txt",
            "--out",
            "t.safetensors",
        ];
        let done = world.clipood(&words).output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        let bytes = std::fs::read(world.path("t.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("text").unwrap();
        let values = tensor.data().as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|b| f32::from_le_bytes(*b)).collect();
        values
            .chunks(tensor.shape()[1])
            .map(<[f32]>::to_vec)
            .collect()
    };
    let filled = |template: &str, names: &[String]| -> Vec<String> {
        names
            .iter()
            .map(|name| template.replace("{}", name))
            .collect()
    };
    let classes = CLASSES.map(String::from);
    // `prompt.templates` of the recipe is the default.
    let class_texts = encode(&filled("a photo of a {}", &classes));
    let (mut taken, mut moved) = (0, 0);
    for (words, template) in lists.iter().zip(["the nice {}", "this is a {} photo"]) {
        let candidates = filled(template, words);
        let features = encode(&candidates);
        let near: Vec<f64> = features.iter().map(|f| nearness(f, &class_texts)).collect();
        let keep = words.len() / 2;
        let kept = &found[taken..taken + keep];
        taken += keep;
        let place = |text: &String| candidates.iter().position(|c| c == text).unwrap();
        let places: Vec<usize> = kept.iter().map(place).collect();
        // The farthest first, and none that was left out is farther. Sums in f32 may exchange equals.
        for pair in places.windows(2) {
            assert!(near[pair[0]] <= near[pair[1]] + 1e-5, "{kept:?}");
        }
        let last = near[places[keep - 1]];
        let left_out = (0..words.len()).filter(|i| !places.contains(i));
        for i in left_out {
            assert!(near[i] >= last - 1e-5, "{} was left out", candidates[i]);
        }
        // Classes in the template of the list would give another order.
        let own = encode(&filled(template, &classes));
        let other: Vec<f64> = features.iter().map(|f| nearness(f, &own)).collect();
        moved += places
            .windows(2)
            .filter(|p| other[p[0]] > other[p[1]] + 1e-3)
            .count();
    }
    assert!(moved > 0, "the lists do not tell the class texts apart");
    // Then the prompt for the unknown.
    assert_eq!(found.len(), taken + 1);
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

//! `clipood run` with detectors that learn from test images, with inter-modal labels, imagined outliers and joined
//! classifiers; and word lists from other places.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use bytes::Bytes;
use clipood_ood::{
    Matrix, OodError, Stream, StreamInputs, metrics::ood_metrics, score_stream, stream_order,
};
use clipood_pipeline::tables::{
    OodRow, StreamRow, read_footer, read_global, read_ood, read_scores, read_streams,
};
use common::{CLASSES, OOD, RECIPE, TEST, World, files, refused, stderr, succeeds};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use safetensors::SafeTensors;
use std::collections::BTreeMap;

const SECTIONS: &str = r#"
[streams]
orders = [3, 5]

[[select]]
detector = "adaneg:groups=2:batch=4"
parameter = "lambda"
values = [0.0, 1.0]

[[select]]
detector = "tins:groups=2"
parameter = "scale"
values = [10, 100]

[negative_labels]
keep = 0.8
count = 5
[[negative_labels.lists]]
words = "things"
template = "The nice {}."
[[negative_labels.lists]]
words = "kinds"
template = "This is a {} {superclass}."
superclasses = ["creature", "place"]
[[negative_labels.imagined]]
words = "outliers"
"#;

const DETECTORS: &str = "\"mcm\", \"neglabel\", \"inter_modal\", \"tins:groups=2\", \"eoe\", \"r_mcm:count=3:topk=2\", \"cooked\", \
                         \"oodd:queue=3:batch=4\", \"adaneg:groups=2:batch=4\", \"tanl:words=3:batch=4\"";

/// All new detectors, on prompts of three methods, with validation images.
fn recipe(detectors: &str, sections: &str) -> String {
    // A linear probe needs a detector that does not read texts.
    let methods = match detectors.contains("cooked") {
        true => "\"locoop\", \"linear-probe\"]",
        false => "\"locoop\"]",
    };
    let text = RECIPE
        .replace("\"locoop\"]", methods)
        .replace("\"mcm\", \"gl_mcm\"", detectors)
        .replace(
            "ood = [\"scenes\", \"textures\"]",
            "ood = [\"scenes\", \"textures\"]\nvalidation_ood = [\"validation\"]\nvalidation_per_class = 2",
        );
    format!("{text}\n{sections}")
}

fn world() -> World {
    let world = World::new();
    world.draw("validation/", "validation/any", 8);
    world.write(
        "manifests/validation.toml",
        "name = \"validation\"\nrole = \"ood\"\nlayout = \"image-folder\"\nroot = \"validation\"\n",
    );
    world.write(
        "words/things.txt",
        "fish\nswan\nkettle\nice_cream\nmud\nrope\nviolin\ncloud\nspoon\nbrick\nlamp\nwindow\n",
    );
    world.write("words/kinds.txt", "striped\nround\nwet\ntiny\nrusty\n");
    world.write("words/outliers.txt", "balloon\nkite\nsnowflake\n");
    world.write("recipe.toml", recipe(DETECTORS, SECTIONS));
    world
}

fn bytes(world: &World, path: &str) -> Bytes {
    Bytes::from(std::fs::read(world.path(path)).unwrap())
}

fn tables(world: &World) -> (Vec<OodRow>, Vec<StreamRow>) {
    let ood = read_ood(bytes(world, "run/metrics/ood.parquet"), "ood").unwrap();
    let streams = read_streams(bytes(world, "run/metrics/streams.parquet"), "streams").unwrap();
    (ood, streams)
}

/// Raw features of the evaluation views in the store, by image key.
fn features(world: &World) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    for path in files(&world.path("store/features")) {
        if path.contains("/global/") && path.ends_with(".parquet") {
            let table =
                read_global(bytes(world, &format!("store/features/{path}")), &path).unwrap();
            for (row, key) in table.keys.iter().enumerate() {
                if table.views[row] == -1 {
                    let feature = &table.values[row * table.dim..(row + 1) * table.dim];
                    all.insert(key.clone(), feature.to_vec());
                }
            }
        }
    }
    all
}

/// Texts and features of the sets of no class in the store, by the number of texts.
fn encode(world: &World, texts: &[String]) -> Vec<f32> {
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
    succeeds(&world.clipood(&words).output().unwrap());
    let bytes = std::fs::read(world.path("t.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("text").unwrap();
    let values = tensor.data().as_chunks::<4>().0.iter();
    values.map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn streams_and_the_new_detectors_run_in_a_recipe() {
    let world = world();
    let run = world.run("run", &["--store", "store"]);
    let text = succeeds(&run);
    // At a glance: what is transductive is marked and explained, and has a deviation over the orders.
    assert!(text.contains("oodd:queue=3:batch=4†"), "{text}");
    assert!(text.contains("† transductive: "), "{text}");
    let line = text
        .lines()
        .find(|l| l.contains("oodd") && l.contains("zero-shot"));
    assert!(line.unwrap().contains(" ± "), "{text}");

    let (ood, streams) = tables(&world);
    let sets = ["scenes", "textures", "average"];
    let own = |detector: &str, prompt: &str, selection: &str| -> Vec<&OodRow> {
        ood.iter()
            .filter(|r| {
                r.detector == detector && r.prompt.starts_with(prompt) && r.selection == selection
            })
            .collect()
    };
    let transductive = [
        "oodd:queue=3:batch=4",
        "adaneg:groups=2:batch=4",
        "tanl:words=3:batch=4",
    ];
    for detector in [
        "mcm",
        "neglabel",
        "inter_modal",
        "tins:groups=2",
        "eoe",
        "r_mcm:topk=2:count=3",
    ] {
        for prompt in ["zero-shot", "locoop"] {
            let rows = own(detector, prompt, "fixed");
            assert_eq!(rows.len(), sets.len(), "{detector} {prompt}");
            assert!(rows.iter().all(|row| row.scaling.is_none()));
        }
    }
    // Joined classifiers need the shots of the prompt set.
    assert_eq!(own("cooked", "locoop", "fixed").len(), 3);
    assert_eq!(own("cooked", "linear-probe", "fixed").len(), 3);
    assert!(own("cooked", "zero-shot", "fixed").is_empty());
    for detector in transductive {
        for prompt in ["zero-shot", "locoop"] {
            let rows = own(detector, prompt, "fixed");
            assert_eq!(rows.len(), sets.len(), "{detector} {prompt}");
            for row in rows {
                assert_eq!(row.scaling.as_deref(), Some("transductive"));
                assert!(row.auroc_lo.is_none() && row.threshold95.is_none());
                let note = row.notes.as_deref().unwrap();
                assert!(
                    note.contains("orders of seeds 3, 5, batches of 4"),
                    "{note}"
                );
                // The row is the mean over its streams.
                let single: Vec<&StreamRow> = streams
                    .iter()
                    .filter(|s| {
                        (&s.prompt, &s.detector, &s.ood_dataset, s.selection.as_str())
                            == (&row.prompt, &row.detector, &row.ood_dataset, "fixed")
                    })
                    .collect();
                let seeds: Vec<u64> = single.iter().map(|s| s.order_seed).collect();
                assert_eq!(seeds, [3, 5]);
                assert!(single.iter().all(|s| s.batch == Some(4)));
                let mean = (single[0].auroc + single[1].auroc) / 2.0;
                assert!((mean - row.auroc).abs() < 1e-12);
            }
        }
        assert!(
            own(detector, "linear-probe", "fixed").is_empty(),
            "{detector}"
        );
    }
    // A parameter is chosen on validation streams and on the test streams, as for other detectors.
    for detector in ["adaneg:groups=2:batch=4", "tins:groups=2"] {
        for selection in ["validation", "oracle", "oracle-shared"] {
            let rows = own(detector, "zero-shot", selection);
            assert_eq!(rows.len(), 3, "{detector} {selection}");
            let chosen = rows[0].hyperparameters.as_deref().unwrap();
            assert!(
                chosen.starts_with("lambda=") || chosen.starts_with("scale="),
                "{chosen}"
            );
        }
    }
    let best = own("adaneg:groups=2:batch=4", "zero-shot", "oracle");
    let fixed = own("adaneg:groups=2:batch=4", "zero-shot", "fixed");
    for (best, fixed) in best.iter().zip(&fixed).take(2) {
        assert_eq!(best.ood_dataset, fixed.ood_dataset);
        assert_eq!(best.scaling.as_deref(), Some("transductive"));
    }

    // A finished run does nothing; the streams are part of what is checked.
    let before = files(&world.path("."));
    let again = world.run("run", &["--store", "store"]);
    assert!(stderr(&again).is_empty(), "{}", stderr(&again));
    succeeds(&again);
    assert_eq!(files(&world.path(".")), before);
    let status = world.clipood(&["status", "run", "--store", "store", "--audit"]);
    let status = succeeds(&{ status }.output().unwrap());
    assert!(status.contains("stream"), "{status}");
    let part = "run/streams/prompt=zero-shot/dataset=scenes/part-00003.parquet";
    let mut damaged = std::fs::read(world.path(part)).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    let whole = std::fs::read(world.path(part)).unwrap();
    world.write(part, &damaged);
    let mended = world.run("run", &["--store", "store"]);
    assert!(mended.status.success() && stderr(&mended).contains("it is made again"));
    assert_eq!(std::fs::read(world.path(part)).unwrap(), whole);
    // Other orders are another run.
    let other = recipe(DETECTORS, &SECTIONS.replace("[3, 5]", "[3, 6]"));
    world.write("recipe.toml", other);
    refused(&world, "run", &["--store", "store"], 2, &["orders"]);
}

#[test]
fn a_stream_holds_the_scores_of_its_order() {
    let world = world();
    let detectors = "\"mcm\", \"oodd:queue=3:batch=4\"";
    world.write(
        "recipe.toml",
        recipe(detectors, "[streams]\norders = [7]\n"),
    );
    succeeds(&world.run("run", &["--store", "store"]));
    let part = "run/streams/prompt=zero-shot/dataset=textures/part-00007.parquet";
    let table = read_scores(bytes(&world, part), part).unwrap();
    assert_eq!(table.rows.len(), CLASSES.len() * TEST + OOD);
    let footer = read_footer(&bytes(&world, part), part).unwrap();
    assert_eq!(footer.meta.extra["clipood.order_seed"], "7");

    // By definition: the images of both sets in key order, in the drawn order.
    let all = features(&world);
    let mut keys: Vec<(bool, &String)> = table
        .rows
        .iter()
        .map(|r| (!r.is_id, &r.image_key))
        .collect();
    keys.sort();
    let order = stream_order(7, keys.len());
    let arrived: Vec<&String> = order.iter().map(|&row| keys[row as usize].1).collect();
    let rows: Vec<&String> = table.rows.iter().map(|row| &row.image_key).collect();
    assert_eq!(rows, arrived);
    let images: Vec<f32> = keys.iter().flat_map(|(_, key)| all[*key].clone()).collect();
    let texts: Vec<String> = CLASSES
        .iter()
        .map(|c| format!("a photo of a {c}"))
        .collect();
    let texts = encode(&world, &texts);
    let dim = texts.len() / CLASSES.len();
    let images = Matrix::new("images", &images, keys.len(), dim).unwrap();
    let inputs = StreamInputs {
        text: Matrix::new("text", &texts, CLASSES.len(), dim).unwrap(),
        negative_text: None,
        noise: None,
    };
    let mut stream = Stream::start(&"oodd:queue=3:batch=4".parse().unwrap(), &inputs).unwrap();
    let expected: Result<Vec<f32>, OodError> =
        score_stream(&mut stream, &images, &order, |_| Ok(()));
    let expected = expected.unwrap();
    let found = table.detectors[0].values.clone().unwrap();
    let (mut id, mut ood) = (Vec::new(), Vec::new());
    for ((score, row), meta) in found.iter().zip(&order).zip(&table.rows) {
        assert!((score - expected[*row as usize]).abs() < 1e-5);
        if meta.is_id {
            id.push(*score)
        } else {
            ood.push(*score)
        }
    }
    let (rows, _) = tables(&world);
    let row = rows.iter().find(|r| {
        r.prompt == "zero-shot" && r.detector.starts_with("oodd") && r.ood_dataset == "textures"
    });
    let auroc = ood_metrics(&id, &ood).unwrap().auroc;
    assert!((row.unwrap().auroc - auroc).abs() < 1e-12);

    // The same on arrays.
    let write = |name: &str, keys: &[(bool, &String)], values: Option<&[f32]>| {
        let values = values.map_or_else(
            || keys.iter().flat_map(|(_, key)| all[*key].clone()).collect(),
            <[f32]>::to_vec,
        );
        let shape = vec![values.len() / dim, dim];
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        (name.to_string(), shape, bytes)
    };
    let (ids, oods): (Vec<_>, Vec<_>) = keys.iter().copied().partition(|(ood, _)| !ood);
    let arrays = [
        write("text", &[], Some(&texts)),
        write("id", &ids, None),
        write("ood", &oods, None),
    ];
    let views = arrays.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    world.write("bundle.safetensors", file);
    let words = [
        "score",
        "--bundle",
        "bundle.safetensors",
        "--detectors",
        "mcm,oodd:queue=3:batch=4",
        "--order",
        "7",
        "--out",
        "s.parquet",
    ];
    succeeds(&world.clipood(&words).output().unwrap());
    // The rows of ID images come first.
    let mut scores: Vec<f32> = Vec::new();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes(&world, "s.parquet")).unwrap();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let column = batch.column_by_name("score_oodd").unwrap();
        scores.extend(column.as_primitive::<Float32Type>().values());
    }
    assert_eq!(scores.len(), keys.len());
    let (id, ood) = scores.split_at(ids.len());
    let again = ood_metrics(id, ood).unwrap().auroc;
    assert!((again - auroc).abs() < 1e-9, "{again} {auroc}");
}

#[test]
fn words_come_from_installed_wordnet_and_from_published_lists() {
    let world = world();
    // An excerpt in WordNet's format, and a published list of whole prompts.
    world.write(
        "elsewhere/data.noun",
        "  1 This software and database is being provided to you\n  2 under a licence\n\
         00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which exists\n\
         00002137 03 n 02 abstraction 0 abstract_entity 0 010 @ 00001740 n 0000 | a concept\n\
         02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 001 @ 02083346 n 0000 | barks\n",
    );
    world.write(
        "words/neg_prompts.txt",
        "a photo of a drawbridge\r\na photo of a metronome\r\na photo of a quagmire\r\n",
    );
    let section = "[negative_labels]\nkeep = 1.0\n[[negative_labels.lists]]\nwords = \"data.noun\"\n\
                   [[negative_labels.lists]]\nwords = \"neg_prompts\"\ntemplate = \"{}\"\n";
    world.write("recipe.toml", recipe("\"neglabel\"", section));
    let run = world
        .command("run", &["--store", "store"])
        .env("WNSEARCHDIR", world.path("elsewhere"))
        .output()
        .unwrap();
    succeeds(&run);
    let run_json = std::fs::read_to_string(world.path("run/run.json")).unwrap();
    for word in ["abstract entity", "domestic dog", "a photo of a metronome"] {
        assert!(run_json.contains(word), "{word}");
    }
    // The words are kept with the run, so it goes on without the files.
    std::fs::remove_dir_all(world.path("elsewhere")).unwrap();
    succeeds(
        &world
            .clipood(&["status", "run", "--store", "store"])
            .output()
            .unwrap(),
    );
}

#[test]
fn what_a_detector_lacks_is_named_before_any_image_is_read() {
    let world = world();
    let lists = &SECTIONS[SECTIONS.find("[negative_labels]").unwrap()..];
    let plain = "[negative_labels]\n[[negative_labels.lists]]\nwords = \"things\"\n";
    let no_methods = |detector: &str, sections: &str| {
        recipe(detector, sections).replace("\"zero-shot\", \"locoop\"]", "\"zero-shot\"]")
    };
    let cases: [(String, &[&str]); 10] = [
        (
            recipe("\"eoe\"", plain),
            &["eoe", "negative_labels.imagined"],
        ),
        (recipe("\"tins\"", ""), &["tins", "negative_labels.lists"]),
        (recipe("\"tanl\"", ""), &["tanl", "negative_labels.lists"]),
        (
            recipe("\"cooked\"", plain).replace(", \"linear-probe\"]", "]"),
            &["cooked", "`linear-probe`", "methods"],
        ),
        (
            no_methods("\"inter_modal\"", lists).replace("shots = [2]", "shots = []"),
            &["inter-modal", "shots"],
        ),
        (
            recipe("\"oodd\"", "[streams]\norders = []\n"),
            &["streams.orders"],
        ),
        (
            recipe("\"oodd\"", "[streams]\norders = [1, 1]\n"),
            &["streams.orders", "twice"],
        ),
        (
            recipe("\"oodd\"", "[streams]\nseeds = [1]\n"),
            &["seeds", "orders"],
        ),
        (
            recipe(
                "\"neglabel\"",
                &lists.replace("This is a {} {superclass}.", "This is a {}."),
            ),
            &["negative_labels.lists.template", "{superclass}"],
        ),
        (
            recipe(
                "\"neglabel\"",
                &format!(
                    "[negative_labels]\nrule = \"inter-modal\"\n{}",
                    &plain[18..]
                ),
            ),
            &["inter-modal", "inter_modal"],
        ),
    ];
    for (text, words) in cases {
        world.write("recipe.toml", &text);
        refused(&world, "bad", &["--store", "store"], 2, words);
        assert!(!world.path("bad").exists(), "{words:?}");
    }
    // Zero-shot prompts alone may choose labels with the shots of the recipe.
    world.write(
        "recipe.toml",
        no_methods("\"inter_modal\", \"tins:groups=2\"", lists),
    );
    succeeds(&world.run("run", &["--store", "store"]));
    // Commands that score images one by one say so.
    let words = [
        "threshold",
        "--images",
        "data/id/train",
        "--detector",
        "oodd",
        "--out",
        "t.json",
    ];
    let threshold = world.clipood(&words).output().unwrap();
    let log = stderr(&threshold);
    assert_eq!(threshold.status.code(), Some(2), "{log}");
    assert!(log.contains("scores a stream of images"), "{log}");
}

//! `clipood regions`, and the section about patches in the report of a run.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::BufReader;

use clipood_pipeline::PromptSet;
use clipood_pipeline::regions::Picture;
use common::{CLASSES, RECIPE, World, files, misused, stderr, stdout, succeeds};
use safetensors::SafeTensors;
use serde_json::Value;

/// The demo model: 96 pixels, 3 x 3 cells of a ModifiedResNet.
const SIDE: usize = 96;
const GRID: usize = 3;
const IMAGE: &str = "data/star/00.png";

/// A drawn star and a drawn scene, and a template.
fn world() -> World {
    let world = World::empty();
    world.draw("id/test/star/", "star", 1);
    world.draw("scenes/", "scenes", 1);
    world.write("template.txt", "a {}\n");
    world
}

/// `clipood regions` with the four classes of the tests.
fn regions(world: &World, more: &[&str]) -> Vec<Value> {
    let classes = CLASSES.join(",");
    let common = [
        "--classes",
        &classes,
        "--templates",
        "template.txt",
        "--json",
    ];
    let words = [&["regions"], more, &common[..]].concat();
    lines(&succeeds(&world.clipood(&words).output().unwrap()))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Rows of a JSON array of arrays, one after the other.
fn flat(rows: &Value) -> Vec<f64> {
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), GRID);
    rows.iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|value| value.as_f64().unwrap())
        .collect()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    let words = tensor.data().as_chunks::<4>().0.iter();
    words.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Divides every row of `dim` values by its length.
fn unit(values: &[f32], dim: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let squares: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
        let length = squares.sqrt();
        row.iter()
            .map(|v| (f64::from(*v) / length) as f32)
            .collect::<Vec<f32>>()
    };
    values.chunks_exact(dim).flat_map(row).collect()
}

/// Cosines `[patches, classes]` of the image, and normalised text features, from the features of `clipood encode`.
fn encoded(world: &World) -> (Vec<Vec<f64>>, Vec<f32>) {
    let texts: Vec<String> = CLASSES.iter().map(|class| format!("a {class}")).collect();
    world.write("texts.txt", texts.join("\n"));
    let words = [
        "encode",
        "--model",
        "demo",
        "--images",
        IMAGE,
        "--texts",
        "texts.txt",
        "--local",
        "--out",
        "f.safetensors",
    ];
    succeeds(&world.clipood(&words).output().unwrap());
    let bytes = std::fs::read(world.path("f.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let text = floats(&file, "text");
    let dim = text.len() / CLASSES.len();
    let (text, local) = (unit(&text, dim), unit(&floats(&file, "image_local"), dim));
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let cosines = local.chunks_exact(dim).map(|patch| {
        text.chunks_exact(dim)
            .map(|class| dot(patch, class))
            .collect()
    });
    (cosines.collect(), text)
}

/// A picture: columns, and the colour of a pixel.
fn png(world: &World, path: &str) -> (usize, Vec<[u8; 3]>) {
    let file = BufReader::new(File::open(world.path(path)).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width as usize, pixels.as_chunks::<3>().0.to_vec())
}

/// The view of the image, as `clipood preprocess` computes it.
fn view(world: &World) -> Vec<u8> {
    let words = [
        "preprocess",
        IMAGE,
        "--size",
        "96",
        "--pixels",
        "--out",
        "v.safetensors",
    ];
    succeeds(&world.clipood(&words).output().unwrap());
    let bytes = std::fs::read(world.path("v.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor("00.png").unwrap().data().to_vec()
}

#[test]
fn patches_are_extracted_and_drawn_by_the_rule() {
    let world = world();
    let (cosines, _) = encoded(&world);
    let view = view(&world);
    for (label, name) in CLASSES.iter().enumerate() {
        let found = regions(
            &world,
            &[IMAGE, "--label", name, "--top-k", "2", "--out", "o"],
        );
        let [found] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(
            (&found["image"], &found["label"]),
            (&IMAGE.into(), &(*name).into())
        );
        assert_eq!(
            (&found["label_from"], &found["top_k"]),
            (&"given".into(), &2.into())
        );

        // The label is among the two most similar classes, or the patch is extracted.
        let ranks: Vec<usize> = cosines
            .iter()
            .map(|row| 1 + row.iter().filter(|c| **c > row[label]).count())
            .collect();
        let printed: Vec<usize> = flat(&found["ranks"]).iter().map(|r| *r as usize).collect();
        assert_eq!(printed, ranks, "{name}");
        let extracted = ranks.iter().filter(|rank| **rank > 2).count();
        assert_eq!(found["extracted"], extracted);
        assert_eq!(found["share"], extracted as f64 / 9.0);

        // The middle of every patch has the colour of the view, marked or dimmed.
        let file = found["file"].as_str().unwrap();
        let (width, pixels) = png(&world, &format!("o/{file}"));
        assert_eq!(width, 5 * SIDE);
        for (patch, rank) in ranks.iter().enumerate() {
            let middle = |at: usize| SIDE / GRID * at + SIDE / GRID / 2;
            let (x, y) = (middle(patch % GRID), middle(patch / GRID));
            let seen = pixels[5 * y * width + 5 * x];
            for (channel, mark) in [213.0, 94.0, 0.0].into_iter().enumerate() {
                let pixel = f64::from(view[3 * (y * SIDE + x) + channel]);
                let expected = match *rank > 2 {
                    true => 0.55 * pixel + 0.45 * mark,
                    false => 0.4 * pixel,
                };
                let difference = (f64::from(seen[channel]) - expected).abs();
                assert!(difference < 0.51, "{name}, patch {patch}: {seen:?}");
            }
        }

        // The label's heat map first, then those of the three classes most similar to the image without it.
        let maps = found["maps"].as_array().unwrap();
        assert!((3..=4).contains(&maps.len()));
        assert_eq!(maps[0]["class"], *name);
        for map in maps {
            let class = map["class"].as_str().unwrap();
            let number = CLASSES.iter().position(|c| *c == class).unwrap();
            for (value, row) in flat(&map["cosines"]).iter().zip(&cosines) {
                assert!(
                    (value - row[number]).abs() < 1e-5,
                    "{class}: {value}, {row:?}"
                );
            }
        }
        let values =
            |map: &Value| -> Vec<f32> { flat(&map["cosines"]).iter().map(|v| *v as f32).collect() };
        let all: Vec<f32> = maps.iter().flat_map(values).collect();
        let ends = |start: f32, pick: fn(f32, f32) -> f32| all.iter().copied().fold(start, pick);
        let range = (
            ends(f32::INFINITY, f32::min),
            ends(f32::NEG_INFINITY, f32::max),
        );
        let expected = Picture::of_view(&view, SIDE, 448).with_heat(GRID, &values(&maps[0]), range);
        let (width, pixels) = png(&world, &format!("o/{}", maps[0]["file"].as_str().unwrap()));
        for y in (0..width).step_by(37) {
            for x in (0..width).step_by(37) {
                assert_eq!(
                    expected.pixel(x, y),
                    Some(pixels[y * width + x]),
                    "{x}, {y}"
                );
            }
        }
    }
}

#[test]
fn without_a_label_it_is_predicted_and_pages_hold_their_pictures() {
    let world = world();
    world.write("data/broken.png", b"not a picture");
    let classes = CLASSES.join(",");
    let words = [
        "regions",
        "data",
        "--classes",
        &classes,
        "--top",
        "1",
        "--out",
        "o",
    ];
    let output = world.clipood(&words).output().unwrap();
    // One of three images cannot be read.
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot read data/broken.png"));
    assert!(stderr(&output).contains("page: o/index.html"));
    let text = stdout(&output);
    for word in [
        "data/star/00.png\nlabel star (predicted)",
        "K = 1 of 4 classes",
        "data/scenes/00.png",
    ] {
        assert!(text.contains(word), "no `{word}` in {text}");
    }

    let page = std::fs::read_to_string(world.path("o/index.html")).unwrap();
    let kept = lines(&std::fs::read_to_string(world.path("o/regions.jsonl")).unwrap());
    assert_eq!(kept.len(), 2);
    let mut pictures = 0;
    for line in &kept {
        assert_eq!(line["label_from"], "predicted");
        assert_eq!(line["label"], line["pred_name"]);
        let maps = line["maps"].as_array().unwrap();
        assert_eq!(maps.len(), 1);
        for file in maps.iter().chain([line]) {
            let file = file["file"].as_str().unwrap();
            assert!(world.path(&format!("o/{file}")).is_file(), "{file}");
            pictures += 1;
        }
        assert!(page.contains(line["image"].as_str().unwrap()));
    }
    assert_eq!(
        page.matches("src=\"data:image/jpeg;base64,").count(),
        pictures
    );
    assert!(page.contains("K = 1 (the default, a fifth of the classes)"));
    for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Pictures, page and lines, and nothing else.
    assert_eq!(files(&world.path("o")).len(), pictures + 2);

    // The same images below a folder with the pictures: these are not drawn, and nothing of the first call stays.
    std::fs::rename(world.path("o"), world.path("data/o")).unwrap();
    let again = ["regions", "data", "--classes", "star,house,fish"];
    let again = [&again[..], &["--top", "1", "--out", "data/o"]].concat();
    let output = world.clipood(&again).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = std::fs::read_to_string(world.path("data/o/regions.jsonl")).unwrap();
    let kept = lines(&text);
    assert_eq!(kept.len(), 2, "{text}");
    let maps = kept
        .iter()
        .map(|line| line["maps"].as_array().unwrap().len());
    let pictures = kept.len() + maps.sum::<usize>();
    assert_eq!(files(&world.path("data/o")).len(), pictures + 2);
}

#[test]
fn classes_may_share_a_name() {
    let world = world();
    // Numbered from 0, as in the note; the texts are those of the bare name.
    let words = ["regions", IMAGE, "--json", "--classes"];
    let twice = [&words[..], &["star,fish,star", "--top", "3"]].concat();
    let output = world.clipood(&twice).output().unwrap();
    assert!(stderr(&output).contains("`star` (classes 0, 2)"));
    let found = lines(&succeeds(&output));
    let maps = found[0]["maps"].as_array().unwrap();
    let cosine = |class: &str| {
        let map = maps.iter().find(|map| map["class"] == class);
        map.unwrap()["image_cosine"].as_f64().unwrap()
    };
    assert_eq!(cosine("star (class 0)"), cosine("star (class 2)"));
    let once = [&words[..], &["star,fish", "--top", "3"]].concat();
    let once = lines(&succeeds(&world.clipood(&once).output().unwrap()));
    let own = once[0]["maps"].as_array().unwrap().iter();
    let own = own.filter(|map| map["class"] == "star");
    let own: Vec<f64> = own
        .map(|map| map["image_cosine"].as_f64().unwrap())
        .collect();
    // Another number of texts in a batch rounds differently.
    assert_eq!(own.len(), 1);
    assert!((own[0] - cosine("star (class 0)")).abs() < 1e-6, "{own:?}");
    misused(
        &world,
        &[&twice[..], &["--label", "star"]].concat(),
        &["`star (class 0)`, `star (class 2)`"],
    );
    let second = [&twice[..], &["--label", "star (class 2)"]].concat();
    succeeds(&world.clipood(&second).output().unwrap());
}

#[test]
fn a_prompt_set_stands_in_for_templates() {
    let world = world();
    let (_, text) = encoded(&world);
    let set = PromptSet {
        fingerprint: "0123456789abcdef".into(),
        classes: CLASSES.map(String::from).to_vec(),
        text,
        negatives: None,
        state: None,
        probe: None,
    };
    world.write("p.safetensors", set.to_bytes().unwrap());
    let words = |more: &[&'static str]| -> Vec<Value> {
        let words = [
            &["regions", IMAGE, "--json", "--prompt", "p.safetensors"],
            more,
        ]
        .concat();
        lines(&succeeds(&world.clipood(&words).output().unwrap()))
    };
    let (by_prompt, by_words) = (words(&[]), regions(&world, &[IMAGE]));
    for key in ["label", "ranks", "extracted", "top_k", "classes"] {
        assert_eq!(by_prompt[0][key], by_words[0][key], "{key}");
    }
    // Some of its classes.
    let some = words(&["--classes", "tree,star", "--label", "tree"]);
    assert_eq!(
        (&some[0]["classes"], &some[0]["label"]),
        (&2.into(), &"tree".into())
    );
    let refused = |more: &[&str], expected: &[&str]| {
        let words = [&["regions", IMAGE, "--prompt", "p.safetensors"], more].concat();
        misused(&world, &words, expected);
    };
    refused(&["--classes", "trie,star"], &["--classes trie", "`tree`"]);
    refused(&["--templates", "openai7"], &["cannot be used with"]);
    let narrow = PromptSet {
        text: vec![1.0; 8],
        ..set
    };
    world.write("p.safetensors", narrow.to_bytes().unwrap());
    refused(&[], &["--prompt p.safetensors", "of width 2", "--model"]);
}

#[test]
fn what_is_wrong_is_named() {
    let world = world();
    let wrong = |more: &[&str], expected: &[&str]| {
        misused(&world, &[&["regions", IMAGE], more].concat(), expected);
    };
    wrong(&[], &["--classes", "--prompt"]);
    wrong(&["--classes", "star,,fish"], &["name 2 of 3 is blank"]);
    wrong(&["--classes", "star"], &["at least 2"]);
    let two = ["--classes", "star,fish"];
    wrong(
        &[&two[..], &["--label", "fisch"]].concat(),
        &["--label fisch", "`fish`"],
    );
    for top_k in ["0", "2"] {
        wrong(
            &[&two[..], &["--top-k", top_k]].concat(),
            &["--top-k", "1 to 1"],
        );
    }
    wrong(&[&two[..], &["--top", "0"]].concat(), &["--top"]);
    wrong(&[&two[..], &["--devices", "cuda:0"]].concat(), &["cuda:0"]);
    wrong(
        &[&two[..], &["--model", "no/such/folder"]].concat(),
        &["no/such/folder"],
    );
    assert!(!world.path("regions").exists());

    // Images that cannot be read are failed work, as of every command.
    let words = ["regions", "gone.png", "--classes", "star,fish"];
    let output = world.clipood(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for word in ["cannot read gone.png (unreadable)", "none of 1 images"] {
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn a_report_draws_the_patches_of_the_worst_mistakes() {
    let world = World::new();
    succeeds(&world.run("run", &["--store", "store"]));
    let page = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    let section = |page: &str| -> String {
        let (_, rest) = page.split_once("<section id=\"patches\">").unwrap();
        rest.split("</section>").next().unwrap().to_string()
    };
    let drawn = section(&page("run/report/index.html"));
    for word in [
        "locoop-2shot",
        "K = 1 of 4 classes",
        "Extracted patches",
        "data:image/jpeg;base64,",
        "id=\"table-patches-1\"",
    ] {
        assert!(drawn.contains(word), "no `{word}` in {drawn}");
    }
    // OOD images always have a prediction; one picture of the extracted patches each.
    let images = drawn.matches("patches extracted").count();
    assert!((2..=4).contains(&images), "{images}");
    assert_eq!(
        drawn.matches("<strong>Extracted patches</strong>").count(),
        images
    );

    // The images are not needed for the numbers.
    std::fs::rename(world.path("data"), world.path("elsewhere")).unwrap();
    succeeds(
        &world
            .clipood(&["report", "run", "--page", "bare.html"])
            .output()
            .unwrap(),
    );
    let bare = section(&page("bare.html"));
    assert_eq!(bare.matches("patches extracted").count(), images);
    assert!(
        bare.contains("Nothing is drawn over the image, because it cannot be read")
            && !bare.contains("<img")
    );
    std::fs::rename(world.path("elsewhere"), world.path("data")).unwrap();

    // The same prompts, trained by the run, on one image.
    let prompts = files(&world.path("store/prompts"));
    let trained = prompts.iter().find(|path| {
        let bytes = std::fs::read(world.path(&format!("store/prompts/{path}"))).unwrap();
        let file = SafeTensors::deserialize(&bytes);
        file.is_ok_and(|file| file.tensor("context").is_ok() && file.tensor("text").is_ok())
    });
    let prompt = format!("store/prompts/{}", trained.unwrap());
    let words = [
        "regions",
        "data/id/test/star/00.png",
        "--prompt",
        &prompt,
        "--label",
        "star",
    ];
    let text = succeeds(&world.clipood(&words).output().unwrap());
    assert!(
        text.contains("label star (given)") && text.contains("of 9 patches"),
        "{text}"
    );

    // Without patches in the store there is one sentence.
    world.write(
        "recipe.toml",
        RECIPE.replace("\"mcm\", \"gl_mcm\"", "\"mcm\""),
    );
    succeeds(&world.run(
        "plain",
        &["--store", "plain-store", "--methods", "zero-shot"],
    ));
    let none = section(&page("plain/report/index.html"));
    assert!(none.contains("stores no patch features"), "{none}");
    assert!(!none.contains("<img"), "{none}");
}

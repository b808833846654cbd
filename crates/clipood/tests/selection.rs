//! `clipood run` with hyperparameters chosen on validation images and with dual-pattern scores, recomputed from the score
//! tables by their definitions.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use clipood_pipeline::tables::{OodRow, read_ood, read_scores, read_summary};
use common::{RECIPE, World, files, stderr, stdout};

const SELECT: &str =
    "[[select]]\ndetector = \"mcm\"\nparameter = \"t\"\nvalues = [0.05, 0.5, 1.0, 4.0]\n";

/// The small benchmark with a validation OOD set, two methods and a temperature to choose.
fn world() -> World {
    let world = World::new();
    world.draw("validation/", "validation/any", 8);
    world.write(
        "manifests/validation.toml",
        "name = \"validation\"\nrole = \"ood\"\nlayout = \"image-folder\"\nroot = \"validation\"\n",
    );
    world.write("recipe.toml", recipe(SELECT));
    world
}

fn recipe(select: &str) -> String {
    let text = RECIPE
        .replace("\"locoop\"]", "\"dplocoop\"]")
        .replace(
            "ood = [\"scenes\", \"textures\"]",
            "ood = [\"scenes\", \"textures\"]\nvalidation_ood = [\"validation\"]\nvalidation_per_class = 2\n\
             [data.groups]\nfar = [\"textures\"]",
        );
    format!("{text}\n{select}")
}

fn bytes(world: &World, path: &str) -> Bytes {
    Bytes::from(std::fs::read(world.path(path)).unwrap())
}

/// One column of one dataset's scores with one prompt set, below `folder` of the run.
fn column(world: &World, folder: &str, prompt: &str, dataset: &str, detector: &str) -> Vec<f64> {
    let base = format!("run/{folder}/prompt={prompt}/dataset={dataset}");
    let mut values = Vec::new();
    for part in files(&world.path(&base)) {
        let scores = read_scores(bytes(world, &format!("{base}/{part}")), &part).unwrap();
        let column = scores
            .detectors
            .into_iter()
            .find(|c| c.detector == detector);
        values.extend(column.unwrap().values.unwrap().into_iter().map(f64::from));
    }
    assert!(!values.is_empty(), "{base}: no {detector}");
    values
}

/// AUROC by counting pairs, ties as one half.
fn auroc(id: &[f64], ood: &[f64]) -> f64 {
    let wins = id.iter().flat_map(|a| {
        ood.iter().map(move |b| match a.total_cmp(b) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
    });
    wins.sum::<f64>() / (id.len() * ood.len()) as f64
}

/// Share of OOD images above the threshold whose recall is nearest to 0.95; of equally near ones the lowest.
fn fpr95(id: &[f64], ood: &[f64]) -> f64 {
    let recall = |t: f64| id.iter().filter(|&&s| s >= t).count() as f64 / id.len() as f64;
    let nearest = |a: &f64, b: &f64| {
        let distance = |t: f64| (recall(t) - 0.95).abs();
        distance(*a).total_cmp(&distance(*b)).then(a.total_cmp(b))
    };
    let all = id.iter().chain(ood).copied();
    let threshold = all.min_by(nearest).unwrap();
    ood.iter().filter(|&&s| s >= threshold).count() as f64 / ood.len() as f64
}

fn rows<'a>(all: &'a [OodRow], prompt: &str, detector: &str, selection: &str) -> Vec<&'a OodRow> {
    let of = |row: &&OodRow| {
        (&*row.prompt, &*row.detector, &*row.selection) == (prompt, detector, selection)
    };
    all.iter().filter(of).collect()
}

#[test]
fn dual_pattern_and_chosen_rows_are_what_the_score_tables_say() {
    let world = world();
    let run = world.run("run", &[]);
    assert!(run.status.success(), "{}", stderr(&run));
    let report = world.clipood(&["report", "run", "--detector", "all"]);
    let text = stdout(&{ report }.output().unwrap());
    assert!(
        text.contains("oracle*") && text.contains("* chosen on the tested images"),
        "{text}"
    );
    let all = read_ood(bytes(&world, "run/metrics/ood.parquet"), "ood").unwrap();

    // Fused scores: base + beta * (min KL mapped from its range onto the base's), ranges over the tested pair.
    let prompt = "dplocoop-2shot-seed1";
    let fixed = rows(&all, prompt, "dual_pattern", "fixed");
    let transductive: Vec<_> = fixed
        .iter()
        .filter(|r| r.scaling.as_deref() == Some("transductive"))
        .collect();
    assert_eq!(
        transductive.len(),
        4,
        "two sets, their average and the group's"
    );
    for row in transductive
        .iter()
        .filter(|r| !r.ood_dataset.starts_with("average"))
    {
        assert_eq!(row.hyperparameters.as_deref(), Some("beta=-0.5"));
        let of = |dataset: &str| {
            let base = column(&world, "scores", prompt, dataset, "dual_pattern_base");
            let kl = column(&world, "scores", prompt, dataset, "dual_pattern_neg_min_kl");
            (base, kl.into_iter().map(|v| -v).collect::<Vec<f64>>())
        };
        let (id, ood) = (of("id"), of(&row.ood_dataset));
        let range = |a: &[f64], b: &[f64]| {
            let values = || a.iter().chain(b).copied();
            (
                values().fold(f64::INFINITY, f64::min),
                values().fold(f64::NEG_INFINITY, f64::max),
            )
        };
        let ((low, high), (kl_low, kl_high)) = (range(&id.0, &ood.0), range(&id.1, &ood.1));
        let fuse = |side: &(Vec<f64>, Vec<f64>)| -> Vec<f64> {
            let scaled = side
                .1
                .iter()
                .map(|kl| (kl - kl_low) / (kl_high - kl_low) * (high - low) + low);
            // The fused score is kept in single precision.
            side.0
                .iter()
                .zip(scaled)
                .map(|(base, kl)| f64::from((base - 0.5 * kl) as f32))
                .collect()
        };
        let (id, ood) = (fuse(&id), fuse(&ood));
        assert!((row.auroc - auroc(&id, &ood)).abs() < 2e-3, "{row:?}");
        assert!((row.fpr95 - fpr95(&id, &ood)).abs() < 1e-9, "{row:?}");
    }
    assert!(rows(&all, "zero-shot", "dual_pattern", "fixed").is_empty());
    let honest = rows(&all, prompt, "dual_pattern", "validation");
    assert!(
        !honest.is_empty()
            && honest
                .iter()
                .all(|r| r.scaling.as_deref() == Some("calibrated"))
    );

    // The temperature of the validation rows is the best on validation images, whatever the test says.
    for prompt in ["zero-shot", prompt] {
        let criterion = |t: &str| {
            let id = column(&world, "validation", prompt, "id", t);
            let ood = column(&world, "validation", prompt, "validation", t);
            auroc(&id, &ood) - fpr95(&id, &ood)
        };
        let values = ["0.05", "0.5", "1", "4"];
        let columns = ["mcm:t=0.05", "mcm:t=0.5", "mcm", "mcm:t=4"];
        let best = columns
            .iter()
            .map(|c| criterion(c))
            .fold(f64::NEG_INFINITY, f64::max);
        let chosen = rows(&all, prompt, "mcm", "validation");
        assert_eq!(chosen.len(), 4);
        for row in chosen {
            let chosen = row.hyperparameters.as_deref().unwrap();
            let i = values
                .iter()
                .position(|v| chosen == format!("t={v}"))
                .unwrap();
            assert!((criterion(columns[i]) - best).abs() < 1e-9, "{row:?}");
            if !row.ood_dataset.starts_with("average") {
                let id = column(&world, "scores", prompt, "id", columns[i]);
                let ood = column(&world, "scores", prompt, &row.ood_dataset, columns[i]);
                assert!((row.auroc - auroc(&id, &ood)).abs() < 1e-9, "{row:?}");
            }
        }
        // The oracle is the best on each test set, so no row of the set exceeds it.
        for oracle in rows(&all, prompt, "mcm", "oracle") {
            let others = all.iter().filter(|r| {
                (&r.prompt, &*r.detector, &r.ood_dataset)
                    == (&oracle.prompt, "mcm", &oracle.ood_dataset)
            });
            for other in others {
                assert!(
                    oracle.auroc - oracle.fpr95 >= other.auroc - other.fpr95 - 1e-9,
                    "{oracle:?} {other:?}"
                );
            }
        }
    }

    // A group's average is the mean of its members.
    let of = |name: &str| {
        rows(&all, "zero-shot", "mcm", "fixed")
            .into_iter()
            .find(|r| r.ood_dataset == name)
            .unwrap()
    };
    assert_eq!(of("average:far").auroc, of("textures").auroc);
    let mean = (of("scenes").auroc + of("textures").auroc) / 2.0;
    assert!((of("average").auroc - mean).abs() < 1e-12);
}

#[test]
fn the_summary_has_mean_and_deviation_over_seeds() {
    let world = world();
    let run = world.run("run", &["--seeds", "1,2,3", "--detectors", "mcm"]);
    assert!(run.status.success(), "{}", stderr(&run));
    let all = read_ood(bytes(&world, "run/metrics/ood.parquet"), "ood").unwrap();
    let summary = read_summary(bytes(&world, "run/metrics/summary.parquet"), "summary").unwrap();
    let mut seen = 0;
    for line in summary.iter().filter(|line| line.seeds == 3) {
        let values: Vec<f64> = all
            .iter()
            .filter(|r| {
                (&r.method, r.shots, &r.ood_dataset)
                    == (&line.method, line.shots, &line.ood_dataset)
                    && (&r.detector, &r.selection, &r.scaling)
                        == (&line.detector, &line.selection, &line.scaling)
            })
            .map(|r| r.auroc)
            .collect();
        assert_eq!(values.len(), 3, "{line:?}");
        let mean = values.iter().sum::<f64>() / 3.0;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        assert!((line.auroc - mean).abs() < 1e-12, "{line:?}");
        assert!(
            (line.auroc_std.unwrap() - (squares / 2.0).sqrt()).abs() < 1e-12,
            "{line:?}"
        );
        seen += 1;
    }
    assert!(seen >= 3 * 4, "{seen} lines of three seeds");
}

#[test]
fn choices_that_cannot_be_honest_are_refused() {
    let world = world();
    // A tested image among the validation images, under another name.
    let copy = std::fs::read(world.path("data/textures/any/03.png")).unwrap();
    world.write("data/validation/any/99.png", copy);
    let overlap = world.run("overlap", &[]);
    let log = stderr(&overlap);
    assert_eq!(overlap.status.code(), Some(2), "{log}");
    assert!(
        log.contains("validation/any/99.png") && log.contains("textures/any/03.png"),
        "{log}"
    );
    std::fs::remove_file(world.path("data/validation/any/99.png")).unwrap();

    let cases = [
        (
            "parameter = \"t\"",
            "parameter = \"k\"",
            vec!["parameter of mcm \"k\""],
        ),
        (
            "[0.05, 0.5, 1.0, 4.0]",
            "[]",
            vec!["select.values", "an empty list"],
        ),
        ("[0.05, 0.5, 1.0, 4.0]", "[-1.0]", vec!["t", "-1"]),
        (
            "detector = \"mcm\"",
            "detector = \"knn\"",
            vec!["knn", "detectors"],
        ),
        ("values =", "valeus =", vec!["valeus", "values"]),
    ];
    for (from, to, words) in cases {
        world.write("recipe.toml", recipe(&SELECT.replace(from, to)));
        let run = world.run("bad", &[]);
        let log = stderr(&run);
        assert_eq!(run.status.code(), Some(2), "{to}: {log}");
        for word in words {
            assert!(log.contains(word), "{to}: no `{word}` in {log}");
        }
    }
    // More validation images than the training images have left.
    world.write(
        "recipe.toml",
        recipe("").replace("validation_per_class = 2", "validation_per_class = 3"),
    );
    let run = world.run("bad", &[]);
    assert_eq!(run.status.code(), Some(2), "{}", stderr(&run));
    assert!(stderr(&run).contains("fish"), "{}", stderr(&run));
}

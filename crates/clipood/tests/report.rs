//! `clipood report` and `clipood compare` on real runs: tables in every format, pages of finished and unfinished runs.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use clipood_pipeline::tables::{OodRow, read_ood, read_paired};
use common::tables::table;
use common::{RECIPE, World, misused, refused, stderr, stdout, succeeds};

fn clipood(world: &World, words: &[&str]) -> String {
    succeeds(&world.clipood(words).output().unwrap())
}

fn ood_row<'a>(rows: &'a [OodRow], prompt: &str, set: &str) -> &'a OodRow {
    let mut own = rows.iter();
    own.find(|r| (&*r.prompt, &*r.ood_dataset, &*r.detector) == (prompt, set, "mcm"))
        .unwrap()
}

#[test]
fn tables_come_in_every_format_with_the_figures_of_the_parquet_files() {
    let world = World::new();
    succeeds(&world.run("run", &["--shots", "1,2", "--seeds", "1,2"]));
    let rows = read_ood(table(&world, "run/metrics/ood.parquet"), "ood").unwrap();

    // Averages have intervals that hold them, as single sets do.
    let average = ood_row(&rows, "zero-shot", "average");
    let sets = ["scenes", "textures"].map(|set| ood_row(&rows, "zero-shot", set));
    let (lo, hi) = (average.auroc_lo.unwrap(), average.auroc_hi.unwrap());
    assert!(
        lo <= average.auroc && average.auroc <= hi && lo < hi,
        "{average:?}"
    );
    assert!((average.auroc - (sets[0].auroc + sets[1].auroc) / 2.0).abs() < 1e-12);
    let paired = read_paired(table(&world, "run/metrics/paired.parquet"), "paired").unwrap();
    // 4 prompt sets, 2 OOD sets and their average.
    assert_eq!(paired.len(), 12);
    let of = |set: &str| {
        paired
            .iter()
            .find(|r| r.ood_dataset == set)
            .unwrap()
            .auroc_diff
    };
    assert!((of("average") - (of("scenes") + of("textures")) / 2.0).abs() < 1e-12);

    let csv = clipood(&world, &["report", "run", "--by", "seed", "--csv"]);
    let mut lines = csv.lines();
    let heading: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(heading[..3], ["prompt", "detector", "selection"], "{csv}");
    let at = |name: &str| heading.iter().position(|h| *h == name).unwrap();
    let first: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(first[0], "zero-shot");
    for (name, value) in [
        ("auroc", average.auroc),
        ("auroc_lo", lo),
        ("fpr95", average.fpr95),
    ] {
        assert_eq!(
            first[at(name)].parse::<f64>().unwrap(),
            value,
            "{name}: {csv}"
        );
    }
    assert_eq!(lines.count(), 4, "{csv}");

    let datasets = clipood(
        &world,
        &["report", "run", "--by", "dataset", "--detector", "gl_mcm"],
    );
    for set in ["scenes", "textures", "average"] {
        let rows = datasets
            .lines()
            .filter(|line| line.contains("gl_mcm") && line.contains(set));
        // Zero-shot, and two numbers of shots.
        assert_eq!(rows.count(), 3, "{set}: {datasets}");
    }
    let shots = clipood(&world, &["report", "run", "--by", "shots", "--markdown"]);
    assert!(shots.contains("| 0 shots | 1 shot | 2 shots |"), "{shots}");
    let latex = clipood(&world, &["report", "run", "--latex"]);
    assert!(
        latex.contains("\\begin{tabular}") && latex.contains("\\pm"),
        "{latex}"
    );

    misused(
        &world,
        &["report", "run", "--detector", "glmcm"],
        &["`glmcm`", "`gl_mcm`"],
    );
    misused(&world, &["report", "run", "--by", "datasets"], &["dataset"]);
    misused(&world, &["report", "run", "--csv", "--latex"], &["--latex"]);
    misused(&world, &["report", "nowhere"], &["nowhere"]);
}

#[test]
fn the_page_is_made_again_from_the_tables_with_and_without_images() {
    let world = World::new();
    world.write("data/id/test/star/00.png", b"not a picture");
    let recipe = RECIPE.replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.2");
    let published = "[[published]]\nmethod = \"zero-shot\"\ndetector = \"mcm\"\nauroc = 91.5\nsource = \"a <paper>, table 1\"\n";
    world.write("recipe.toml", format!("{recipe}\n{published}"));
    succeeds(&world.run("run", &[]));
    let page = |path: &str| std::fs::read_to_string(world.path(path)).unwrap();
    let first = page("run/report/index.html");
    for word in [
        "a &lt;paper&gt;, table 1",
        "91.50",
        "id/test/star/00.png",
        "<figure id=\"t-sne\">",
        "data:image/jpeg",
    ] {
        assert!(first.contains(word), "no `{word}`");
    }
    // A published figure is in no fingerprint: without it, it is the same run.
    world.write("recipe.toml", &recipe);
    let again = world.run("run", &[]);
    assert!(
        again.status.success() && stderr(&again).is_empty(),
        "{}",
        stderr(&again)
    );

    // Figures that a finished run gets later, or others, are kept, and stand on the page.
    let later = published.replace("91.5", "87.25");
    world.write("recipe.toml", format!("{recipe}\n{later}"));
    let console = succeeds(&world.run("run", &[]));
    assert!(console.contains("87.25"), "{console}");
    let kept = clipood(&world, &["report", "run", "--published"]);
    assert!(
        kept.contains("87.25") && kept.contains("a <paper>"),
        "{kept}"
    );
    assert!(page("run/report/index.html").contains("87.25"));
    world.write("recipe.toml", format!("{recipe}\n{published}"));
    succeeds(&world.run("run", &[]));
    world.write("recipe.toml", &recipe);
    misused(
        &world,
        &["report", "run", "--published", "--page", "page.html"],
        &["--published", "cannot be used with"],
    );

    // The page is gone: the same command makes it again. Only the line with the command differs in others.
    std::fs::remove_file(world.path("run/report/index.html")).unwrap();
    succeeds(&world.run("run", &[]));
    let body = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|line| {
            !line.contains("command that wrote this page") && !line.starts_with("<!-- BLAKE3")
        });
        lines
            .filter(|line| !line.contains("provenance.csv"))
            .map(str::to_string)
            .collect()
    };
    assert_eq!(body(&page("run/report/index.html")), body(&first));
    let words = [
        "report",
        "run",
        "--page",
        "page.html",
        "--figures",
        "figures",
    ];
    let printed = clipood(&world, &words);
    assert!(
        printed.contains("page.html") && printed.contains("figures"),
        "{printed}"
    );
    assert_eq!(body(&page("page.html")), body(&first));
    assert!(page("figures/intervals.svg").contains("<style>"));
    assert!(
        page("figures/methods.csv").starts_with("method,shots,seeds,top1,auroc,auroc_lo,auroc_hi")
    );

    std::fs::rename(world.path("data"), world.path("elsewhere")).unwrap();
    clipood(&world, &["report", "run", "--page", "bare.html"]);
    let bare = page("bare.html");
    assert!(bare.contains("have no thumbnail") && !bare.contains("data:image/jpeg"));
    clipood(
        &world,
        &[
            "report",
            "run",
            "--page",
            "moved.html",
            "--data",
            "elsewhere",
        ],
    );
    assert!(page("moved.html").contains("data:image/jpeg"));

    world.write(
        "recipe.toml",
        format!("{recipe}\n{}", published.replace("91.5", "0.915e3")),
    );
    refused(&world, "other", &[], 2, &["published.auroc", "915", "100"]);
    world.write(
        "recipe.toml",
        format!("{recipe}\n{}", published.replace("auroc", "auroq")),
    );
    refused(&world, "other", &[], 2, &["auroq", "`auroc`"]);
}

#[test]
fn an_unfinished_run_has_a_page_that_says_what_is_missing() {
    let world = World::new();
    for file in ["star/notes.txt", "star/.DS_Store", "fish/readme.txt"] {
        world.write(&format!("data/id/test/{file}"), "no picture");
    }
    let plan = [
        "plan",
        "recipe.toml",
        "--manifests",
        "manifests",
        "--run",
        "run",
    ];
    clipood(&world, &plan);
    misused(&world, &["report", "run"], &["not finished", "--page"]);
    let page = |name: &str| {
        clipood(&world, &["report", "run", "--page", name]);
        std::fs::read_to_string(world.path(name)).unwrap()
    };
    let planned = page("planned.html");
    for word in [
        "is not finished",
        "Not finished: extract",
        "textures",
        // What planning has skipped, with the first files of each kind.
        "not named as an image: .txt",
        "test/fish/readme.txt, test/star/notes.txt",
        "hidden or of the system",
        "test/star/.DS_Store",
    ] {
        assert!(planned.contains(word), "no `{word}` in {planned}");
    }
    clipood(&world, &["worker", "run", "--stages", "extract,train"]);
    let trained = page("trained.html");
    assert!(
        trained.contains("<figure id=\"loss\">") && trained.contains("Not finished: fit, score"),
        "{trained}"
    );
    assert!(!world.path("run/report").exists());
    misused(&world, &["compare", "run", "run"], &["run", "not finished"]);
}

#[test]
fn two_runs_are_compared_on_their_common_images() {
    let world = World::new();
    succeeds(&world.run("one", &[]));
    succeeds(&world.run(
        "two",
        &["--detectors", "mcm,msp", "--shots", "2", "--seeds", "1"],
    ));
    let text = clipood(&world, &["compare", "one", "two", "--page", "compare.html"]);
    let field = text
        .lines()
        .find(|line| line.contains("detectors"))
        .unwrap();
    assert!(field.contains("gl_mcm") && field.contains("msp"), "{text}");
    assert!(
        text.contains("equal figures on their common images"),
        "{text}"
    );
    let page = std::fs::read_to_string(world.path("compare.html")).unwrap();
    assert!(page.contains("<figure id=\"run-differences\">") && page.contains("gl_mcm"));

    // Other texts, and one image less.
    world.write(
        "recipe.toml",
        RECIPE.replace("[prompt]", "[prompt]\ntemplates = [\"{} on a photo\"]"),
    );
    std::fs::remove_file(world.path("data/scenes/any/07.png")).unwrap();
    succeeds(&world.run("three", &[]));
    let csv = clipood(&world, &["compare", "one", "three", "--csv"]);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let at = |name: &str| rows[0].iter().position(|h| *h == name).unwrap();
    // Zero-shot and the trained prompt: the average and two sets.
    assert_eq!(rows.len(), 1 + 2 * 3, "{csv}");
    let scenes = rows
        .iter()
        .find(|r| r[0] == "zero-shot" && r[1] == "scenes")
        .unwrap();
    assert_eq!(scenes[at("n_ood")], "7", "{csv}");
    let number = |name: &str| -> f64 { scenes[at(name)].parse().unwrap() };
    let difference = number("auroc_second") - number("auroc_first");
    assert!((number("auroc_diff") - difference).abs() < 1e-12);
    assert!(number("auroc_diff_lo") <= number("auroc_diff_hi"));

    misused(&world, &["compare", "one", "nowhere"], &["nowhere"]);
    misused(
        &world,
        &["compare", "one", "two", "--detector", "gl_mcm"],
        &["`gl_mcm` is not in both", "mcm"],
    );
    let same = world.clipood(&["compare", "one", "one"]).output().unwrap();
    assert!(
        stdout(&same).contains("the configurations are equal"),
        "{}",
        stdout(&same)
    );
}

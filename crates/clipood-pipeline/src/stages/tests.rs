//! Every stage on stores in memory and simulated devices.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use clipood_store::CommitRecord;

use super::fit::FittedPrompt;
use super::*;
use crate::extract::{GLOBAL, LOCAL};
use crate::features::read_features;
use crate::metrics::{STREAM_TABLE, TABLES, read_metrics};
use crate::plan::Purpose;
use crate::prompts::file::read_prompt;
use crate::run::{run, run_only};
use crate::status::{audit, explain, find_garbage, status};
use crate::tables::{read_scores, read_train_log};
use crate::testing::{CLASSES, OOD, PER_CLASS, World};

/// Runs the stages up to the one called `last`.
fn until(job: &Job, last: &str) -> Planned {
    let planned = Planned::make(job).unwrap();
    let place = STAGES.iter().position(|stage| stage.name == last).unwrap();
    run_stages(job, &planned, &STAGES[..=place]).unwrap();
    planned
}

fn stage(name: &str) -> &'static Stage {
    STAGES.iter().find(|stage| stage.name == name).unwrap()
}

fn counts(job: &Job, planned: &Planned, name: &str) -> UnitCounts {
    stage(name).count(job, planned).unwrap()
}

/// The commit records of a stage by unit.
fn records(job: &Job, shelf: Shelf, name: &str) -> BTreeMap<String, CommitRecord> {
    let records = job.places.ledger(shelf).records(name).unwrap();
    records.into_iter().map(|r| (r.unit.clone(), r)).collect()
}

#[test]
fn the_plan_names_the_units_of_every_stage() {
    let world = World::new();
    let job = world.job(0, 1);
    assert!(Planned::read(&job).unwrap().is_none());
    let planned = Planned::make(&job).unwrap();
    assert_eq!(planned.plan.classes, CLASSES);
    assert_eq!(
        planned.plan.test_images(),
        CLASSES.len() * PER_CLASS + 2 * OOD
    );
    assert_eq!(planned.prompts.len(), 3);
    assert!(planned.patches && !planned.negatives.is_empty());
    for stage in STAGES {
        let counts = stage.count(&job, &planned).unwrap();
        assert!(counts.units > 0, "{}", stage.name);
        let done = if stage.name == "plan" {
            counts.units
        } else {
            0
        };
        assert_eq!(counts.done, done, "{}", stage.name);
        assert!(!(stage.explained)(&job, &planned).unwrap().is_empty());
    }
    // A second worker reads the same plan.
    let other = Planned::read(&world.job(1, 2)).unwrap().unwrap();
    for stage in STAGES {
        let units = |planned: &Planned| (stage.units)(&job, planned).unwrap();
        assert_eq!(units(&planned), units(&other), "{}", stage.name);
    }
}

#[test]
fn trainings_of_a_worker_that_is_gone_are_taken_over() {
    let world = World::new();
    let (gone, mut job) = (world.job(0, 2), world.job(1, 2));
    let planned = until(&gone, "negative");
    for prompt in planned.distinct_prompts() {
        let ledger = &gone.places.prompts;
        assert!(ledger.claim("train", &prompt.unit.key).unwrap());
    }
    job.worker.patience = Duration::from_millis(100);
    run_stages(&job, &planned, &[stage("train")]).unwrap();
    let counts = counts(&job, &planned, "train");
    assert_eq!((counts.done, counts.units), (3, 3));
}

#[test]
fn extraction_writes_one_row_per_view_and_two_workers_do_each_unit_once() {
    let world = World::new();
    let (one, two) = (world.job(0, 2), world.job(1, 2));
    Planned::make(&one).unwrap();
    std::thread::scope(|scope| {
        for job in [&one, &two] {
            scope.spawn(move || until(job, "extract"));
        }
    });
    let planned = Planned::read(&one).unwrap().unwrap();
    let global = records(&one, Shelf::Features, GLOBAL);
    assert_eq!(global.len(), planned.features.units.len());
    assert_eq!(global.len(), records(&one, Shelf::Features, LOCAL).len());
    let (dim, patches) = (one.experiment.dim(), one.experiment.patches());
    for unit in &planned.features.units {
        let block = read_features(&one, unit, true).unwrap();
        assert_eq!(block.keys.len(), unit.images * unit.views.len());
        assert_eq!(block.global.len(), block.keys.len() * dim);
        assert_eq!(block.local.len(), block.keys.len() * patches * dim);
    }
}

/// The same pictures and features, with an empty run directory.
fn anew(world: World) -> World {
    World {
        run: clipood_store::Store::memory(),
        ..world
    }
}

#[test]
fn unreadable_images_over_the_limit_stop_the_run_in_extraction() {
    let world = World::new();
    for image in 0..2 {
        let path = world.data().join(format!("far/any/{image}.ppm"));
        std::fs::write(path, b"P6 8 8 255 too short").unwrap();
    }
    let job = world.job(0, 1);
    let planned = Planned::make(&job).unwrap();
    let error = run_stages(&job, &planned, &STAGES).unwrap_err();
    assert!(matches!(error, PipelineError::Quarantine { .. }), "{error}");
    // Nothing of the unit that passes the limit is written.
    assert!(counts(&job, &planned, "extract").missing > 0);

    let allowed = World::recipe().replace("[engine]", "[engine]\nmax_quarantine_fraction = 0.5");
    let world = anew(world);
    let job = world.job_of(&allowed, 0, 1).unwrap();
    let outcome = run(&job).unwrap();
    assert_eq!(outcome.planned - outcome.scored, 2);
    assert_eq!(outcome.quarantined.len(), 2);

    // The limit is checked where nothing is left to extract, and by workers of later stages.
    let world = anew(world);
    let job = world.job(0, 1);
    let planned = Planned::make(&job).unwrap();
    for names in ["extract", "train"] {
        let stages = stages_called(&[names.to_string()]).unwrap();
        let error = run_stages(&job, &planned, &stages).unwrap_err();
        assert!(matches!(error, PipelineError::Quarantine { .. }), "{error}");
    }
}

#[test]
fn a_refused_plan_writes_nothing() {
    let world = World::new();
    for (from, to) in [
        ("shots = [2]", "shots = [4]"),
        (
            "n_ctx = 2",
            "n_ctx = 73\nctx_init = \"a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n \
          o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z\"",
        ),
        ("\"mahalanobis\"", "\"mahalanobis\", \"vim:dim=32\""),
        ("\"unknown_prompt\"", "\"unknown_prompt:count=9\""),
        ("[train]", "[locoop]\ntop_k = 3\n[train]"),
        (
            "[[negative_labels.lists]]",
            "unknown = [\"a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k \
          l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z\"]\n[[negative_labels.lists]]",
        ),
    ] {
        let recipe = World::recipe().replace(from, to);
        assert_ne!(recipe, World::recipe());
        let job = world.job_of(&recipe, 0, 1).unwrap();
        let error = run(&job).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert_eq!(world.run.list("").unwrap(), [], "{error}");
        assert_eq!(world.shared.list("").unwrap(), [], "{error}");
    }
    run(&world.job(0, 1)).unwrap();
}

#[test]
fn of_planners_with_other_trees_one_wins_and_its_plan_is_whole() {
    for _ in 0..10 {
        let world = World::new();
        let other = World {
            run: world.run.clone(),
            shared: world.shared.clone(),
            ..World::new()
        };
        // One training image less, which is a shot in one of the two trees.
        std::fs::remove_file(other.data().join("id/train/fish/2.ppm")).unwrap();
        std::fs::copy(
            other.data().join("near/any/0.ppm"),
            other.data().join("id/train/fish/9.ppm"),
        )
        .unwrap();
        let jobs = [world.job(0, 1), other.job(1, 2)];
        let plans: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = jobs
                .iter()
                .map(|job| scope.spawn(move || Planned::make(job)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(plans.iter().filter(|plan| plan.is_ok()).count(), 1);
        let winner = usize::from(plans[1].is_ok());
        let loser = plans[1 - winner].as_ref().unwrap_err();
        assert_eq!(loser.exit_code(), 2, "{loser}");
        // The winner finds all the shots that its plan names.
        let outcome = run(&jobs[winner]).unwrap();
        assert_eq!(outcome.planned, outcome.scored);
    }
}

#[test]
fn planners_of_the_same_tree_share_one_run() {
    let world = World::new();
    let jobs: Vec<Job> = (0..3).map(|index| world.job(index, 3)).collect();
    std::thread::scope(|scope| {
        for job in &jobs {
            scope.spawn(move || Planned::make(job).unwrap());
        }
    });
    let ids: Vec<&str> = jobs.iter().map(|job| job.places.run.id()).collect();
    assert!(!ids[0].is_empty());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // A claim on a prompt set is seen by all workers of the run.
    assert!(jobs[0].places.prompts.claim("train", "x").unwrap());
    assert!(!jobs[1].places.prompts.claim("train", "x").unwrap());
}

#[test]
fn negative_labels_are_words_of_the_list_and_the_unknown_prompts_stand_behind_them() {
    let world = World::new();
    let job = world.job(0, 1);
    let planned = until(&job, "negative");
    let negatives = &planned.negatives[0];
    let set = read_prompt(&job.places.prompts, "negative", &negatives.unit).unwrap();
    assert_eq!(set.classes.last().unwrap(), "a photo of an unknown object");
    assert!(set.classes.len() >= 2);
    assert!(set.classes[0].starts_with("a photo of a "));
    for row in set.text.chunks_exact(job.experiment.dim()) {
        let length: f32 = row.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-4, "{length}");
    }
}

#[test]
fn training_makes_each_prompt_set_once_and_logs_its_epochs() {
    let world = World::new();
    let job = world.job(0, 1);
    let planned = until(&job, "train");
    let store = job.places.prompts.store();
    for prompt in &planned.prompts {
        let set = read_prompt(&job.places.prompts, "train", &prompt.unit).unwrap();
        assert_eq!(set.classes, CLASSES);
        let name = prompt.key.name();
        assert_eq!(set.state.is_some(), name.starts_with("dplocoop"), "{name}");
        assert_eq!(
            set.probe.is_some(),
            name.starts_with("linear-probe"),
            "{name}"
        );
        if set.state.is_some() {
            let path = format!("{}/train_log.parquet", prompt.unit.fingerprint);
            let log = read_train_log(store.get(&path).unwrap().unwrap(), &path).unwrap();
            assert_eq!(log.len(), 2);
        }
    }
    let before = records(&job, Shelf::Prompts, "train");
    until(&job, "train");
    assert_eq!(records(&job, Shelf::Prompts, "train"), before);
    // Another number of epochs is another prompt set; the others are found again.
    let longer = World::recipe().replace("epochs = 2", "epochs = 3");
    let other = World {
        run: clipood_store::Store::memory(),
        ..world
    };
    let job = other.job_of(&longer, 0, 1).unwrap();
    until(&job, "train");
    assert_eq!(
        records(&job, Shelf::Prompts, "train").len(),
        before.len() + 1
    );
}

#[test]
fn fitted_detectors_are_read_back_as_they_were_made() {
    let world = World::new();
    let job = world.job(0, 1);
    let planned = until(&job, "fit");
    let fitted = |name: &str| {
        let prompt = planned
            .prompts
            .iter()
            .find(|p| p.key.name().starts_with(name));
        FittedPrompt::read(&job, prompt.unwrap()).unwrap()
    };
    let names = |fitted: &FittedPrompt<'_>| -> Vec<String> {
        fitted.detectors.iter().map(|d| d.name()).collect()
    };
    let texts = fitted("zero-shot");
    assert_eq!(names(&texts), ["mcm", "msp", "neglabel", "unknown_prompt"]);
    assert!(texts.train_ranges.is_none());
    let dual = fitted("dplocoop");
    assert!(names(&dual).contains(&"one_class_svm".to_string()));
    assert!(dual.train_ranges.is_some());
    assert_eq!(dual.defined, vec![true; job.experiment.columns.len()]);
    let probe = fitted("linear-probe");
    assert_eq!(
        names(&probe),
        ["msp", "knn:k=2", "mahalanobis", "one_class_svm"]
    );
    assert!(dual.notes(&job.experiment).contains_key("mahalanobis"));
    // A detector is stored as plain data.
    for detector in &dual.detectors {
        let json = serde_json::to_string(detector).unwrap();
        let back: clipood_ood::FittedDetector = serde_json::from_str(&json).unwrap();
        assert_eq!(&back, detector);
    }
}

#[test]
fn scores_have_one_row_per_image_and_every_column() {
    let world = World::new();
    let job = world.job(0, 1);
    let planned = until(&job, "score");
    for prompt in &planned.prompts {
        let mut rows = 0;
        for shard in planned.shards_for(Purpose::Test) {
            let path = score::part_path(&prompt.key, &shard);
            let bytes = job.places.run.store().get(&path).unwrap().unwrap();
            let table = read_scores(bytes, &path).unwrap();
            assert_eq!(table.detectors.len(), job.experiment.columns.len());
            let mcm = &table.detectors[0];
            assert_eq!(
                mcm.values.is_some(),
                prompt.key.name() != "linear-probe-2shot-seed1"
            );
            rows += table.rows.len();
        }
        assert_eq!(rows, planned.plan.test_images());
    }
}

#[test]
fn workers_together_make_the_tables_of_one_alone_and_aggregate_once() {
    let alone = World::new();
    let outcome = run(&alone.job(0, 1)).unwrap();
    let together = World::new();
    let jobs: Vec<Job> = (0..3).map(|index| together.job(index, 3)).collect();
    Planned::make(&jobs[0]).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .map(|job| scope.spawn(move || run(job).unwrap()))
            .collect();
        for thread in threads {
            let own = thread.join().unwrap();
            assert_eq!(own.metrics.ood, outcome.metrics.ood);
            assert_eq!(own.metrics.accuracy, outcome.metrics.accuracy);
            assert_eq!((own.planned, own.scored), (outcome.planned, outcome.scored));
        }
    });
    for (_, path) in TABLES.into_iter().chain([STREAM_TABLE]) {
        let table = |world: &World| world.run.get(path).unwrap().unwrap();
        assert_eq!(table(&alone), table(&together), "{path}");
    }
    let planned = Planned::read(&jobs[0]).unwrap().unwrap();
    let writers = |name: &str| -> Vec<String> {
        let records = records(&jobs[0], Shelf::Run, name).into_values();
        records.map(|record| record.worker).collect()
    };
    let tables = writers("aggregate");
    assert_eq!(tables.len(), TABLES.len() + 1);
    assert!(
        tables.iter().all(|worker| *worker == tables[0]),
        "{tables:?}"
    );
    for stage in STAGES {
        assert!(stage.is_done(&jobs[0], &planned).unwrap(), "{}", stage.name);
    }
    assert!(audit(&jobs[0]).unwrap().holds());
}

#[test]
fn a_worker_does_the_stages_that_it_is_asked_for_and_no_more() {
    let world = World::new();
    let job = world.job(0, 1);
    let some = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
        stages_called(&names)
    };
    let score = some(&["score"]).unwrap();
    let error = run_only(&job, &score).unwrap_err();
    assert!(
        matches!(
            error,
            PipelineError::StageNotDone {
                stage: "extract",
                ..
            }
        ),
        "{error}"
    );
    // In the order of the stages, not of the names; negative labels are needed later.
    let early = some(&["train", "extract"]).unwrap();
    assert!(run_only(&job, &early).unwrap().is_none());
    let planned = Planned::read(&job).unwrap().unwrap();
    assert_eq!(counts(&job, &planned, "train").missing, 0);
    assert_eq!(counts(&job, &planned, "fit").done, 0);
    assert_eq!(counts(&job, &planned, "score").done, 0);
    let late = some(&["fit", "score", "aggregate", "report"]).unwrap();
    let message = run_only(&job, &late).unwrap_err().to_string();
    assert!(
        message.contains("`negative`") && message.contains("1 of 1"),
        "{message}"
    );
    let late = ["negative", "fit", "score", "stream", "aggregate", "report"];
    let late = some(&late).unwrap();
    let outcome = run_only(&job, &late).unwrap().unwrap();
    assert_eq!(outcome.planned, outcome.scored);
    let error = some(&["scor"]).unwrap_err().to_string();
    assert!(error.contains("did you mean `score`?"), "{error}");
    let error = some(&["everything"]).unwrap_err().to_string();
    assert!(error.contains("plan, extract, negative"), "{error}");
}

#[test]
fn a_claim_of_a_dead_worker_does_not_hold_a_stage_up_for_good() {
    let world = World::new();
    let job = world.job(0, 2);
    let planned = until(&job, "train");
    let unit = &(stage("fit").units)(&job, &planned).unwrap()[0];
    let dead = world.job(1, 2);
    assert!(dead.places.run.ledger().claim("fit", &unit.key).unwrap());
    assert_eq!(counts(&job, &planned, "fit").claimed, 1);
    // An interruption is noticed while waiting for the claim.
    let stopped = world.job(0, 2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(300));
            stopped.worker.interrupt.set();
        });
        let planned = Planned::read(&stopped).unwrap().unwrap();
        let error = (stage("fit").run)(&stopped, &planned).unwrap_err();
        assert!(matches!(error, PipelineError::Interrupted), "{error}");
    });
    assert_eq!(counts(&job, &planned, "fit").missing, 0);
    // The same worker, started again, resumes its claimed unit at once.
    (stage("fit").run)(&dead, &planned).unwrap();
    assert_eq!(counts(&job, &planned, "fit").done, planned.prompts.len());
}

#[test]
fn a_run_from_before_fitting_was_a_stage_is_finished() {
    let world = World::new();
    let job = world.job(0, 1);
    run(&job).unwrap();
    let planned = Planned::read(&job).unwrap().unwrap();
    for object in world.run.list("_run/commits/fit").unwrap() {
        world.run.delete(&object.path).unwrap();
    }
    for object in world.run.list("_run/claims").unwrap() {
        world.run.delete(&object.path).unwrap();
    }
    let status = status(&job).unwrap();
    assert!(status.finished, "{status:?}");
    assert_eq!(counts(&job, &planned, "fit").done, planned.prompts.len());
    // It stays so, and nothing is fitted for it.
    (stage("fit").run)(&job, &planned).unwrap();
    assert!(records(&job, Shelf::Run, "fit").is_empty());
}

#[test]
fn every_unit_is_explained_and_nothing_of_a_finished_run_is_garbage() {
    let world = World::new();
    let job = world.job(0, 1);
    run(&job).unwrap();
    let planned = Planned::read(&job).unwrap().unwrap();
    for stage in STAGES {
        for unit in (stage.explained)(&job, &planned).unwrap() {
            let name = format!("{}/{}", stage.name, unit.name);
            let found = explain(&job, &name).unwrap();
            assert_eq!(found.done_by.as_deref(), Some("worker-0"), "{name}");
            assert_eq!(found.fingerprint, unit.unit.fingerprint, "{name}");
        }
    }
    assert!(read_metrics(&world.run).unwrap().is_some());
    let jobs = [job];
    let garbage = find_garbage(&world.shared, &jobs).unwrap();
    assert!(garbage.objects.is_empty(), "{garbage:?}");
    assert!(garbage.kept > 0);
}

//! What a planned run will take: images, time on devices, bytes of features and jobs, for `clipood plan --estimate`.

use anyhow::Result;
use clipood_clip::model::Devices;
use clipood_core::{ClusterManifest, Method, Rates};
use clipood_launch::{OpenStage, jobs};
use clipood_pipeline::{Job, Planned, estimate};
use indicatif::HumanBytes;

use super::bench::{extract::views_per_second, prompt::step_seconds};

/// Seconds of the measurement of the image tower.
const SECONDS: f64 = 2.0;

/// A rate and where it is from.
struct Rate {
    value: f64,
    origin: &'static str,
}

/// The estimate as text. Rates that are not given are measured here, on `devices`.
pub fn text(
    job: &Job,
    planned: &Planned,
    devices: &Devices,
    (given, cluster): (&Rates, Option<&ClusterManifest>),
) -> Result<String> {
    let work = estimate(job, planned)?;
    let mut text = format!(
        "images: {} to score, {} views to encode, {} of them not yet in the store\n\
         features: at most {} in the store\n\
         prompts: {} sets, {} training steps, {} of them to do\n\
         scores: {} rows\n",
        work.images,
        work.views,
        work.open_views,
        HumanBytes(work.feature_bytes),
        planned.distinct_prompts().len(),
        work.steps,
        work.open_steps,
        work.scores
    );
    let mut hours = 0.0;
    if work.open_views > 0 {
        let rate = views(job, planned, devices, given)?;
        let took = work.open_views as f64 / rate.value / 3600.0;
        hours += took;
        text += &format!(
            "extraction: {took:.2} h of one worker at {:.1} views per second ({})\n",
            rate.value, rate.origin
        );
    }
    if work.open_steps > 0 {
        let rate = steps(job, planned, devices, given)?;
        let took = work.open_steps as f64 * rate.value / 3600.0;
        hours += took;
        text += &format!(
            "training: {took:.2} h of one worker at {:.4} s per step ({})\n",
            rate.value, rate.origin
        );
    }
    let Some(cluster) = cluster else {
        text += &format!("together: {hours:.2} worker hours, without scores and metrics\n");
        return Ok(text);
    };
    let gpus = cluster.resources.gpus.unwrap_or(0);
    text += &match gpus {
        0 => format!("together: {hours:.2} worker hours, without scores and metrics\n"),
        _ => format!(
            "together: {:.2} GPU hours, without scores and metrics\n",
            hours * gpus as f64
        ),
    };
    let open: Vec<OpenStage> = (work.stages.iter())
        .map(|(stage, _, open)| OpenStage {
            stage: stage.to_string(),
            open: *open,
        })
        .collect();
    let wanted = jobs(cluster, &open);
    let wanted: Vec<String> = (wanted.iter())
        .map(|job| format!("{} ({} workers)", job.name, job.workers))
        .collect();
    text += &match wanted.is_empty() {
        true => "jobs: none, the run is finished\n".to_string(),
        false => format!("jobs: {}\n", wanted.join(", ")),
    };
    Ok(text)
}

fn views(job: &Job, planned: &Planned, devices: &Devices, given: &Rates) -> Result<Rate> {
    if let Some(value) = given.images_per_second {
        return Ok(Rate {
            value,
            origin: "given",
        });
    }
    let model = &job.experiment.model;
    Ok(Rate {
        value: views_per_second(model, devices, planned.patches, SECONDS)?,
        origin: "measured here, without decoding",
    })
}

fn steps(job: &Job, planned: &Planned, devices: &Devices, given: &Rates) -> Result<Rate> {
    if let Some(value) = given.step_seconds {
        return Ok(Rate {
            value,
            origin: "given",
        });
    }
    let recipe = &job.experiment.recipe;
    let trained = recipe.methods.iter().copied().find(|m| m.trains_prompt());
    let sizes = (planned.plan.classes.len(), recipe.train.batch_size);
    Ok(Rate {
        value: step_seconds(
            &job.experiment.model,
            devices,
            trained.map_or(Method::Coop, |method| method.trainer()),
            sizes,
        )?,
        origin: "measured here",
    })
}

//! What the patches of a few images show: those of the most confident mistakes, under the prompts that were trained on
//! patches. The features come from the store; no image is encoded.

use super::super::bounds::{PATCH_IMAGES, PATCH_METHODS};
use super::super::page::{Block, Section};
use super::super::regions::SeenImage;
use super::super::scored::{Mistake, PromptScores};
use super::super::thumbnails::checked_view;
use super::missing;
use crate::encode::EVAL_VIEW;
use crate::error::{PipelineError, Result};
use crate::features::read_features;
use crate::job::Job;
use crate::places::Shelf;
use crate::plan::Purpose;
use crate::planned::Planned;
use crate::prompts::file::read_prompt;
use crate::prompts::trainers::{PlannedPrompt, Trainer};
use crate::regions::{PatchCosines, Regions};
use crate::stages::train::TRAIN;

/// Name and heading of the section.
const ID: (&str, &str) = ("patches", "Patches");

/// A prompt set whose mistakes are drawn.
struct Drawn<'a> {
    scores: &'a PromptScores,
    prompt: &'a PlannedPrompt,
    /// LoCoOp's K: that of the training, or else the default for the number of classes.
    top_k: usize,
}

/// The section about patches; `lines` are the prompt sets that the report compares, `focus` is the one whose scores it draws.
///
/// # Errors
/// Features or prompts that are missing or damaged.
pub fn patches(
    job: &Job,
    planned: &Planned,
    lines: &[PromptScores],
    focus: Option<&PromptScores>,
) -> Result<Section> {
    if !planned.patches {
        return Ok(missing(
            ID.0,
            ID.1,
            "This run stores no patch features, so it has no pictures of patches: neither a method nor a detector of its recipe uses them.",
        ));
    }
    let mut section = Section::new(ID.0, ID.1);
    section.text(
        "LoCoOp extracts a patch as background if the label of the image is not among the K most similar classes of the patch. Orange: extracted patches. The other \
         pictures show the cosine of each patch with the text of a class. The label is the class of an ID image, and the prediction of an OOD image.",
    );
    let mut tables = 0;
    for set in chosen(planned, lines, focus) {
        let Some(text) = text_of(job, set.prompt)? else {
            continue;
        };
        for mistake in mistakes(set.scores) {
            let Some(image) = seen(job, planned, &set, &text, mistake)? else {
                continue;
            };
            tables += 1;
            let name = format!("{}, {}:", set.scores.prompt, image.name);
            section.text(name);
            let id = format!("patches-{tables}");
            section
                .blocks
                .extend(image.blocks(&planned.plan.classes, &id)?);
        }
    }
    if tables == 0 {
        section.blocks.push(Block::Missing(
            "No prompt set with texts has a mistake whose patches are stored.".to_string(),
        ));
    }
    Ok(section)
}

/// The prompt sets that were trained on patches, each once; if there is none, the one that the report draws.
fn chosen<'a>(
    planned: &'a Planned,
    lines: &'a [PromptScores],
    focus: Option<&'a PromptScores>,
) -> Vec<Drawn<'a>> {
    let prompt_of = |scores: &PromptScores| {
        let mut prompts = planned.prompts.iter();
        prompts.find(|prompt| prompt.key.name() == scores.prompt)
    };
    let mut all: Vec<Drawn<'a>> = Vec::new();
    for scores in lines {
        if let Some(prompt) = prompt_of(scores)
            && let Trainer::Context(training) = &prompt.trainer
            && let Some(top_k) = training.top_k()
            // A dual-pattern method has the prompts of the method that it builds on.
            && all.iter().all(|other| other.prompt.unit != prompt.unit)
        {
            all.push(Drawn {
                scores,
                prompt,
                top_k,
            });
        }
    }
    all.truncate(PATCH_METHODS);
    let classes = planned.plan.classes.len();
    if all.is_empty()
        && let Some(scores) = focus
        && let Some(prompt) = prompt_of(scores)
        && let Ok(top_k) = Regions::default_top_k(classes)
    {
        all.push(Drawn {
            scores,
            prompt,
            top_k,
        });
    }
    all
}

/// The text features of a prompt set, `[classes, D]`; `None` for a linear probe.
fn text_of(job: &Job, prompt: &PlannedPrompt) -> Result<Option<Vec<f32>>> {
    let ledger = job.places.ledger(Shelf::Prompts);
    let set = read_prompt(ledger, TRAIN, &prompt.unit)?;
    Ok(set.probe.is_none().then_some(set.text))
}

/// The worst mistakes: ID images that were classified wrongly, then OOD images with the highest scores.
fn mistakes(scores: &PromptScores) -> Vec<&Mistake> {
    let mut ood: Vec<&Mistake> = scores.ood.iter().flat_map(|set| &set.mistakes).collect();
    ood.sort_by(|a, b| b.score.total_cmp(&a.score));
    let id = scores.id.mistakes.iter().take(PATCH_IMAGES);
    id.chain(ood.into_iter().take(PATCH_IMAGES)).collect()
}

/// What the patches of an image show; `None` if it is in no part of the test images, or has no features.
fn seen(
    job: &Job,
    planned: &Planned,
    set: &Drawn<'_>,
    text: &[f32],
    mistake: &Mistake,
) -> Result<Option<SeenImage>> {
    let shards = planned.shards_for(Purpose::Test);
    let found = shards.iter().find(|shard| {
        let own = shard.dataset.shards.get(shard.number);
        own.is_some_and(|own| own.part == mistake.part)
    });
    let Some(shard) = found else {
        return Ok(None);
    };
    let features = read_features(job, shard.features, true)?;
    let mut rows = features.keys.iter().zip(&features.views);
    let row = rows.position(|(key, view)| *key == mistake.image_key && *view == EVAL_VIEW);
    let images = shard.features.list(job)?;
    let image = images.iter().find(|image| image.key == mistake.image_key);
    let (Some(row), Some(image)) = (row, image) else {
        return Ok(None);
    };
    let experiment = &job.experiment;
    let config = &experiment.model.config;
    let width = config.image.positions() * config.embed_dim;
    let local = &features.local[row * width..(row + 1) * width];
    let cosines = PatchCosines::new(local, text, config.embed_dim, &mistake.image_key)?;
    let predicted = usize::try_from(mistake.pred).map_err(|_| {
        let found = mistake.pred;
        PipelineError::Inconsistent(format!(
            "{}: found class {found}, expected a number from 0",
            mistake.image_key
        ))
    })?;
    let (label, label_from) = match (shard.dataset.is_id(), image.label) {
        (true, Some(label)) => (label as usize, "known"),
        _ => (predicted, "predicted"),
    };
    let mut shown = vec![label];
    if predicted != label {
        shown.push(predicted);
    }
    // Sides are checked when the model is opened.
    let view = u32::try_from(config.image.size).ok().and_then(|side| {
        let resize = experiment.recipe.data.resize;
        checked_view(
            &image.source,
            &image.roots,
            &image.content_hash,
            side,
            resize,
        )
        .ok()
    });
    Ok(Some(SeenImage {
        name: mistake.image_key.clone(),
        label_from: label_from.to_string(),
        predicted: (mistake.prediction.clone(), f64::from(mistake.prob)),
        regions: cosines.regions(label, set.top_k, &shown)?,
        view,
    }))
}

//! What the patches of a few images show: those of the most confident mistakes, under the prompts that were trained on
//! patches. The features come from the store; no image is encoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::bounds::{PATCH_IMAGES, PATCH_METHODS};
use super::super::page::{Block, Section};
use super::super::regions::SeenImage;
use super::super::scored::{Mistake, PromptScores};
use super::super::thumbnails::checked_view;
use super::missing;
use crate::encode::EVAL_VIEW;
use crate::error::{PipelineError, Result};
use crate::features::{FeatureBlock, read_features};
use crate::job::Job;
use crate::places::Shelf;
use crate::plan::{PlannedImage, Purpose};
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
    /// Text features of its classes, `[classes, D]`.
    text: Vec<f32>,
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
    section.text(format!(
        "LoCoOp extracts a patch as background if the label of the image is not among the K most similar classes of the patch. Orange: extracted patches. The other \
         pictures show the cosine of each patch with the text of a class. The label is the class of an ID image, and the prediction of an OOD image. \
         Shown are the {PATCH_IMAGES} most confident mistakes on ID images and the {PATCH_IMAGES} OOD images with the highest scores, of at most {PATCH_METHODS} prompt sets."
    ));
    let sets = chosen(job, planned, lines, focus)?;
    let images = seen(job, planned, &sets)?;
    let shown = images.len();
    for (number, (set, image)) in (1..).zip(images) {
        section.text(format!("{}, {}:", set.scores.prompt, image.name));
        let id = format!("patches-{number}");
        section
            .blocks
            .extend(image.blocks(&planned.plan.classes, &id)?);
    }
    if shown == 0 {
        section.blocks.push(Block::Missing(
            "No prompt set with texts has a mistake whose patches are stored.".to_string(),
        ));
    }
    Ok(section)
}

/// The prompt sets with texts that were trained on patches, each once; if there is none, the one that the report draws.
fn chosen<'a>(
    job: &Job,
    planned: &'a Planned,
    lines: &'a [PromptScores],
    focus: Option<&'a PromptScores>,
) -> Result<Vec<Drawn<'a>>> {
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
            && all.len() < PATCH_METHODS
            && let Some(text) = text_of(job, prompt)?
        {
            all.push(Drawn {
                scores,
                prompt,
                top_k,
                text,
            });
        }
    }
    let classes = planned.plan.classes.len();
    if all.is_empty()
        && let Some(scores) = focus
        && let Some(prompt) = prompt_of(scores)
        && let Ok(top_k) = Regions::default_top_k(classes)
        && let Some(text) = text_of(job, prompt)?
    {
        all.push(Drawn {
            scores,
            prompt,
            top_k,
            text,
        });
    }
    Ok(all)
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

/// What the patches of the worst mistakes show, in the order of the prompt sets. Mistakes in no part of the test images, or
/// without features, are left out. Every part is read once, and one at a time.
fn seen<'a>(
    job: &Job,
    planned: &Planned,
    sets: &'a [Drawn<'a>],
) -> Result<Vec<(&'a Drawn<'a>, SeenImage)>> {
    let all: Vec<(&Drawn<'_>, &Mistake)> = sets
        .iter()
        .flat_map(|set| mistakes(set.scores).into_iter().map(move |one| (set, one)))
        .collect();
    let mut by_part: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, (_, mistake)) in all.iter().enumerate() {
        by_part.entry(&mistake.part).or_default().push(place);
    }
    let shards = planned.shards_for(Purpose::Test);
    let mut found: Vec<Option<SeenImage>> = all.iter().map(|_| None).collect();
    for (part, places) in by_part {
        let shard = shards.iter().find(|shard| {
            let own = shard.dataset.shards.get(shard.number);
            own.is_some_and(|own| own.part == part)
        });
        let Some(shard) = shard else {
            continue;
        };
        let part = Part {
            features: read_features(job, shard.features, true)?,
            images: shard.features.list(job)?,
            is_id: shard.dataset.is_id(),
        };
        for place in places {
            let (set, mistake) = all[place];
            found[place] = part.seen(job, set, mistake)?;
        }
    }
    let found = all.iter().zip(found);
    Ok(found
        .filter_map(|((set, _), image)| Some((*set, image?)))
        .collect())
}

/// One part of the test images.
struct Part {
    features: FeatureBlock,
    images: Arc<[PlannedImage]>,
    is_id: bool,
}

impl Part {
    /// What the patches of an image show; `None` if it is not here, or has no features.
    fn seen(&self, job: &Job, set: &Drawn<'_>, mistake: &Mistake) -> Result<Option<SeenImage>> {
        let features = &self.features;
        let mut rows = features.keys.iter().zip(&features.views);
        let row = rows.position(|(key, view)| *key == mistake.image_key && *view == EVAL_VIEW);
        let mut images = self.images.iter();
        let image = images.find(|image| image.key == mistake.image_key);
        let (Some(row), Some(image)) = (row, image) else {
            return Ok(None);
        };
        let experiment = &job.experiment;
        let config = &experiment.model.config;
        let width = config.image.positions() * config.embed_dim;
        let local = &features.local[row * width..(row + 1) * width];
        let cosines = PatchCosines::new(local, &set.text, config.embed_dim, &mistake.image_key)?;
        let predicted = usize::try_from(mistake.pred).map_err(|_| {
            let found = mistake.pred;
            PipelineError::Inconsistent(format!(
                "{}: found class {found}, expected a number from 0",
                mistake.image_key
            ))
        })?;
        let (label, label_from) = match (self.is_id, image.label) {
            (true, Some(label)) => (label as usize, "known"),
            _ => (predicted, "predicted"),
        };
        let mut shown = vec![label];
        if predicted != label {
            shown.push(predicted);
        }
        let size = config.image.size;
        let view = match u32::try_from(size) {
            Ok(side) => checked_view(
                &image.source,
                &image.roots,
                &image.content_hash,
                side,
                experiment.recipe.data.resize,
            ),
            Err(_) => Err(format!("has a view of {size} pixels")),
        };
        Ok(Some(SeenImage {
            name: mistake.image_key.clone(),
            label_from: label_from.to_string(),
            predicted: (mistake.prediction.clone(), f64::from(mistake.prob)),
            regions: cosines.regions(label, set.top_k, &shown)?,
            view,
        }))
    }
}

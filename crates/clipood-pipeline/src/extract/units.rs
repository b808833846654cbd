//! Units of extraction: which views of which images are stored in one part.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::encode::EVAL_VIEW;
use crate::error::{PipelineError, Result};
use crate::experiment::Experiment;
use crate::job::Job;
use crate::plan::{Plan, PlannedImage, PlannedShard, images_digest, planned_images};

/// Some images and the views of them that are encoded together.
#[derive(Debug, Clone)]
pub struct ExtractUnit {
    /// Hash of the (content, key, view) list, so that units of different plans never have the same name.
    pub key: String,
    /// Number of images.
    pub images: usize,
    /// Views of every image, -1 for the evaluation view or the number of a training crop.
    pub views: Vec<i16>,
    source: Source,
}

/// Where the images of a unit are listed.
#[derive(Debug, Clone)]
enum Source {
    /// In memory: the few images of training units.
    Held(Arc<[PlannedImage]>),
    /// In a part of the plan.
    Part(String),
}

/// Which units hold the features of a plan.
#[derive(Debug, Clone)]
pub struct FeatureIndex {
    /// All units, without repetition.
    pub units: Vec<ExtractUnit>,
    /// The unit of the scored images, by dataset (in plan order) and shard.
    pub scored: Vec<Vec<usize>>,
    /// The units of the few-shot images by seed, with the smallest rank in each: k shots need the ranks below k.
    pub train: BTreeMap<u64, Vec<(usize, usize)>>,
}

impl FeatureIndex {
    /// The units that hold the first `shots` images of every class in the split of `seed`. Units that hold only images
    /// beyond these are left out.
    pub fn shot_units(&self, seed: u64, shots: usize) -> impl Iterator<Item = &ExtractUnit> {
        let units = self.train.get(&seed).into_iter().flatten();
        let wanted = units.filter(move |(first_rank, _)| *first_rank < shots);
        wanted.map(|(_, unit)| &self.units[*unit])
    }
}

impl ExtractUnit {
    /// The evaluation views of a shard.
    fn of_shard(shard: &PlannedShard) -> Self {
        let views = vec![EVAL_VIEW];
        Self {
            key: unit_key(&shard.digest, &views, None),
            images: shard.images,
            views,
            source: Source::Part(shard.part.clone()),
        }
    }

    /// Some views of a few images, in key order.
    fn of_images(images: &[PlannedImage], views: Vec<i16>, crop_scale: [f64; 2]) -> Self {
        let list = images.iter().map(|i| (&*i.content_hash, &*i.key));
        let crops = views.iter().any(|view| *view != EVAL_VIEW);
        Self {
            key: unit_key(&images_digest(list), &views, crops.then_some(crop_scale)),
            images: images.len(),
            views,
            source: Source::Held(images.into()),
        }
    }

    /// The images, in key order.
    ///
    /// # Errors
    /// A part of the plan that is missing, damaged, or lists other images than the plan.
    pub fn list(&self, job: &Job) -> Result<Arc<[PlannedImage]>> {
        match &self.source {
            Source::Held(images) => Ok(images.clone()),
            Source::Part(part) => {
                let images = planned_images(job, part)?;
                let list = images.iter().map(|i| (&*i.content_hash, &*i.key));
                let key = unit_key(&images_digest(list), &self.views, None);
                if key != self.key {
                    return Err(PipelineError::Inconsistent(format!(
                        "{}: its images are not those that were planned",
                        job.places.run.store().display(part)
                    )));
                }
                Ok(images.into())
            }
        }
    }

    /// Rows of the unit's tables when no image is unreadable.
    pub fn rows(&self) -> usize {
        self.images * self.views.len()
    }
}

fn unit_key(images: &str, views: &[i16], crop_scale: Option<[f64; 2]>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(images.as_bytes());
    for view in views {
        hasher.update(&view.to_le_bytes());
    }
    for share in crop_scale.iter().flatten() {
        hasher.update(&share.to_le_bytes());
    }
    let mut key = hasher.finalize().to_hex().to_string();
    key.truncate(24);
    key
}

/// Divides a plan into units. Images to score: one unit per shard. Few-shot images: one unit each for the ranks 0, 1, 2
/// to 3, 4 to 7 and so on of each seed (divided further if they are many), so that 1, 2, 4, 8 and 16 shots share
/// features.
///
/// # Errors
/// A few-shot image that the plan does not list.
pub fn feature_index(experiment: &Experiment, plan: &Plan) -> Result<FeatureIndex> {
    let crop_scale = experiment.recipe.train.crop_scale;
    let mut units: Vec<ExtractUnit> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut add = |unit: ExtractUnit| {
        *known.entry(unit.key.clone()).or_insert_with(|| {
            units.push(unit);
            units.len() - 1
        })
    };
    let mut scored = Vec::new();
    for dataset in &plan.datasets {
        let units = dataset.shards.iter().map(ExtractUnit::of_shard);
        scored.push(units.map(&mut add).collect());
    }
    let by_key: BTreeMap<&str, &PlannedImage> = plan
        .id()
        .train
        .iter()
        .map(|image| (image.key.as_str(), image))
        .collect();
    let mut views = vec![EVAL_VIEW];
    views.extend(0..experiment.recipe.training_views() as i16);
    let per_unit = (experiment.shard_rows() / views.len()).max(1);
    let mut train = BTreeMap::new();
    for (seed, split) in &plan.splits {
        let largest = split
            .classes
            .iter()
            .map(|c| c.keys.len())
            .max()
            .unwrap_or(0);
        let mut list = Vec::new();
        let (mut first, mut end) = (0, 1);
        while first < largest {
            let mut images: Vec<PlannedImage> = split
                .classes
                .iter()
                .flat_map(|class| class.keys.iter().skip(first).take(end - first))
                .map(|key| {
                    let image = by_key.get(key.as_str()).map(|image| (*image).clone());
                    image.ok_or_else(|| {
                        PipelineError::Inconsistent(format!(
                            "the plan does not list {key}, a training image of seed {seed}"
                        ))
                    })
                })
                .collect::<Result<_>>()?;
            images.sort_by(|a, b| a.key.cmp(&b.key));
            for chunk in images.chunks(per_unit) {
                list.push((
                    first,
                    add(ExtractUnit::of_images(chunk, views.clone(), crop_scale)),
                ));
            }
            (first, end) = (end, end * 2);
        }
        train.insert(*seed, list);
    }
    Ok(FeatureIndex {
        units,
        scored,
        train,
    })
}

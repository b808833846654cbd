//! Units of extraction: which views of which images share a part.

use std::collections::BTreeMap;

use crate::job::Job;
use crate::plan::{Plan, PlannedImage, shard_rows};

/// The evaluation view: short side resized, centre cropped.
pub const EVAL_VIEW: i16 = -1;

/// Some images and the views of them that are encoded together.
#[derive(Debug, Clone)]
pub struct ExtractUnit {
    /// Hash of the (content, key, view) list and of whether local features are kept: two plans never share a name.
    pub key: String,
    /// Images in key order.
    pub images: Vec<PlannedImage>,
    /// Views of every image, -1 for the evaluation view or the number of a training crop.
    pub views: Vec<i16>,
}

/// Where the features of a plan lie.
#[derive(Debug, Clone)]
pub struct FeatureIndex {
    /// All units, without repetition.
    pub units: Vec<ExtractUnit>,
    /// By dataset (in plan order) and shard, the unit of its scored images.
    pub scored: Vec<Vec<usize>>,
    /// By seed, the units of the few-shot images, with the smallest rank of each: k shots need the ranks below k.
    pub train: BTreeMap<u64, Vec<(usize, usize)>>,
}

impl ExtractUnit {
    fn new(images: Vec<PlannedImage>, views: Vec<i16>, crop_scale: [f64; 2]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for image in &images {
            for text in [&image.content_hash, &image.key] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        for view in &views {
            hasher.update(&view.to_le_bytes());
        }
        if views.iter().any(|view| *view != EVAL_VIEW) {
            for share in crop_scale {
                hasher.update(&share.to_le_bytes());
            }
        }
        let mut key = hasher.finalize().to_hex().to_string();
        key.truncate(24);
        Self { key, images, views }
    }

    /// Rows of the unit's tables when no image is unreadable.
    pub fn rows(&self) -> usize {
        self.images.len() * self.views.len()
    }
}

/// Cuts a plan into units. Images to score: one unit a shard. Few-shot images: one unit for the ranks 0, 1, 2 to 3, 4 to 7
/// and so on of each seed (cut further where they are many), so that 1, 2, 4, 8 and 16 shots share their features.
pub fn feature_index(job: &Job, plan: &Plan) -> FeatureIndex {
    let crop_scale = job.recipe.train.crop_scale;
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
        let mut shards: BTreeMap<u32, Vec<PlannedImage>> = BTreeMap::new();
        for image in &dataset.scored {
            shards.entry(image.shard).or_default().push(image.clone());
        }
        scored.push(
            shards
                .into_values()
                .map(|images| add(ExtractUnit::new(images, vec![EVAL_VIEW], crop_scale)))
                .collect(),
        );
    }
    let by_key: BTreeMap<&str, &PlannedImage> = plan
        .id()
        .train
        .iter()
        .map(|image| (image.key.as_str(), image))
        .collect();
    let mut views = vec![EVAL_VIEW];
    views.extend(0..job.recipe.training_views() as i16);
    let per_unit = (shard_rows(job) / views.len()).max(1);
    let mut train = BTreeMap::new();
    for (seed, split) in &plan.splits {
        let largest = split.classes.values().map(Vec::len).max().unwrap_or(0);
        let mut list = Vec::new();
        let (mut first, mut end) = (0, 1);
        while first < largest {
            let mut images: Vec<PlannedImage> = split
                .classes
                .values()
                .flat_map(|keys| keys.iter().skip(first).take(end - first))
                .filter_map(|key| by_key.get(key.as_str()).map(|image| (*image).clone()))
                .collect();
            images.sort_by(|a, b| a.key.cmp(&b.key));
            for chunk in images.chunks(per_unit) {
                list.push((
                    first,
                    add(ExtractUnit::new(chunk.to_vec(), views.clone(), crop_scale)),
                ));
            }
            (first, end) = (end, end * 2);
        }
        train.insert(*seed, list);
    }
    FeatureIndex {
        units,
        scored,
        train,
    }
}

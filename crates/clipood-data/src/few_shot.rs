//! Few-shot splits: the training images that a method may learn from.

use std::collections::BTreeMap;

use clipood_core::{Fingerprint, FingerprintBuilder, SplitMix64, SubsampleClasses};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::record::{ImageRecord, Split};

/// The images of a few-shot split, by key, so that it means the same images on every machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShotSplit {
    /// Name of the dataset.
    pub dataset: String,
    /// Images per class, as requested.
    pub shots: usize,
    /// Seed of the draw.
    pub seed: u64,
    /// Image keys of each class in the order drawn, by readable name: the first k of each class are the k-shot split.
    pub classes: BTreeMap<String, Vec<String>>,
}

impl FewShotSplit {
    /// All image keys, class by class.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.classes.values().flatten().map(String::as_str)
    }

    /// blake3 of everything in the split.
    ///
    /// # Errors
    /// None for a split that came from [`few_shot_split`] or from serde.
    pub fn hash(&self) -> Result<Fingerprint, DataError> {
        Ok(FingerprintBuilder::new("few-shot-split")
            .field("split", self)
            .finish()?)
    }
}

/// Draws `shots` training images of every class in `records`.
///
/// The images of a class are ordered by a hash of (seed, key), so the draw depends on the set of keys alone, not on the
/// order of `records`. A smaller split is a prefix of every larger one with the same seed, and images that are added to a
/// class do not change the order of the others. Records of other splits, or without a label, are left out.
///
/// # Errors
/// [`DataError::NoTrainImages`]; [`DataError::TooFewShots`] for a class with fewer training images than `shots`, unless
/// `allow_fewer` is set, which then takes all of them.
pub fn few_shot_split(
    dataset: &str,
    records: &[ImageRecord],
    shots: usize,
    seed: u64,
    allow_fewer: bool,
) -> Result<FewShotSplit, DataError> {
    let mut ranked: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for record in records {
        if let (Split::Train, Some(_), Some(name)) =
            (record.split, record.label, &record.class_name)
        {
            let label = format!("few-shot/{}", record.image_key);
            let rank = SplitMix64::keyed(seed, &label, 0).next_u64();
            ranked
                .entry(name)
                .or_default()
                .push((rank, &record.image_key));
        }
    }
    if ranked.is_empty() {
        return Err(DataError::NoTrainImages {
            dataset: dataset.to_string(),
        });
    }
    let mut classes = BTreeMap::new();
    for (name, mut keys) in ranked {
        if keys.len() < shots && !allow_fewer {
            return Err(DataError::TooFewShots {
                dataset: dataset.to_string(),
                class: name.to_string(),
                found: keys.len(),
                wanted: shots,
            });
        }
        keys.sort_unstable();
        let drawn = keys.iter().take(shots).map(|(_, key)| (*key).to_string());
        classes.insert(name.to_string(), drawn.collect());
    }
    Ok(FewShotSplit {
        dataset: dataset.to_string(),
        shots,
        seed,
        classes,
    })
}

/// The base-to-new protocol of CoCoOp (Zhou et al., 2022) on classes in label order: `base` is the first half, rounded up,
/// and `new` the rest.
pub fn subsample_classes<T>(classes: &[T], which: SubsampleClasses) -> &[T] {
    let (base, new) = classes.split_at(classes.len().div_ceil(2));
    match which {
        SubsampleClasses::All => classes,
        SubsampleClasses::Base => base,
        SubsampleClasses::New => new,
    }
}

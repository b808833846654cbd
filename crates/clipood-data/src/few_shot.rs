//! Few-shot splits: which training images a method may learn from.

use std::collections::BTreeMap;

use clipood_core::{Fingerprint, FingerprintBuilder, SplitMix64, SubsampleClasses};
use serde::{Deserialize, Serialize};

use crate::dataset::{ImageRecord, Split};
use crate::error::DataError;

/// The images of a few-shot split, by key: a manifest that holds on every machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShotSplit {
    /// Name of the dataset.
    pub dataset: String,
    /// Images a class, as asked for.
    pub shots: usize,
    /// Seed of the draw.
    pub seed: u64,
    /// Image keys of each class, by readable name, in the order drawn: the first k of each are the k-shot split.
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
    /// None for a split that [`few_shot_split`] or serde made.
    pub fn hash(&self) -> Result<Fingerprint, DataError> {
        Ok(FingerprintBuilder::new("few-shot-split")
            .field("split", self)
            .finish()?)
    }
}

/// Draws `shots` training images of every class that `records` has.
///
/// The images of a class are ordered by a hash of (seed, key), so the draw depends on the set of keys alone, not on the
/// order of `records`; a smaller split is a prefix of every larger one of the same seed, and images added to a class
/// leave the order of the others as it is. Records of other splits, or without a label, are left out.
///
/// # Errors
/// [`DataError::NoTrainImages`], and [`DataError::TooFewShots`] for a class with fewer training images than `shots` unless
/// `allow_fewer` takes all it has.
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

/// CoOp's base-to-new protocol on classes in label order: `base` is the first half, rounded up, `new` the rest.
pub fn subsample_classes<T>(classes: &[T], which: SubsampleClasses) -> &[T] {
    let (base, new) = classes.split_at(classes.len().div_ceil(2));
    match which {
        SubsampleClasses::All => classes,
        SubsampleClasses::Base => base,
        SubsampleClasses::New => new,
    }
}

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
    /// The classes, sorted by readable name, those of the same name by label.
    #[serde(with = "by_name")]
    pub classes: Vec<ClassShots>,
}

/// The shots of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassShots {
    /// Readable name of the class, which it may share with another.
    pub name: String,
    /// Image keys in the order drawn: the first k are the k-shot split.
    pub keys: Vec<String>,
}

impl FewShotSplit {
    /// All image keys, class by class.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.classes.iter().flat_map(|class| &class.keys);
        keys.map(String::as_str)
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

/// The serialised form of the classes: a map from names to keys, or a list where several classes share a name.
mod by_name {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ClassShots;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Map(BTreeMap<String, Vec<String>>),
        List(Vec<ClassShots>),
    }

    pub fn serialize<S: Serializer>(classes: &[ClassShots], to: S) -> Result<S::Ok, S::Error> {
        let names: BTreeSet<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        match names.len() == classes.len() {
            true => to.collect_map(classes.iter().map(|class| (&class.name, &class.keys))),
            false => classes.serialize(to),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ClassShots>, D::Error> {
        Ok(match Form::deserialize(from)? {
            Form::List(classes) => classes,
            Form::Map(classes) => {
                let classes = classes.into_iter();
                classes
                    .map(|(name, keys)| ClassShots { name, keys })
                    .collect()
            }
        })
    }
}

/// Draws `shots` training images of every class in `records`.
///
/// A class is a label; its name is a text that another class may have as well.
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
    let mut ranked: BTreeMap<(&str, u32), Vec<(u64, &str)>> = BTreeMap::new();
    for record in records {
        if let (Split::Train, Some(class), Some(name)) =
            (record.split, record.label, &record.class_name)
        {
            let label = format!("few-shot/{}", record.image_key);
            let rank = SplitMix64::keyed(seed, &label, 0).next_u64();
            ranked
                .entry((name, class))
                .or_default()
                .push((rank, &record.image_key));
        }
    }
    if ranked.is_empty() {
        return Err(DataError::NoTrainImages {
            dataset: dataset.to_string(),
        });
    }
    let mut classes = Vec::with_capacity(ranked.len());
    for ((name, _), mut keys) in ranked {
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
        classes.push(ClassShots {
            name: name.to_string(),
            keys: drawn.collect(),
        });
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

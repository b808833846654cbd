//! Where the images lie that a search has found.

use std::collections::{BTreeMap, BTreeSet};

use clipood_core::unstored;
use clipood_data::Source;
use clipood_pipeline::{cached_dataset, find_sources, open_manifest};

use super::super::args::DataArgs;

/// What the names of candidates are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Image keys, `dataset/split/relative/path`, as in a store.
    Keys,
    /// Paths of files.
    Paths,
    /// Not names of images: numbers of rows, or classes.
    None,
}

/// Where each of the images lies, or in words why that is not known.
pub fn sources_of<'a>(
    names: Names,
    images: &BTreeSet<&'a str>,
    data: &DataArgs,
) -> BTreeMap<&'a str, Result<Source, String>> {
    match names {
        Names::Keys => by_manifests(images, data),
        Names::Paths => {
            let found = |name: &&'a str| (*name, Ok(Source::found(&unstored(name))));
            images.iter().map(found).collect()
        }
        Names::None => {
            let reason = "the file of features does not name its images";
            images
                .iter()
                .map(|name| (*name, Err(reason.to_owned())))
                .collect()
        }
    }
}

/// Lists the datasets of the keys, whatever their layout, without downloading any. A dataset that cannot be listed costs
/// nothing but its images.
fn by_manifests<'a>(
    keys: &BTreeSet<&'a str>,
    data: &DataArgs,
) -> BTreeMap<&'a str, Result<Source, String>> {
    let mut by_dataset: BTreeMap<&str, BTreeSet<&'a str>> = BTreeMap::new();
    for key in keys {
        let dataset = key.split('/').next().unwrap_or_default();
        by_dataset.entry(dataset).or_default().insert(key);
    }
    let mut all = BTreeMap::new();
    for (dataset, keys) in by_dataset {
        let (mut found, end) = listed(dataset, &keys, data);
        for key in keys {
            let source = found.remove(key).ok_or_else(|| match &end {
                Err(problem) => problem.clone(),
                Ok(()) => format!(
                    "the dataset {dataset} has no such image below {} any more",
                    data.images.data.display()
                ),
            });
            all.insert(key, source);
        }
    }
    all
}

/// The sources of the images of one dataset, and what went wrong.
fn listed(
    dataset: &str,
    keys: &BTreeSet<&str>,
    data: &DataArgs,
) -> (BTreeMap<String, Source>, Result<(), String>) {
    let opened = open_manifest(&data.manifests, dataset).and_then(|mut manifest| {
        cached_dataset(&mut manifest)?;
        Ok(manifest)
    });
    match opened {
        Ok(manifest) => {
            let (sources, end) = find_sources(&manifest, &data.images.data, keys);
            (sources, end.map_err(|error| error.to_string()))
        }
        Err(error) => (BTreeMap::new(), Err(error.to_string())),
    }
}

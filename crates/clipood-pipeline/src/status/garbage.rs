//! Features and prompts of a store that none of the given runs needs.

use std::collections::HashSet;

use clipood_store::{ObjectInfo, Store};

use crate::error::{PipelineError, Result};
use crate::job::Job;
use crate::places::Shelf;
use crate::planned::Planned;
use crate::stages::STAGES;

/// Objects that can be removed, in the order in which they must be: commit records first, so that there is never a
/// record without its part.
#[derive(Debug, Clone, Default)]
pub struct Garbage {
    /// The objects, paths relative to the store.
    pub objects: Vec<ObjectInfo>,
    /// Objects under `features/` and `prompts/` that stay.
    pub kept: usize,
}

impl Garbage {
    /// Size of the objects, in bytes.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }
}

/// What the given runs need.
#[derive(Debug, Default)]
struct Needed {
    /// Folder and unit of features.
    features: HashSet<(String, String)>,
    /// First 24 digits of the prompt sets' fingerprints, the keys of their units.
    prompts: HashSet<String>,
}

/// Lists what none of `jobs` needs in `store`. Everything that only other runs need is listed as garbage, so all runs
/// that should be kept must be given.
///
/// # Errors
/// A run without a plan, whose needs are unknown; a store that cannot be listed.
pub fn find_garbage(store: &Store, jobs: &[Job]) -> Result<Garbage> {
    let mut needed = Needed::default();
    for job in jobs {
        let planned = Planned::read(job)?.ok_or_else(|| {
            PipelineError::Usage(format!(
                "{} has no plan, so its needs are unknown; plan or remove it first",
                job.places.run_location
            ))
        })?;
        let folder = job.places.features.fingerprint.to_string();
        let bases = planned.prompts.iter().filter_map(|p| p.base.as_deref());
        needed
            .prompts
            .extend(bases.map(|base| base.unit.key.clone()));
        for stage in STAGES {
            let keys = (stage.units)(job, &planned)?
                .into_iter()
                .map(|unit| unit.key);
            let keys: Vec<String> = keys.collect();
            for (shelf, _) in (stage.ledgers)(&planned) {
                match shelf {
                    Shelf::Run => {}
                    Shelf::Features => {
                        let units = keys.iter().map(|key| (folder.clone(), key.clone()));
                        needed.features.extend(units);
                    }
                    Shelf::Prompts => needed.prompts.extend(keys.iter().cloned()),
                }
            }
        }
    }
    sort_out(store, &needed)
}

/// Removes what [`find_garbage`] found. No run may be working on the store.
///
/// # Errors
/// An object that cannot be removed; those removed before stay removed, and a repeated call finds the rest.
pub fn collect_garbage(store: &Store, garbage: &Garbage) -> Result<()> {
    for object in &garbage.objects {
        store.delete(&object.path)?;
    }
    Ok(())
}

fn sort_out(store: &Store, needed: &Needed) -> Result<Garbage> {
    let mut garbage = Garbage::default();
    for folder in ["features", "prompts"] {
        let objects = store.list(folder)?;
        // Run directories that older versions allowed here, with everything in them.
        let runs: Vec<String> = objects
            .iter()
            .filter_map(|object| object.path.strip_suffix("run.json"))
            .filter(|folder| folder.ends_with('/'))
            .map(str::to_string)
            .collect();
        for object in objects {
            if runs.iter().any(|run| object.path.starts_with(run)) {
                garbage.kept += 1;
                continue;
            }
            match owner(&object.path) {
                Some(Owner::Features(unit)) if !needed.features.contains(&unit) => {}
                Some(Owner::Prompt(key)) if !needed.prompts.contains(&key) => {}
                // Objects that clipood has not written are kept.
                _ => {
                    garbage.kept += 1;
                    continue;
                }
            }
            garbage.objects.push(object);
        }
    }
    garbage
        .objects
        .sort_by_key(|object| !object.path.contains("/_commits/commits/"));
    Ok(garbage)
}

/// The owner of an object in a store.
#[derive(Debug, PartialEq)]
enum Owner {
    Features((String, String)),
    Prompt(String),
}

/// Reads the owner from a path: parts, commit records and claims carry the unit's key in their names.
fn owner(path: &str) -> Option<Owner> {
    let parts: Vec<&str> = path.split('/').collect();
    let stem = |name: &str| name.split('.').next().unwrap_or_default().to_string();
    match parts[..] {
        ["features", folder, "global" | "local", part] => {
            let key = stem(part.strip_prefix("part-")?);
            Some(Owner::Features((folder.to_string(), key)))
        }
        [
            "features",
            folder,
            "_commits",
            "commits" | "claims",
            "global" | "local",
            record,
        ] => Some(Owner::Features((folder.to_string(), stem(record)))),
        ["prompts", "_commits", "commits" | "claims", _, record] => {
            Some(Owner::Prompt(stem(record)))
        }
        ["prompts", fingerprint, _] if is_fingerprint(fingerprint) => {
            Some(Owner::Prompt(fingerprint.get(..24)?.to_string()))
        }
        _ => None,
    }
}

/// Whether the text may be a fingerprint: hexadecimal digits.
fn is_fingerprint(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_what_is_known_and_unneeded_goes_and_records_go_first() {
        let store = Store::memory();
        let set = "0123456789abcdef0123456789abcdef";
        let other = set.replace('0', "f");
        let (kept_prompt, lost_prompt) = (
            format!("prompts/{set}/prompt.safetensors"),
            format!("prompts/{other}/checkpoint.safetensors"),
        );
        let paths = [
            "prompts/a-run-directory-of-somebody/run.json",
            "prompts/a-run-directory-of-somebody/notes.txt",
            "features/ff/global/part-ee/run.json",
            "features/ff/global/part-ee/scores/part-0.parquet",
            "prompts/another-folder-of-somebody/notes.txt",
            "features/ff/global/part-aa.parquet",
            "features/ff/global/part-bb.parquet",
            "features/ff/_commits/commits/global/aa.0123.json",
            "features/ff/_commits/commits/global/bb.0123.json",
            "features/ff/_commits/claims/global/bb.json",
            "features/gg/local/part-aa.parquet",
            "features/notes.txt",
            kept_prompt.as_str(),
            lost_prompt.as_str(),
        ];
        for path in paths {
            store.put(path, Bytes::from_static(b"12")).unwrap();
        }
        let needed = Needed {
            features: HashSet::from([("ff".to_string(), "aa".to_string())]),
            prompts: HashSet::from([set[..24].to_string()]),
        };
        let garbage = sort_out(&store, &needed).unwrap();
        let gone: Vec<&str> = garbage.objects.iter().map(|o| o.path.as_str()).collect();
        assert_eq!(
            gone,
            [
                "features/ff/_commits/commits/global/bb.0123.json",
                "features/ff/_commits/claims/global/bb.json",
                "features/ff/global/part-bb.parquet",
                "features/gg/local/part-aa.parquet",
                lost_prompt.as_str(),
            ]
        );
        assert_eq!((garbage.kept, garbage.bytes()), (9, 10));
        collect_garbage(&store, &garbage).unwrap();
        assert!(sort_out(&store, &needed).unwrap().objects.is_empty());
        assert!(store.exists("features/notes.txt").unwrap());
    }
}

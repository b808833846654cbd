//! Datasets of the hub: their Parquet files, by configuration and split.
//!
//! A repository has its data as Parquet itself (`320px/train-00000-of-00001.parquet`, `data/test-00000-of-00001.parquet`), or the hub
//! has converted it on the branch `refs/convert/parquet` (`plain_text/train/0000.parquet`). The names of the files say what
//! belongs to which configuration and split; patterns in the README of a repository are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::cache::Cache;
use crate::client::Client;
use crate::error::{HubError, Result};
use crate::event::Listener;
use crate::files::is_plain;
use crate::name::{Kind, Name, is_repository, is_revision};
use crate::options::HubOptions;
use crate::resolve::{Fetcher, listing, tell_cached};

/// The branch with the Parquet files that the hub makes of other formats.
const CONVERTED: &str = "refs/convert/parquet";
/// The configuration of files that are in no folder of one.
const DEFAULT: &str = "default";
/// Names of the same split.
const VALIDATION: [&str; 4] = ["validation", "val", "valid", "dev"];

/// A dataset of the hub: repository and revision, configuration, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetName {
    /// Repository and revision.
    pub name: Name,
    /// The configuration; without one, the only one, or that called `default`.
    pub config: Option<String>,
    /// The split.
    pub split: Option<String>,
}

impl DatasetName {
    /// Reads `organisation/name[@revision][:configuration[:split]]`; the address of a dataset's page stands for its repository.
    ///
    /// # Errors
    /// [`HubError::Name`].
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |problem: &str| HubError::Name {
            kind: Kind::Dataset.word(),
            name: text.to_owned(),
            problem: problem.to_owned(),
        };
        let plain = text.strip_prefix("https://huggingface.co/").unwrap_or(text);
        let plain = plain.strip_prefix("datasets/").unwrap_or(plain);
        let mut parts = plain.splitn(3, ':');
        let repository = parts.next().unwrap_or_default().trim_end_matches('/');
        let (repository, revision) = repository.split_once('@').unwrap_or((repository, "main"));
        if !is_repository(repository) || !is_revision(revision) {
            return Err(wrong(
                "expected organisation/name, organisation/name@revision, and behind a colon the configuration, behind another the split",
            ));
        }
        let mut word = || match parts.next() {
            Some("") => None,
            word => word.map(str::to_owned),
        };
        let (config, split) = (word(), word());
        if split
            .iter()
            .chain(&config)
            .any(|word| word.contains(['[', ':', '/', '*']))
        {
            return Err(wrong(
                "expected the names of a configuration and of a split, without slices such as [:10%]",
            ));
        }
        Ok(Self {
            name: Name {
                repository: repository.to_owned(),
                revision: revision.to_owned(),
                kind: Kind::Dataset,
            },
            config,
            split,
        })
    }
}

impl std::fmt::Display for DatasetName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)?;
        if self.config.is_some() || self.split.is_some() {
            write!(f, ":{}", self.config.as_deref().unwrap_or_default())?;
        }
        match &self.split {
            Some(split) => write!(f, ":{split}"),
            None => Ok(()),
        }
    }
}

/// Files of a dataset in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSnapshot {
    /// Folder of the files of this commit.
    pub folder: PathBuf,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// The configuration.
    pub config: String,
    /// The files of each split, below the folder, sorted.
    pub splits: BTreeMap<String, Vec<String>>,
}

/// Returns the Parquet files of a dataset from the cache, after downloading those that are missing: for each entry of `splits`
/// the first of these names that the dataset has, or all splits if there is no entry. `listener` is as for
/// [`resolve`](crate::resolve()).
///
/// # Errors
/// [`HubError::NoData`] for a repository without Parquet files, a configuration or split that it does not have (the message lists
/// those that it has); otherwise as [`resolve`](crate::resolve()).
pub fn resolve_dataset(
    name: &DatasetName,
    splits: &[Vec<String>],
    options: &HubOptions,
    listener: Listener<'_>,
) -> Result<DatasetSnapshot> {
    let revisions = match name.name.revision.as_str() {
        "main" => vec!["main", CONVERTED],
        other => vec![other],
    };
    let cache = Cache::new(&options.cache, &name.name);
    let client = Client::new(options);
    let mut problem = "no Parquet file".to_owned();
    let mut unreached: Option<String> = None;
    for revision in &revisions {
        let at = Name {
            revision: (*revision).to_owned(),
            ..name.name.clone()
        };
        let fresh = match options.offline {
            true => Err("HF_HUB_OFFLINE is set".to_owned()),
            false => match listing(&client, &at, &cache, listener) {
                Ok(found) => Ok(found),
                Err(HubError::Http { problem, .. }) => {
                    Err(format!("{} cannot be reached: {problem}", options.endpoint))
                }
                // Nothing was converted.
                Err(HubError::NotFound { .. }) if *revision == CONVERTED => continue,
                Err(error) => return Err(error),
            },
        };
        let (commit, all, is_fresh) = match fresh {
            Ok((commit, all)) => (commit, all, true),
            Err(why) => {
                unreached = Some(why);
                let Some(commit) = cache.commit_of(revision) else {
                    continue;
                };
                let all = cache.files(&commit);
                (commit, all, false)
            }
        };
        let (config, splits) = match choose(&all, name.config.as_deref(), splits) {
            Ok(chosen) => chosen,
            Err(None) => continue,
            Err(Some(found)) if is_fresh => {
                return Err(HubError::NoData {
                    name: at.to_string(),
                    problem: found,
                });
            }
            // The cache may have a part of the files only.
            Err(Some(found)) => {
                problem = found;
                continue;
            }
        };
        let fetcher = Fetcher {
            client: Client::new(options),
            cache: &cache,
            options,
            name: &at,
            commit: &commit,
        };
        for file in splits.values().flatten() {
            if is_fresh {
                fetcher.fetch(file, listener)?;
            }
        }
        if let Some(why) = unreached.filter(|_| !options.offline) {
            tell_cached(&at, &why, &commit, listener)?;
        }
        return Ok(DatasetSnapshot {
            folder: cache.snapshot(&commit),
            commit,
            config,
            splits,
        });
    }
    match unreached {
        Some(why) => {
            let commit = cache.commit_of(revisions[0]);
            Err(HubError::NotCached {
                name: format!("{} `{name}`", Kind::Dataset.word()),
                why,
                files: "Parquet, such as CONFIGURATION/SPLIT-00000-of-00001.parquet".to_owned(),
                place: cache.snapshot(commit.as_deref().unwrap_or("COMMIT")),
                offline: options.offline,
            })
        }
        None => Err(HubError::NoData {
            name: name.to_string(),
            problem: format!(
                "{problem}, neither in the repository nor converted; download it and use the layout of its files"
            ),
        }),
    }
}

/// The files of a configuration by split.
type Splits = BTreeMap<String, Vec<String>>;

/// The configuration and the files of the wanted splits. The error is what is wrong, or `None` if there is no Parquet file at all.
fn choose(
    all: &[String],
    config: Option<&str>,
    wanted: &[Vec<String>],
) -> std::result::Result<(String, Splits), Option<String>> {
    let mut configs: BTreeMap<String, Splits> = BTreeMap::new();
    for file in all.iter().filter(|file| is_plain(file)) {
        if let Some((config, split)) = place(file) {
            let splits = configs.entry(config).or_default();
            splits.entry(split).or_default().push(file.clone());
        }
    }
    if configs.is_empty() {
        return Err(None);
    }
    let listed = |names: BTreeSet<&String>| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        names.join(", ")
    };
    let known = listed(configs.keys().collect());
    let found = match config {
        Some(name) => configs.remove_entry(name),
        None if configs.len() == 1 => configs.pop_first(),
        None => configs.remove_entry(DEFAULT),
    };
    let Some((config, mut splits)) = found else {
        return Err(Some(match config {
            Some(name) => format!("no configuration `{name}`; it has {known}"),
            None => format!("several configurations, {known}; name one behind a colon"),
        }));
    };
    for files in splits.values_mut() {
        files.sort();
    }
    if wanted.is_empty() {
        return Ok((config, splits));
    }
    let mut chosen = Splits::new();
    for names in wanted {
        let named = |split: &&String| names.iter().any(|name| is_named(split, name));
        // In the order of the wish.
        let of_wish = names.iter().find_map(|name| {
            let mut known = splits.keys();
            known.find(|split| is_named(split, name)).cloned()
        });
        let Some(split) = of_wish.or_else(|| splits.keys().find(named).cloned()) else {
            return Err(Some(format!(
                "no split `{}` in configuration `{config}`; it has {}",
                names.join("` or `"),
                listed(splits.keys().collect())
            )));
        };
        let files = splits.get(&split).cloned().unwrap_or_default();
        chosen.insert(split, files);
    }
    Ok((config, chosen))
}

/// Whether a split is the one that a user names; the validation split has several names.
fn is_named(split: &str, name: &str) -> bool {
    split == name || (VALIDATION.contains(&split) && VALIDATION.contains(&name))
}

/// Configuration and split of a Parquet file.
fn place(file: &str) -> Option<(String, String)> {
    let stem = file.strip_suffix(".parquet")?;
    let mut parts: Vec<&str> = stem.split('/').collect();
    let last = parts.pop()?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let split = if digits(last) {
        // `plain_text/train/0000`
        parts.pop()?
    } else {
        // `train-00000-of-00002`, of older versions with a hash behind it
        let without_hash = match last.rsplit_once('-') {
            Some((rest, hash)) if hash.len() == 16 && crate::cache::is_hex(hash) => rest,
            _ => last,
        };
        let numbered = without_hash
            .rsplit_once("-of-")
            .filter(|(_, of)| digits(of));
        let split = numbered.and_then(|(rest, _)| rest.rsplit_once('-').filter(|(_, n)| digits(n)));
        split.map_or(without_hash, |(split, _)| split)
    };
    parts.retain(|part| *part != "data");
    let config = match parts.is_empty() {
        true => DEFAULT.to_owned(),
        false => parts.join("/"),
    };
    Some((config, split.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_configuration_split_and_revision() {
        let parsed = |text: &str| {
            let name = DatasetName::parse(text).unwrap();
            (
                name.name.repository,
                name.name.revision,
                name.config,
                name.split,
            )
        };
        let some = |text: &str| Some(text.to_owned());
        for (text, revision, config, split) in [
            ("frgfm/imagenette", "main", None, None),
            ("frgfm/imagenette:320px", "main", some("320px"), None),
            (
                "frgfm/imagenette:320px:validation",
                "main",
                some("320px"),
                some("validation"),
            ),
            ("frgfm/imagenette@v1:320px:", "v1", some("320px"), None),
            ("frgfm/imagenette::train", "main", None, some("train")),
            ("datasets/frgfm/imagenette", "main", None, None),
            (
                "https://huggingface.co/datasets/frgfm/imagenette",
                "main",
                None,
                None,
            ),
            (
                "frgfm/imagenette@refs/convert/parquet",
                "refs/convert/parquet",
                None,
                None,
            ),
        ] {
            let expected = (
                "frgfm/imagenette".to_owned(),
                revision.to_owned(),
                config,
                split,
            );
            assert_eq!(parsed(text), expected, "{text}");
        }
        let shown = DatasetName::parse("a/b@v1:c:d").unwrap().to_string();
        assert_eq!(shown, "a/b@v1:c:d");
        for text in [
            "cifar10",
            "",
            "a/b/c",
            "a/b@../c",
            "a/b:c:train[:10%]",
            "a/b:../c",
        ] {
            assert!(DatasetName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_names_of_files_say_configuration_and_split() {
        for (file, config, split) in [
            ("320px/train-00000-of-00001.parquet", "320px", "train"),
            ("data/train-00000-of-00002.parquet", "default", "train"),
            (
                "data/test-00000-of-00001-9db84dcd0b7e2f6a.parquet",
                "default",
                "test",
            ),
            ("plain_text/train/0000.parquet", "plain_text", "train"),
            (
                "default/partial-train/0001.parquet",
                "default",
                "partial-train",
            ),
            ("train.parquet", "default", "train"),
            (
                "full_size/data/validation.parquet",
                "full_size",
                "validation",
            ),
        ] {
            let expected = Some((config.to_owned(), split.to_owned()));
            assert_eq!(place(file), expected, "{file}");
        }
        assert_eq!(place("README.md"), None);
        assert_eq!(place("0000.parquet"), None);
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let all: Vec<String> = ["160px", "320px"]
            .iter()
            .flat_map(|c| {
                ["train", "validation"].map(|s| format!("{c}/{s}-00000-of-00001.parquet"))
            })
            .chain(["README.md".to_owned(), "../../x/0000.parquet".to_owned()])
            .collect();
        let wish = |names: &[&str]| vec![names.iter().map(|n| n.to_string()).collect::<Vec<_>>()];
        let chosen = choose(&all, Some("320px"), &wish(&["test", "val"])).unwrap();
        let files = vec!["320px/validation-00000-of-00001.parquet".to_owned()];
        assert_eq!(
            chosen,
            (
                "320px".to_owned(),
                Splits::from([("validation".to_owned(), files)])
            )
        );
        assert_eq!(choose(&all, Some("160px"), &[]).unwrap().1.len(), 2);
        let problem = |config, wanted: &[Vec<String>]| choose(&all, config, wanted).unwrap_err();
        let text = problem(None, &[]).unwrap();
        assert!(
            text.contains("several configurations, 160px, 320px"),
            "{text}"
        );
        let text = problem(Some("32px"), &[]).unwrap();
        assert!(
            text.contains("no configuration `32px`; it has 160px, 320px"),
            "{text}"
        );
        let text = problem(Some("320px"), &wish(&["test"])).unwrap();
        assert!(
            text.contains("no split `test`") && text.contains("train, validation"),
            "{text}"
        );
        assert_eq!(
            choose(&["README.md".to_owned()], None, &[]).unwrap_err(),
            None
        );
    }
}

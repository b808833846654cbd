//! Downloads from the hub with progress, and the datasets that manifests name there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clipood_core::{DatasetManifest, Fetched};
use clipood_hub::{DatasetName, DatasetSnapshot, Event, HubError, HubOptions, resolve_dataset};

use crate::error::{PipelineError, Result};
use crate::interrupt::Interrupt;
use crate::progress::{Reporting, StageProgress};

/// Fetches the dataset of the hub that a manifest names as its root, if it does: its root then names the commit and the
/// configuration, `splits` those that it has, and `fetched` the files on this machine. Files in the cache are not downloaded
/// again, and other manifests stay as they are.
///
/// # Errors
/// A dataset that does not exist, has no such configuration or split, or cannot be downloaded.
pub fn fetch_dataset(
    manifest: &mut DatasetManifest,
    reporting: Reporting,
    interrupt: &Interrupt,
) -> Result<()> {
    fetch_with(false, manifest, reporting, interrupt)
}

/// [`fetch_dataset`] from the cache alone: nothing is downloaded.
///
/// # Errors
/// A dataset that is not in the cache.
pub fn cached_dataset(manifest: &mut DatasetManifest) -> Result<()> {
    match fetch_with(true, manifest, Reporting::Silent, &Interrupt::default()) {
        Err(PipelineError::Hub(HubError::NotCached { name, .. })) => Err(PipelineError::Usage(
            format!("{name} is not in the cache of the hub, and nothing is downloaded here"),
        )),
        other => other,
    }
}

fn fetch_with(
    offline: bool,
    manifest: &mut DatasetManifest,
    reporting: Reporting,
    interrupt: &Interrupt,
) -> Result<()> {
    if let Some(split) = split_in_root(manifest)? {
        if !manifest.splits.is_empty() {
            return Err(PipelineError::Usage(format!(
                "dataset `{}`: found a split in `root` beside `splits`, expected one of the two",
                manifest.name
            )));
        }
        return split_with(offline, manifest, vec![split], reporting, interrupt);
    }
    let wanted = (manifest.splits.values())
        .map(|split| vec![split.to_string_lossy().into_owned()])
        .collect();
    let Some((name, snapshot)) = fetch(offline, manifest, wanted, reporting, interrupt)? else {
        return Ok(());
    };
    let roles = match manifest.splits.is_empty() {
        true => by_name(&snapshot),
        false => roles_of(&snapshot, |split| {
            let mut named = manifest.splits.iter();
            named
                .find(|(_, name)| is_same(split, &name.to_string_lossy()))
                .map(|(role, _)| role.as_str())
        }),
    };
    let splits = snapshot.splits.keys();
    let unused = splits.filter(|split| !roles.values().any(|used| used == *split));
    let unused: Vec<&str> = unused.map(String::as_str).collect();
    if !unused.is_empty() {
        reporting.say(&format!(
            "{name}: neither train, validation nor test, and not used: {}",
            unused.join(", ")
        ));
    }
    keep(manifest, &name, snapshot, roles);
    Ok(())
}

/// [`fetch_dataset`] for one split only, which becomes the test split: the first of `names` that the dataset has.
///
/// # Errors
/// As [`fetch_dataset`].
pub fn fetch_split(
    manifest: &mut DatasetManifest,
    names: Vec<String>,
    reporting: Reporting,
    interrupt: &Interrupt,
) -> Result<()> {
    split_with(false, manifest, names, reporting, interrupt)
}

fn split_with(
    offline: bool,
    manifest: &mut DatasetManifest,
    names: Vec<String>,
    reporting: Reporting,
    interrupt: &Interrupt,
) -> Result<()> {
    if let Some((name, snapshot)) = fetch(offline, manifest, vec![names], reporting, interrupt)? {
        let roles = roles_of(&snapshot, |_| Some("test"));
        keep(manifest, &name, snapshot, roles);
    }
    Ok(())
}

/// The split behind the configuration in the root of a dataset of the hub.
fn split_in_root(manifest: &DatasetManifest) -> Result<Option<String>> {
    match manifest.on_hub() {
        Some(text) => Ok(DatasetName::parse(text)?.split),
        None => Ok(None),
    }
}

/// The files of these splits, or of all, from the cache alone if `offline`; `None` for a dataset that is not on the hub.
fn fetch(
    offline: bool,
    manifest: &DatasetManifest,
    wanted: Vec<Vec<String>>,
    reporting: Reporting,
    interrupt: &Interrupt,
) -> Result<Option<(DatasetName, DatasetSnapshot)>> {
    let Some(text) = manifest.on_hub() else {
        return Ok(None);
    };
    let name = DatasetName::parse(text)?;
    let (mut hub, asked) = (HubOptions::from_env()?, name.clone());
    hub.offline |= offline;
    let snapshot = download(&name.to_string(), reporting, interrupt, move |listener| {
        resolve_dataset(&asked, &wanted, &hub, listener)
    })?;
    Ok(Some((name, snapshot)))
}

/// Writes into the manifest what was fetched: the commit, the split of the hub for each role, and the files.
fn keep(
    manifest: &mut DatasetManifest,
    name: &DatasetName,
    snapshot: DatasetSnapshot,
    roles: BTreeMap<String, String>,
) {
    let DatasetSnapshot {
        folder,
        commit,
        config,
        splits,
    } = snapshot;
    let files = roles.iter().filter_map(|(role, split)| {
        let files = splits.get(split)?;
        Some((role.clone(), pattern(files)))
    });
    manifest.fetched = Some(Fetched {
        folder,
        splits: files.collect(),
    });
    let roles = roles.into_iter();
    manifest.splits = roles
        .map(|(role, split)| (role, PathBuf::from(split)))
        .collect();
    manifest.root = format!("hub:{}@{commit}:{config}", name.name.repository).into();
}

/// The split of the dataset for each role, as `role` says.
fn roles_of<'a>(
    snapshot: &DatasetSnapshot,
    role: impl Fn(&str) -> Option<&'a str>,
) -> BTreeMap<String, String> {
    let splits = snapshot.splits.keys();
    splits
        .filter_map(|split| Some((role(split)?.to_string(), split.clone())))
        .collect()
}

/// The roles of all splits by their names. Without a test split the validation split is tested, and without that the only one.
fn by_name(snapshot: &DatasetSnapshot) -> BTreeMap<String, String> {
    let has_test = snapshot.splits.contains_key("test");
    let is_only = snapshot.splits.len() == 1;
    roles_of(snapshot, |split| match split {
        "test" => Some("test"),
        _ if is_only => Some("test"),
        "train" => Some("train"),
        _ if is_same(split, "validation") && has_test => Some("val"),
        _ if is_same(split, "validation") => Some("test"),
        _ => None,
    })
}

/// Whether two names are of one split.
fn is_same(split: &str, name: &str) -> bool {
    const VALIDATION: [&str; 4] = ["validation", "val", "valid", "dev"];
    split == name || (VALIDATION.contains(&split) && VALIDATION.contains(&name))
}

/// A pattern that the names of these files match, which differ in their numbers.
fn pattern(files: &[String]) -> PathBuf {
    let first = files.first().map(String::as_str).unwrap_or_default();
    let (mut head, mut tail) = (first.len(), first.len());
    for file in files {
        let equal =
            |pairs: &mut dyn Iterator<Item = (u8, u8)>| pairs.take_while(|(a, b)| a == b).count();
        head = head.min(equal(&mut first.bytes().zip(file.bytes())));
        tail = tail.min(equal(&mut first.bytes().rev().zip(file.bytes().rev())));
    }
    if head == first.len() {
        return PathBuf::from(first);
    }
    let tail = tail.min(first.len() - head);
    let (head, tail) = (first.get(..head), first.get(first.len() - tail..));
    PathBuf::from(format!(
        "{}*{}",
        head.unwrap_or_default(),
        tail.unwrap_or_default()
    ))
}

/// How often a download is asked whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// What a download reports to the thread that waits for it.
enum News<T> {
    Received(String, u64, Option<u64>),
    Note(String),
    End(std::result::Result<T, HubError>),
}

/// Hears what happens during a download, and answers whether to go on.
pub(crate) type Listener<'a> = &'a mut dyn FnMut(Event<'_>) -> bool;

/// The result of `work`, a download from the repository called `name`, with progress for each file that has to be downloaded.
///
/// The download has a thread of its own: looking up a host or connecting to it cannot be stopped, so after an
/// interruption that thread is left behind. It ends at its next piece, for nobody listens any more.
pub(crate) fn download<T: Send + 'static>(
    name: &str,
    reporting: Reporting,
    interrupt: &Interrupt,
    work: impl FnOnce(Listener<'_>) -> std::result::Result<T, HubError> + Send + 'static,
) -> Result<T> {
    let (sender, news) = channel();
    let download = move || {
        let end = work(&mut |event| {
            let told = match event {
                Event::Received(p) => News::Received(p.file.to_owned(), p.done, p.total),
                Event::Note(text) => News::Note(text.to_owned()),
            };
            sender.send(told).is_ok()
        });
        // Nobody waits for it after an interruption.
        let _ = sender.send(News::End(end));
    };
    let thread = std::thread::Builder::new().name("download".to_string());
    thread
        .spawn(download)
        .map_err(|source| PipelineError::File {
            path: name.to_string(),
            action: "cannot start the thread of the download",
            source,
        })?;
    let mut shown: Option<(String, u64, StageProgress)> = None;
    loop {
        interrupt.check()?;
        match news.recv_timeout(LOOK) {
            Ok(News::Received(file, done, total)) => {
                show(&mut shown, name, (file, done, total), reporting);
            }
            Ok(News::Note(text)) => reporting.say(&text),
            Ok(News::End(end)) => {
                if let Some((_, _, bar)) = shown {
                    bar.finish();
                }
                return Ok(end?);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PipelineError::Panicked {
                    stage: "fetch",
                    message: format!("the download of {name} ended without a result"),
                });
            }
        }
    }
}

/// Shows the progress of a file: its name, the bytes that are there and its size.
fn show(
    shown: &mut Option<(String, u64, StageProgress)>,
    name: &str,
    (file, done, total): (String, u64, Option<u64>),
    reporting: Reporting,
) {
    let kib = done / 1024;
    match shown {
        Some((known, before, bar)) if *known == file => {
            bar.add(kib.saturating_sub(*before));
            *before = kib;
        }
        other => {
            let total = total.unwrap_or(done) / 1024;
            let mut bar = reporting.stage("fetch", "KiB", total);
            bar.note(&format!("{name}: {file}"));
            bar.add(kib);
            if let Some((_, _, bar)) = other.replace((file, kib, bar)) {
                bar.finish();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(splits: &[&str]) -> DatasetSnapshot {
        DatasetSnapshot {
            folder: "cache".into(),
            commit: "0".repeat(40),
            config: "default".to_string(),
            splits: (splits.iter())
                .map(|split| (split.to_string(), vec![format!("data/{split}.parquet")]))
                .collect(),
        }
    }

    #[test]
    fn splits_have_the_roles_of_their_names() {
        let roles = |splits: &[&str]| -> Vec<(String, String)> {
            by_name(&snapshot(splits)).into_iter().collect()
        };
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(
            roles(&["train", "validation"]),
            [pair("test", "validation"), pair("train", "train")]
        );
        assert_eq!(
            roles(&["train", "valid", "test", "extra"]),
            [
                pair("test", "test"),
                pair("train", "train"),
                pair("val", "valid")
            ]
        );
        assert_eq!(roles(&["train"]), [pair("test", "train")]);
    }

    #[test]
    fn a_pattern_matches_the_files_of_a_split() {
        let of = |files: &[&str]| pattern(&files.iter().map(|f| f.to_string()).collect::<Vec<_>>());
        let one = "320px/validation-00000-of-00001.parquet";
        assert_eq!(of(&[one]), PathBuf::from(one));
        let two = [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
        ];
        assert_eq!(of(&two), PathBuf::from("data/train-0000*-of-00002.parquet"));
        let nine = ["t/0009.parquet", "t/0010.parquet"];
        assert_eq!(of(&nine), PathBuf::from("t/00*.parquet"));
    }
}

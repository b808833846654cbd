//! Images with equal bytes where a benchmark expects different ones: shots that are tested, in-distribution images that
//! are out-of-distribution too, and images that a set has twice.
//!
//! Files are compared by the hashes of their contents. 16 bytes are held per image: 12 of its hash, and its number. Files
//! that cannot be read and empty files are equal to no other.

use std::collections::BTreeMap;

use clipood_core::Overlap;
use serde::{Deserialize, Serialize};

use super::spool::{Rows, Spool};
use crate::error::{PipelineError, Result};
use crate::manifests::DatasetRole;
use crate::tables::ImageRow;

/// Key of the overlaps in the commit record of the in-distribution dataset's plan.
pub(super) const OVERLAPS: &str = "overlaps";
/// Pairs that are named for each two sets.
const NAMED: usize = 3;

/// Images of one set that another set, or an earlier image of the same set, has too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetOverlap {
    /// The set of the images, dataset and split, such as `textures test`.
    pub set: String,
    /// The set that has them too; the same set if it has them twice.
    pub other: String,
    /// Number of images of `set`. An image is counted once, with the first of the sets that have it: shots,
    /// in-distribution, the same set.
    pub images: usize,
    /// Whether they were left out of `set`.
    pub dropped: bool,
    /// Keys of the first of them, each with that of its equal.
    pub pairs: Vec<(String, String)>,
}

impl SetOverlap {
    /// One line for people.
    pub fn line(&self) -> String {
        let pairs = self.pairs.iter();
        let pairs: Vec<String> = pairs.map(|(a, b)| format!("{a} = {b}")).collect();
        let more = if self.images > pairs.len() {
            ", ..."
        } else {
            ""
        };
        let dropped = if self.dropped { ", left out" } else { "" };
        let what = match (self.set == self.other, self.images) {
            (true, 1) => "image repeats an earlier one of the set".to_string(),
            (true, _) => "images repeat earlier ones of the set".to_string(),
            (false, 1) => format!("image is also in {}", self.other),
            (false, _) => format!("images are also in {}", self.other),
        };
        format!(
            "{}: {} {what}{dropped} ({}{more})",
            self.set,
            self.images,
            pairs.join(", ")
        )
    }
}

/// A set of images that a plan uses.
struct Set {
    name: String,
    is_id: bool,
    kind: Kind,
    /// Number of its first image.
    start: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Train,
    Validation,
    Test,
}

/// Whether images of `later` should not be in `earlier`, which comes before it or is the same set.
fn clash(earlier: &Set, later: &Set, same: bool) -> bool {
    match (earlier.kind, later.kind) {
        (_, Kind::Train) => false,
        (Kind::Train, _) => true,
        (a, b) => same || (a == b && earlier.is_id && !later.is_id),
    }
}

/// Finds the overlaps of all sets, and leaves images out if `policy` says so. `names` are the datasets of the rows with
/// their roles, the in-distribution one first.
///
/// # Errors
/// [`PipelineError::Usage`] with `policy` [`Overlap::Error`] for any overlap, and with [`Overlap::Drop`] for a test set that
/// loses all its images; temporary files that cannot be read or written.
pub(super) fn settle(
    datasets: &mut [Rows],
    names: &[(DatasetRole, &str)],
    policy: Overlap,
) -> Result<Vec<SetOverlap>> {
    let (sets, twins) = find(datasets, names)?;
    if twins.is_empty() {
        return Ok(Vec::new());
    }
    let dropped = policy == Overlap::Drop;
    let overlaps = describe(datasets, &sets, &twins, dropped)?;
    match policy {
        Overlap::Report => {}
        Overlap::Error => {
            let lines: Vec<String> = overlaps.iter().map(SetOverlap::line).collect();
            return Err(PipelineError::Usage(format!(
                "data.overlap is `error`, and images are in two sets or twice in one: {}; remove them, or set data.overlap to \
                 `drop` or `report`",
                lines.join("; ")
            )));
        }
        Overlap::Drop => {
            let mut number = 0;
            for_each_spool(datasets, &mut |_, spool| {
                let had = spool.len();
                let images = std::mem::replace(spool, Spool::new());
                for row in images.into_rows()? {
                    let row = row?;
                    if twins
                        .binary_search_by_key(&number, |(image, _)| *image)
                        .is_err()
                    {
                        spool.push(row)?;
                    }
                    number += 1;
                }
                match had > 0 && spool.len() == 0 {
                    true => Err(PipelineError::Usage(
                        "data.overlap is `drop`, but all images of a set are in others too"
                            .to_string(),
                    )),
                    false => Ok(()),
                }
            })?;
        }
    }
    Ok(overlaps)
}

/// Calls `each` with all images that are no shots, set by set.
fn for_each_spool(
    datasets: &mut [Rows],
    each: &mut dyn FnMut(Kind, &mut Spool) -> Result<()>,
) -> Result<()> {
    for rows in datasets {
        each(Kind::Validation, &mut rows.val)?;
        each(Kind::Test, &mut rows.test)?;
    }
    Ok(())
}

/// An image whose content another has: the numbers of the image and of the earlier one. Sorted.
type Twins = Vec<(u32, u32)>;

/// The sets, and every image that clashes with an earlier one. Images are numbered set by set; the shots, which are few,
/// get the numbers after all others but count as the first.
fn find(datasets: &mut [Rows], names: &[(DatasetRole, &str)]) -> Result<(Vec<Set>, Twins)> {
    let scored: usize = datasets.iter().map(|r| r.val.len() + r.test.len()).sum();
    let shots: usize = datasets.iter().map(|r| r.train.len()).sum();
    let mut entries: Vec<([u8; 12], u32)> = Vec::with_capacity(scored + shots);
    let mut sets = Vec::new();
    let mut next = 0_u32;
    let mut enter = |row: &ImageRow| {
        if let Some(hash) = short_hash(row) {
            entries.push((hash, next));
        }
        next += 1;
        next
    };
    let mut start = 0;
    let mut spools = names.iter().flat_map(|name| [*name; 2]);
    for_each_spool(datasets, &mut |kind, spool| {
        let (role, name) = spools.next().unwrap_or((DatasetRole::Id, ""));
        let word = if kind == Kind::Test { "test" } else { "val" };
        sets.push(Set {
            name: format!("{name} {word}"),
            is_id: role == DatasetRole::Id,
            kind,
            start,
        });
        spool.for_each(|row| {
            start = enter(row);
            Ok(())
        })
    })?;
    for (rows, (_, name)) in datasets.iter().zip(names) {
        if rows.train.is_empty() {
            continue;
        }
        sets.push(Set {
            name: format!("{name} train"),
            is_id: true,
            kind: Kind::Train,
            start,
        });
        for row in &rows.train {
            start = enter(row);
        }
    }
    entries.sort_unstable();
    let mut twins = Vec::new();
    for equal in entries
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|run| run.len() > 1)
    {
        for (place, (_, image)) in equal.iter().enumerate() {
            let later = set_of(&sets, *image);
            let earlier = |(_, other): &&([u8; 12], u32)| {
                let set = set_of(&sets, *other);
                clash(&sets[set], &sets[later], set == later)
            };
            // Shots have the largest numbers, and come first.
            let shot = equal
                .iter()
                .find(|(_, other)| sets[set_of(&sets, *other)].kind == Kind::Train);
            let found = shot
                .filter(earlier)
                .or_else(|| equal[..place].iter().find(earlier));
            twins.extend(found.map(|(_, other)| (*image, *other)));
        }
    }
    twins.sort_unstable();
    Ok((sets, twins))
}

fn set_of(sets: &[Set], image: u32) -> usize {
    sets.partition_point(|set| set.start <= image)
        .saturating_sub(1)
}

/// The first 12 bytes of the hash of an image's content; `None` if there is none.
fn short_hash(row: &ImageRow) -> Option<[u8; 12]> {
    if row.length == Some(0) {
        return None;
    }
    let mut short = [0; 12];
    let digits = row.content_hash.get(..24)?;
    for (byte, pair) in short.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(short)
}

/// The twins of a pair of sets: their number, and the first of them.
type Shared = (usize, Vec<(u32, u32)>);

/// Counts the twins by their sets, and names the first.
fn describe(
    datasets: &mut [Rows],
    sets: &[Set],
    twins: &[(u32, u32)],
    dropped: bool,
) -> Result<Vec<SetOverlap>> {
    let mut by_sets: BTreeMap<(usize, usize), Shared> = BTreeMap::new();
    for (image, other) in twins {
        let entry = by_sets.entry((set_of(sets, *image), set_of(sets, *other)));
        let (count, first) = entry.or_default();
        *count += 1;
        if first.len() < NAMED {
            first.push((*image, *other));
        }
    }
    let named = by_sets.values().flat_map(|(_, first)| first);
    let mut keys: BTreeMap<u32, String> = named
        .flat_map(|(image, other)| [(*image, String::new()), (*other, String::new())])
        .collect();
    let mut number = 0;
    let mut name = |row: &ImageRow| {
        if let Some(key) = keys.get_mut(&number) {
            key.clone_from(&row.image_key);
        }
        number += 1;
    };
    for_each_spool(datasets, &mut |_, spool| {
        spool.for_each(|row| {
            name(row);
            Ok(())
        })
    })?;
    for rows in datasets.iter() {
        rows.train.iter().for_each(&mut name);
    }
    let key = |image: &u32| keys.get(image).cloned().unwrap_or_default();
    let overlaps = by_sets
        .iter()
        .map(|((set, other), (images, first))| SetOverlap {
            set: sets[*set].name.clone(),
            other: sets[*other].name.clone(),
            images: *images,
            dropped,
            pairs: first.iter().map(|(a, b)| (key(a), key(b))).collect(),
        });
    Ok(overlaps.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, content: &str) -> ImageRow {
        let unreadable = content.is_empty();
        ImageRow {
            image_key: key.to_string(),
            content_hash: match unreadable {
                true => String::new(),
                false => blake3::hash(content.as_bytes()).to_hex().to_string(),
            },
            length: Some(if content == "zero" { 0 } else { 5 }),
            ..ImageRow::default()
        }
    }

    fn spool(name: &str, contents: &[&str]) -> Spool {
        let mut spool = Spool::new();
        for (i, content) in contents.iter().enumerate() {
            spool.push(row(&format!("{name}/{i}"), content)).unwrap();
        }
        spool
    }

    fn datasets() -> Vec<Rows> {
        let shots = ["s0", "s1", "s1"];
        let shots = shots.iter().enumerate();
        vec![
            Rows {
                test: spool("id", &["a", "s1", "b", "b", "", "zero", "zero"]),
                val: spool("v", &["v0", "s0"]),
                train: shots.map(|(i, s)| row(&format!("shot/{i}"), s)).collect(),
            },
            Rows {
                test: spool("near", &["a", "c", "", "b", "s0"]),
                val: Spool::new(),
                train: Vec::new(),
            },
            Rows {
                test: spool("far", &["c", "d", "zero"]),
                val: Spool::new(),
                train: Vec::new(),
            },
            Rows {
                test: Spool::new(),
                val: spool("wild", &["v0", "w"]),
                train: Vec::new(),
            },
        ]
    }

    const NAMES: [(DatasetRole, &str); 4] = [
        (DatasetRole::Id, "id"),
        (DatasetRole::Ood, "near"),
        (DatasetRole::Ood, "far"),
        (DatasetRole::ValidationOod, "wild"),
    ];

    #[test]
    fn every_clash_is_counted_once_and_unreadable_files_are_equal_to_none() {
        let mut rows = datasets();
        let found = settle(&mut rows, &NAMES, Overlap::Report).unwrap();
        let short: Vec<(&str, &str, usize)> = found
            .iter()
            .map(|o| (o.set.as_str(), o.other.as_str(), o.images))
            .collect();
        // `c`, in two out-of-distribution sets, is no clash; `zero` and files that cannot be read are none either.
        assert_eq!(
            short,
            [
                ("id val", "id train", 1),
                ("id test", "id test", 1),
                ("id test", "id train", 1),
                ("near test", "id test", 2),
                ("near test", "id train", 1),
                ("wild val", "id val", 1),
            ]
        );
        assert_eq!(found[1].pairs, [("id/3".to_string(), "id/2".to_string())]);
        assert_eq!(found[2].pairs, [("id/1".to_string(), "shot/1".to_string())]);
        assert_eq!(rows[0].test.len(), 7);
        assert!(
            found[3].line().contains("near/0 = id/0"),
            "{}",
            found[3].line()
        );
    }

    #[test]
    fn dropping_leaves_the_rest_in_order_and_nothing_to_report() {
        let mut rows = datasets();
        let found = settle(&mut rows, &NAMES, Overlap::Drop).unwrap();
        assert!(found.iter().all(|overlap| overlap.dropped));
        let mut keys = Vec::new();
        for_each_spool(&mut rows, &mut |_, spool| {
            spool.for_each(|row| {
                keys.push(row.image_key.clone());
                Ok(())
            })
        })
        .unwrap();
        assert_eq!(
            keys,
            [
                "v/0", "id/0", "id/2", "id/4", "id/5", "id/6", "near/1", "near/2", "far/0",
                "far/1", "far/2", "wild/1"
            ]
        );
        assert_eq!(settle(&mut rows, &NAMES, Overlap::Error).unwrap(), []);
        let error = settle(&mut datasets(), &NAMES, Overlap::Error).unwrap_err();
        assert!(error.to_string().contains("data.overlap"), "{error}");
    }
}

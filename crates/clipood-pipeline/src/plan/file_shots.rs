//! Shots that files name, instead of a draw: the images of the split files of `data.few_shot`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use clipood_core::key_part;
use clipood_data::{
    ClassShots, DataError, FewShotSplit, ImageRecord, Split, SplitFile, SplitImage,
};

use crate::error::{PipelineError, Result};
use crate::job::Job;

/// The files, by seed.
pub(super) struct FileShots {
    files: BTreeMap<u64, (String, SplitFile)>,
    /// By the last component of the path: its components as they stand in keys.
    paths: HashMap<String, BTreeSet<String>>,
}

impl FileShots {
    /// Reads the files of a recipe that needs `shots` shots; `None` if its shots are drawn, or if it needs none.
    ///
    /// # Errors
    /// A file that cannot be read, that is not the one of the run's configuration, or that has no training image.
    pub fn read(job: &Job, shots: Option<usize>) -> Result<Option<Self>> {
        let experiment = &job.experiment;
        let recipe = &experiment.recipe;
        let Some(shots) = shots else {
            return Ok(None);
        };
        let mut shots_of = Self {
            files: BTreeMap::new(),
            paths: HashMap::new(),
        };
        for seed in &recipe.seeds {
            let Some(file) = recipe.data.few_shot_file(shots, *seed) else {
                return Ok(None);
            };
            let split = experiment.manifests.open_split(&file, &job.places.data)?;
            shots_of.add(*seed, file, split)?;
        }
        Ok(Some(shots_of))
    }

    fn add(&mut self, seed: u64, file: String, split: SplitFile) -> Result<()> {
        if split.part(Split::Train).next().is_none() {
            let problem = format!("split file {file}: it lists no training image");
            return Err(PipelineError::Usage(problem));
        }
        for image in split.part(Split::Train) {
            let path = keyed(&image.path);
            let entry = self.paths.entry(last(&path).to_string()).or_default();
            entry.insert(path);
        }
        self.files.insert(seed, (file, split));
        Ok(())
    }

    /// Whether a file names this image.
    pub fn name(&self, record: &ImageRecord) -> bool {
        let path = path_in_key(&record.image_key);
        let named = self.paths.get(last(path));
        named.is_some_and(|named| named.iter().any(|named| same(named, path)))
    }

    /// The shots of a seed among the training images: for each class that `is_chosen` the first `shots` of the file, or with
    /// `allow_fewer` as many as there are.
    ///
    /// # Errors
    /// Images that the dataset does not have among its training images, or has twice; classes that are not those of the
    /// dataset; too few shots.
    pub fn split(
        &self,
        dataset: &str,
        train: &[ImageRecord],
        seed: u64,
        (shots, allow_fewer): (usize, bool),
        is_chosen: impl Fn(u32) -> bool,
    ) -> Result<FewShotSplit> {
        let Some((file, split)) = self.files.get(&seed) else {
            let problem = format!("no split file of seed {seed}");
            return Err(PipelineError::Inconsistent(problem));
        };
        let wrong = |problem: String| {
            Err(PipelineError::Usage(format!(
                "split file {file}: {problem}"
            )))
        };
        let mut by_name: HashMap<&str, Vec<&ImageRecord>> = HashMap::new();
        for record in train.iter().filter(|record| record.split == Split::Train) {
            let path = path_in_key(&record.image_key);
            by_name.entry(last(path)).or_default().push(record);
        }
        let mut missing: Vec<&str> = Vec::new();
        let mut classes: BTreeMap<u32, (&ImageRecord, &SplitImage)> = BTreeMap::new();
        let mut labels: BTreeMap<u32, u32> = BTreeMap::new();
        let mut keys: BTreeMap<(String, u32), Vec<String>> = BTreeMap::new();
        for image in split.part(Split::Train) {
            let path = keyed(&image.path);
            let candidates = by_name.get(last(&path)).into_iter().flatten();
            let found: Vec<&&ImageRecord> = candidates
                .filter(|record| same(&path, path_in_key(&record.image_key)))
                .collect();
            let record = match found.as_slice() {
                [] => {
                    missing.push(&image.path);
                    continue;
                }
                [record] => **record,
                [first, second, ..] => {
                    return wrong(format!(
                        "`{}` may be {} or {}; give more of its path",
                        image.path, first.image_key, second.image_key
                    ));
                }
            };
            let (Some(label), Some(name)) = (record.label, &record.class_name) else {
                continue;
            };
            // Labels may be counted in another way, but a class of the file is a class of the dataset.
            let (other, twin) = *classes.entry(label).or_insert((record, image));
            let back = *labels.entry(image.label).or_insert(label);
            if twin.label != image.label || back != label {
                return wrong(format!(
                    "`{}` has label {} (`{}`), but dataset `{dataset}` has it in class {label} (`{name}`), to which {} with label \
                     {} (`{}`) belongs; the classes of the two are not the same",
                    image.path,
                    image.label,
                    image.class_name,
                    other.image_key,
                    twin.label,
                    twin.class_name
                ));
            }
            if is_chosen(label) {
                let class = keys.entry((name.clone(), label)).or_default();
                class.push(record.image_key.clone());
            }
        }
        if let Some(first) = missing.first() {
            return wrong(format!(
                "{} of its {} training images are not among those of dataset `{dataset}`; the first is {first}",
                missing.len(),
                split.part(Split::Train).count()
            ));
        }
        let mut drawn = Vec::with_capacity(keys.len());
        for ((name, _), mut keys) in keys {
            if keys.len() < shots && !allow_fewer {
                return Err(PipelineError::from(DataError::TooFewShots {
                    dataset: format!("{dataset}` in split file `{file}"),
                    class: name,
                    found: keys.len(),
                    wanted: shots,
                }));
            }
            keys.truncate(shots);
            drawn.push(ClassShots { name, keys });
        }
        Ok(FewShotSplit {
            dataset: dataset.to_string(),
            shots,
            seed,
            classes: drawn,
        })
    }
}

/// The path of a split file as it stands in keys.
fn keyed(path: &str) -> String {
    let parts: Vec<String> = Path::new(path).iter().map(key_part).collect();
    parts.join("/")
}

/// The path in a key: what follows the dataset and the split.
fn path_in_key(key: &str) -> &str {
    key.splitn(3, '/').nth(2).unwrap_or_default()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether two paths are of one file: the components of the shorter one are the last ones of the other.
fn same(a: &str, b: &str) -> bool {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    long.strip_suffix(short)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use clipood_data::Source;

    use super::*;

    fn records() -> Vec<ImageRecord> {
        let classes = ["cat", "dog"];
        let record = |(label, image): (u32, u32)| {
            let name = classes[label as usize];
            ImageRecord {
                image_key: format!("pets/train/{name}/{image}.png"),
                source: Source::whole(""),
                split: Split::Train,
                label: Some(label),
                class_name: Some(name.to_string()),
            }
        };
        let images = (0..2).flat_map(|label| (0..5).map(move |image| (label, image)));
        images.map(record).collect()
    }

    fn shots(rows: &[(&str, u32)]) -> FileShots {
        let image = |(path, label): &(&str, u32)| SplitImage {
            path: path.to_string(),
            split: Split::Train,
            label: *label,
            class_name: format!("class {label}"),
        };
        let split = SplitFile::of(rows.iter().map(image).collect()).unwrap();
        let mut shots = FileShots {
            files: BTreeMap::new(),
            paths: HashMap::new(),
        };
        shots.add(1, "shots.pkl".to_string(), split).unwrap();
        shots
    }

    fn drawn(shots: &FileShots, count: usize) -> std::result::Result<Vec<Vec<String>>, String> {
        let split = shots.split("pets", &records(), 1, (count, false), |_| true);
        let split = split.map_err(|e| e.to_string())?;
        Ok(split.classes.into_iter().map(|class| class.keys).collect())
    }

    #[test]
    fn the_shots_are_those_of_the_file_in_its_order() {
        // Labels of another order, and paths of another machine.
        let shots = shots(&[
            ("/home/k/pets/train/dog/3.png", 0),
            ("/home/k/pets/train/cat/4.png", 1),
            ("/home/k/pets/train/dog/1.png", 0),
            ("/home/k/pets/train/cat/0.png", 1),
        ]);
        assert_eq!(
            drawn(&shots, 2).unwrap(),
            [
                ["pets/train/cat/4.png", "pets/train/cat/0.png"],
                ["pets/train/dog/3.png", "pets/train/dog/1.png"]
            ]
        );
        assert_eq!(drawn(&shots, 1).unwrap()[1], ["pets/train/dog/3.png"]);
        let named: Vec<bool> = records().iter().map(|record| shots.name(record)).collect();
        let expected = [
            true, false, false, false, true, false, true, false, true, false,
        ];
        assert_eq!(named, expected);
        let problem = drawn(&shots, 3).unwrap_err();
        assert!(
            problem.contains("`shots.pkl`: class `cat` has 2"),
            "{problem}"
        );
        let split = shots.split("pets", &records(), 1, (2, false), |label| label == 1);
        assert_eq!(split.unwrap().classes.len(), 1);
    }

    #[test]
    fn what_does_not_fit_the_dataset_is_named() {
        let problem = drawn(
            &shots(&[("cat/0.png", 0), ("cat/9.png", 0), ("dog/0.png", 1)]),
            1,
        );
        let problem = problem.unwrap_err();
        assert!(
            problem.contains("1 of its 3 training images")
                && problem.contains("the first is cat/9.png"),
            "{problem}"
        );
        let problem = drawn(&shots(&[("cat/0.png", 0), ("dog/0.png", 0)]), 1).unwrap_err();
        assert!(problem.contains("`dog/0.png` has label 0"), "{problem}");
        let problem = drawn(&shots(&[("cat/0.png", 0), ("cat/1.png", 1)]), 1).unwrap_err();
        assert!(problem.contains("in class 0 (`cat`)"), "{problem}");
        let problem = drawn(&shots(&[("0.png", 0), ("dog/1.png", 1)]), 1).unwrap_err();
        assert!(
            problem.contains("may be pets/train/cat/0.png or pets/train/dog/0.png"),
            "{problem}"
        );
    }
}

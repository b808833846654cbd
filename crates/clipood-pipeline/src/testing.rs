//! A small run for unit tests: tiny pictures in a temporary folder, stores in memory, and a device that computes
//! nothing.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;

use clipood_core::{DatasetManifest, Recipe};
use clipood_store::{Share, Store};
use tempfile::TempDir;

use crate::error::Result;
use crate::experiment::{Experiment, Numerics};
use crate::interrupt::Interrupt;
use crate::job::Job;
use crate::journal::Journal;
use crate::manifests::Manifests;
use crate::models::open_named;
use crate::places::{ChangedData, Places, Stores};
use crate::progress::Reporting;
use crate::worker::Worker;

/// Classes of the in-distribution set.
pub const CLASSES: [&str; 3] = ["fish", "house", "star"];
/// Training and test images per class.
pub const PER_CLASS: usize = 3;
/// Images of each OOD set.
pub const OOD: usize = 4;

/// Hand-written and trained prompts, a probe, and detectors that are fitted on shots, on words, on nothing and on a stream.
const RECIPE: &str = r#"
name = "tiny"
model = "demo"
methods = ["zero-shot", "dplocoop", "linear-probe"]
shots = [2]
seeds = [1]
detectors = ["mcm", "msp", "knn:k=2", "mahalanobis", "one_class_svm", "neglabel", "unknown_prompt", "oodd:batch=3"]
[data]
id = "id"
ood = ["near", "far"]
[streams]
orders = [4]
[prompt]
n_ctx = 2
[train]
epochs = 2
views = 2
[engine]
shard_bytes = 20000
[metrics]
bootstrap = 10
[negative_labels]
[[negative_labels.lists]]
words = "nouns"
"#;

/// Pictures on disk, everything else in memory.
pub struct World {
    /// Holds the pictures.
    pub folder: TempDir,
    /// The run directory.
    pub run: Store,
    /// Features and prompts.
    pub shared: Store,
}

impl World {
    /// Draws the pictures.
    pub fn new() -> Self {
        let world = Self {
            folder: TempDir::new().unwrap(),
            run: Store::memory(),
            shared: Store::memory(),
        };
        for (c, class) in CLASSES.into_iter().enumerate() {
            for split in ["train", "test"] {
                let seed = 40 * c + usize::from(split == "test") * 7;
                world.draw(&format!("id/{split}/{class}"), PER_CLASS, seed);
            }
        }
        world.draw("near/any", OOD, 150);
        world.draw("far/any", OOD, 200);
        world
    }

    fn draw(&self, folder: &str, count: usize, seed: usize) {
        let folder = self.data().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            // A PPM of 8 x 8 pixels.
            let mut bytes = b"P6 8 8 255 ".to_vec();
            bytes.extend((0..192).map(|i| (i * (number + 3) + seed * 11) as u8));
            std::fs::write(folder.join(format!("{number}.ppm")), bytes).unwrap();
        }
    }

    /// Folder of the pictures.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// The recipe as text.
    pub fn recipe() -> String {
        RECIPE.to_string()
    }

    /// Worker `index` of `count` on the recipe.
    pub fn job(&self, index: usize, count: usize) -> Job {
        self.job_of(RECIPE, index, count).unwrap()
    }

    /// Worker `index` of `count` on another recipe.
    pub fn job_of(&self, recipe: &str, index: usize, count: usize) -> Result<Job> {
        let manifest = |text: &str| DatasetManifest::parse(text, "test").unwrap();
        let ood = |name: &str| {
            manifest(&format!(
                "name = \"{name}\"\nrole = \"ood\"\nlayout = \"image-folder\"\nroot = \"{name}\"\n"
            ))
        };
        let id = "name = \"id\"\nrole = \"id\"\nlayout = \"image-folder\"\nroot = \"id\"\n\
                  [splits]\ntrain = \"train\"\ntest = \"test\"\n";
        let words = "[{\"name\": \"nouns\", \"words\": [\"boat\", \"lamp\", \"cloud\", \"chair\", \"violin\", \"shoe\", \
                     \"apple\", \"bridge\"]}]";
        let manifests = Manifests {
            id: manifest(id),
            ood: vec![ood("near"), ood("far")],
            validation_ood: Vec::new(),
            words: serde_json::from_str(words).unwrap(),
            splits: Vec::new(),
        };
        let devices = "sim:100000,sim:100000".parse().unwrap();
        let model = open_named("demo", &Default::default(), Reporting::Silent)?;
        let numerics = Numerics::of(&devices);
        let recipe = Recipe::parse(recipe, "test")?;
        let experiment = Experiment::new(recipe, manifests, model, numerics)?;
        let name = format!("worker-{index}");
        let stores = Stores {
            run: self.run.clone(),
            shared: self.shared.clone(),
        };
        let data = (self.data().to_path_buf(), ChangedData::Refuse);
        let places = Places::open(&experiment, stores, "the run".to_string(), data, &name)?;
        Ok(Job {
            worker: Worker {
                devices,
                share: Share {
                    index,
                    count,
                    backups: true,
                },
                patience: crate::worker::PATIENCE,
                waits: false,
                reporting: Reporting::Silent,
                journal: Journal::new(places.run.store(), &name),
                judge: None,
                interrupt: Interrupt::default(),
            },
            experiment,
            places,
        })
    }
}

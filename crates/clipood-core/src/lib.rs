//! Identifiers, fingerprints, recipes, manifests and errors of clipood, and the opening of files and texts; no other I/O.
//!
//! A recipe describes what to compute, a dataset manifest where the images of a dataset are, a cluster manifest how a run
//! is submitted. All are TOML text read by the caller; every mistake is reported as a [`CoreError`] with file, line, key and the nearest valid word:
//!
//! ```
//! use clipood_core::{FingerprintBuilder, Method, Overrides, Recipe};
//!
//! let text = r#"
//! name = "birds"
//! model = "openai/clip-vit-base-patch16"
//! methods = ["zero-shot", "coop"]
//! shots = [16]
//! seeds = [1, 2, 3]
//! detectors = ["mcm"]
//!
//! [data]
//! id = "birds"
//! ood = ["planes"]
//! "#;
//! let mut recipe = Recipe::parse(text, "pipelines/birds.toml")?;
//! assert_eq!(recipe.train.epochs_for(Method::Coop), 50);
//!
//! recipe.apply_overrides(&Overrides { shots: Some(vec![4]), ..Overrides::default() });
//! recipe.validate()?;
//!
//! let fingerprint = FingerprintBuilder::new("recipe").field("recipe", &recipe).finish()?;
//! assert_eq!(fingerprint.short().len(), 12);
//!
//! let wrong = text.replace("shots", "shot");
//! let error = Recipe::parse(&wrong, "pipelines/birds.toml").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "pipelines/birds.toml:5: unknown key `shot`; did you mean `shots`?"
//! );
//! # Ok::<(), clipood_core::CoreError>(())
//! ```

mod class_folders;
mod class_list;
mod class_texts;
mod cluster;
mod document;
mod error;
pub mod files;
mod fingerprint;
mod image_key;
mod manifest;
mod messages;
mod method;
mod nearest;
pub mod pickle;
mod place;
mod printable;
mod recipe;
mod rng;
mod schema;
pub mod text_file;

pub use class_folders::{ImageFolder, classes_of_folders};
pub use class_list::{ClassList, distinct_names, equal_names};
pub use class_texts::{DescriptionFormat, class_descriptions, spaced};
pub use cluster::{
    ClusterManifest, Engine, JobResources, KubernetesSection, Memory, Rates, Resources,
    SlurmSection, TimeLimit,
};
pub use error::{CoreError, Place};
pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use image_key::image_key;
pub use manifest::{About, Columns, DatasetManifest, Fetched, Layout, Role};
pub use messages::without_controls;
pub use method::Method;
pub use nearest::nearest;
pub use place::{is_url, join};
pub use printable::{counted, first_of, key_part, shown, stored, unstored};
pub use recipe::{
    ClassToken, DataSection, DualPatternSection, EngineSection, LinearProbeSection, LocoopSection,
    MetricsSection, NegativeLabelsSection, NegativeRule, NegpromptSection, Overlap, Overrides,
    PromptSection, PublishedSection, Recipe, Resize, SelectSection, StreamsSection,
    SubsampleClasses, TemplateSet, TrainSection, WordListSection,
};
pub use rng::SplitMix64;
pub use schema::{cluster_schema, manifest_schema, recipe_schema};

//! The stages of clipood from plan to report, joined by bounded channels.
//!
//! # How to
//! Open a [`Job`] and [`run`] it; the second call of a finished run reads its tables and does no work.
//!
//! ```no_run
//! use clipood_pipeline::{Interrupt, Job, JobOptions, Reporting, console, run};
//!
//! let text = std::fs::read_to_string("pipelines/demo.toml")?;
//! let job = Job::open(JobOptions {
//!     recipe: clipood_core::Recipe::parse(&text, "pipelines/demo.toml")?,
//!     manifests: "manifests/datasets".into(),
//!     data: "data".into(),
//!     store: "store".into(),
//!     run: None,
//!     device: "auto".parse()?,
//!     reporting: Reporting::Human,
//!     interrupt: Interrupt::default(),
//! })?;
//! println!("{}", console(&run(&job)?.metrics));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The data flows forward: [`plan()`] lists and hashes images, [`extract()`] puts features into the store,
//! [`prompt_sets`] makes the text sides, [`score()`] writes a row an image, [`aggregate()`] the metrics.

mod aggregate;
mod agreement;
mod columns;
mod devices;
mod dual_pattern;
mod encode;
mod error;
mod extract;
mod features;
mod inputs;
mod interrupt;
mod job;
mod journal;
mod memory;
mod models;
mod negative;
mod panics;
mod plan;
mod progress;
mod prompts;
mod quarantine;
mod read_file;
#[cfg(test)]
mod recipe_fuzz;
mod report;
mod run;
mod score;
mod status;
pub mod tables;
mod zero_shot;

pub use aggregate::{AVERAGE, DUAL_PATTERN, Metrics, aggregate, read_metrics};
pub use clipood_store::{Share, Store};
pub use columns::{Candidates, ScoreColumn};
pub use encode::{
    BatchSink, Clock, EVAL_VIEW, EncodeEvent, EncodedImage, Engine, FILE_BATCH, UnitSink,
    Unreadable, decode_files, encode_files, read_eval_view,
};
pub use error::{PipelineError, Result};
pub use extract::{ExtractUnit, FeatureIndex, extract, feature_index};
pub use interrupt::Interrupt;
pub use job::{Features, Job, JobOptions, RESULTS_VERSION, RunOptions, open_manifest};
pub use journal::{LastWord, StageWord, State};
pub use models::{NamedModel, open_model, open_named};
pub use panics::panic_message;
pub use plan::{Plan, PlannedDataset, PlannedImage, PlannedShard, Purpose, list_images, plan};
pub use progress::{Reporting, StageProgress};
pub use prompts::{PromptKey, PromptSet, prompt_keys, prompt_sets};
pub use report::{ZeroShotPage, console, write_html};
pub use run::{Outcome, run};
pub use score::score;
pub use status::{
    Audit, DatasetStatus, Explanation, Garbage, ReasonCount, StageStatus, Status, audit,
    collect_garbage, explain, find_garbage, status,
};
pub use zero_shot::{ClassCounts, Classified, Classifier, ImageOutcome, Tally, classify_files};

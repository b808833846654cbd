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
//!     accept_changed_data: false,
//!     store: "store".into(),
//!     run: None,
//!     device: "auto".parse()?,
//!     reporting: Reporting::Human,
//!     interrupt: Interrupt::default(),
//! })?;
//! println!("{}", console(&run(&job)?.metrics, &[]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The data flows through the stages of [`STAGES`] in order: `plan` lists and hashes images, `extract` stores features,
//! `negative` and `train` make text features, `fit` fits the detectors, `score` writes one row per image, `aggregate`
//! computes metrics, `report` writes the page. A [`Job`] consists of an [`Experiment`] (what to compute), its
//! [`Places`] (where the data are) and a [`Worker`] (who computes); [`Planned`] lists the units of every stage before
//! any of them is done.

mod agreement;
pub mod builtin;
mod class_templates;
mod columns;
mod damage;
mod devices;
mod dual_pattern;
mod encode;
mod error;
mod estimate;
mod experiment;
mod extract;
pub mod feature_checks;
mod features;
pub mod finetune;
mod heap;
mod hub;
mod inputs;
mod interrupt;
mod job;
mod journal;
mod manifests;
mod metrics;
mod models;
mod negative;
mod nesting;
mod noise;
mod panics;
mod places;
mod plan;
mod planned;
mod progress;
mod prompts;
mod quarantine;
#[cfg(test)]
mod recipe_fuzz;
pub mod regions;
mod report;
mod run;
pub mod search;
mod splits;
mod stages;
mod status;
mod sync;
pub mod tables;
#[cfg(test)]
mod testing;
mod words;
mod worker;
mod zero_shot;

pub use clipood_store::{Share, Store};
pub use encode::{
    BatchSink, Clock, EVAL_VIEW, EncodeEvent, EncodedImage, Engine, FILE_BATCH, UnitSink,
    Unreadable, decode_files, encode_files, read_eval_view, read_eval_view_as,
};
pub use error::{PipelineError, Result, exit_code};
pub use estimate::{Estimate, estimate};
pub use experiment::Experiment;
pub use extract::{JUDGE, decode_alone};
pub use hub::{cached_dataset, fetch_dataset, fetch_split};
pub use interrupt::Interrupt;
pub use job::{Job, JobOptions, RunOptions, check_run, report_failure};
pub use journal::{State, WorkerStatus};
pub use manifests::{manifest_of_hub, open_manifest};
pub use metrics::{Metrics, read_metrics};
pub use models::{open_model, open_named};
pub use panics::panic_message;
pub use places::{ChangedData, Places};
pub use plan::{SetOverlap, draw_demo, find_sources, list_images, report_left_out};
pub use planned::Planned;
pub use progress::{Reporting, tell};
pub use prompts::file::PromptSet;
pub use prompts::words::nearest_tokens;
pub use report::{
    By, Cell, Comparison, PUBLISHED_NOTE, RegionsPage, SeenImage, Sheet, SheetGroup, SheetImage,
    Spread, Table, View, ZeroShotPage, bars, compare_runs, console, kept_published, notes,
    page_files, published, published_table, report_table,
};
pub use run::{run, run_only};
pub use splits::split_of;
pub use stages::report::Outcome;
pub use stages::{STAGES, Stage, stages_called};
pub use status::{
    Audit, Explanation, Garbage, Pace, Status, audit, collect_garbage, explain, find_garbage,
    status, status_of,
};
pub use worker::{PATIENCE, Worker};
pub use zero_shot::{ClassCounts, Classifier, Tally, classify_files};

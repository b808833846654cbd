//! The Parquet tables of a run and of the feature store: plain rows in memory, whole files as bytes.
//!
//! A writer takes rows and a [`FileMeta`] and returns the finished file; a reader takes the file's bytes and its name,
//! which is part of every error. Row order is kept. Nothing here accesses a disk: the store publishes complete parts.
//!
//! ```
//! use clipood_pipeline::tables::{FileMeta, TrainLogRow, read_footer, read_train_log, write_train_log};
//!
//! let rows = vec![TrainLogRow { epoch: 0, step: 2, loss: 2.5, accuracy: 0.25, lr: 1e-5 }];
//! let meta = FileMeta { fingerprint: "0123456789abcdef".into(), recipe: "demo".into(), ..FileMeta::default() };
//! let bytes = bytes::Bytes::from(write_train_log(&rows, &meta)?);
//! assert_eq!(read_footer(&bytes, "train_log.parquet")?.rows, 1);
//! assert_eq!(read_train_log(bytes, "train_log.parquet")?, rows);
//! # Ok::<(), clipood_pipeline::tables::TableError>(())
//! ```

mod column;
mod error;
mod features;
mod file;
mod files;
mod footer;
mod guard;
mod images;
mod metrics;
mod quarantine;
mod scores;
mod streams;
mod train_log;

pub use column::dictionary;
pub use error::TableError;
pub use features::{
    GlobalFeatures, GlobalType, LocalFeatures, read_global, read_local, write_global, write_local,
};
pub use files::{FileRow, read_files, write_files};
pub use footer::{
    FileMeta, Footer, QuarantineRow, SCHEMA_VERSION, SEAL, read_footer, store_footer,
};
pub use images::{ImageRow, read_images, write_images};
pub use metrics::{
    AccuracyRow, OodRow, PairedRow, SummaryRow, read_accuracy, read_ood, read_paired, read_summary,
    write_accuracy, write_ood, write_paired, write_summary,
};
pub use quarantine::{read_quarantine, write_quarantine};
pub use scores::{
    DetectorScores, ScoreRow, ScoreValues, Scores, read_score_values, read_scores, write_scores,
};
pub use streams::{StreamRow, read_streams, write_streams};
pub use train_log::{TrainLogRow, read_train_log, write_train_log};

//! Checkpoints and datasets by name from the Hugging Face hub, through the cache that is shared with the tools of Hugging Face.
//!
//! [`resolve`] turns a name (`openai/clip-vit-base-patch16`, `hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K@main`) into a folder
//! with the configuration and the weights, and the commit they belong to. Files in the cache are not downloaded again; missing
//! ones are downloaded, resuming where an earlier attempt stopped, and checked against the hash stated by the hub.
//!
//! ```no_run
//! use clipood_hub::{HubOptions, Name, resolve};
//!
//! if let Some(name) = Name::parse("openai/clip-vit-base-patch16")? {
//!     let snapshot = resolve(&name, &HubOptions::from_env()?, &mut |event| {
//!         println!("{event:?}");
//!         true // go on
//!     })?;
//!     println!("{} at {}", snapshot.folder.display(), snapshot.commit);
//! }
//! # Ok::<(), clipood_hub::HubError>(())
//! ```
//!
//! [`resolve_dataset`] does the same for the Parquet files of a dataset.
//!
//! The environment is read as `huggingface_hub` reads it: `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`,
//! `HF_TOKEN_PATH`, `HF_ENDPOINT`, and the usual proxy variables. A server that is slow, endless or asks to wait for long is
//! given up; [`HubOptions`] has the limits and the variables that change them.

mod cache;
mod client;
mod dataset;
mod error;
mod event;
mod files;
mod limits;
mod name;
mod options;
mod resolve;

pub use dataset::{DatasetName, DatasetSnapshot, resolve_dataset};
pub use error::HubError;
pub use event::{Event, Progress};
pub use name::Name;
pub use options::HubOptions;
pub use resolve::{Snapshot, resolve};

//! Figures from papers that a recipe names. They determine no result, so they are in no fingerprint and not in `run.json`; a file
//! beside it keeps them for the workers of the run and for later reports.

use bytes::Bytes;
use clipood_core::PublishedSection;
use clipood_store::seal_json;
use serde::{Deserialize, Serialize};

use crate::error::{PipelineError, Result};
use crate::job::Job;

const PATH: &str = "_run/published.json";

/// The file: a JSON object with a seal.
#[derive(Serialize, Deserialize)]
struct Kept {
    published: Vec<PublishedSection>,
}

/// Writes the published figures of the recipe into the run directory, if it names any.
///
/// # Errors
/// A run directory that cannot be written.
pub fn keep_published(job: &Job) -> Result<()> {
    let own = &job.experiment.recipe.published;
    if own.is_empty() {
        return Ok(());
    }
    let kept = Kept {
        published: own.clone(),
    };
    let json = serde_json::to_vec_pretty(&kept)
        .map_err(|e| PipelineError::Inconsistent(format!("{PATH}: {e}")))?;
    let json = seal_json(json);
    let store = job.places.run.store();
    if store.get(PATH)?.as_deref() != Some(json.as_slice()) {
        store.put(PATH, Bytes::from(json))?;
    }
    Ok(())
}

/// The published figures of the recipe, or those that an earlier call has kept.
///
/// # Errors
/// A file that cannot be read.
pub fn published(job: &Job) -> Result<Vec<PublishedSection>> {
    let own = &job.experiment.recipe.published;
    if !own.is_empty() {
        return Ok(own.clone());
    }
    match job.places.run.store().get(PATH)? {
        None => Ok(Vec::new()),
        Some(bytes) => match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) => Ok(kept.published),
            Err(e) => {
                let file = job.places.run.store().display(PATH);
                Err(PipelineError::Inconsistent(format!(
                    "{file}: {e}; remove it, `clipood run` writes it again"
                )))
            }
        },
    }
}

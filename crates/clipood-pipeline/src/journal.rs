//! The status that each worker reports of itself, for `clipood status`: `_run/log/<worker>.json` in the run directory.
//!
//! What is done follows from commits alone. A killed worker no longer updates its status; others that wait for it notice that.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clipood_store::{RetryPolicy, Seal, Store, check_json_seal, seal_json};
use serde::{Deserialize, Serialize};

use crate::error::PipelineError;

/// Folder of the journals in a run directory.
const FOLDER: &str = "_run/log";
/// Shortest time between two reports of a stage.
pub const EVERY: Duration = Duration::from_secs(5);

/// What a worker was doing when it reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A stage is in progress.
    Working,
    /// It waits for units of other workers, whose number is `total` of the stage.
    Waiting,
    /// All stages are done.
    Finished,
    /// It was interrupted.
    Interrupted,
    /// It ended with an error.
    Failed,
}

/// Status of a worker, as last reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its name.
    pub worker: String,
    /// What it was doing.
    pub state: State,
    /// The stage it was working on, if any.
    pub stage: Option<StageReport>,
    /// Why it failed.
    pub error: Option<String>,
    /// Time of the report, in seconds since 1970 by the worker's clock. It is displayed, and its change is a sign of life; clocks may differ.
    pub at: u64,
}

/// Progress of a worker in a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Name of the stage.
    pub name: String,
    /// What `done` and `total` count.
    pub unit: String,
    /// Pieces done by this process.
    pub done: u64,
    /// Pieces that were open when the worker began the stage; other workers may do some of them.
    pub total: u64,
    /// Pieces per second.
    pub rate: f64,
    /// Remaining seconds at this rate.
    pub left: f64,
}

/// The journal of one worker.
#[derive(Debug, Clone)]
pub struct Journal {
    store: Store,
    worker: String,
}

impl Journal {
    /// The journal of `worker` in the run directory `store`; nothing is written.
    pub fn new(store: &Store, worker: &str) -> Self {
        let store = store.clone().with_retry(RetryPolicy {
            attempts: 1,
            ..RetryPolicy::default()
        });
        let worker = worker.to_owned();
        Self { store, worker }
    }

    /// The last status of a worker of the same run; `None` if there is none that can be read.
    pub fn of(&self, worker: &str) -> Option<WorkerStatus> {
        let path = format!("{FOLDER}/{worker}.json");
        status(&self.store.get(&path).ok()??)
    }

    /// Reports the progress of a stage.
    pub fn stage(&self, word: StageReport) {
        self.write(State::Working, Some(word), None);
    }

    /// Reports that a stage waits for the units of others.
    pub fn waits(&self, word: StageReport) {
        self.write(State::Waiting, Some(word), None);
    }

    /// Reports how the run ended.
    pub fn end<T>(&self, result: &Result<T, PipelineError>) {
        match result {
            Ok(_) => self.write(State::Finished, None, None),
            Err(PipelineError::Interrupted) => self.write(State::Interrupted, None, None),
            Err(error) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    text += &format!(": {cause}");
                    source = cause.source();
                }
                self.write(State::Failed, None, Some(text));
            }
        }
    }

    fn write(&self, state: State, stage: Option<StageReport>, error: Option<String>) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let word = WorkerStatus {
            worker: self.worker.clone(),
            state,
            stage,
            error,
            at: since.map_or(0, |since| since.as_secs()),
        };
        let Ok(json) = serde_json::to_vec_pretty(&word) else {
            return;
        };
        // If the store fails, the work itself stops with that error; the journal does not report it again.
        let path = format!("{FOLDER}/{}.json", self.worker);
        let _ = self.store.put(&path, Bytes::from(seal_json(json)));
    }
}

/// The statuses of all workers of a run, by name. Files that are not journals, or are damaged, are skipped.
///
/// # Errors
/// A run directory that cannot be read.
pub fn worker_statuses(run: &Store) -> Result<Vec<WorkerStatus>, PipelineError> {
    let paths: Vec<String> = run.list(FOLDER)?.into_iter().map(|o| o.path).collect();
    let found = run.get_many(&paths)?;
    Ok(found.iter().flatten().filter_map(status).collect())
}

/// The status in a journal; `None` if it is damaged or something else.
fn status(bytes: &Bytes) -> Option<WorkerStatus> {
    match check_json_seal(bytes) {
        Seal::Broken { .. } => None,
        _ => serde_json::from_slice(bytes).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_each_worker_is_read_back() {
        let run = Store::memory();
        assert_eq!(worker_statuses(&run).unwrap(), []);
        let (a, b) = (
            Journal::new(&run, "worker-0"),
            Journal::new(&run, "worker-1"),
        );
        let word = StageReport {
            name: "extract".into(),
            done: 3,
            ..StageReport::default()
        };
        a.stage(StageReport::default());
        a.stage(word.clone());
        let failure = PipelineError::Usage("no such thing".into());
        b.end::<()>(&Err(failure));
        run.put("_run/log/else.txt", "something else".into())
            .unwrap();
        let words = worker_statuses(&run).unwrap();
        assert_eq!(words.len(), 2);
        assert_eq!(
            (words[0].state, &words[0].stage),
            (State::Working, &Some(word))
        );
        assert_eq!(words[1].state, State::Failed);
        assert_eq!(words[1].error.as_deref(), Some("no such thing"));
        a.end(&Ok(()));
        assert_eq!(worker_statuses(&run).unwrap()[0].state, State::Finished);
        a.end::<()>(&Err(PipelineError::Interrupted));
        assert_eq!(worker_statuses(&run).unwrap()[0].state, State::Interrupted);
    }
}

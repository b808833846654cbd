//! The runtime of the process, which drives the sockets, timers and file operations of all stores.

use std::io;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

/// Threads for sockets and timers.
const WORKERS: usize = 2;
/// Most threads for file operations.
const FILE_THREADS: usize = 64;
/// How often, and how far apart, the first thread for file operations is asked for.
const ROUNDS: (usize, Duration) = (100, Duration::from_millis(100));

/// The runtime, started by the first call.
///
/// # Errors
/// [`Error::Runtime`] if its threads cannot be started: too little memory, or too many threads.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let started = start().map_err(Error::Runtime)?;
    Ok(RUNTIME.get_or_init(|| started))
}

/// A runtime with at least one thread for file operations.
///
/// tokio starts such threads when they are needed. If the system refuses one, the operation is queued for the threads that
/// there are, and counts the workers among them, which never take it: it would wait forever. So one is started here, and
/// none ends.
fn start() -> io::Result<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)))
        .thread_name("clipood-store")
        .enable_all()
        .build()?;
    let (answer, answers) = mpsc::channel();
    let (rounds, pause) = ROUNDS;
    for _ in 0..rounds {
        let answer = answer.clone();
        runtime.spawn_blocking(move || answer.send(()));
        if answers.recv_timeout(pause).is_ok() {
            return Ok(runtime);
        }
    }
    runtime.shutdown_background();
    let reason =
        "no thread for file operations could be started (too little memory, or too many threads)";
    Err(io::Error::other(reason))
}

//! The runtime of the process, which drives the sockets, timers and file operations of all stores.

use std::io;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

/// Most threads for file operations.
const FILE_THREADS: usize = 64;

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

/// A runtime with one worker for sockets and timers, and at least one thread for file operations, which does not end.
///
/// tokio panics where the system refuses it a thread, unless there is another of the same kind. With several workers of
/// which only some can be started, it then waits for them forever.
fn start() -> io::Result<Runtime> {
    start_threads(2)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)))
        .thread_name("clipood-store")
        .enable_all()
        .build()?;
    runtime.spawn_blocking(|| ());
    Ok(runtime)
}

/// Starts as many threads, which end again.
fn start_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        for _ in 0..count {
            thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()))?;
        }
        drop(closed);
        Ok(())
    })
}

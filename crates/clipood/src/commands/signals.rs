//! What signals do to a running command.

use anyhow::{Context, Result};
use clipood_pipeline::Interrupt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Ctrl-C, what ends a service or a terminal, and what Slurm sends ahead of a time limit (`--signal=B:USR1@90`).
const STOP: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];

/// A flag that the first of these signals sets; the second one ends the process at once.
pub fn listen() -> Result<Interrupt> {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    let mut signals = Signals::new(STOP).context("cannot listen for signals")?;
    std::thread::Builder::new()
        .name("signals".to_string())
        .spawn(move || {
            for _ in signals.forever() {
                if flag.is_set() {
                    // Everything committed is whole.
                    std::process::exit(3);
                }
                eprintln!("stopping after the work in hand; once more to stop at once");
                flag.set();
            }
        })
        .context("cannot listen for signals")?;
    Ok(interrupt)
}

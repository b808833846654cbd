//! What signals do to a running command.

use anyhow::{Context, Result};
use clipood_pipeline::Interrupt;

/// A flag that the first Ctrl-C or termination signal sets; the second one ends the process at once.
pub fn listen() -> Result<Interrupt> {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    ctrlc::set_handler(move || {
        if flag.is_set() {
            // Everything committed is whole.
            std::process::exit(3);
        }
        eprintln!("stopping after the work in hand; once more to stop at once");
        flag.set();
    })
    .context("cannot listen for signals")?;
    Ok(interrupt)
}

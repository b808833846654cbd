//! Handling of signals.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clipood_pipeline::{Interrupt, Reporting};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Ctrl-C, the signals that end a service or a terminal, and the one that Slurm sends before a time limit
/// (`--signal=B:USR1@90`).
const STOP: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];

/// Whether the process was started to outlive its terminal, as with `nohup`; known on Linux only. Shells make
/// background processes ignore Ctrl-C as well, but a signal sent to such a process is meant for it.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or_default() >> (SIGHUP - 1) & 1 == 1
}

/// Signals within this time of the first one are the same request to stop, but for Ctrl-C, which a person repeats.
const SAME_REQUEST: Duration = Duration::from_secs(1);
/// What a GPU may take to finish the work in hand, in a process whose kernels may be compiling, before the process ends.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A flag that is set by the first of these signals, which is also reported; the second signal ends the process at
/// once.
pub fn listen(reporting: Reporting) -> Result<Interrupt> {
    let interrupt = Interrupt::default();
    let flag = interrupt.clone();
    let heard = STOP
        .into_iter()
        .filter(|signal| *signal != SIGHUP || !hangups_are_ignored());
    let mut signals = Signals::new(heard).context("cannot listen for signals")?;
    std::thread::Builder::new()
        .name("signals".to_string())
        .spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                // Slurm signals a job's script, which passes it on, and the process itself, at the same moment.
                let is_same = first.is_some_and(|first| first.elapsed() < SAME_REQUEST);
                if is_same && signal != SIGINT {
                    continue;
                }
                first.get_or_insert_with(Instant::now);
                if flag.is_set() {
                    // Committed parts are complete, so nothing is lost that was committed.
                    std::process::exit(3);
                }
                reporting.say("stopping after the work in hand; once more to stop at once");
                flag.set();
                if clipood_clip::device::may_be_compiling() {
                    // Compiling and tuning does not look at the flag. Here as well, committed parts are complete.
                    std::thread::spawn(|| {
                        std::thread::sleep(PATIENCE);
                        std::process::exit(3);
                    });
                }
            }
        })
        .context("cannot listen for signals")?;
    Ok(interrupt)
}

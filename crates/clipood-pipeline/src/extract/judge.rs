//! Whether an image kills the process that decodes it, found out in a process of its own.
//!
//! A process that died while it decoded an image may have been killed by the image, but also from outside: by a time
//! limit, a person, or a machine without memory. So an image is never judged by the death of a process that did
//! anything else. The suspected image alone is decoded by a child process, with much memory allowed, while this process
//! lives on and sees how the child ends. Only signals by which a process dies of its own doing count, three times of
//! three; SIGKILL, which comes from outside or from a machine without memory, is an error that names the image.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::decode::aborts_on;
use clipood_core::Resize;

use crate::encode::eval_view_of;
use crate::error::{PipelineError, Result};
use crate::interrupt::Interrupt;

/// The command that calls [`decode_alone`]: the program with this word, the side of the view, and the image on standard
/// input.
pub const JUDGE: &str = "judge-image";
/// How often a child must die of an image.
const DEATHS: usize = 3;
/// Address space of a child in bytes. The largest image that is decoded at all has 179 million pixels: at most 8 bytes
/// each as decoded, 3 as RGB, and the rows of its smaller copies.
const MEMORY: u64 = 8 << 30;
/// Pause between two looks at a child.
const LOOK: Duration = Duration::from_millis(10);

/// What an image does to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was decoded, or rejected as damaged.
    Healthy,
    /// It kills the process; how.
    Deadly(String),
    /// The child ended in a way that says nothing about the image; how.
    Unknown(String),
}

/// Decodes an image as extraction does, in this process, which is there for nothing else: returns if the image does not
/// kill it.
pub fn decode_alone(mut image: impl Read, side: u32) -> std::io::Result<()> {
    allow_memory();
    let mut bytes = Vec::new();
    image.read_to_end(&mut bytes)?;
    let decode = move || {
        if aborts_on(blake3::hash(&bytes).to_hex().as_str()) {
            std::process::abort();
        }
        // Damaged or not: the image does not kill.
        drop(eval_view_of(Ok(bytes), side, Resize::default()));
    };
    // A thread has the stack that the threads of extraction have; its panics are caught.
    drop(std::thread::Builder::new().spawn(decode)?.join());
    Ok(())
}

/// Judges an image by children that run `program`.
///
/// # Errors
/// [`PipelineError::Interrupted`].
pub fn judge(program: &Path, bytes: &[u8], side: usize, interrupt: &Interrupt) -> Result<Verdict> {
    let mut deaths = 0;
    loop {
        deaths += 1;
        let verdict = match child(program, bytes, side, interrupt)? {
            Ok(status) => verdict(status),
            Err(error) => Verdict::Unknown(format!("could not be started: {error}")),
        };
        match verdict {
            Verdict::Healthy => return Ok(Verdict::Healthy),
            Verdict::Deadly(_) | Verdict::Unknown(_) if deaths < DEATHS => {}
            Verdict::Deadly(how) if memory_is_limited() => {
                return Ok(Verdict::Unknown(format!(
                    "{how} under a limit of its address space (`ulimit -v`) of less than {} GiB",
                    MEMORY >> 30
                )));
            }
            last => return Ok(last),
        }
    }
}

/// Lets one child decode the image; how it ended.
fn child(
    program: &Path,
    bytes: &[u8],
    side: usize,
    interrupt: &Interrupt,
) -> Result<std::io::Result<ExitStatus>> {
    let mut command = Command::new(program);
    command
        .args([JUDGE, "--side", &side.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A child that has died already is seen below.
        let _ = stdin.write_all(bytes);
    }
    let ended = wait(&mut child, interrupt);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    ended
}

fn wait(child: &mut Child, interrupt: &Interrupt) -> Result<std::io::Result<ExitStatus>> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Ok(status)),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        interrupt.check()?;
        std::thread::sleep(LOOK);
    }
}

#[cfg(unix)]
fn verdict(status: ExitStatus) -> Verdict {
    use std::os::unix::process::ExitStatusExt;
    let own = [
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGTRAP, "SIGTRAP"),
    ];
    let signal = status.signal();
    match own.iter().find(|(number, _)| Some(*number) == signal) {
        _ if status.success() => Verdict::Healthy,
        Some((_, name)) => Verdict::Deadly(format!("died by {name}")),
        None if signal == Some(libc::SIGKILL) => {
            Verdict::Unknown("was ended by SIGKILL, from outside or for lack of memory".to_string())
        }
        None => Verdict::Unknown(format!("ended with {status}")),
    }
}

#[cfg(not(unix))]
fn verdict(status: ExitStatus) -> Verdict {
    match status.success() {
        true => Verdict::Healthy,
        false => Verdict::Unknown(format!("ended with {status}")),
    }
}

/// Soft and hard limit of the address space in bytes.
#[cfg(unix)]
fn memory_limits() -> Option<libc::rlimit> {
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a value of the type that the function fills.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limits) };
    (answer == 0).then_some(limits)
}

/// Limits the address space of this process to [`MEMORY`], or to what it is allowed, and makes it the first to go when
/// the machine has no memory left.
#[cfg(unix)]
fn allow_memory() {
    if let Some(limits) = memory_limits() {
        let own = libc::rlimit {
            rlim_cur: limits.rlim_max.min(MEMORY as libc::rlim_t),
            rlim_max: limits.rlim_max,
        };
        // SAFETY: the pointer is to a value of the type that the function reads.
        unsafe {
            libc::setrlimit(libc::RLIMIT_AS, &raw const own);
        }
    }
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // A death that is looked for needs no image of the memory on disk. SAFETY: as above.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
    }
    // On other systems than Linux there is no such file.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

#[cfg(unix)]
fn memory_is_limited() -> bool {
    memory_limits().is_some_and(|limits| limits.rlim_max < MEMORY as libc::rlim_t)
}

#[cfg(not(unix))]
fn allow_memory() {}

#[cfg(not(unix))]
fn memory_is_limited() -> bool {
    false
}

/// The error of an image that may have killed processes and cannot be judged.
pub(super) fn undecided(image: &str, why: &str, notes: &str) -> PipelineError {
    PipelineError::Undecided {
        image: image.to_string(),
        why: why.to_string(),
        notes: notes.to_string(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_a_death_of_its_own_doing_blames_the_image() {
        let ended = |raw| verdict(ExitStatus::from_raw(raw));
        assert_eq!(ended(0), Verdict::Healthy);
        for own in [libc::SIGSEGV, libc::SIGABRT, libc::SIGBUS] {
            assert!(matches!(ended(own), Verdict::Deadly(_)), "{own}");
        }
        for outside in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            assert!(matches!(ended(outside), Verdict::Unknown(_)), "{outside}");
        }
        // An exit code: a program that is no judge.
        assert!(matches!(ended(2 << 8), Verdict::Unknown(_)));
    }

    #[test]
    fn a_program_that_cannot_be_started_says_nothing() {
        let absent = Path::new("/nowhere/clipood");
        let found = judge(absent, b"image", 8, &Interrupt::default()).unwrap();
        assert!(matches!(found, Verdict::Unknown(why) if why.contains("could not be started")));
    }

    #[test]
    fn an_image_that_is_none_does_not_kill() {
        decode_alone(&b"not an image"[..], 8).unwrap();
    }
}

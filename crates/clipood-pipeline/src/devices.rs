//! Work on several devices: a thread each, and what becomes of the work of one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use clipood_clip::ClipError;
use clipood_clip::model::Device;

use crate::error::{PipelineError, Result};
use crate::extract::panic_message;
use crate::job::Job;

/// Calls `work` for every device in a thread of its own until all return.
///
/// A GPU whose thread fails takes no more work. What it had in hand it gives back to a list of the caller's, from which the
/// others take it; where they had finished before, they are called again as long as `left_over` says that something is there.
///
/// # Errors
/// The first failure once no device is left. A failure that [`gives_up`] at once: on the CPU, or one that any device would
/// have.
pub fn on_devices(
    stage: &'static str,
    mut devices: Vec<Device>,
    left_over: impl Fn() -> bool,
    work: impl Fn(Device) -> Result<()> + Sync,
) -> Result<()> {
    loop {
        let ends: Vec<(Device, Result<()>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = devices
                .iter()
                .map(|device| {
                    let (work, device) = (&work, *device);
                    let span = tracing::Span::current();
                    let run = move || span.in_scope(|| guarded(stage, || work(device)));
                    (device, scope.spawn(run))
                })
                .collect();
            let joined = threads.into_iter().map(|(device, thread)| {
                let end = thread.join();
                (
                    device,
                    end.unwrap_or_else(|panic| Err(panicked(stage, &*panic))),
                )
            });
            joined.collect()
        });
        let mut first_failure = None;
        for (device, end) in ends {
            let Err(error) = end else { continue };
            if gives_up(device, &error) {
                return Err(error);
            }
            let place = devices.iter().position(|other| *other == device);
            place.map(|place| devices.remove(place));
            first_failure.get_or_insert(error);
        }
        match first_failure {
            Some(error) if devices.is_empty() => return Err(error),
            Some(_) if left_over() => {}
            _ => return Ok(()),
        }
    }
}

/// Whether a failure ends the run instead of the device's part in it: it would come back on the CPU, and elsewhere only the
/// driver and the compiler of kernels are known to fail for reasons of their own, by a panic or when the device is opened.
pub fn gives_up(device: Device, error: &PipelineError) -> bool {
    device == Device::Cpu
        || !matches!(
            error,
            PipelineError::Panicked { .. } | PipelineError::Clip(ClipError::Device(_))
        )
}

/// Says that a device takes no more work.
pub fn drops_out(job: &Job, device: Device, error: &PipelineError) {
    job.worker.reporting
        .say(&format!("{device} takes no more work: {error}"));
}

/// A panic of `run` as an error.
///
/// # Errors
/// As of `run`, and [`PipelineError::Panicked`].
pub fn guarded<T>(stage: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(panicked(stage, &*panic)))
}

fn panicked(stage: &'static str, panic: &(dyn std::any::Any + Send)) -> PipelineError {
    let message = panic_message(panic);
    PipelineError::Panicked { stage, message }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Ten pieces of work on devices of which some fail at their second piece; returns what was done.
    fn ten_pieces(devices: &[Device], bad: &[Device]) -> (Vec<usize>, Result<()>) {
        let open = Mutex::new((0..10).collect::<Vec<usize>>());
        let done = Mutex::new(Vec::new());
        let left_over = || !open.lock().unwrap().is_empty();
        let end = on_devices("test", devices.to_vec(), left_over, |device| {
            for turn in 0.. {
                let Some(piece) = open.lock().unwrap().pop() else {
                    break;
                };
                if turn == 1 && bad.contains(&device) {
                    open.lock().unwrap().push(piece);
                    panic!("device lost");
                }
                done.lock().unwrap().push(piece);
                std::thread::yield_now();
            }
            Ok(())
        });
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        (done, end)
    }

    #[test]
    fn what_a_lost_gpu_had_in_hand_is_done_by_the_others() {
        let [a, b, c] = [Device::Cuda(0), Device::Cuda(1), Device::Cuda(2)];
        for bad in [&[][..], &[a], &[b, c], &[a, b]] {
            let (done, end) = ten_pieces(&[a, b, c], bad);
            end.unwrap();
            assert_eq!(done, (0..10).collect::<Vec<_>>());
        }
        let (done, end) = ten_pieces(&[a, b], &[a, b]);
        assert!(end.unwrap_err().to_string().contains("device lost"));
        assert!(done.len() <= 2);
    }

    #[test]
    fn a_failure_that_would_come_back_ends_the_run() {
        let (_, end) = ten_pieces(&[Device::Cpu], &[Device::Cpu]);
        end.unwrap_err();
        let end = on_devices(
            "test",
            vec![Device::Cuda(0), Device::Cuda(1)],
            || true,
            |_| Err(PipelineError::Interrupted),
        );
        assert!(matches!(end.unwrap_err(), PipelineError::Interrupted));
    }
}

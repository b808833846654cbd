//! Work on several devices: one thread per device, and the handling of devices that fail.

use clipood_clip::ClipError;
use clipood_clip::model::Device;

use crate::error::{PipelineError, Result};
use crate::panics::{guarded, joined};
use crate::progress::Reporting;

/// Calls `work` for each of the first `at_once` of `devices` in a separate thread and waits until all return.
///
/// A GPU whose thread fails is removed from `devices`. `work` puts its unfinished work on a list of the caller, from which
/// the other devices take it. If they have finished by then, `work` is called again for those that are left, as long as
/// `left_over` is true.
///
/// # Errors
/// The first failure once no device is left; a failure that [`is_fatal`] as soon as all threads have ended.
pub fn on_devices(
    stage: &'static str,
    devices: &mut Vec<Device>,
    at_once: usize,
    left_over: impl Fn() -> bool,
    work: impl Fn(Device) -> Result<()> + Sync,
) -> Result<()> {
    loop {
        let ends: Vec<(Device, Result<()>)> = std::thread::scope(|scope| {
            let threads: Vec<_> = devices
                .iter()
                .take(at_once)
                .map(|device| {
                    let (work, device) = (&work, *device);
                    let span = tracing::Span::current();
                    let run = move || span.in_scope(|| guarded(stage, || work(device)));
                    (device, scope.spawn(run))
                })
                .collect();
            let ends = threads.into_iter();
            ends.map(|(device, thread)| (device, joined(stage, thread)))
                .collect()
        });
        let mut first_failure = None;
        for (device, end) in ends {
            let Err(error) = end else { continue };
            if is_fatal(device, &error) {
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

/// Whether a failure ends the work on all devices and not on `device` alone. On the CPU it would recur. On a GPU, only
/// the driver and the kernel compiler are known to fail independently of the work: with a panic, or when the device is
/// opened.
pub fn is_fatal(device: Device, error: &PipelineError) -> bool {
    device == Device::Cpu
        || !matches!(
            error,
            PipelineError::Panicked { .. } | PipelineError::Clip(ClipError::Device(_))
        )
}

/// Reports that a device is not used any more.
pub fn report_lost_device(reporting: Reporting, device: Device, error: &PipelineError) {
    reporting.say(&format!("{device} is not used any more: {error}"));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Ten pieces of work on devices, some of which fail at their second piece; returns the pieces that were done.
    fn ten_pieces(devices: &[Device], bad: &[Device]) -> (Vec<usize>, Result<()>) {
        let open = Mutex::new((0..10).collect::<Vec<usize>>());
        let done = Mutex::new(Vec::new());
        let left_over = || !open.lock().unwrap().is_empty();
        let end = on_devices(
            "test",
            &mut devices.to_vec(),
            usize::MAX,
            left_over,
            |device| {
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
            },
        );
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
    fn a_device_that_was_left_out_takes_the_place_of_a_lost_one() {
        let mut devices = vec![Device::Cuda(0), Device::Cuda(1)];
        let open = Mutex::new(true);
        let left_over = || *open.lock().unwrap();
        on_devices("test", &mut devices, 1, left_over, |device| {
            assert_ne!(device, Device::Cuda(0), "device lost");
            *open.lock().unwrap() = false;
            Ok(())
        })
        .unwrap();
        assert_eq!(devices, [Device::Cuda(1)]);
    }

    #[test]
    fn a_failure_that_would_come_back_ends_the_run() {
        let (_, end) = ten_pieces(&[Device::Cpu], &[Device::Cpu]);
        end.unwrap_err();
        let end = on_devices(
            "test",
            &mut vec![Device::Cuda(0), Device::Cuda(1)],
            usize::MAX,
            || true,
            |_| Err(PipelineError::Interrupted),
        );
        assert!(matches!(end.unwrap_err(), PipelineError::Interrupted));
    }
}

//! The engine with test devices that sum pixels, fail at given points, and need no GPU.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use clipood_clip::ClipError;
use clipood_clip::model::LaunchedImages;

use super::*;
use crate::encode::batch::EVAL_VIEW;
use crate::error::PipelineError;
use crate::models::open_model;

/// Where a device fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It panics when this batch is launched, counted from 0.
    Launch(usize),
    /// The driver reports an error when this batch is waited for.
    Wait(usize),
    /// It cannot be opened.
    Open,
}

/// A device whose feature of an image is the sum of its pixels.
struct Counting {
    fault: Fault,
    launched: Cell<usize>,
    waited: Cell<usize>,
}

fn count(cell: &Cell<usize>) -> usize {
    cell.replace(cell.get() + 1)
}

fn lost() -> PipelineError {
    ClipError::Device("the device failed: lost".to_string()).into()
}

impl EncodeDevice for Counting {
    fn launch(&self, batch: &Batch) -> Result<LaunchedImages> {
        assert!(
            self.fault != Fault::Launch(count(&self.launched)),
            "the driver gave up"
        );
        std::thread::sleep(Duration::from_micros(200));
        let image = batch.pixels.len() / batch.rows.len();
        let images = batch.pixels.chunks_exact(image);
        let global = images.map(|image| image.iter().map(|v| f32::from(*v)).sum());
        let features = EncodedImages {
            global: global.collect(),
            local: Vec::new(),
        };
        Ok(features.into())
    }

    fn wait(&self, images: LaunchedImages, _batch: &Batch) -> Result<EncodedImages> {
        if self.fault == Fault::Wait(count(&self.waited)) {
            return Err(lost());
        }
        Ok(images.wait()?)
    }
}

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| open_model("demo").unwrap())
}

fn gpus(n: usize) -> Devices {
    Devices {
        workers: (0..n).map(Device::Cuda).collect(),
        ..Devices::recorded("cuda", "f32").unwrap()
    }
}

fn engine(devices: &Devices) -> Engine<'_> {
    Engine {
        model: model(),
        devices,
        local: false,
        full: 3,
        reporting: Reporting::Silent,
        interrupt: Interrupt::default(),
    }
}

/// Opens the devices of an engine with these faults, by GPU number (the CPU takes the first).
fn opened<E: Send>(faults: &[Fault]) -> impl FnOnce(&Lane<'_, E>) -> Result<()> + Send {
    move |lane| {
        lane.encode(&|device| {
            let number = match device {
                Device::Cpu => 0,
                Device::Cuda(number) => number,
            };
            let fault = faults.get(number).copied().unwrap_or(Fault::None);
            if fault == Fault::Open {
                return Err(lost());
            }
            Ok(Box::new(Counting {
                fault,
                launched: Cell::new(0),
                waited: Cell::new(0),
            }))
        })
    }
}

const UNITS: usize = 12;

/// Images of a unit, some of which fill no batch.
fn images_of(unit: usize) -> usize {
    unit * 5 % 11
}

/// Units of images whose pixels follow from unit and image.
fn send_units(sink: &BatchSink<'_, usize>) -> Result<()> {
    for number in 0..UNITS {
        let mut unit = sink.begin(number);
        for image in 0..images_of(number) {
            if !unit.add((image, EVAL_VIEW), &[number as u8, image as u8]) {
                return Ok(());
            }
        }
        if !unit.end(images_of(number)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Features by unit and image, each of which may come once only, and the images of the units that ended.
#[derive(Default)]
struct Received {
    features: BTreeMap<(usize, usize), f32>,
    batches: BTreeMap<usize, usize>,
    ends: BTreeMap<usize, usize>,
}

impl Received {
    fn take(&mut self, event: EncodeEvent<usize>) {
        match event {
            EncodeEvent::Encoded {
                unit,
                sequence,
                rows,
                global,
                ..
            } => {
                assert_eq!(rows[0].0, 3 * sequence);
                assert_eq!(rows.len(), global.len());
                *self.batches.entry(unit).or_default() += 1;
                for ((image, _), value) in rows.into_iter().zip(global) {
                    let before = self.features.insert((unit, image), value);
                    assert_eq!(before, None, "unit {unit}, image {image} came twice");
                }
            }
            EncodeEvent::End { unit, batches, end } => {
                assert_eq!(batches, end.div_ceil(3));
                assert_eq!(self.ends.insert(unit, end), None);
            }
        }
    }

    fn assert_whole(&self) {
        for unit in 0..UNITS {
            assert_eq!(self.ends.get(&unit), Some(&images_of(unit)));
            let batches = self.batches.get(&unit).copied().unwrap_or(0);
            assert_eq!(batches, images_of(unit).div_ceil(3));
            for image in 0..images_of(unit) {
                let sum = (unit + image) as f32;
                assert_eq!(self.features.get(&(unit, image)), Some(&sum));
            }
        }
        let total: usize = (0..UNITS).map(images_of).sum();
        assert_eq!(self.features.len(), total);
    }
}

/// Runs the units on devices with these faults.
fn run(devices: &Devices, faults: &[Fault]) -> (Received, Result<()>) {
    let mut received = Received::default();
    let clock = Clock::default();
    let end = engine(devices).run_with(&clock, opened(faults), send_units, |event| {
        received.take(event);
        Ok(())
    });
    (received, end)
}

#[test]
fn every_view_is_encoded_once() {
    for workers in [1, 2, 5] {
        let (received, end) = run(&gpus(workers), &[]);
        end.unwrap();
        received.assert_whole();
    }
}

#[test]
fn simulated_devices_are_devices_of_the_engine() {
    let devices: Devices = "sim:100000,sim:100000".parse().unwrap();
    let engine = Engine {
        local: true,
        ..engine(&devices)
    };
    let config = &model().config;
    let mut rows_seen = 0;
    engine
        .run(&Clock::default(), send_units, |event| {
            if let EncodeEvent::Encoded {
                rows,
                global,
                local,
                ..
            } = event
            {
                rows_seen += rows.len();
                assert_eq!(global.len(), rows.len() * config.embed_dim);
                assert_eq!(local.len(), global.len() * config.image.positions());
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(rows_seen, (0..UNITS).map(images_of).sum::<usize>());
}

#[test]
fn the_others_encode_what_a_lost_gpu_had_in_hand() {
    use Fault::{Launch, None, Open, Wait};
    for faults in [
        [Launch(0), None, None],
        [None, Launch(1), Wait(1)],
        [Wait(0), Launch(2), None],
        [Open, Open, None],
    ] {
        let (received, end) = run(&gpus(3), &faults);
        end.unwrap();
        received.assert_whole();
    }
}

#[test]
fn without_a_device_left_the_run_fails() {
    let (_, end) = run(&gpus(2), &[Fault::Launch(1), Fault::Launch(0)]);
    let message = end.unwrap_err().to_string();
    assert!(message.contains("the driver gave up"), "{message}");
    let (received, end) = run(&gpus(2), &[Fault::Open, Fault::Open]);
    assert!(end.unwrap_err().to_string().contains("lost"));
    assert!(received.features.is_empty());
}

#[test]
fn a_failure_on_the_cpu_ends_the_run() {
    let cpu: Devices = "cpu:1".parse().unwrap();
    for fault in [Fault::Launch(1), Fault::Wait(1), Fault::Open] {
        let (received, end) = run(&cpu, &[fault]);
        end.unwrap_err();
        assert!(received.features.len() < 6, "{fault:?}");
    }
}

#[test]
fn an_interruption_ends_it() {
    let devices = gpus(2);
    let engine = engine(&devices);
    let interrupt = engine.interrupt.clone();
    let mut events = 0;
    let end = engine.run_with(
        &Clock::default(),
        opened(&[]),
        |sink: &BatchSink<'_, ()>| {
            let mut unit = sink.begin(0);
            while unit.add((0, EVAL_VIEW), &[1]) {}
            Ok(())
        },
        |_| {
            events += 1;
            if events == 5 {
                interrupt.set();
            }
            Ok(())
        },
    );
    assert!(matches!(end, Err(PipelineError::Interrupted)));
    assert!(events < 5 + 20, "{events}");
}

#[test]
fn an_error_of_the_consumer_ends_the_others() {
    let sent = AtomicUsize::new(0);
    let devices = gpus(2);
    let end = engine(&devices).run_with(
        &Clock::default(),
        opened(&[]),
        |sink: &BatchSink<'_, ()>| {
            let mut unit = sink.begin(0);
            while unit.add((0, EVAL_VIEW), &[1]) {
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Err(PipelineError::Usage("a consequence".to_string()))
        },
        |_| Err(PipelineError::Usage("the disk is full".to_string())),
    );
    assert_eq!(end.unwrap_err().to_string(), "the disk is full");
    assert!(sent.into_inner() < 3 * 30);
}

#[test]
fn a_failing_source_is_named() {
    let devices = gpus(1);
    let run = |source: fn(&BatchSink<'_, ()>) -> Result<()>| {
        engine(&devices).run_with(&Clock::default(), opened(&[]), source, |_| Ok(()))
    };
    let end = run(|_| panic!("a decoder fell over"));
    let message = end.unwrap_err().to_string();
    assert!(message.contains("`decode`") && message.contains("a decoder fell over"));
    let end = run(|_| Err(PipelineError::Usage("no such folder".to_string())));
    assert_eq!(end.unwrap_err().to_string(), "no such folder");
}

#[test]
fn a_source_that_waits_for_its_consumer_ends_when_no_device_is_left() {
    let devices = gpus(1);
    let (give, take) = bounded::<()>(0);
    let end = engine(&devices).run_with(
        &Clock::default(),
        opened(&[Fault::Launch(0)]),
        |sink: &BatchSink<'_, ()>| {
            let mut unit = sink.begin(0);
            for image in 0..3 {
                let _ = unit.add((image, EVAL_VIEW), &[1]);
            }
            // Like a source that limits how far it runs ahead.
            let _ = take.recv();
            Ok(())
        },
        move |_| {
            let _ = give.send(());
            Ok(())
        },
    );
    assert!(end.unwrap_err().to_string().contains("the driver gave up"));
}

#[test]
fn memory_does_not_grow_with_the_data() {
    let devices = gpus(2);
    let (sent, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let taken = AtomicUsize::new(0);
    engine(&devices)
        .run_with(
            &Clock::default(),
            opened(&[]),
            |sink: &BatchSink<'_, ()>| {
                let mut unit = sink.begin(0);
                for image in 0..3 * 100 {
                    assert!(unit.add((image, EVAL_VIEW), &[1]));
                    if image % 3 == 2 {
                        let alive = 1 + sent.fetch_add(1, Ordering::SeqCst);
                        let alive = alive - taken.load(Ordering::SeqCst).min(alive);
                        most.fetch_max(alive, Ordering::SeqCst);
                    }
                }
                let _ = unit.end(());
                Ok(())
            },
            |event| {
                // The slowest step is the last one, so that all queues are full.
                std::thread::sleep(Duration::from_millis(2));
                if matches!(event, EncodeEvent::Encoded { .. }) {
                    taken.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            },
        )
        .unwrap();
    assert_eq!(sent.into_inner(), 100);
    // Two queues of 6, two unfinished batches of each device, and one with the consumer.
    let most = most.into_inner();
    assert!((12..=6 + 6 + 2 * 2 + 1).contains(&most), "{most}");
}

#[test]
fn busy_time_leaves_out_waiting_for_batches() {
    let devices = gpus(1);
    let start = Instant::now();
    let mut busy_time = Duration::ZERO;
    engine(&devices)
        .run_with(
            &Clock::default(),
            opened(&[]),
            |sink: &BatchSink<'_, ()>| {
                let mut unit = sink.begin(0);
                for image in 0..3 * 4 {
                    std::thread::sleep(Duration::from_millis(10));
                    let _ = unit.add((image, EVAL_VIEW), &[1]);
                }
                let _ = unit.end(());
                Ok(())
            },
            |event| {
                if let EncodeEvent::Encoded { busy, .. } = event {
                    busy_time += busy;
                }
                Ok(())
            },
        )
        .unwrap();
    assert!(busy_time >= Duration::from_micros(4 * 200));
    assert!(busy_time < start.elapsed() / 2, "{busy_time:?}");
}

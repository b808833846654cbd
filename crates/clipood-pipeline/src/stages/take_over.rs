//! Trainings that other workers have claimed, and that this worker does because those do not train any more.
//!
//! Whether a worker lives cannot be known over a network, so the answer decides nothing about results: if it was wrong, two
//! workers train the same prompt set, and the first to commit wins. Only times of this process are compared, never the
//! clocks of two machines: a worker is lost if it has not reported for [`Worker::patience`](crate::Worker::patience) that it
//! is in this stage, while this one was waiting.
//!
//! Of several workers that wait, one takes a training over: the first to claim it again, under a number of its own. If that
//! worker is lost too, the next number is claimed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clipood_store::{Ledger, Unit};

use crate::error::Result;
use crate::journal::{Journal, State, WorkerStatus};

/// What has been seen of the workers that others wait for, by the keys of their units.
#[derive(Default)]
pub struct Lost {
    seen: BTreeMap<String, Seen>,
}

/// The last sign of life of the worker of one unit.
struct Seen {
    claimant: Option<String>,
    sign: Option<WorkerStatus>,
    since: Instant,
}

/// Whose turn a unit is that others have claimed.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// That of its worker, or of another one that has taken it over.
    Others,
    /// This worker's, which had taken it over before it was started again.
    Mine,
    /// This worker's, from now on.
    TakenOver,
}

impl Lost {
    /// Whose turn `unit` of `stage` is: this worker's if `patience` has passed without a sign of the last one that claimed
    /// it, and nobody claims it before this worker. Ask again and again, because the signs are the changes between two calls.
    ///
    /// # Errors
    /// Claims that cannot be read or written. A status that cannot be read is no sign.
    pub fn turn(
        &mut self,
        ledger: &Ledger,
        journal: &Journal,
        (stage, unit): (&str, &Unit),
        patience: Duration,
    ) -> Result<Turn> {
        let (claims, claimant) = ledger.last_claim(stage, &unit.key)?;
        if claimant.as_deref() == Some(ledger.worker()) {
            return Ok(Turn::Mine);
        }
        let at_work = |status: &WorkerStatus| {
            let here = status.stage.as_ref().is_some_and(|at| at.name == stage);
            here && status.state == State::Working
        };
        let status = claimant.as_deref().and_then(|name| journal.of(name));
        let sign = status.filter(at_work);
        let seen = self.seen.entry(unit.key.clone()).or_insert_with(Seen::now);
        if seen.claimant != claimant || (sign.is_some() && seen.sign != sign) {
            *seen = Seen {
                claimant,
                sign,
                ..Seen::now()
            };
        }
        let mine =
            seen.since.elapsed() >= patience && ledger.claim_again(stage, &unit.key, claims)?;
        Ok(if mine { Turn::TakenOver } else { Turn::Others })
    }
}

impl Seen {
    fn now() -> Self {
        Self {
            claimant: None,
            sign: None,
            since: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clipood_store::Store;

    use super::*;
    use crate::journal::StageReport;

    const NEVER: Duration = Duration::from_secs(3600);

    struct Workers {
        store: Store,
        unit: Unit,
    }

    impl Workers {
        fn new() -> Self {
            Self {
                store: Store::memory(),
                unit: Unit {
                    key: "coop".into(),
                    fingerprint: "0123456789abcdef".into(),
                },
            }
        }

        fn ledger(&self, index: usize) -> Ledger {
            Ledger::new(self.store.clone(), "_run", &format!("worker-{index}"))
        }

        fn journal(&self, index: usize) -> Journal {
            Journal::new(&self.store, &format!("worker-{index}"))
        }

        fn turn(&self, index: usize, lost: &mut Lost, patience: Duration) -> Turn {
            let unit = ("train", &self.unit);
            lost.turn(&self.ledger(index), &self.journal(index), unit, patience)
                .unwrap()
        }

        fn reports(&self, index: usize, stage: &str, done: u64) {
            self.journal(index).stage(StageReport {
                name: stage.into(),
                done,
                ..StageReport::default()
            });
        }
    }

    #[test]
    fn one_of_those_that_wait_takes_a_training_over_and_then_the_next() {
        let workers = Workers::new();
        assert!(workers.ledger(0).claim("train", "coop").unwrap());
        workers.reports(0, "train", 1);
        let (mut one, mut two) = (Lost::default(), Lost::default());
        assert_eq!(workers.turn(1, &mut one, NEVER), Turn::Others);
        assert_eq!(workers.turn(1, &mut one, Duration::ZERO), Turn::TakenOver);
        assert_eq!(
            workers.turn(2, &mut two, NEVER),
            Turn::Others,
            "now that of worker 1, which was just heard of"
        );
        assert_eq!(workers.turn(1, &mut Lost::default(), NEVER), Turn::Mine);
        assert_eq!(workers.turn(2, &mut two, Duration::ZERO), Turn::TakenOver);
        assert_eq!(workers.turn(1, &mut one, NEVER), Turn::Others);
        // The first one comes back to what it claimed.
        assert!(workers.ledger(0).claim("train", "coop").unwrap());
    }

    #[test]
    fn a_worker_that_trains_is_not_lost_and_one_that_does_something_else_is() {
        let patience = Duration::from_millis(300);
        for (stage, last) in [("train", Turn::Others), ("extract", Turn::TakenOver)] {
            let workers = Workers::new();
            assert!(workers.ledger(0).claim("train", "coop").unwrap());
            let mut lost = Lost::default();
            let mut turns = Vec::new();
            for done in 0..10 {
                workers.reports(0, stage, done);
                turns.push(workers.turn(1, &mut lost, patience));
                if turns.last() == Some(&Turn::TakenOver) {
                    break;
                }
                std::thread::sleep(patience / 5);
            }
            assert_eq!(turns.pop(), Some(last), "{stage}");
        }
    }

    #[test]
    fn a_claim_that_cannot_be_read_is_one_of_somebody_else() {
        let workers = Workers::new();
        let path = "_run/claims/train/coop.json";
        workers.store.put(path, "{".into()).unwrap();
        let mut lost = Lost::default();
        assert_eq!(workers.turn(1, &mut lost, NEVER), Turn::Others);
        let path = "_run/claims/train.1/coop.json";
        workers.store.put(path, "{".into()).unwrap();
        assert_eq!(workers.turn(1, &mut lost, Duration::ZERO), Turn::TakenOver);
        assert_eq!(workers.turn(1, &mut lost, NEVER), Turn::Mine);
    }
}

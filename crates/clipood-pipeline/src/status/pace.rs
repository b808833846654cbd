//! Rate and remaining time of a stage over all of its workers, from the statuses that they report.

use serde::Serialize;

use crate::journal::{StageReport, State, WorkerStatus};

/// A worker that has reported nothing for this long, and for three times as long as one of its pieces takes, counts as
/// gone.
const SILENCE: f64 = 60.0;

/// Progress of one stage over all workers that report it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pace {
    /// Name of the stage.
    pub stage: String,
    /// Number of workers.
    pub workers: usize,
    /// What is counted.
    pub unit: String,
    /// Pieces per second, all workers together.
    pub rate: f64,
    /// Pieces left, an upper estimate.
    pub open: u64,
    /// Remaining seconds at this rate; absent without a rate.
    pub left: Option<f64>,
}

/// The stages that workers report, in the order of their first report.
///
/// Workers that stopped reporting are left out. Their silence is measured against the newest report of all, so that the
/// clock of the machine that asks does not matter; among the clocks of the workers a minute does not.
pub fn paces(workers: &[WorkerStatus]) -> Vec<Pace> {
    let newest = workers.iter().map(|worker| worker.at).max().unwrap_or(0);
    let mut stages: Vec<(&str, Vec<&StageReport>)> = Vec::new();
    for worker in workers {
        let Some(report) = worker
            .stage
            .as_ref()
            .filter(|_| worker.state == State::Working)
        else {
            continue;
        };
        let silence = newest.saturating_sub(worker.at) as f64;
        if silence > SILENCE.max(3.0 / report.rate.max(1e-9)) {
            continue;
        }
        match stages.iter_mut().find(|(name, _)| *name == report.name) {
            Some((_, reports)) => reports.push(report),
            None => stages.push((&report.name, vec![report])),
        }
    }
    stages
        .into_iter()
        .map(|(stage, reports)| pace(stage, &reports))
        .collect()
}

fn pace(stage: &str, reports: &[&StageReport]) -> Pace {
    let rate: f64 = reports.iter().map(|report| report.rate).sum();
    let open = reports
        .iter()
        .map(|report| open_after(report, reports))
        .min();
    let open = open.unwrap_or(0);
    Pace {
        stage: stage.to_string(),
        workers: reports.len(),
        unit: reports
            .first()
            .map_or_else(String::new, |report| report.unit.clone()),
        rate,
        open,
        left: (rate > 0.0).then(|| open as f64 / rate),
    }
}

/// What is left of the pieces that were open when this worker began: less its own, and less those of the workers that began
/// with as many or fewer, that is at the same time or later. What others did before is not among them, and of what the
/// earlier ones did since nothing is known.
fn open_after(report: &StageReport, all: &[&StageReport]) -> u64 {
    let later = all.iter().filter(|other| other.total <= report.total);
    let done: u64 = later.map(|other| other.done).sum();
    report.total.saturating_sub(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(at: u64, total: u64, done: u64, rate: f64) -> WorkerStatus {
        WorkerStatus {
            worker: String::new(),
            state: State::Working,
            stage: Some(StageReport {
                name: "extract".into(),
                unit: "images".into(),
                done,
                total,
                rate,
                left: 0.0,
            }),
            error: None,
            at,
        }
    }

    #[test]
    fn workers_that_began_together_share_what_is_open() {
        let found = paces(&[worker(100, 100, 40, 4.0), worker(98, 100, 20, 2.0)]);
        assert_eq!(found.len(), 1);
        let pace = &found[0];
        assert_eq!((pace.workers, pace.rate, pace.open), (2, 6.0, 40));
        assert!((pace.left.unwrap() - 40.0 / 6.0).abs() < 1e-9);
    }

    #[test]
    fn a_worker_that_began_later_knows_better_what_is_open() {
        // The second was started again when 30 were open, of which it has done 10.
        let found = paces(&[worker(100, 100, 60, 4.0), worker(100, 30, 10, 4.0)]);
        assert_eq!(found[0].open, 20);
        // Never below zero, although the first one's pieces are counted at another moment.
        assert_eq!(
            paces(&[worker(1, 10, 8, 1.0), worker(1, 10, 8, 1.0)])[0].open,
            0
        );
    }

    #[test]
    fn silent_waiting_and_finished_workers_do_not_count() {
        let mut waits = worker(1000, 100, 0, 0.0);
        waits.state = State::Waiting;
        let mut ended = worker(1000, 0, 0, 0.0);
        (ended.state, ended.stage) = (State::Finished, None);
        assert_eq!(paces(&[waits.clone(), ended]), []);
        let found = paces(&[worker(1000, 100, 10, 1.0), worker(900, 100, 50, 5.0), waits]);
        assert_eq!((found[0].workers, found[0].rate), (1, 1.0));
        // A worker whose pieces take minutes is silent as long.
        let found = paces(&[worker(1000, 9, 1, 0.01), worker(800, 9, 1, 0.01)]);
        assert_eq!(found[0].workers, 2);
        assert_eq!(paces(&[worker(5, 9, 0, 0.0)])[0].left, None);
        assert_eq!(paces(&[]), []);
    }
}

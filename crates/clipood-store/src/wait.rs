//! Waiting for units that other workers have claimed.
//!
//! Some stages have few, short units that all workers reach at the same time, such as the metric tables at the end of a run.
//! If every worker repeated there what the others are just computing, each would do the whole stage. Instead a worker waits
//! a bounded time for the commits of the others, and repeats only the units that are still open afterwards.
//!
//! # Why a clock is allowed here
//! [`wait_for`] writes nothing and decides nothing about results; it only reads which commit records exist. A unit that it
//! does not return is done, because records are never removed by a running worker. A unit that it returns may be committed a
//! moment later: then two workers do it, one of the two parts wins, and the other is dropped, as for any backup. So too short
//! a patience costs repeated work, too long a patience costs waiting time after the death of a worker, and neither affects a
//! result. The clocks of different machines are never compared: the patience is measured by this process alone.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::protocol::Ledger;
use crate::record::{Claim, Unit, encode_name};

/// The pause between the first two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two looks, and so the longest delay until an interruption is noticed.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Waits until all `units` of a stage are committed, but no longer than `patience`, and returns the indices of those that are
/// not, in ascending order.
///
/// Looks at once and then every 200 ms, growing to 500 ms; each look is one listing of the records of the stage. With a
/// `patience` of zero it looks once. `interrupted` is asked before every pause; if it answers true, the wait ends with the
/// units that are open at that moment.
///
/// Call it after [`passes`](crate::passes()) without [`Share::backups`](crate::Share::backups), and then do the returned
/// units without a claim:
///
/// ```
/// use std::time::Duration;
/// use clipood_store::{Ledger, Share, Store, Unit, passes, wait_for};
///
/// let ledger = Ledger::new(Store::memory(), "_run", "worker-0");
/// let unit = |key: &str| Unit { key: key.into(), fingerprint: "0123456789abcdef".into() };
/// let units = [unit("near"), unit("far")];
/// let work = |index: usize| ledger.commit_without_part("aggregate", &units[index], Default::default());
/// // A worker that died has claimed the second unit.
/// Ledger::new(ledger.store().clone(), "_run", "worker-1").claim("aggregate", "far")?;
///
/// for turn in passes(&ledger, "aggregate", &units, Share { index: 0, count: 2, backups: false }) {
///     work(turn?.unit)?;
/// }
/// let open = wait_for(&ledger, "aggregate", &units, Duration::from_millis(10), &|| false)?;
/// assert_eq!(open, [1]);
/// for index in open {
///     work(index)?;
/// }
/// # Ok::<(), clipood_store::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidName`](crate::Error::InvalidName) and the store's errors.
pub fn wait_for(
    ledger: &Ledger,
    stage: &str,
    units: &[Unit],
    patience: Duration,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<usize>> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut open: Vec<usize> = (0..units.len()).collect();
    while !open.is_empty() {
        open = not_committed(ledger, stage, units, &open)?;
        let left = patience.saturating_sub(started.elapsed());
        if open.is_empty() || left.is_zero() || interrupted() {
            break;
        }
        std::thread::sleep(pause.min(left));
        pause = pause.mul_f64(1.25).min(LONGEST_PAUSE);
    }
    Ok(open)
}

/// Those of the units at the indices `open` that have no record, by one listing.
fn not_committed(
    ledger: &Ledger,
    stage: &str,
    units: &[Unit],
    open: &[usize],
) -> Result<Vec<usize>> {
    let committed = ledger.committed(stage)?;
    let mut left = Vec::new();
    for &index in open {
        if !committed.contains(&units[index])? {
            left.push(index);
        }
    }
    Ok(left)
}

impl Ledger {
    /// The worker that has claimed a unit; `None` if nobody has, `?` if the claim cannot be read.
    ///
    /// # Errors
    /// [`crate::Error::InvalidName`] and the store's errors.
    pub fn claimant(&self, stage: &str, key: &str) -> Result<Option<String>> {
        let path = format!("{}/{}.json", self.claims(stage)?, encode_name("unit", key)?);
        let found = self.store().get(&path)?;
        Ok(found.map(|bytes| {
            let claim = serde_json::from_slice::<Claim>(&bytes);
            claim.map_or_else(|_| "?".to_string(), |claim| claim.worker)
        }))
    }
}

/// Claims of units whose worker has been given up.
impl Ledger {
    /// How many times a unit has been claimed, and the worker that claimed it last; `None` if nobody has, `?` if that claim
    /// cannot be read.
    ///
    /// # Errors
    /// [`crate::Error::InvalidName`] and the store's errors.
    pub fn last_claim(&self, stage: &str, key: &str) -> Result<(usize, Option<String>)> {
        let mut last = self.claimant(stage, key)?;
        let mut claims = usize::from(last.is_some());
        while claims > 0
            && let Some(later) = self.claimant(&claim_stage(stage, claims), key)?
        {
            last = Some(later);
            claims += 1;
        }
        Ok((claims, last))
    }

    /// Claims a unit that has been claimed `claims` times before, as [`Ledger::claim`] claims one that has not: `false` if
    /// another worker is faster.
    ///
    /// # Errors
    /// [`crate::Error::InvalidName`] and the store's errors.
    pub fn claim_again(&self, stage: &str, key: &str, claims: usize) -> Result<bool> {
        self.claim(&claim_stage(stage, claims), key)
    }

    /// Removes the claims of a unit, the last one first, so that a crash leaves no later one without those before it.
    ///
    /// # Errors
    /// [`crate::Error::InvalidName`] and the store's errors.
    pub(crate) fn unclaim(&self, stage: &str, key: &str) -> Result<()> {
        let (claims, _) = self.last_claim(stage, key)?;
        let name = encode_name("unit", key)?;
        for earlier in (0..claims).rev() {
            let folder = self.claims(&claim_stage(stage, earlier))?;
            self.store().delete(&format!("{folder}/{name}.json"))?;
        }
        Ok(())
    }
}

/// The stage under which the claim after `earlier` ones is written.
fn claim_stage(stage: &str, earlier: usize) -> String {
    match earlier {
        0 => stage.to_owned(),
        _ => format!("{stage}.{earlier}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::passes::{Share, passes};
    use crate::store::Store;

    const STAGE: &str = "fit";
    const LONG: Duration = Duration::from_secs(600);

    fn units(count: usize) -> Vec<Unit> {
        let fingerprint = "00112233445566778899aabbccddeeff".to_owned();
        (0..count)
            .map(|index| Unit {
                key: index.to_string(),
                fingerprint: fingerprint.clone(),
            })
            .collect()
    }

    fn ledger(store: &Store, worker: &str) -> Ledger {
        Ledger::new(store.clone(), "_run", worker)
    }

    fn commit(ledger: &Ledger, unit: &Unit) {
        ledger
            .commit_without_part(STAGE, unit, Default::default())
            .unwrap();
    }

    #[test]
    fn committed_units_are_not_waited_for() {
        let (store, units) = (Store::memory(), units(3));
        let ledger = ledger(&store, "worker-0");
        let never = || -> bool { panic!("asked before a pause that is not needed") };
        let none = wait_for(&ledger, STAGE, &[], LONG, &never).unwrap();
        assert!(none.is_empty());
        for unit in &units {
            commit(&ledger, unit);
        }
        let open = wait_for(&ledger, STAGE, &units, LONG, &never).unwrap();
        assert!(open.is_empty());
    }

    #[test]
    fn commits_of_other_threads_end_the_wait() {
        let (store, units) = (Store::memory(), units(3));
        commit(&ledger(&store, "worker-0"), &units[0]);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for (index, delay) in [(1, 50), (2, 350)] {
                let (store, units) = (&store, &units);
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(delay));
                    commit(&ledger(store, &format!("worker-{index}")), &units[index]);
                });
            }
            let reader = ledger(&store, "reader");
            let open = wait_for(&reader, STAGE, &units, LONG, &|| false).unwrap();
            assert!(open.is_empty(), "{open:?}");
        });
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(350), "{waited:?}");
        assert!(waited < LONG / 2, "{waited:?}");
    }

    #[test]
    fn units_without_a_commit_are_returned_when_patience_is_over() {
        let (store, units) = (Store::memory(), units(4));
        let ledger = ledger(&store, "worker-0");
        commit(&ledger, &units[1]);
        // The same unit with another fingerprint is another unit.
        let stale = Unit {
            fingerprint: "ffeeddccbbaa99887766554433221100".to_owned(),
            ..units[2].clone()
        };
        commit(&ledger, &stale);
        let looks = Cell::new(0);
        let between_looks = || {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                commit(&ledger, &units[3]);
            }
            false
        };
        let (patience, started) = (Duration::from_millis(450), Instant::now());
        let open = wait_for(&ledger, STAGE, &units, patience, &between_looks).unwrap();
        assert_eq!(open, [0, 2]);
        assert!(started.elapsed() >= patience);
        // 200 ms, 250 ms, and on a busy machine perhaps only the first.
        assert!((1..=3).contains(&looks.get()), "{} pauses", looks.get());

        // The last look comes after the last pause, and without patience it is the first.
        commit(&ledger, &units[0]);
        let open = wait_for(&ledger, STAGE, &units, Duration::ZERO, &|| false).unwrap();
        assert_eq!(open, [2]);
    }

    #[test]
    fn an_interruption_ends_the_wait() {
        let (store, units) = (Store::memory(), units(2));
        let ledger = ledger(&store, "worker-0");
        let asked = Cell::new(0);
        let second_time = || {
            asked.set(asked.get() + 1);
            asked.get() == 2
        };
        let open = wait_for(&ledger, STAGE, &units, Duration::MAX, &second_time).unwrap();
        assert_eq!((open, asked.get()), (vec![0, 1], 2));
    }

    #[test]
    fn units_that_cannot_be_recorded_are_an_error() {
        let ledger = ledger(&Store::memory(), "worker-0");
        let mut units = units(2);
        units[1].key = String::new();
        assert!(wait_for(&ledger, STAGE, &units, LONG, &|| false).is_err());
    }

    /// A stage of a worker that waits before it does backups; returns how many units it did.
    fn work(ledger: &Ledger, units: &[Unit], share: Share, patience: Duration) -> usize {
        let mut done = 0;
        let mut work = |index: usize| {
            std::thread::sleep(Duration::from_millis(20));
            commit(ledger, &units[index]);
            done += 1;
        };
        for turn in passes(ledger, STAGE, units, share) {
            work(turn.unwrap().unit);
        }
        for index in wait_for(ledger, STAGE, units, patience, &|| false).unwrap() {
            work(index);
        }
        done
    }

    #[test]
    fn workers_that_wait_do_every_unit_once() {
        let (store, units, done) = (Store::memory(), units(6), AtomicUsize::new(0));
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for index in 0..4 {
                let (store, units, done, start) = (&store, &units, &done, &start);
                scope.spawn(move || {
                    let ledger = ledger(store, &format!("worker-{index}"));
                    let share = Share {
                        index,
                        count: 4,
                        backups: false,
                    };
                    start.wait();
                    done.fetch_add(work(&ledger, units, share, LONG), Ordering::SeqCst);
                });
            }
        });
        assert_eq!(done.load(Ordering::SeqCst), units.len());
        assert_eq!(ledger(&store, "reader").committed(STAGE).unwrap().len(), 6);
    }

    #[test]
    fn what_a_dead_worker_has_claimed_is_done_after_the_wait() {
        let (store, units) = (Store::memory(), units(3));
        let dead = ledger(&store, "worker-1");
        assert!(dead.claim(STAGE, &units[1].key).unwrap());
        let alive = ledger(&store, "worker-0");
        let share = Share {
            index: 0,
            count: 2,
            backups: false,
        };
        assert_eq!(work(&alive, &units, share, Duration::from_millis(50)), 3);
        assert_eq!(alive.committed(STAGE).unwrap().len(), 3);
    }

    #[test]
    fn one_worker_claims_a_unit_again_and_all_its_claims_are_removed() {
        let store = Store::memory();
        let [zero, one, two] = ["worker-0", "worker-1", "worker-2"].map(|w| ledger(&store, w));
        let last = |key: &str| two.last_claim(STAGE, key).unwrap();
        assert_eq!(last("a.b"), (0, None));
        assert!(zero.claim(STAGE, "a.b").unwrap());
        assert_eq!(last("a.b"), (1, Some("worker-0".to_owned())));
        assert!(one.claim_again(STAGE, "a.b", 1).unwrap());
        assert!(!two.claim_again(STAGE, "a.b", 1).unwrap());
        assert!(two.claim_again(STAGE, "a.b", 2).unwrap());
        assert_eq!(last("a.b"), (3, Some("worker-2".to_owned())));
        assert!(
            zero.claim(STAGE, "a.b").unwrap(),
            "its own, after a restart"
        );
        zero.unclaim(STAGE, "a.b").unwrap();
        assert_eq!(last("a.b"), (0, None));
        assert!(one.claim(STAGE, "a.b").unwrap());
    }
}

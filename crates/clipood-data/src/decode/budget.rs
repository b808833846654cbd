//! The memory that all decoding threads share: large images wait for each other instead of adding up.

use std::sync::{Condvar, Mutex, PoisonError};

/// What the pictures that are decoded at the same time may take together: several hundred ordinary photographs, or one of
/// the largest that [`DecodeLimits`](super::DecodeLimits) allows by default.
pub static SHARED: Budget = Budget::new(1 << 30);

/// A number of bytes, handed out in the order in which it was asked for.
pub struct Budget {
    bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Bytes that are taken.
    taken: u64,
    /// Number of requests so far.
    asked: u64,
    /// Number of requests that were met.
    met: u64,
}

/// Bytes that were taken from a budget; dropping it gives them back.
pub struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes`.
    pub const fn new(bytes: u64) -> Self {
        Self {
            bytes,
            state: Mutex::new(State {
                taken: 0,
                asked: 0,
                met: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Takes `bytes`, after waiting until they are free and all earlier requests were met. A request for more than the
    /// whole budget waits until nothing else is taken.
    ///
    /// A thread that holds a share must not ask for a second one.
    pub fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.bytes);
        // A poisoned lock only says that another thread panicked; the three numbers are changed together below.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.asked;
        state.asked += 1;
        while state.met != number || state.taken + bytes > self.bytes {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.met += 1;
        state.taken += bytes;
        drop(state);
        self.changed.notify_all();
        Share {
            budget: self,
            bytes,
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let lock = self.budget.state.lock();
        lock.unwrap_or_else(PoisonError::into_inner).taken -= self.bytes;
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_all_requests_are_met() {
        let budget = Budget::new(100);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (budget, now, most) = (&budget, &now, &most);
                scope.spawn(move || {
                    for round in 0..200 {
                        // Up to 139 bytes: some requests exceed the whole budget.
                        let wanted = (thread * 37 + round * 11) % 140;
                        let share = budget.take(wanted);
                        let counted = wanted.min(100);
                        most.fetch_max(
                            now.fetch_add(counted, Ordering::SeqCst) + counted,
                            Ordering::SeqCst,
                        );
                        std::thread::yield_now();
                        now.fetch_sub(counted, Ordering::SeqCst);
                        drop(share);
                    }
                });
            }
        });
        assert_eq!(now.load(Ordering::SeqCst), 0);
        let most = most.load(Ordering::SeqCst);
        assert!((1..=100).contains(&most), "{most}");
    }

    #[test]
    fn a_large_request_is_met_before_later_small_ones() {
        let budget = Budget::new(10);
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let first = budget.take(6);
            scope.spawn(|| {
                let _share = budget.take(10);
                order.lock().unwrap().push("large");
            });
            while budget.state.lock().unwrap().asked < 2 {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                // It would fit beside the first share.
                let _share = budget.take(1);
                order.lock().unwrap().push("small");
            });
            while budget.state.lock().unwrap().asked < 3 {
                std::thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(order.into_inner().unwrap(), ["large", "small"]);
    }
}

//! Runs two steps of work on many items in parallel, and takes the results one by one, in the order of the items.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::Result;

/// Number of threads that fetch. They mostly wait for disks and networks; an object store answers many requests at once.
const FETCHERS: usize = 16;

/// Calls `fetch` on every item in threads that may block, `work` on the fetched values in rayon's threads, and `take`
/// on the results in the calling thread, in the order of the items. At most `ahead` items (at least one) are fetched,
/// in work or waiting to be taken at any time. While `take` runs or waits for a slow item, the threads continue with
/// other items. `take` returns `false` to end early, and this function then returns `false` too.
///
/// # Errors
/// Those of `take`, which also end it.
///
/// # Panics
/// If `fetch` or `work` does.
pub(crate) fn in_order<T: Send, F: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    ahead: usize,
    fetch: impl Fn(&T) -> F + Sync,
    work: impl Fn(&T, F) -> R + Sync,
    mut take: impl FnMut(R) -> Result<bool>,
) -> Result<bool> {
    let ahead = ahead.max(1);
    let items = items.into_iter();
    let fetchers = FETCHERS.min(items.size_hint().1.unwrap_or(FETCHERS));
    let mut take_next = |waiting: &mut VecDeque<Receiver<R>>| match waiting.pop_front() {
        // An item that panicked drops its sender unused: the scopes pass its panic on when they end.
        Some(next) => next.recv().map_or(Ok(false), &mut take),
        None => Ok(true),
    };
    let (fetch, work) = (&fetch, &work);
    rayon::in_place_scope_fifo(|workers| {
        std::thread::scope(|scope| {
            // Never full: no more than `ahead` wait.
            let (ask, asked) = bounded::<(T, Sender<R>)>(ahead);
            for _ in 0..fetchers.min(ahead) {
                let asked = asked.clone();
                scope.spawn(move || {
                    for (item, send) in asked {
                        let fetched = fetch(&item);
                        // After an early end there is no receiver any more.
                        workers.spawn_fifo(move |_| drop(send.send(work(&item, fetched))));
                    }
                });
            }
            drop(asked);
            let mut waiting = VecDeque::with_capacity(ahead);
            for item in items {
                if waiting.len() == ahead && !take_next(&mut waiting)? {
                    return Ok(false);
                }
                let (send, receive) = bounded(1);
                if ask.send((item, send)).is_err() {
                    // All fetchers panicked.
                    return Ok(false);
                }
                waiting.push_back(receive);
            }
            drop(ask);
            while !waiting.is_empty() {
                if !take_next(&mut waiting)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::error::PipelineError;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn results_come_in_order_and_never_too_many_at_once(
            waits in proptest::collection::vec(0..300_u64, 0..60),
            ahead in 0..9_usize,
        ) {
            let (begun, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let items: Vec<(usize, u64)> = waits.into_iter().enumerate().collect();
            let all: Vec<usize> = (0..items.len()).collect();
            let mut results = Vec::new();
            let most = AtomicUsize::new(0);
            let fetch = |(i, wait): &(usize, u64)| {
                let held = begun.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
                most.fetch_max(held, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(300 - wait));
                *i
            };
            let work = |(i, wait): &(usize, u64), fetched: usize| {
                std::thread::sleep(Duration::from_micros(*wait));
                assert_eq!(*i, fetched);
                fetched
            };
            let done = in_order(items, ahead, fetch, work, |i| {
                results.push(i);
                taken.fetch_add(1, Ordering::SeqCst);
                Ok(true)
            });
            prop_assert!(done.unwrap());
            prop_assert_eq!(results, all);
            prop_assert!(most.into_inner() <= ahead.max(1));
        }
    }

    #[test]
    fn it_ends_when_told_so() {
        let worked = AtomicUsize::new(0);
        let work = |i: &usize, (): ()| {
            worked.fetch_add(1, Ordering::SeqCst);
            *i
        };
        assert!(!in_order(0..1000, 4, |_| (), work, |i| Ok(i < 10)).unwrap());
        assert!(worked.load(Ordering::SeqCst) <= 10 + 4);
        let refuse = |_| Err(PipelineError::Usage("enough".to_string()));
        let error = in_order(0.., 4, |_| (), work, refuse).unwrap_err();
        assert_eq!(error.to_string(), "enough");
    }

    #[test]
    fn a_panic_of_either_step_is_not_lost() {
        for in_fetch in [true, false] {
            let step = |fetching: bool, i: usize| {
                assert!(fetching != in_fetch || i != 50, "item 50");
                i
            };
            let mut taken = 0;
            let end = catch_unwind(AssertUnwindSafe(|| {
                let fetch = |i: &usize| step(true, *i);
                let work = |_: &usize, i: usize| step(false, i);
                in_order(0..100, 8, fetch, work, |_| {
                    taken += 1;
                    Ok(true)
                })
            }));
            assert!(end.is_err());
            assert_eq!(taken, 50);
        }
    }

    #[test]
    fn waiting_for_files_is_shared_by_more_threads_than_cores() {
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let fetch = |_: &usize| {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        assert!(in_order(0..32, 16, fetch, |_, ()| (), |()| Ok(true)).unwrap());
        assert_eq!(most.into_inner(), FETCHERS);
    }
}

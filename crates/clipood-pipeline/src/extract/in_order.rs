//! Work on many items at once whose results are taken one by one, in order.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, bounded};

use crate::error::Result;

/// Calls `work` on every item on rayon's threads and `take` on the results here, in the order of the items. At most
/// `ahead` items (at least one) are in work or wait to be taken; while `take` runs, or waits for a slow item, the threads
/// go on with the others. `false` if `take` said so, which ends it.
///
/// # Errors
/// Those of `take`, which end it, too.
///
/// # Panics
/// If `work` does.
pub(super) fn in_order<T: Sync, R: Send>(
    items: &[T],
    ahead: usize,
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(R) -> Result<bool>,
) -> Result<bool> {
    let ahead = ahead.max(1);
    let mut take_next = |waiting: &mut VecDeque<Receiver<R>>| match waiting.pop_front() {
        // A sender that is gone without a word panicked: the scope panics with its message when it ends.
        Some(next) => next.recv().map_or(Ok(false), &mut take),
        None => Ok(true),
    };
    rayon::in_place_scope_fifo(|scope| {
        let mut waiting = VecDeque::with_capacity(ahead);
        for item in items {
            if waiting.len() == ahead && !take_next(&mut waiting)? {
                return Ok(false);
            }
            let (send, receive) = bounded(1);
            let work = &work;
            // Nobody receives any more once it has ended early.
            scope.spawn_fifo(move |_| drop(send.send(work(item))));
            waiting.push_back(receive);
        }
        while !waiting.is_empty() {
            if !take_next(&mut waiting)? {
                return Ok(false);
            }
        }
        Ok(true)
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
            let mut results = Vec::new();
            let most = AtomicUsize::new(0);
            let work = |(i, wait): &(usize, u64)| {
                let held = begun.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
                most.fetch_max(held, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(*wait));
                *i
            };
            let done = in_order(&items, ahead, work, |i| {
                results.push(i);
                taken.fetch_add(1, Ordering::SeqCst);
                Ok(true)
            });
            prop_assert!(done.unwrap());
            prop_assert_eq!(results, (0..items.len()).collect::<Vec<_>>());
            prop_assert!(most.into_inner() <= ahead.max(1));
        }
    }

    #[test]
    fn it_ends_when_told_so() {
        let items: Vec<usize> = (0..1000).collect();
        let worked = AtomicUsize::new(0);
        let work = |i: &usize| {
            worked.fetch_add(1, Ordering::SeqCst);
            *i
        };
        assert!(!in_order(&items, 4, work, |i| Ok(i < 10)).unwrap());
        assert!(worked.load(Ordering::SeqCst) <= 10 + 4);
        let refuse = |_| Err(PipelineError::Usage("enough".to_string()));
        let error = in_order(&items, 4, work, refuse).unwrap_err();
        assert_eq!(error.to_string(), "enough");
    }

    #[test]
    fn a_panic_of_the_work_is_not_lost() {
        let items: Vec<usize> = (0..100).collect();
        let work = |i: &usize| {
            assert!(*i != 50, "item 50");
            *i
        };
        let mut taken = 0;
        let end = catch_unwind(AssertUnwindSafe(|| {
            in_order(&items, 8, work, |_| {
                taken += 1;
                Ok(true)
            })
        }));
        assert!(end.is_err());
        assert_eq!(taken, 50);
    }
}

//! Items shared out among the cores.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::decode::panic_message;
use crate::error::PipelineError;

/// Calls `work` with every item and its number, on `workers` threads that each take the next item when they are free.
/// Each thread has a clone of `work` and, where there are several, keeps to one core: whole batches side by side beat
/// splitting every product over all cores. A single worker may use them all.
///
/// `work` may break off, which lets the others end the items that they have.
///
/// # Errors
/// The failure of the item that comes first among those that failed; no item is taken after a failure. A panic is
/// [`PipelineError::Panicked`] of `stage`.
pub fn share_out<I, W, E>(stage: &'static str, workers: usize, items: I, work: W) -> Result<(), E>
where
    I: Iterator + Send,
    I::Item: Send,
    W: FnMut(usize, I::Item) -> Result<ControlFlow<()>, E> + Clone + Send,
    E: From<PipelineError> + Send,
{
    let items = Mutex::new(items.enumerate());
    let stopped = AtomicBool::new(false);
    let run = |mut work: W| -> Result<(), (usize, E)> {
        let pool = match workers {
            0 | 1 => None,
            _ => Some(one_thread().map_err(|e| (0, E::from(e)))?),
        };
        while !stopped.load(Ordering::Relaxed) {
            // Where another thread panicked inside the iterator, its panic is what gets reported.
            let next = items.lock().ok().and_then(|mut items| items.next());
            let Some((number, item)) = next else { break };
            let done = match &pool {
                Some(pool) => pool.install(|| work(number, item)),
                None => work(number, item),
            };
            match done {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => stopped.store(true, Ordering::Relaxed),
                Err(e) => {
                    stopped.store(true, Ordering::Relaxed);
                    return Err((number, e));
                }
            }
        }
        Ok(())
    };
    let first = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.max(1))
            .map(|_| {
                let (run, work) = (&run, work.clone());
                scope.spawn(move || run(work))
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| match thread.join() {
                Ok(done) => done.err(),
                Err(panic) => {
                    let message = panic_message(&*panic);
                    Some((0, PipelineError::Panicked { stage, message }.into()))
                }
            })
            .min_by_key(|(number, _)| *number)
    });
    match first {
        Some((_, e)) => Err(e),
        None => Ok(()),
    }
}

fn one_thread() -> Result<rayon::ThreadPool, PipelineError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|e| PipelineError::Usage(format!("cannot start a worker thread: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    type Done = Result<ControlFlow<()>, PipelineError>;

    #[test]
    fn every_item_is_worked_on_once() {
        for workers in [0, 1, 2, 5] {
            let seen = Mutex::new(Vec::new());
            share_out("test", workers, 10..47usize, |number, item| -> Done {
                assert_eq!(item, number + 10);
                assert!(workers < 2 || rayon::current_num_threads() == 1);
                seen.lock().unwrap().push(item);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
            let seen = seen.into_inner().unwrap();
            assert_eq!(seen.len(), 37);
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 37);
        }
    }

    #[test]
    fn the_first_failure_is_reported_and_ends_the_work() {
        for workers in [1, 2, 5] {
            let error = share_out("test", workers, 0.., |number, _: usize| -> Done {
                match number {
                    7.. => Err(PipelineError::Usage(format!("item {number}"))),
                    _ => Ok(ControlFlow::Continue(())),
                }
            })
            .unwrap_err();
            assert_eq!(error.to_string(), "item 7");
        }
    }

    #[test]
    fn work_may_break_off() {
        share_out("test", 3, 0.., |number, _: usize| -> Done {
            Ok(match number {
                20.. => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        })
        .unwrap();
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let error = share_out("test", 2, 0..2, |number, _: i32| -> Done {
            assert!(number != 1, "item 1 is bad");
            Ok(ControlFlow::Continue(()))
        })
        .unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`test`") && message.contains("item 1 is bad"));
    }
}

//! Bounded retries with exponential backoff and jitter.

use std::future::Future;
use std::time::Duration;

use crate::error::is_transient;
use crate::faults::{self, Moment};

/// How often and after which pauses a store operation that failed with a transient error is retried.
///
/// The pause before attempt `k + 1` is drawn from the upper half of `min(longest, first * 2^(k - 1))`: long
/// enough for a throttled store to recover, and random so that workers which failed together do not retry together. The
/// clients of remote stores also retry single requests on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Total number of attempts; 0 and 1 mean no retry.
    pub attempts: u32,
    /// The pause before the second attempt, before jitter.
    pub first: Duration,
    /// The longest pause, before jitter.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts over about five seconds.
    fn default() -> Self {
        Self {
            attempts: 6,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
        }
    }
}

impl RetryPolicy {
    /// The pause after failed attempt `attempt` (from 1), with `jitter` in `0..=u32::MAX` as the random part.
    fn pause(&self, attempt: u32, jitter: u32) -> Duration {
        let doubled = 2u32.saturating_pow(attempt.saturating_sub(1));
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        whole.mul_f64(0.5 + 0.5 * f64::from(jitter) / f64::from(u32::MAX))
    }

    /// Runs `operation` until it succeeds, fails with an error that is not transient, or the attempts are used up; the
    /// error is returned with the number of attempts made.
    pub(crate) async fn run<T, F>(
        &self,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, (object_store::Error, u32)>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut attempt = 1;
        loop {
            let answer = match faults::next() {
                None => operation().await,
                Some(Moment::Before) => Err(faults::error()),
                Some(Moment::After) => {
                    let _lost = operation().await;
                    Err(faults::error())
                }
            };
            match answer {
                Ok(value) => return Ok(value),
                Err(error) if attempt < self.attempts && is_transient(&error) => {
                    tracing::debug!(attempt, %error, "store operation failed, retrying");
                    // Without random bytes the full pause is fine: jitter only spreads the load.
                    let jitter = getrandom::u32().unwrap_or(u32::MAX);
                    tokio::time::sleep(self.pause(attempt, jitter)).await;
                    attempt += 1;
                }
                Err(error) => return Err((error, attempt)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = RetryPolicy {
            attempts: 9,
            first: Duration::from_millis(100),
            longest: Duration::from_millis(350),
        };
        let full: Vec<_> = (1..5)
            .map(|k| policy.pause(k, u32::MAX).as_millis())
            .collect();
        assert_eq!(full, [100, 200, 350, 350]);
        assert_eq!(policy.pause(1, 0).as_millis(), 50);
        assert_eq!(policy.pause(u32::MAX, 0).as_millis(), 175);
    }
}

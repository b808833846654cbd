//! Limits of time: the deadline of a download, and the least rate of a body.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::error::{HubError, Result};
use crate::options::HubOptions;

/// The time since the start of a download.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    deadline: Option<Duration>,
    window: Duration,
    min_rate: u64,
}

impl Clock {
    /// Starts now.
    pub fn start(options: &HubOptions) -> Self {
        Self {
            started: Instant::now(),
            deadline: options.deadline,
            window: options.timeout,
            min_rate: options.min_rate,
        }
    }

    /// Time left until the deadline.
    pub fn left(&self) -> Duration {
        let deadline = self.deadline.unwrap_or(Duration::MAX);
        deadline.saturating_sub(self.started.elapsed())
    }

    /// # Errors
    /// [`HubError::Http`] after the deadline.
    pub fn check(&self, url: &str) -> Result<()> {
        let url = url.to_owned();
        match self.late() {
            Some(problem) => Err(HubError::Http { url, problem }),
            None => Ok(()),
        }
    }

    /// What to say after the deadline; `None` before it.
    fn late(&self) -> Option<String> {
        let deadline = self.deadline.filter(|_| self.left().is_zero())?;
        Some(format!(
            "not finished within {} s; the next attempt goes on where this one stopped, CLIPOOD_HUB_DEADLINE sets another limit",
            deadline.as_secs_f64()
        ))
    }

    /// The same bytes, with an error after the deadline, or when they come more slowly than the least rate.
    pub fn limit<R: Read>(&self, inner: R) -> LimitedReader<R> {
        LimitedReader {
            inner,
            clock: *self,
            since: Instant::now(),
            bytes: 0,
        }
    }
}

/// A body that is read at no less than the least rate.
pub(crate) struct LimitedReader<R> {
    inner: R,
    clock: Clock,
    /// Start of the window over which the rate is measured.
    since: Instant,
    /// Bytes since then.
    bytes: u64,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let slow = |problem: String| Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        if n == 0 {
            return Ok(0);
        }
        if let Some(problem) = self.clock.late() {
            return slow(problem);
        }
        let elapsed = self.since.elapsed();
        if elapsed >= self.clock.window {
            let rate = self.bytes as f64 / elapsed.as_secs_f64();
            if rate < self.clock.min_rate as f64 {
                return slow(format!(
                    "the server sends {rate:.0} bytes per second, less than {} (CLIPOOD_HUB_MIN_RATE)",
                    self.clock.min_rate
                ));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(n)
    }
}

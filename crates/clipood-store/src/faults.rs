//! A test hook: random failures of the store operations of the real command.
//!
//! With `CLIPOOD_TEST_FAULTS=10:7` in the environment one operation in ten fails like a network error, half of them before
//! and half after the store has executed it; 7 is the seed. Each fault is printed to standard error. Only tests set this
//! variable.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// When an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The operation was not executed.
    Before,
    /// The operation was executed, and its reply is lost.
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    one_in: u64,
    seed: u64,
}

/// Whether and when the next operation fails.
pub(crate) fn next() -> Option<Moment> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    static OPERATIONS: AtomicU64 = AtomicU64::new(0);
    let plan = (*PLAN.get_or_init(|| parse(&std::env::var("CLIPOOD_TEST_FAULTS").ok()?)))?;
    let number = OPERATIONS.fetch_add(1, Ordering::Relaxed);
    let moment = plan.at(number)?;
    // Standard error may be closed.
    let _ = writeln!(
        io::stderr(),
        "test hook: store operation {number} fails ({moment:?})"
    );
    Some(moment)
}

/// A transient error.
pub(crate) fn error() -> object_store::Error {
    object_store::Error::Generic {
        store: "test hook",
        source: Box::new(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

impl Plan {
    fn at(self, number: u64) -> Option<Moment> {
        let hash = blake3::hash(&[self.seed.to_le_bytes(), number.to_le_bytes()].concat());
        let bytes = hash.as_bytes();
        let draw = bytes[..8]
            .iter()
            .fold(0u64, |all, byte| (all << 8) | u64::from(*byte));
        let moment = match bytes[8] & 1 {
            0 => Moment::Before,
            _ => Moment::After,
        };
        draw.is_multiple_of(self.one_in).then_some(moment)
    }
}

/// Reads `one_in:seed`; `None` for anything else.
fn parse(text: &str) -> Option<Plan> {
    let (one_in, seed) = text.split_once(':')?;
    let plan = Plan {
        one_in: one_in.parse().ok()?,
        seed: seed.parse().ok()?,
    };
    (plan.one_in > 0).then_some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_fails_half_of_it_after_execution() {
        let plan = parse("10:7").unwrap();
        let faults: Vec<Moment> = (0..10_000).filter_map(|n| plan.at(n)).collect();
        let before = faults.iter().filter(|m| **m == Moment::Before).count();
        assert!((800..1200).contains(&faults.len()), "{}", faults.len());
        assert!((300..700).contains(&before), "{before}");
        for nonsense in ["", "10", "0:1", "x:1", "1:x"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}

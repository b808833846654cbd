//! Distribution of work: the three passes of a worker over the units of a stage.

use std::collections::VecDeque;

use crate::error::Result;
use crate::protocol::Ledger;
use crate::record::Unit;

/// The share of the units that a worker does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The worker's index; taken modulo `count`.
    pub index: usize,
    /// Number of workers that were started; 0 counts as 1. A wrong number only distributes the work unevenly.
    pub count: usize,
    /// Whether units that other workers have claimed but not committed are repeated at the end. If not, a stage in which a
    /// worker died stays unfinished until a worker of that name is started again, or until the caller does the units
    /// itself, as after [`wait_for`](crate::wait_for).
    pub backups: bool,
}

/// The reason why a worker does a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// It is in the worker's own share.
    Own,
    /// No worker had claimed it.
    Unclaimed,
    /// Another worker has claimed it but not committed it yet: that worker may be slow or dead.
    Backup,
}

/// A unit to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Index into the units passed to [`passes`].
    pub unit: usize,
    /// The pass in which it is done.
    pub pass: Pass,
}

/// The units that a worker should do, one at a time; made by [`passes`].
#[derive(Debug)]
pub struct Passes<'a> {
    ledger: &'a Ledger,
    stage: &'a str,
    units: &'a [Unit],
    share: Share,
    /// Units not seen committed, ascending.
    open: Vec<usize>,
    /// Whether a unit was handed out or failed, by index.
    given: Vec<bool>,
    queue: VecDeque<usize>,
    pass: Option<Pass>,
}

/// Iterates over the unfinished units of a stage in three passes: the worker's own share (index modulo count), then units
/// that no worker has claimed, then, as backups, units that are claimed but not committed (without [`Share::backups`] only
/// those that this worker claimed itself before a restart).
///
/// In the first two passes a unit is claimed before it is returned; units claimed by other workers are left for the last
/// pass. Each pass begins with a new listing, and in the second and third each worker starts at a different position. No unit
/// is returned twice, so the same iterator does not retry a unit that failed. Each call of `next` claims a unit: call it only
/// when the worker is ready to start. After an error the iterator continues with the next unit.
///
/// For a finished stage the cost is one listing.
pub fn passes<'a>(
    ledger: &'a Ledger,
    stage: &'a str,
    units: &'a [Unit],
    share: Share,
) -> Passes<'a> {
    let count = share.count.max(1);
    Passes {
        ledger,
        stage,
        units,
        share: Share {
            index: share.index % count,
            count,
            ..share
        },
        open: (0..units.len()).collect(),
        given: vec![false; units.len()],
        queue: VecDeque::new(),
        pass: None,
    }
}

impl Passes<'_> {
    /// Starts the next pass; `false` after the last one or if no unit is left.
    fn advance(&mut self) -> Result<bool> {
        self.open.retain(|&unit| !self.given[unit]);
        if self.open.is_empty() {
            return Ok(false);
        }
        let next = match self.pass {
            None => Pass::Own,
            Some(Pass::Own) => Pass::Unclaimed,
            Some(Pass::Unclaimed) => Pass::Backup,
            Some(Pass::Backup) => return Ok(false),
        };
        let committed = self.ledger.committed(self.stage)?;
        let mut open = Vec::new();
        for &unit in &self.open {
            if !committed.contains(&self.units[unit])? {
                open.push(unit);
            }
        }
        self.open = open;
        let Share { index, count, .. } = self.share;
        let mut queue = self.open.clone();
        match next {
            Pass::Own => queue.retain(|unit| unit % count == index),
            Pass::Unclaimed if !queue.is_empty() => {
                let claimed = self.ledger.claimed(self.stage)?;
                queue.retain(|&unit| !claimed.contains(&self.units[unit].key));
            }
            Pass::Unclaimed | Pass::Backup => {}
        }
        if next != Pass::Own {
            let start = queue.len() * index / count;
            queue.rotate_left(start);
        }
        self.queue = queue.into();
        self.pass = Some(next);
        Ok(true)
    }

    /// Whether the unit should be done now; claims it unless it is a backup.
    fn should_do(&self, unit: usize, pass: Pass) -> Result<bool> {
        let unit = &self.units[unit];
        match pass {
            Pass::Own | Pass::Unclaimed => self.ledger.claim(self.stage, &unit.key),
            Pass::Backup if self.ledger.is_done(self.stage, unit)? => Ok(false),
            Pass::Backup if self.share.backups => Ok(true),
            // Claimed by this worker, outside its share, before a restart: other workers leave it alone.
            Pass::Backup => self.ledger.claim(self.stage, &unit.key),
        }
    }
}

impl Iterator for Passes<'_> {
    type Item = Result<Turn>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((unit, pass)) = self.queue.pop_front().zip(self.pass) else {
                match self.advance() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => {
                        // The store has already retried the listing; without it no unit can be chosen.
                        self.open.clear();
                        return Some(Err(error));
                    }
                }
            };
            let taken = self.should_do(unit, pass);
            // Units claimed by other workers come again in the last pass.
            self.given[unit] = !matches!(taken, Ok(false));
            match taken {
                Ok(true) => return Some(Ok(Turn { unit, pass })),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

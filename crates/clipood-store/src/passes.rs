//! Who does what: the three passes of a worker over the units of a stage.

use std::collections::VecDeque;

use crate::error::Result;
use crate::protocol::Ledger;
use crate::record::Unit;

/// Which units a worker prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The worker's index; taken modulo `count`.
    pub index: usize,
    /// Number of workers that were started, 0 counts as 1. Need not be right: it only spreads the work.
    pub count: usize,
    /// Whether units that others have claimed and not committed are done again at the end. Without it the stage may stay
    /// unfinished after a worker died, until a worker of the same name is started again.
    pub backups: bool,
}

/// Why a unit was given to this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// It is in the worker's own share.
    Own,
    /// Nobody had claimed it.
    Unclaimed,
    /// Somebody claimed it and has not committed it yet: that worker may be slow or dead.
    Backup,
}

/// A unit to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Index into the units that [`passes`] was given.
    pub unit: usize,
    /// Why.
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
    /// Units given out or failed, by index.
    given: Vec<bool>,
    queue: VecDeque<usize>,
    pass: Option<Pass>,
}

/// Goes through the units of a stage that are not done: first the worker's own (index modulo count), then those that
/// nobody has claimed, then as backups those that are claimed but not committed (without backups only its own of these,
/// claimed before a restart).
///
/// Units of the first two passes are claimed before they are given out, those that others hold are left for the last pass.
/// Each pass begins with a fresh listing, in the second and third every worker starts at another place, and no unit is
/// given out twice, so a unit that failed is not tried again by the same iterator. Ask for the next unit as late as
/// possible: each request claims one. After an error the iterator goes on with the next unit.
///
/// For a finished stage this costs one listing.
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
    /// Begins the next pass; `false` after the last or if nothing is left for it.
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
            // What this worker claimed outside its share before a restart: nobody else may take it.
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
                        // The listing has had its retries: without it there is nothing sensible to give out.
                        self.open.clear();
                        return Some(Err(error));
                    }
                }
            };
            let taken = self.should_do(unit, pass);
            // What others hold comes again in the last pass.
            self.given[unit] = !matches!(taken, Ok(false));
            match taken {
                Ok(true) => return Some(Ok(Turn { unit, pass })),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

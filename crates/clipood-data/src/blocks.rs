//! Blocks of remote objects that are kept in memory.
//!
//! Images in an archive are read one after the other, and each is small, so a request for each of them would mostly wait. An
//! object is read in blocks instead; when the one before has been read, those that follow are requested with it, a bounded
//! number at the same time. All objects share a bounded number of blocks.

use std::collections::HashMap;
use std::io::Result;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use clipood_store::Facts;

use crate::remote::Object;

/// Size of a block in bytes.
const BLOCK: u64 = 4 << 20;
/// Blocks that are requested together while an object is read in order.
const AHEAD: u64 = 4;
/// Bytes of blocks that are kept.
const KEPT: u64 = 256 << 20;

/// A remote object that is read in blocks.
pub(crate) struct Blocks {
    object: Object,
    facts: Facts,
    /// Tells objects apart in the shared blocks.
    number: u64,
    /// Held while blocks are requested, so that threads that read the same object do not request them twice.
    requesting: Mutex<()>,
}

/// The blocks of all objects.
#[derive(Default)]
struct Kept {
    /// By number of the object and of the block: the bytes, and when they were last used.
    blocks: HashMap<(u64, u64), (Bytes, u64)>,
    bytes: u64,
    clock: u64,
}

static KEPT_BLOCKS: Mutex<Option<Kept>> = Mutex::new(None);

impl Blocks {
    /// Looks the object up.
    ///
    /// # Errors
    /// An object that does not exist, errors of its store.
    pub fn of(object: Object) -> Result<Blocks> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Ok(Blocks {
            facts: object.facts()?,
            object,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            requesting: Mutex::new(()),
        })
    }

    /// Size of the object in bytes.
    pub fn length(&self) -> u64 {
        self.facts.size
    }

    /// The bytes of a range that lies in the object.
    ///
    /// # Errors
    /// An object that has changed or vanished, errors of its store.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let blocks = range.start / BLOCK..=(range.end - 1) / BLOCK;
        if blocks.end() - blocks.start() > AHEAD {
            // More than is worth keeping.
            let tag = self.facts.tag.as_deref();
            let read = self.object.ranges(std::slice::from_ref(&range), tag)?;
            return Ok(read.into_iter().next().unwrap_or_default());
        }
        let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut single = None;
        for number in blocks {
            let block = self.block(number)?;
            let start = range
                .start
                .saturating_sub(number * BLOCK)
                .min(block.len() as u64);
            let end = (range.end - number * BLOCK).min(block.len() as u64);
            let piece = block.slice(start as usize..end as usize);
            if piece.len() as u64 == range.end - range.start {
                single = Some(piece);
            } else {
                whole.extend_from_slice(&piece);
            }
        }
        Ok(single.unwrap_or_else(|| whole.freeze()))
    }

    fn block(&self, number: u64) -> Result<Bytes> {
        if let Some(block) = self.kept(number) {
            return Ok(block);
        }
        let _requesting = self
            .requesting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = self.kept(number) {
            return Ok(block);
        }
        let last = (self.facts.size - 1) / BLOCK;
        let is_sequential = number > 0 && self.kept(number - 1).is_some();
        let end = if is_sequential {
            number + AHEAD - 1
        } else {
            number
        };
        let numbers = number..=end.min(last);
        let range = |number: u64| number * BLOCK..((number + 1) * BLOCK).min(self.facts.size);
        let ranges: Vec<Range<u64>> = numbers.clone().map(range).collect();
        let read = self.object.ranges(&ranges, self.facts.tag.as_deref())?;
        let first = read.first().cloned().unwrap_or_default();
        let mut kept = KEPT_BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get_or_insert_default();
        for (number, block) in numbers.zip(read) {
            kept.add((self.number, number), block);
        }
        Ok(first)
    }

    fn kept(&self, number: u64) -> Option<Bytes> {
        let mut kept = KEPT_BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get_or_insert_default();
        kept.clock += 1;
        let (block, used) = kept.blocks.get_mut(&(self.number, number))?;
        *used = kept.clock;
        Some(block.clone())
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let mut kept = KEPT_BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get_or_insert_default();
        let number = self.number;
        kept.blocks.retain(|(object, _), (block, _)| {
            let stays = *object != number;
            if !stays {
                kept.bytes -= block.len() as u64;
            }
            stays
        });
    }
}

impl Kept {
    fn add(&mut self, place: (u64, u64), block: Bytes) {
        self.clock += 1;
        self.bytes += block.len() as u64;
        if let Some((old, _)) = self.blocks.insert(place, (block, self.clock)) {
            self.bytes -= old.len() as u64;
        }
        while self.bytes > KEPT {
            let oldest = self.blocks.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(place, _)| *place) else {
                return;
            };
            if let Some((old, _)) = self.blocks.remove(&oldest) {
                self.bytes -= old.len() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_used_last_are_kept() {
        let mut kept = Kept::default();
        let most = KEPT / BLOCK;
        for number in 0..most + 3 {
            kept.add((0, number), Bytes::from(vec![0; BLOCK as usize]));
        }
        assert_eq!(kept.bytes, KEPT);
        assert_eq!(kept.blocks.len() as u64, most);
        assert!(!kept.blocks.contains_key(&(0, 2)) && kept.blocks.contains_key(&(0, 3)));
    }
}

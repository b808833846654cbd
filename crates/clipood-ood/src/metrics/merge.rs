//! Figures of scores that do not fit memory: a merge of sorted parts.

use crate::error::OodError;
use crate::metrics::accumulator::{OodAccumulator, OodMetrics};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One part: its chunks, and where in the current one it stands.
struct Part<I> {
    chunks: I,
    chunk: Vec<f64>,
    at: usize,
    is_id: bool,
}

/// The next score of a part. Larger scores come first; the part's number only makes the order total.
struct Head {
    score: f64,
    part: usize,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.part.cmp(&self.part))
    }
}

/// The figures of [`ood_metrics`](crate::metrics::ood_metrics), from parts that are sorted highest first and come in chunks.
///
/// `n_id` and `n_ood` are the totals over all parts (known from the parts' row counts). Only one chunk of each part is held
/// at a time. Chunks may be empty and of any length; a part's order runs on from chunk to chunk.
///
/// # Errors
/// What a part's iterator returns, by `E: From<OodError>` together with [`OodError::NanScore`] for a NaN (naming the side and
/// the index within the chunk) and [`OodError::Metric`] for a part out of order or totals that do not match.
///
/// ```
/// use clipood_ood::{OodError, metrics::merge_sorted};
/// let id = vec![vec![Ok(vec![0.9, 0.8]), Ok(vec![0.3])].into_iter()];
/// let ood = vec![vec![Ok(vec![0.4])].into_iter(), vec![Ok(vec![0.1])].into_iter()];
/// let figures = merge_sorted::<_, OodError>(3, 2, id, ood)?;
/// assert_eq!(figures.auroc, 5.0 / 6.0);
/// # Ok::<(), OodError>(())
/// ```
pub fn merge_sorted<I, E>(n_id: u64, n_ood: u64, id: Vec<I>, ood: Vec<I>) -> Result<OodMetrics, E>
where
    I: Iterator<Item = Result<Vec<f64>, E>>,
    E: From<OodError>,
{
    let mut walk = OodAccumulator::new(n_id, n_ood)?;
    let sides = id
        .into_iter()
        .map(|chunks| (chunks, true))
        .chain(ood.into_iter().map(|chunks| (chunks, false)));
    let mut parts: Vec<Part<I>> = sides
        .map(|(chunks, is_id)| Part {
            chunks,
            chunk: Vec::new(),
            at: 0,
            is_id,
        })
        .collect();
    let mut heads = BinaryHeap::with_capacity(parts.len());
    for (i, part) in parts.iter_mut().enumerate() {
        if let Some(score) = part.next()? {
            heads.push(Head { score, part: i });
        }
    }
    // Images with the score at the front, gathered until a lower score comes.
    let mut group: Option<(f64, u64, u64)> = None;
    while let Some(Head { score, part: i }) = heads.pop() {
        match &mut group {
            Some((front, _, _)) if *front == score => {}
            _ => {
                if let Some((front, a, b)) = group.replace((score, 0, 0)) {
                    walk.push(front, a, b)?;
                }
            }
        }
        if let Some((_, n_id, n_ood)) = &mut group {
            *if parts[i].is_id { n_id } else { n_ood } += 1;
        }
        if let Some(next) = parts[i].next()? {
            heads.push(Head {
                score: next,
                part: i,
            });
        }
    }
    if let Some((score, a, b)) = group {
        walk.push(score, a, b)?;
    }
    Ok(walk.finish()?)
}

impl<I> Part<I> {
    fn next<E>(&mut self) -> Result<Option<f64>, E>
    where
        I: Iterator<Item = Result<Vec<f64>, E>>,
        E: From<OodError>,
    {
        while self.at == self.chunk.len() {
            match self.chunks.next() {
                Some(chunk) => (self.chunk, self.at) = (chunk?, 0),
                None => return Ok(None),
            }
        }
        let score = self.chunk[self.at];
        if score.is_nan() {
            return Err(E::from(OodError::NanScore {
                name: if self.is_id { "id" } else { "ood" }.to_owned(),
                index: self.at,
            }));
        }
        self.at += 1;
        // As the sort does: -0 equals 0.
        Ok(Some(score + 0.0))
    }
}

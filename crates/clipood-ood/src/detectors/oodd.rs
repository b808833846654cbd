//! OODD: a dictionary of the test images that look least like any class.
//!
//! Yang et al., "OODD: Test-time Out-of-Distribution Detection with Dynamic Dictionary", CVPR 2025, with CLIP as in the
//! authors' MCM script: a priority queue keeps the `queue` images with the lowest MCM; the images of a batch enter the queue
//! before they are scored; the score is MCM less the k-th largest cosine to the images of the queue, the image itself
//! included if it is there.
//!
//! Departures from the script: among equal MCM scores the earlier image stays (Python's heap leaves that open), MCM is
//! computed in f64, and while the queue holds fewer than k images the smallest cosine counts.
//!
//! Cost per image: one product with the queue. Memory: the queue.

use crate::bank::Bank;
use crate::block::Softmax;
use crate::error::OodError;
use crate::info::{DetectorInfo, Needs, ParameterInfo};
use crate::kernels;
use crate::parameters::Values;
use crate::stream::{Memory, StreamData, StreamDetector, products};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Oodd {
    t: f64,
    queue: usize,
    k: usize,
    batch: usize,
}

impl StreamDetector for Oodd {
    const INFO: &'static DetectorInfo = &DetectorInfo {
        kind: "oodd",
        summary: "MCM less the cosine to the test images with the lowest MCM",
        formula: "max softmax(c / t) - the k-th largest f . q over a queue of the images with the lowest MCM",
        paper: "Yang et al., OODD: Test-time Out-of-Distribution Detection with Dynamic Dictionary, CVPR 2025",
        needs: Needs {
            texts: true,
            stream: true,
            ..Needs::LOGITS
        },
        cost: "one product with the queue",
        trap: "transductive: the share of OOD images in the stream and its order change the score; at t = 1 MCM is small beside the cosine",
        parameters: &[
            ParameterInfo::new("t", "1", "temperature of MCM, above 0"),
            ParameterInfo::new("queue", "2048", "images that the queue keeps, at least 1"),
            ParameterInfo::new(
                "k",
                "5",
                "which cosine to the queue, at least 1; the smallest if there are fewer",
            ),
            ParameterInfo::new("batch", "64", "images that arrive together, at least 1"),
        ],
    };
    const MIN_CLASSES: usize = 2;

    fn read(values: &Values<'_>) -> Result<Self, String> {
        Ok(Self {
            t: values.positive("t")?,
            queue: values.count("queue")?,
            k: values.count("k")?,
            batch: values.count("batch")?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![
            self.t.to_string(),
            self.queue.to_string(),
            self.k.to_string(),
            self.batch.to_string(),
        ]
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn start(&self, data: &StreamData<'_>) -> Result<Box<dyn Memory>, OodError> {
        Ok(Box::new(Dictionary {
            detector: *self,
            text: Bank::new(data.text()?, data.dim()),
            heap: BinaryHeap::new(),
            images: Vec::new(),
            arrived: 0,
        }))
    }
}

/// An image of the queue. The largest is the first to leave: the highest MCM, of equals the last that came.
struct Entry {
    mcm: f64,
    arrival: u64,
    /// Row of the queue's images.
    row: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.mcm.total_cmp(&other.mcm);
        by_score.then(self.arrival.cmp(&other.arrival))
    }
}

/// The queue.
struct Dictionary {
    detector: Oodd,
    text: Bank,
    heap: BinaryHeap<Entry>,
    /// Images of the queue, `[at most queue, dim]`.
    images: Vec<f32>,
    arrived: u64,
}

impl Dictionary {
    fn add(&mut self, mcm: f64, image: &[f32]) {
        let dim = image.len();
        let arrival = self.arrived;
        self.arrived += 1;
        if self.heap.len() < self.detector.queue {
            let row = self.heap.len();
            self.images.extend_from_slice(image);
            self.heap.push(Entry { mcm, arrival, row });
            return;
        }
        if let Some(mut largest) = self.heap.peek_mut()
            && mcm < largest.mcm
        {
            let row = largest.row;
            self.images[row * dim..(row + 1) * dim].copy_from_slice(image);
            *largest = Entry { mcm, arrival, row };
        }
    }
}

impl Memory for Dictionary {
    fn score(&mut self, images: &[f32]) -> Vec<f32> {
        let (dim, classes) = (self.text.dim(), self.text.rows());
        let scale = 1.0 / self.detector.t;
        let mut cosines = Vec::new();
        products(&self.text, images, &mut cosines);
        let mcm: Vec<f64> = cosines
            .par_chunks(classes)
            .map(|row| Softmax::new(row, scale, kernels::argmax(row)).probability())
            .collect();
        for (image, mcm) in images.chunks_exact(dim).zip(&mcm) {
            self.add(*mcm, image);
        }
        let queue = Bank::new(std::mem::take(&mut self.images), dim);
        products(&queue, images, &mut cosines);
        let k = self.detector.k.min(queue.rows());
        let scores = cosines
            .par_chunks(queue.rows())
            .zip(&mcm)
            .map_init(Vec::new, |largest, (row, mcm)| {
                kernels::largest(row, k, largest);
                let cosine = largest.last().map_or(0.0, |&(cosine, _)| f64::from(cosine));
                (mcm - cosine) as f32
            })
            .collect();
        self.images = queue.into_data();
        scores
    }
}

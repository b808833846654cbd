//! Counts over classified images: accuracy, confusion, distribution.

use std::collections::BTreeMap;

/// Counts of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Images that were classified as it.
    pub predicted: u64,
    /// Images known to be of it.
    pub labelled: u64,
    /// Images of it that were classified as it.
    pub correct: u64,
}

/// Counts over all images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// By class.
    pub classes: Vec<ClassCounts>,
    /// Number of images by (known class, predicted class), for pairs that occur.
    pub confusion: BTreeMap<(u32, u32), u64>,
    /// Images that were classified.
    pub classified: u64,
    /// Images that could not be read.
    pub unreadable: u64,
    /// Images of a known class.
    pub labelled: u64,
    /// Of these, images whose class is the most likely one.
    pub top1: u64,
    /// Of these, images whose class is among the five most likely ones.
    pub top5: u64,
}

impl Tally {
    /// Counts without images.
    pub fn new(classes: usize) -> Self {
        Self {
            classes: vec![ClassCounts::default(); classes],
            ..Self::default()
        }
    }

    /// Counts an image by its most likely classes, of which the first five matter, and by its class, if known.
    pub fn add(&mut self, top: &[(u32, f32)], label: Option<u32>) {
        let Some(&(predicted, _)) = top.first() else {
            return;
        };
        self.classified += 1;
        self.classes[predicted as usize].predicted += 1;
        let Some(label) = label else {
            return;
        };
        self.labelled += 1;
        self.classes[label as usize].labelled += 1;
        *self.confusion.entry((label, predicted)).or_default() += 1;
        if predicted == label {
            self.classes[label as usize].correct += 1;
            self.top1 += 1;
        }
        if top.iter().take(5).any(|(class, _)| *class == label) {
            self.top5 += 1;
        }
    }

    /// Shares of the labelled images whose class is the most likely one, and among the five most likely; `None` without
    /// labels.
    pub fn accuracy(&self) -> Option<(f64, f64)> {
        let share = |hits: u64| hits as f64 / self.labelled as f64;
        (self.labelled > 0).then(|| (share(self.top1), share(self.top5)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let mut tally = Tally::new(7);
        let top = |classes: &[u32]| -> Vec<(u32, f32)> {
            classes.iter().map(|class| (*class, 0.1)).collect()
        };
        tally.add(&top(&[2, 1, 0, 3, 4]), Some(2));
        tally.add(&top(&[2, 1, 0, 3, 4]), Some(4));
        // The class is only the sixth.
        tally.add(&top(&[2, 1, 0, 3, 4, 5]), Some(5));
        tally.add(&top(&[6]), None);
        assert_eq!((tally.classified, tally.labelled), (4, 3));
        assert_eq!(tally.accuracy(), Some((1.0 / 3.0, 2.0 / 3.0)));
        assert_eq!(
            tally.confusion,
            BTreeMap::from([((2, 2), 1), ((4, 2), 1), ((5, 2), 1)])
        );
        let two = tally.classes[2];
        assert_eq!((two.predicted, two.labelled, two.correct), (3, 1, 1));
        assert_eq!(tally.classes[6].predicted, 1);
        assert_eq!(Tally::new(2).accuracy(), None);
    }
}

//! What a detector sees of the images that it scores: a block of rows, with what detectors share computed once.

use crate::kernels;

/// Scale of CLIP's logits: `s = 100 c`.
pub(crate) const LOGIT_SCALE: f64 = 100.0;

/// A softmax over classes of one row at one scale, as sums relative to the largest class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Softmax {
    /// Sum of `exp(x)` over all classes but the largest, `x = scale (c - max c)`: keeps the digits that 1 + others loses.
    pub(crate) others: f64,
    /// Sum of `x exp(x)` over all classes.
    pub(crate) weighted: f64,
}

impl Softmax {
    /// `top` is the index and the value of the largest entry of `row`.
    pub(crate) fn new(row: &[f32], scale: f64, top: (usize, f32)) -> Self {
        let max = f64::from(top.1);
        let (a, a_weighted) = kernels::exp_sums(&row[..top.0], scale, max);
        let (b, b_weighted) = kernels::exp_sums(&row[top.0 + 1..], scale, max);
        Self {
            others: a + b,
            weighted: a_weighted + b_weighted,
        }
    }

    /// Probability of the largest class.
    pub(crate) fn probability(&self) -> f64 {
        1.0 / (1.0 + self.others)
    }
}

/// What one detector sees of a block of rows.
pub(crate) struct Block<'a> {
    /// Unit features, `[rows, dim]`.
    pub(crate) features: &'a [f32],
    pub(crate) dim: usize,
    /// Cosines to the class texts, or a hundredth of a linear probe's logits, `[rows, classes]`.
    pub(crate) cosines: &'a [f32],
    pub(crate) classes: usize,
    /// Index and value of the largest cosine of each row.
    pub(crate) tops: &'a [(usize, f32)],
    /// The scale that the detector declared, and the softmax sums of each row at it; none without a scale.
    pub(crate) softmax: Option<(f64, &'a [Softmax])>,
    /// The detector's reduction of the patches of each row; empty for a detector without a local scale.
    pub(crate) local: &'a [f64],
    /// Products with every distinct bank of all detectors, each `[rows, bank rows]`.
    pub(crate) products: &'a [Vec<f32>],
    /// Places in `products` of the detector's own banks.
    pub(crate) banks: &'a [usize],
}

impl<'a> Block<'a> {
    /// Unit features, row by row.
    pub(crate) fn features(&self) -> impl Iterator<Item = &'a [f32]> {
        self.features.chunks_exact(self.dim)
    }

    /// Cosines to the class texts, or a hundredth of a linear probe's logits, row by row.
    pub(crate) fn cosine_rows(&self) -> impl Iterator<Item = &'a [f32]> {
        self.cosines.chunks_exact(self.classes)
    }

    /// The largest cosine of each row.
    pub(crate) fn maxima(&self) -> impl Iterator<Item = f32> {
        self.tops.iter().map(|top| top.1)
    }

    /// Softmax sums of each row at the scale that the detector declared.
    pub(crate) fn softmax(&self) -> &'a [Softmax] {
        self.softmax.map_or(&[], |(_, softmax)| softmax)
    }

    /// `logsumexp(scale c)` of each row, at the scale that the detector declared.
    pub(crate) fn log_sums(&self) -> impl Iterator<Item = f64> {
        let (scale, softmax) = self.softmax.unwrap_or((1.0, &[]));
        self.maxima()
            .zip(softmax)
            .map(move |(max, s)| scale * f64::from(max) + s.others.ln_1p())
    }

    /// What the detector made of the patches of each row.
    pub(crate) fn local(&self) -> &'a [f64] {
        self.local
    }

    /// Products with the detector's i-th bank, `[rows, bank rows]`.
    pub(crate) fn product(&self, i: usize) -> &'a [f32] {
        &self.products[self.banks[i]]
    }
}

/// What one detector sees of the patches of one image.
pub(crate) struct Patches<'a> {
    /// Cosines of the patches to the class texts, `[patches, classes]`.
    pub(crate) cosines: &'a [f32],
    /// Softmax sums over the classes of each patch, at the local scale that the detector declared.
    pub(crate) softmax: &'a [Softmax],
    /// Products of the patches with the bank that the detector keeps for them, `[patches, bank rows]`; empty without one.
    pub(crate) product: &'a [f32],
}

impl<'a> Patches<'a> {
    /// Cosines to the class texts and softmax sums, patch by patch.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'a [f32], &'a Softmax)> {
        let classes = self.cosines.len() / self.softmax.len().max(1);
        self.cosines.chunks_exact(classes.max(1)).zip(self.softmax)
    }

    /// The largest probability over patches and classes.
    pub(crate) fn best(&self) -> f64 {
        self.rows()
            .map(|(_, softmax)| softmax.probability())
            .fold(0.0, f64::max)
    }
}

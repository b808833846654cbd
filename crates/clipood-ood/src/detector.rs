//! The contract of a detector. Everything about one kind stands in its own file below `detectors/`; the list in
//! `detectors.rs` makes it known to specifications, listings, fitting, storing and scoring.

use crate::bank::Bank;
use crate::block::{Block, Patches};
use crate::error::OodError;
use crate::fit_inputs::{FitSizes, Prepared};
use crate::info::{DetectorInfo, Needs};
use crate::parameters::Values;
use std::fmt::Debug;

/// One kind of detector; a value holds the parameters of one specification.
pub(crate) trait Detector: Copy + Debug + PartialEq {
    /// The entry in listings. Its `needs` are those of the default parameters.
    const INFO: &'static DetectorInfo;

    /// Fewest classes that give a score with meaning: 2 if the score is a function of a softmax over the classes alone, since
    /// that is constant for a single class, else 1.
    const MIN_CLASSES: usize;

    /// What fitting learns; `()` for a detector that only reads the classifier's outputs.
    type Fitted: Learned;

    /// Reads the parameters of `INFO`, given or by default; an error says what is allowed and what was found.
    fn read(values: &Values<'_>) -> Result<Self, String>;

    /// The parameters as text, in the order of `INFO`; [`Detector::read`] must give the same value back.
    fn write(&self) -> Vec<String>;

    /// What it needs with these parameters.
    fn needs(&self) -> Needs {
        Self::INFO.needs
    }

    /// The factor on cosines of the softmax over classes that [`Block::softmax`] and [`Block::log_sums`] give, if it reads one.
    fn scale(&self) -> Option<f64> {
        None
    }

    /// The factor on the cosines of patches of the softmax that [`Detector::reduce_patches`] reads; set exactly if it needs
    /// patches.
    fn local_scale(&self) -> Option<f64> {
        None
    }

    /// What [`Block::local`] holds for an image: a number made of the softmax of its patches.
    fn reduce_patches(&self, patches: &Patches<'_>) -> f64 {
        patches.best()
    }

    /// The local scale, where [`Detector::reduce_patches`] takes the largest probability and nothing else of the patches.
    fn best_patch_scale(&self) -> Option<f64> {
        self.local_scale()
    }

    /// Why [`Detector::fit`] will refuse data of these sizes, whatever the values; `None` if it depends on the values.
    fn refuses(&self, _sizes: &FitSizes) -> Option<String> {
        None
    }

    /// Learns from the data; adds a sentence to `notes` for each fallback that it takes.
    ///
    /// # Errors
    /// Errors of [`Prepared`]'s arrays, [`OodError::Detector`] where the data cannot carry the detector.
    fn fit(&self, data: &Prepared<'_>, notes: &mut Vec<String>) -> Result<Self::Fitted, OodError>;

    /// Whether fitting with these parameters could have learned this, which only a damaged file can break.
    fn agrees(&self, _fitted: &Self::Fitted) -> bool {
        true
    }

    /// One score per row of the block, higher = in-distribution.
    fn score(&self, fitted: &Self::Fitted, block: &Block<'_>) -> Vec<f32>;
}

/// What a detector learns: plain data that is stored with the run.
pub(crate) trait Learned {
    /// The products with features that it scores with, in the order of [`Block::product`].
    fn banks(&self) -> Vec<&Bank>;

    /// The product with patches that [`Patches::product`] gives, if it reads one.
    fn patch_bank(&self) -> Option<&Bank> {
        None
    }

    /// Whether its parts fit together, which only a damaged file can break.
    fn is_consistent(&self) -> bool;
}

impl Learned for () {
    fn banks(&self) -> Vec<&Bank> {
        Vec::new()
    }

    fn is_consistent(&self) -> bool {
        true
    }
}

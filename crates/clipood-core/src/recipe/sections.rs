//! The sections of a recipe and their defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::Problem;
use crate::method::Method;
use crate::rng::SplitMix64;

/// `[data]`: the datasets, by the names of their manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The in-distribution dataset.
    pub id: String,
    /// The out-of-distribution datasets, at least one.
    pub ood: Vec<String>,
    /// The subset of the in-distribution classes to use.
    #[serde(default)]
    pub subsample_classes: SubsampleClasses,
    /// The file that names the shots, instead of a draw: a split file such as CoOp's `split_fewshot/shot_16-seed_1.pkl`, relative
    /// to the data folder or absolute. `{seed}` stands for the seed, `{shots}` for the number of shots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub few_shot: Option<String>,
    /// Out-of-distribution datasets on which hyperparameters are selected; disjoint from `ood`.
    #[serde(default)]
    pub validation_ood: Vec<String>,
    /// In-distribution images per class on which hyperparameters are selected, held out from the training images before the
    /// shots are drawn; only used with `validation_ood`.
    #[serde(default = "default_validation_per_class")]
    pub validation_per_class: usize,
    /// Groups of OOD datasets, such as `near` and `far`, over which averages are reported.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// What to do about images with equal bytes where a benchmark expects different ones: shots that are tested, in-distribution
    /// images that are out-of-distribution too, images that a test set has twice.
    // Not serialised if it is the default, so that the fingerprints of older recipes do not change.
    #[serde(default, skip_serializing_if = "Overlap::is_default")]
    pub overlap: Overlap,
    /// The version of Pillow whose resizing is reproduced.
    // Not serialised if it is the default, so that the fingerprints of older recipes do not change.
    #[serde(default, skip_serializing_if = "Resize::is_default")]
    pub resize: Resize,
}

/// What to do about images that are in two sets, or twice in one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// Report and use them.
    #[default]
    Report,
    /// Report them and leave them out of the set that is tested: shots out of all test sets, in-distribution images out of the
    /// out-of-distribution sets, repeated images out of their set but for the first.
    Drop,
    /// Refuse to plan.
    Error,
}

impl Overlap {
    fn is_default(&self) -> bool {
        *self == Overlap::default()
    }
}

/// The version of Pillow whose bicubic resizing is reproduced, bit for bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Up to version 12.3: across first, then down.
    #[default]
    Pillow12,
    /// From version 13.0: down first if that removes more than twice as many rows as the other pass removes columns.
    Pillow13,
}

impl Resize {
    fn is_default(&self) -> bool {
        *self == Resize::default()
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Resize::Pillow12 => "pillow12",
            Resize::Pillow13 => "pillow13",
        }
    }
}

impl DataSection {
    /// The file of `few_shot` for these shots and this seed.
    pub fn few_shot_file(&self, shots: usize, seed: u64) -> Option<String> {
        let pattern = self.few_shot.as_ref()?;
        let file = pattern.replace("{seed}", &seed.to_string());
        Some(file.replace("{shots}", &shots.to_string()))
    }
}

fn default_validation_per_class() -> usize {
    8
}

/// A subset of the in-distribution classes (CoOp's base-to-new protocol).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubsampleClasses {
    /// Every class.
    #[default]
    All,
    /// The first half of the classes in sorted order, rounded up.
    Base,
    /// The other half.
    New,
}

/// `[dual_pattern]`: the fused score of `dpcoop`, `dplocoop` and `dpsct`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DualPatternSection {
    /// Weight of the scaled divergence in the `fixed` rows, -1 to 0. The default, -0.5, is the middle of the range that the
    /// dual-pattern repository sweeps; it was not tuned on any result.
    pub beta: f64,
}

impl Default for DualPatternSection {
    fn default() -> Self {
        DualPatternSection { beta: -0.5 }
    }
}

/// `[[select]]`: a detector parameter that is selected from a list of values on validation data and, for comparison and
/// marked as such, on the test sets (`oracle`). The selected value maximises AUROC - FPR95.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectSection {
    /// The detector, written as in `detectors`; its rows without selection are the `fixed` ones.
    pub detector: String,
    /// Name of the parameter, such as `t` of `mcm`.
    pub parameter: String,
    /// Values to select from, each once.
    pub values: Vec<f64>,
}

/// `[streams]`: the streams of test images that detectors such as `oodd` score and learn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsSection {
    /// Seeds of the orders in which the images of a pair of data sets arrive, one stream each, at least one. Figures are
    /// means over the orders.
    pub orders: Vec<u64>,
}

impl Default for StreamsSection {
    fn default() -> Self {
        StreamsSection {
            orders: vec![0, 1, 2],
        }
    }
}

/// How negative labels are chosen from the word lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegativeRule {
    /// The share `keep` of words with the smallest `quantile` of cosines to the class texts (NegLabel).
    #[default]
    Quantile,
    /// Words that are farther from the shots of every class than the class text is (InterNeg, TINS); at most `count`.
    InterModal,
    /// No words: the negative prompts that a method has learned (NegPrompt). Under other methods detectors that use negative
    /// labels stay empty.
    Learned,
}

impl NegativeRule {
    fn is_default(&self) -> bool {
        *self == NegativeRule::default()
    }
}

/// `[negative_labels]`: texts that describe none of the classes, for the detectors `neglabel` and `unknown_prompt`, and for
/// others that `docs/DETECTORS.md` names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NegativeLabelsSection {
    /// Word lists, each mined separately, as NegLabel (Jiang et al. 2024) does with nouns and adjectives.
    pub lists: Vec<WordListSection>,
    /// The similarity of a word to the classes is this quantile of its cosines to them, 0 to 1.
    pub quantile: f64,
    /// Fraction of each list to keep, 0 to 1: the words least similar to the classes.
    pub keep: f64,
    /// Words with a larger cosine to any class are removed beforehand, -1 to 1 (CSP uses 0.95). Absent: none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_above: Option<f64>,
    /// Prompts for unknown objects, of which `unknown_prompt` uses the first `count`.
    pub unknown: Vec<String>,
    /// How the labels of `neglabel`, `r_mcm` and `adaneg` are chosen. `tins` and `inter_modal` always use `inter_modal`.
    // Not serialised if it is the default, so that the fingerprints of older recipes do not change.
    #[serde(skip_serializing_if = "NegativeRule::is_default")]
    pub rule: NegativeRule,
    /// With `inter_modal` the largest number of labels, of each list in proportion to its words that are kept. Absent: 2000,
    /// as published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// With `inter_modal` the template of the class texts. Absent: `The nice {}.`, as published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_template: Option<String>,
    /// Lists of the outliers that someone has imagined, a person or a language model, for `eoe`; all their words are used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub imagined: Vec<WordListSection>,
}

impl NegativeLabelsSection {
    /// With `inter_modal` the largest number of labels.
    pub fn inter_modal_count(&self) -> usize {
        self.count.unwrap_or(2000)
    }

    /// With `inter_modal` the template of the class texts.
    pub fn inter_modal_template(&self) -> &str {
        self.class_template.as_deref().unwrap_or("The nice {}.")
    }
}

impl Default for NegativeLabelsSection {
    fn default() -> Self {
        NegativeLabelsSection {
            lists: Vec::new(),
            quantile: 0.95,
            keep: 0.15,
            exclude_above: None,
            unknown: vec!["a photo of an unknown object".to_string()],
            rule: NegativeRule::Quantile,
            count: None,
            class_template: None,
            imagined: Vec::new(),
        }
    }
}

/// A list of words and the template for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordListSection {
    /// Name of the list: `NAME.txt` in the folder `words` beside that of the dataset manifests, or the name of a WordNet file
    /// there, such as `data.noun`. WordNet's files are also found where it is installed: in `$WNSEARCHDIR`, `$WNHOME/dict`, and
    /// the folders of its usual packages.
    pub words: String,
    /// Text with one `{}` for the word. It is compared with the class texts of `prompt.templates`, the same for all lists.
    #[serde(default = "default_word_template")]
    pub template: String,
    /// Names of kinds of things, such as `creature` and `place`, for a template that also has a `{superclass}`: each word gets
    /// one of them, drawn from a fixed seed (CSP, Chen et al. 2024: adjectives in templates of superclasses).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superclasses: Vec<String>,
}

/// What stands for the superclass in the template of a word list.
pub(super) const SUPERCLASS: &str = "{superclass}";

impl WordListSection {
    /// The text of a word.
    pub fn text(&self, word: &str) -> String {
        let count = self.superclasses.len() as u64;
        // Drawn by the word, so that the text does not depend on the other words.
        let drawn = SplitMix64::keyed(0, word, 0).below(count) as usize;
        let template = match self.superclasses.get(drawn) {
            Some(superclass) => self.template.replace(SUPERCLASS, superclass),
            None => self.template.clone(),
        };
        template.replace("{}", word)
    }
}

fn default_word_template() -> String {
    "a photo of a {}".to_string()
}

/// `[engine]`: the size of units of work, and the tolerated fraction of unreadable images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// Target size of a part in bytes, 1 to 4 GiB.
    pub shard_bytes: u64,
    /// Fraction of the images of a dataset, 0 to 1, that may be unreadable before the run fails.
    pub max_quarantine_fraction: f64,
    /// Steps between checkpoints of a training, at least 1. A checkpoint is also written at the end of an epoch if the last one
    /// is at least a second old.
    pub checkpoint_steps: usize,
}

impl Default for EngineSection {
    fn default() -> Self {
        EngineSection {
            shard_bytes: 64 << 20,
            max_quarantine_fraction: 0.01,
            checkpoint_steps: 100,
        }
    }
}

/// `[metrics]`: metrics and their confidence intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Number of resamples for the 95% bootstrap intervals, at most 1000000; 0 computes no intervals.
    pub bootstrap: usize,
    /// Seed of the resamples.
    pub bootstrap_seed: u64,
}

impl Default for MetricsSection {
    fn default() -> Self {
        MetricsSection {
            bootstrap: 1000,
            bootstrap_seed: 0,
        }
    }
}

/// `[[published]]`: a figure from a paper, which the report shows beside the measured one. It determines no result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedSection {
    /// The method.
    #[serde(default)]
    pub method: Option<Method>,
    /// Instead of `method` the name of one that this program does not have; such a row has no measured figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    /// Training images per class; absent for zero-shot.
    #[serde(default)]
    pub shots: Option<usize>,
    /// The detector, by its name in the tables; with `other` that of the paper, if it has one.
    #[serde(default)]
    pub detector: String,
    /// The OOD set, or `average:NAME` for a group of them; absent: the average over all of them.
    #[serde(default = "average")]
    pub ood: String,
    /// AUROC in percent.
    #[serde(default)]
    pub auroc: Option<f64>,
    /// FPR95 in percent: ID positive, the threshold nearest to a recall of 95%.
    #[serde(default)]
    pub fpr95: Option<f64>,
    /// FPR95 in percent by OpenOOD: OOD positive, the first threshold with a recall of 95%. Instead of `fpr95`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fpr95_openood: Option<f64>,
    /// Whether the score of an image depends on the other test images, as in test-time adaptation.
    #[serde(default)]
    pub transductive: bool,
    /// The paper, where in it, and what was not verified.
    pub source: String,
}

fn average() -> String {
    "average".to_string()
}

impl PublishedSection {
    /// The name of the method.
    pub fn name(&self) -> &str {
        match self.method {
            Some(method) => method.name(),
            None => self.other.as_deref().unwrap_or_default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        for (name, value) in [
            ("auroc", self.auroc),
            ("fpr95", self.fpr95),
            ("fpr95_openood", self.fpr95_openood),
        ] {
            if let Some(value) = value.filter(|v| !(0.0..=100.0).contains(v)) {
                let text = format!("found {value}, allowed: percent, 0 to 100");
                return Err(Problem::new(format!("published.{name}"), text));
            }
        }
        let blank = |text: &str| text.trim().is_empty();
        let problem = match (&self.method, &self.other) {
            (None, None) => "found neither `method` nor `other`, needs one of them",
            (Some(_), Some(_)) => "found `method` and `other`, allowed: one of them",
            (None, Some(other)) if blank(other) => "found an empty `other`, allowed: a name",
            (Some(_), None) if blank(&self.detector) => {
                "found no `detector`, which a `method` needs"
            }
            _ => match (self.auroc, self.fpr95, self.fpr95_openood) {
                (None, None, None) => {
                    "found neither `auroc` nor `fpr95` nor `fpr95_openood`, needs one of them"
                }
                (_, Some(_), Some(_)) => {
                    "found `fpr95` and `fpr95_openood`, allowed: one of them, the other in a table of its own"
                }
                _ => return Ok(()),
            },
        };
        Err(Problem::new("published", problem))
    }
}

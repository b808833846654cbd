//! What is known about a kind of detector before any data is seen: its entry in listings, and what it needs.

/// Where a detector's negative texts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negatives {
    /// Labels mined from a word list, as [`mine_negative_labels`](crate::mine_negative_labels) picks them.
    Mined,
    /// Prompts for the unknown, which name no class.
    Unknown,
    /// Labels mined against the shots' mean features, as [`mine_inter_modal_labels`](crate::mine_inter_modal_labels) picks
    /// them.
    InterModal,
    /// Names of outliers that someone has imagined, a person or a language model.
    Imagined,
    /// All words of the word lists, none left out.
    Words,
    /// Negative prompts that were learned together with the class texts.
    Learned,
}

/// What a detector needs beside the features of the images that it scores and a classifier of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Whether the score is made of cosines to texts, at the model's scale of cosines; such a detector cannot score with the
    /// logits of a linear probe. The others read the logits of any classifier, or image features alone.
    pub texts: bool,
    /// Negative texts that it is fitted on ([`FitInputs::negative_text`](crate::FitInputs::negative_text)).
    pub negatives: Option<Negatives>,
    /// Whether it is fitted on the shots ([`FitInputs::train`](crate::FitInputs::train)).
    pub shots: bool,
    /// Whether it is fitted on the classes of the shots ([`FitInputs::train_labels`](crate::FitInputs::train_labels)).
    pub labels: bool,
    /// Whether it scores patch features ([`ScoreInputs::local`](crate::ScoreInputs::local)).
    pub patches: bool,
    /// Whether it is fitted on other classifiers of the same classes
    /// ([`FitInputs::classifiers`](crate::FitInputs::classifiers)).
    pub classifiers: bool,
    /// Whether it scores a stream of test images and learns from them ([`Stream`](crate::Stream)): its score of an image
    /// depends on the images before it and in its batch, so it is transductive.
    pub stream: bool,
    /// Whether a stream begins with features of noise images ([`StreamInputs::noise`](crate::StreamInputs::noise)).
    pub noise: bool,
}

impl Needs {
    /// A detector that reads the logits of any classifier and is fitted on nothing.
    pub(crate) const LOGITS: Needs = Needs {
        texts: false,
        negatives: None,
        shots: false,
        labels: false,
        patches: false,
        classifiers: false,
        stream: false,
        noise: false,
    };

    /// Whether it is fitted on anything beyond the class texts.
    pub fn is_fitted(&self) -> bool {
        let Needs {
            texts: _,
            negatives,
            shots,
            labels,
            patches: _,
            classifiers,
            stream: _,
            noise,
        } = *self;
        negatives.is_some() || shots || labels || classifiers || noise
    }
}

/// The entry of one kind of detector in listings, and the names and defaults of its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectorInfo {
    /// Name in specifications and columns.
    pub kind: &'static str,
    /// One line for a listing.
    pub summary: &'static str,
    /// The score, higher = in-distribution; `c` = cosines to the class texts, `s = 100 c`, `p = softmax(s)`.
    pub formula: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// What it costs per image, beside the products with the class texts that all detectors share.
    pub cost: &'static str,
    /// What to know before its figures are compared with others.
    pub trap: &'static str,
    /// What the kind needs with default parameters; [`DetectorSpec::needs`](crate::DetectorSpec::needs) for given ones.
    pub needs: Needs,
    /// Parameters in canonical order.
    pub parameters: &'static [ParameterInfo],
}

impl DetectorInfo {
    /// The arrays beside the class texts that the kind is fitted on or scores with, as words for a listing.
    pub fn fitted_on(&self) -> String {
        let Needs {
            texts: _,
            negatives,
            shots,
            labels,
            patches,
            classifiers,
            stream,
            noise,
        } = self.needs;
        let arrays = [
            (negatives.is_some(), "negative_text"),
            (shots, "train"),
            (labels, "train_labels"),
            (classifiers, "other classifiers"),
            (noise, "noise"),
        ];
        let named: Vec<&str> = arrays
            .iter()
            .filter(|(needed, _)| *needed)
            .map(|(_, name)| *name)
            .collect();
        let mut words = if named.is_empty() {
            "nothing".to_owned()
        } else {
            named.join(", ")
        };
        if patches {
            words.push_str("; scores local features");
        }
        if stream {
            words.push_str("; scores a stream");
        }
        words
    }
}

/// One parameter of a detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Key in specifications.
    pub key: &'static str,
    /// Default, as it would be written.
    pub default: &'static str,
    /// Meaning and allowed values.
    pub summary: &'static str,
}

impl ParameterInfo {
    pub(crate) const fn new(
        key: &'static str,
        default: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            key,
            default,
            summary,
        }
    }
}

//! The list of detectors: one entry a kind, the single source of parameter names and defaults.

/// What a reader, and the parser of [`DetectorSpec`](crate::DetectorSpec), must know about one kind of detector.
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
    /// Arrays beside the class texts that it is fitted on or scores with.
    pub fitted_on: &'static str,
    /// Parameters in canonical order.
    pub parameters: &'static [ParameterInfo],
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

const fn parameter(
    key: &'static str,
    default: &'static str,
    summary: &'static str,
) -> ParameterInfo {
    ParameterInfo {
        key,
        default,
        summary,
    }
}

const TEMPERATURE: ParameterInfo = parameter("t", "1", "softmax temperature on cosines, above 0");
const SPACE: ParameterInfo = parameter(
    "space",
    "probability",
    "probability, or log_odds: the same order without the ties that f32 makes near 1",
);
const DIM: ParameterInfo = parameter(
    "dim",
    "256",
    "leading principal directions that are cut out, at least 1 and below the feature width",
);
const NOTHING: &str = "nothing";
const SHOTS: &str = "train";
const LABELLED: &str = "train, train_labels";

static DETECTORS: [DetectorInfo; 18] = [
    DetectorInfo {
        kind: "mcm",
        summary: "maximum concept matching: largest softmax probability of the cosines",
        formula: "max softmax(c / t)",
        paper: "Ming et al., Delving into Out-of-Distribution Detection with Vision-Language Representations, NeurIPS 2022",
        fitted_on: NOTHING,
        parameters: &[TEMPERATURE],
    },
    DetectorInfo {
        kind: "l_mcm",
        summary: "MCM of the best patch",
        formula: "max over patches of max softmax(c_patch / t)",
        paper: "Miyai et al., GL-MCM: Global and Local Maximum Concept Matching, IJCV 2025",
        fitted_on: "nothing; scores local features",
        parameters: &[TEMPERATURE],
    },
    DetectorInfo {
        kind: "gl_mcm",
        summary: "MCM of the image plus MCM of its best patch",
        formula: "mcm + weight * l_mcm",
        paper: "Miyai et al., GL-MCM: Global and Local Maximum Concept Matching, IJCV 2025",
        fitted_on: "nothing; scores local features",
        parameters: &[
            TEMPERATURE,
            parameter("weight", "1", "weight of the local term, any finite number"),
        ],
    },
    DetectorInfo {
        kind: "msp",
        summary: "largest softmax probability of the logits",
        formula: "max softmax(s)",
        paper: "Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples, ICLR 2017",
        fitted_on: NOTHING,
        parameters: &[SPACE],
    },
    DetectorInfo {
        kind: "max_logit",
        summary: "largest logit",
        formula: "max s",
        paper: "Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022",
        fitted_on: NOTHING,
        parameters: &[],
    },
    DetectorInfo {
        kind: "max_cosine",
        summary: "largest cosine",
        formula: "max c",
        paper: "Ming et al., NeurIPS 2022 (the maximum without softmax)",
        fitted_on: NOTHING,
        parameters: &[],
    },
    DetectorInfo {
        kind: "energy",
        summary: "free energy of the logits or the cosines",
        formula: "logsumexp(s), or logsumexp(c) with on=cosine",
        paper: "Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020",
        fitted_on: NOTHING,
        parameters: &[parameter(
            "on",
            "logits",
            "logits, or cosine as in MCM's code",
        )],
    },
    DetectorInfo {
        kind: "neg_entropy",
        summary: "negative entropy of the softmax",
        formula: "sum p log p",
        paper: "Ren et al., Likelihood Ratios for Out-of-Distribution Detection, NeurIPS 2019 (as baseline)",
        fitted_on: NOTHING,
        parameters: &[],
    },
    DetectorInfo {
        kind: "gen",
        summary: "generalised entropy of the largest probabilities",
        formula: "- sum over the m largest of p^gamma (1 - p)^gamma",
        paper: "Liu et al., GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection, CVPR 2023",
        fitted_on: NOTHING,
        parameters: &[
            parameter("gamma", "0.1", "exponent, above 0"),
            parameter(
                "m",
                "100",
                "probabilities that count, at least 1; all classes if there are fewer",
            ),
        ],
    },
    DetectorInfo {
        kind: "mahalanobis",
        summary: "distance to the nearest class mean under the tied covariance of the shots",
        formula: "- min_k (f - mu_k)^T P (f - mu_k)",
        paper: "Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018",
        fitted_on: LABELLED,
        parameters: &[parameter(
            "covariance",
            "empirical",
            "empirical or ledoit_wolf",
        )],
    },
    DetectorInfo {
        kind: "relative_mahalanobis",
        summary: "Mahalanobis distance less the distance to one Gaussian over all shots",
        formula: "- (min_k d_k(f) - d_0(f))",
        paper: "Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021",
        fitted_on: LABELLED,
        parameters: &[],
    },
    DetectorInfo {
        kind: "knn",
        summary: "distance to the k-th nearest shot",
        formula: "- ||f - x_(k)||^2",
        paper: "Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022",
        fitted_on: SHOTS,
        parameters: &[parameter(
            "k",
            "50",
            "which neighbour, at least 1; the last shot if there are fewer",
        )],
    },
    DetectorInfo {
        kind: "vim",
        summary: "energy less the scaled residual outside the shots' principal space",
        formula: "logsumexp(s) - alpha ||N f||, alpha = mean max s / mean ||N x|| over the shots",
        paper: "Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022",
        fitted_on: SHOTS,
        parameters: &[DIM],
    },
    DetectorInfo {
        kind: "residual",
        summary: "length outside the shots' principal space",
        formula: "- ||N f||",
        paper: "Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022",
        fitted_on: SHOTS,
        parameters: &[DIM],
    },
    DetectorInfo {
        kind: "one_class_svm",
        summary: "decision function of a one-class SVM on the shots",
        formula: "sum_i alpha_i exp(-gamma ||f - x_i||^2) - rho",
        paper: "Schoelkopf et al., Estimating the Support of a High-Dimensional Distribution, Neural Computation 2001",
        fitted_on: SHOTS,
        parameters: &[
            parameter("gamma", "1", "width of the RBF kernel, above 0"),
            parameter(
                "nu",
                "0.1",
                "share of shots that may lie outside, in (0, 1]",
            ),
        ],
    },
    DetectorInfo {
        kind: "neglabel",
        summary: "softmax mass on the class texts against negative texts",
        formula: "mean over groups of sum_id exp(scale c) / (sum_id exp(scale c) + sum_group exp(scale c))",
        paper: "Jiang et al., Negative Label Guided OOD Detection with Pretrained Vision-Language Models, ICLR 2024",
        fitted_on: "negative_text",
        parameters: &[
            parameter("scale", "100", "factor on cosines, above 0"),
            parameter(
                "groups",
                "1",
                "equal groups of negative texts, at least 1; a remainder is dropped",
            ),
            parameter(
                "shuffle",
                "none",
                "none: consecutive groups; a number: the seed of a shuffle before grouping",
            ),
            SPACE,
        ],
    },
    DetectorInfo {
        kind: "unknown_prompt",
        summary: "softmax mass on prompts for the unknown",
        formula: "- sum over the first count negative texts of softmax([s, s_negative])",
        paper: "after Nie et al., Out-of-Distribution Detection with Negative Prompts, ICLR 2024",
        fitted_on: "negative_text",
        parameters: &[
            parameter("count", "1", "negative texts that count, at least 1"),
            SPACE,
        ],
    },
    DetectorInfo {
        kind: "dpm_neg_min_kl",
        summary: "divergence from the nearest class pattern of softmax outputs",
        formula: "- min_k KL(m_k || softmax(c / t)), m_k the class means of softmax(c / t) over the shots",
        paper: "Zhang et al., Vision-Language Dual-Pattern Matching for Out-of-Distribution Detection, ECCV 2024",
        fitted_on: LABELLED,
        parameters: &[parameter(
            "t",
            "0.1",
            "softmax temperature on cosines, above 0",
        )],
    },
];

/// Every kind of detector, in the order of listings.
pub fn registry() -> &'static [DetectorInfo] {
    &DETECTORS
}

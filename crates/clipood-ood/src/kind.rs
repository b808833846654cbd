//! Kinds of detectors with typed parameters, and their text.

/// Whether a probability is reported as such or as its log-odds.
///
/// Near 1 an f32 probability has steps of 6e-8, so confident images tie. Their log-odds order them the same way and do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The probability itself, computed in f64 and rounded once.
    Probability,
    /// `ln(p / (1 - p))`, computed without forming `1 - p`.
    LogOdds,
}

/// What [`DetectorKind::Energy`] sums over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnergyOn {
    /// 100 * cosine.
    Logits,
    /// The cosine.
    Cosine,
}

/// Estimator of the tied within-class covariance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covariance {
    /// Second moment of the residuals, inverted on its range.
    Empirical,
    /// Shrunk towards a multiple of the identity (Ledoit and Wolf, 2004).
    LedoitWolf,
}

/// A kind of detector with its parameters; the [`registry`](crate::registry()) gives formulas and papers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DetectorKind {
    /// `mcm`
    Mcm {
        /// Softmax temperature on cosines, above 0.
        t: f64,
    },
    /// `l_mcm`
    LMcm {
        /// Softmax temperature on cosines, above 0.
        t: f64,
    },
    /// `gl_mcm`
    GlMcm {
        /// Softmax temperature on cosines, above 0.
        t: f64,
        /// Weight of the local term.
        weight: f64,
    },
    /// `msp`
    Msp {
        /// Probability or log-odds.
        space: Space,
    },
    /// `max_logit`
    MaxLogit,
    /// `max_cosine`
    MaxCosine,
    /// `energy`
    Energy {
        /// Logits or cosines.
        on: EnergyOn,
    },
    /// `neg_entropy`
    NegEntropy,
    /// `gen`
    Gen {
        /// Exponent, above 0.
        gamma: f64,
        /// Largest probabilities that count, at least 1.
        m: usize,
    },
    /// `mahalanobis`
    Mahalanobis {
        /// Estimator of the within-class covariance.
        covariance: Covariance,
    },
    /// `relative_mahalanobis`
    RelativeMahalanobis,
    /// `knn`
    Knn {
        /// Which neighbour, at least 1.
        k: usize,
    },
    /// `vim`
    Vim {
        /// Leading directions that are cut out, at least 1.
        dim: usize,
    },
    /// `residual`
    Residual {
        /// Leading directions that are cut out, at least 1.
        dim: usize,
    },
    /// `one_class_svm`
    OneClassSvm {
        /// Width of the RBF kernel, above 0.
        gamma: f64,
        /// Share of shots that may lie outside, in (0, 1].
        nu: f64,
    },
    /// `neglabel`
    NegLabel {
        /// Factor on cosines, above 0.
        scale: f64,
        /// Number of equal groups, at least 1.
        groups: usize,
        /// Seed of a shuffle before grouping; consecutive groups without.
        shuffle: Option<u64>,
        /// Probability or log-odds.
        space: Space,
    },
    /// `unknown_prompt`
    UnknownPrompt {
        /// Negative texts that count, at least 1.
        count: usize,
        /// Probability or log-odds.
        space: Space,
    },
    /// `dpm_neg_min_kl`
    DpmNegMinKl {
        /// Softmax temperature on cosines, above 0.
        t: f64,
    },
}

impl DetectorKind {
    /// Whether the score is made of cosines to texts: of classes or of no class, at the model's scale of cosines. The other
    /// kinds read the logits of any classifier, or image features alone. ViM is counted here, since its factor is one of
    /// logits without bias.
    pub fn needs_texts(&self) -> bool {
        match self {
            DetectorKind::Mcm { .. }
            | DetectorKind::LMcm { .. }
            | DetectorKind::GlMcm { .. }
            | DetectorKind::MaxCosine
            | DetectorKind::Energy {
                on: EnergyOn::Cosine,
            }
            | DetectorKind::Vim { .. }
            | DetectorKind::NegLabel { .. }
            | DetectorKind::UnknownPrompt { .. }
            | DetectorKind::DpmNegMinKl { .. } => true,
            DetectorKind::Msp { .. }
            | DetectorKind::MaxLogit
            | DetectorKind::Energy {
                on: EnergyOn::Logits,
            }
            | DetectorKind::NegEntropy
            | DetectorKind::Gen { .. }
            | DetectorKind::Mahalanobis { .. }
            | DetectorKind::RelativeMahalanobis
            | DetectorKind::Knn { .. }
            | DetectorKind::Residual { .. }
            | DetectorKind::OneClassSvm { .. } => false,
        }
    }
}

pub(crate) const SPACES: [(&str, Space); 2] = [
    ("probability", Space::Probability),
    ("log_odds", Space::LogOdds),
];
pub(crate) const ENERGIES: [(&str, EnergyOn); 2] =
    [("logits", EnergyOn::Logits), ("cosine", EnergyOn::Cosine)];
pub(crate) const COVARIANCES: [(&str, Covariance); 2] = [
    ("empirical", Covariance::Empirical),
    ("ledoit_wolf", Covariance::LedoitWolf),
];

/// Place of a kind in the registry.
pub(crate) fn index(kind: &DetectorKind) -> usize {
    match kind {
        DetectorKind::Mcm { .. } => 0,
        DetectorKind::LMcm { .. } => 1,
        DetectorKind::GlMcm { .. } => 2,
        DetectorKind::Msp { .. } => 3,
        DetectorKind::MaxLogit => 4,
        DetectorKind::MaxCosine => 5,
        DetectorKind::Energy { .. } => 6,
        DetectorKind::NegEntropy => 7,
        DetectorKind::Gen { .. } => 8,
        DetectorKind::Mahalanobis { .. } => 9,
        DetectorKind::RelativeMahalanobis => 10,
        DetectorKind::Knn { .. } => 11,
        DetectorKind::Vim { .. } => 12,
        DetectorKind::Residual { .. } => 13,
        DetectorKind::OneClassSvm { .. } => 14,
        DetectorKind::NegLabel { .. } => 15,
        DetectorKind::UnknownPrompt { .. } => 16,
        DetectorKind::DpmNegMinKl { .. } => 17,
    }
}

/// The parameters as text, in the registry's order.
pub(crate) fn values(kind: &DetectorKind) -> Vec<String> {
    fn word<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> String {
        let found = choices.iter().find(|(_, choice)| *choice == value);
        found.map_or(String::new(), |(word, _)| (*word).to_owned())
    }
    match *kind {
        DetectorKind::Mcm { t } | DetectorKind::LMcm { t } | DetectorKind::DpmNegMinKl { t } => {
            vec![t.to_string()]
        }
        DetectorKind::GlMcm { t, weight } => vec![t.to_string(), weight.to_string()],
        DetectorKind::Msp { space } => vec![word(&SPACES, space)],
        DetectorKind::MaxLogit
        | DetectorKind::MaxCosine
        | DetectorKind::NegEntropy
        | DetectorKind::RelativeMahalanobis => vec![],
        DetectorKind::Energy { on } => vec![word(&ENERGIES, on)],
        DetectorKind::Gen { gamma, m } => vec![gamma.to_string(), m.to_string()],
        DetectorKind::Mahalanobis { covariance } => vec![word(&COVARIANCES, covariance)],
        DetectorKind::Knn { k } => vec![k.to_string()],
        DetectorKind::Vim { dim } | DetectorKind::Residual { dim } => vec![dim.to_string()],
        DetectorKind::OneClassSvm { gamma, nu } => vec![gamma.to_string(), nu.to_string()],
        DetectorKind::NegLabel {
            scale,
            groups,
            shuffle,
            space,
        } => vec![
            scale.to_string(),
            groups.to_string(),
            shuffle.map_or("none".to_owned(), |seed| seed.to_string()),
            word(&SPACES, space),
        ],
        DetectorKind::UnknownPrompt { count, space } => {
            vec![count.to_string(), word(&SPACES, space)]
        }
    }
}

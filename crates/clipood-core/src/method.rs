//! The methods that make a prompt set: class texts, or a linear classifier in their place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::CoreError;
use crate::nearest::hint_with_list;

/// How the text side is made, or what stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Hand-written templates, nothing trained (CLIP, Radford et al. 2021).
    ZeroShot,
    /// Context vectors trained with cross entropy (CoOp, Zhou et al. 2022).
    Coop,
    /// CoOp with an entropy term on patches that do not look like the label (LoCoOp, Miyai et al. 2023).
    Locoop,
    /// LoCoOp with both terms weighted by the label's probability (SCT, Yu et al. 2024).
    Sct,
    /// No texts: logistic regression on the image features of the shots (CLIP, Radford et al. 2021).
    LinearProbe,
    /// CoOp's prompt, its MCM score fused with the divergence from the class patterns of the shots.
    Dpcoop,
    /// LoCoOp's prompt, its GL-MCM score fused in the same way.
    Dplocoop,
    /// SCT's prompt, its GL-MCM score fused in the same way.
    Dpsct,
}

impl Method {
    /// All methods, in the order of the tables.
    pub const ALL: [Method; 8] = [
        Method::ZeroShot,
        Method::Coop,
        Method::Locoop,
        Method::Sct,
        Method::LinearProbe,
        Method::Dpcoop,
        Method::Dplocoop,
        Method::Dpsct,
    ];

    /// The name in recipes and tables.
    pub fn name(self) -> &'static str {
        match self {
            Method::ZeroShot => "zero-shot",
            Method::Coop => "coop",
            Method::Locoop => "locoop",
            Method::Sct => "sct",
            Method::LinearProbe => "linear-probe",
            Method::Dpcoop => "dpcoop",
            Method::Dplocoop => "dplocoop",
            Method::Dpsct => "dpsct",
        }
    }

    /// The method that makes the prompt: a dual-pattern run trains as the method it is named after, so the two share
    /// their prompt sets when everything else is equal.
    pub fn trainer(self) -> Method {
        match self {
            Method::Dpcoop => Method::Coop,
            Method::Dplocoop => Method::Locoop,
            Method::Dpsct => Method::Sct,
            other => other,
        }
    }

    /// Whether the score is fused with the divergence from the class patterns.
    pub fn is_dual_pattern(self) -> bool {
        self.trainer() != self
    }

    /// Whether training looks at patches.
    pub fn uses_patches(self) -> bool {
        matches!(self.trainer(), Method::Locoop | Method::Sct)
    }

    /// Whether the method learns from labelled images, so that shots and seeds matter.
    pub fn uses_shots(self) -> bool {
        self != Method::ZeroShot
    }

    /// Whether the method trains a context, on random crops of the shots.
    pub fn trains_prompt(self) -> bool {
        !matches!(self, Method::ZeroShot | Method::LinearProbe)
    }

    /// The epochs of the method's paper, or of the dual-pattern repository's recipes; 0 for a method that trains no prompt.
    pub fn default_epochs(self) -> usize {
        match self {
            Method::ZeroShot | Method::LinearProbe => 0,
            Method::Coop | Method::Locoop => 50,
            Method::Sct => 25,
            Method::Dpcoop | Method::Dplocoop | Method::Dpsct => 20,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Method {
    type Err = CoreError;

    fn from_str(text: &str) -> Result<Self, CoreError> {
        let found = Method::ALL.into_iter().find(|method| method.name() == text);
        found.ok_or_else(|| CoreError::UnknownName {
            what: "method",
            found: text.to_string(),
            hint: hint_with_list(text, &Method::ALL.map(Method::name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_serde_and_parse_back() {
        for method in Method::ALL {
            let json = serde_json::to_string(&method).unwrap();
            assert_eq!(json, format!("\"{method}\""));
            assert_eq!(method.name().parse::<Method>().unwrap(), method);
            assert_eq!(method.trains_prompt(), method.default_epochs() > 0);
            assert!(method.uses_shots() || !method.trains_prompt());
        }
    }

    #[test]
    fn unknown_methods_get_the_valid_ones() {
        let error = "locop".parse::<Method>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown method `locop`; did you mean `locoop`? valid: `zero-shot`, `coop`, `locoop`, `sct`, `linear-probe`, \
             `dpcoop`, `dplocoop`, `dpsct`"
        );
    }

    #[test]
    fn a_dual_pattern_run_trains_as_its_namesake() {
        for method in Method::ALL {
            let trainer = method.trainer();
            assert!(!trainer.is_dual_pattern());
            let prefix = if method.is_dual_pattern() { "dp" } else { "" };
            assert_eq!(method.name(), format!("{prefix}{trainer}"));
        }
    }
}

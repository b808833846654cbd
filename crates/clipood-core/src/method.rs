//! The methods that produce a prompt set: class texts, or a linear classifier in their place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::CoreError;
use crate::nearest::hint_with_list;

/// How the text features of the classes are obtained, or what replaces them.
///
/// # Adding a method
/// Add a variant, its place in [`Method::ALL`] and the paper it comes from. The functions below match every variant, so the
/// compiler lists the properties to decide:
///
/// - [`name`](Method::name): the word in recipes, tables and fingerprints, equal to the kebab-case form of the variant that serde
///   writes. It cannot change later: stored runs and prompt sets contain it.
/// - [`trainer`](Method::trainer): the method whose training it shares. A method that only scores differently returns the
///   existing method here and then needs no training of its own.
/// - [`uses_shots`](Method::uses_shots), [`trains_prompt`](Method::trains_prompt), [`uses_patches`](Method::uses_patches): what
///   its training needs, from which the stages derive shots, seeds, crops and patch features.
/// - [`builds_on`](Method::builds_on): the method whose prompt sets it completes.
/// - the default number of epochs of its paper.
///
/// The training itself, with the parameters that enter the fingerprint of its prompt sets, is in the pipeline, where a match
/// over the trainers is exhaustive as well. The tests of this file hold for all methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Hand-written templates, nothing trained (CLIP, Radford et al. 2021).
    ZeroShot,
    /// Context vectors trained with cross entropy (CoOp, Zhou et al. 2022).
    Coop,
    /// CoOp with an entropy term on patches that do not resemble the label (LoCoOp, Miyai et al. 2023).
    Locoop,
    /// LoCoOp with both terms weighted by the label's probability (SCT, Yu et al. 2024).
    Sct,
    /// CoOp's prompt, frozen, and prompts that say what a class is not (NegPrompt, Li et al. 2024).
    Negprompt,
    /// No texts; logistic regression on the image features of the shots (CLIP, Radford et al. 2021).
    LinearProbe,
    /// CoOp's prompt; its MCM score is fused with the divergence from the class patterns of the shots.
    Dpcoop,
    /// LoCoOp's prompt; its GL-MCM score is fused in the same way.
    Dplocoop,
    /// SCT's prompt; its GL-MCM score is fused in the same way.
    Dpsct,
}

impl Method {
    /// All methods, in the order of the tables.
    pub const ALL: [Method; 9] = [
        Method::ZeroShot,
        Method::Coop,
        Method::Locoop,
        Method::Sct,
        Method::Negprompt,
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
            Method::Negprompt => "negprompt",
            Method::LinearProbe => "linear-probe",
            Method::Dpcoop => "dpcoop",
            Method::Dplocoop => "dplocoop",
            Method::Dpsct => "dpsct",
        }
    }

    /// The method that trains the prompt: a dual-pattern method trains like the method it is named after, so the two share
    /// their prompt sets if everything else is equal.
    pub fn trainer(self) -> Method {
        match self {
            Method::Dpcoop => Method::Coop,
            Method::Dplocoop => Method::Locoop,
            Method::Dpsct => Method::Sct,
            Method::ZeroShot
            | Method::Coop
            | Method::Locoop
            | Method::Sct
            | Method::Negprompt
            | Method::LinearProbe => self,
        }
    }

    /// The method whose prompt set of the same shots and seed this one starts from and keeps, beside what it trains itself.
    pub fn builds_on(self) -> Option<Method> {
        match self {
            Method::Negprompt => Some(Method::Coop),
            Method::ZeroShot
            | Method::Coop
            | Method::Locoop
            | Method::Sct
            | Method::LinearProbe
            | Method::Dpcoop
            | Method::Dplocoop
            | Method::Dpsct => None,
        }
    }

    /// Whether its prompt sets hold learned negative texts, which describe what the classes are not.
    pub fn has_negatives(self) -> bool {
        match self {
            Method::Negprompt => true,
            Method::ZeroShot
            | Method::Coop
            | Method::Locoop
            | Method::Sct
            | Method::LinearProbe
            | Method::Dpcoop
            | Method::Dplocoop
            | Method::Dpsct => false,
        }
    }

    /// Whether the score is fused with the divergence from the class patterns.
    pub fn is_dual_pattern(self) -> bool {
        self.trainer() != self
    }

    /// Whether the training uses patch features.
    pub fn uses_patches(self) -> bool {
        match self {
            Method::Locoop | Method::Sct | Method::Dplocoop | Method::Dpsct => true,
            Method::ZeroShot
            | Method::Coop
            | Method::Negprompt
            | Method::LinearProbe
            | Method::Dpcoop => false,
        }
    }

    /// Whether the method learns from labelled images, so that shots and seeds matter.
    pub fn uses_shots(self) -> bool {
        match self {
            Method::ZeroShot => false,
            Method::Coop
            | Method::Locoop
            | Method::Sct
            | Method::Negprompt
            | Method::LinearProbe
            | Method::Dpcoop
            | Method::Dplocoop
            | Method::Dpsct => true,
        }
    }

    /// Whether the classes have text features, which detectors can compare images with.
    pub fn has_texts(self) -> bool {
        match self {
            Method::LinearProbe => false,
            Method::ZeroShot
            | Method::Coop
            | Method::Locoop
            | Method::Sct
            | Method::Negprompt
            | Method::Dpcoop
            | Method::Dplocoop
            | Method::Dpsct => true,
        }
    }

    /// Whether the method trains context vectors, on random crops of the shots.
    pub fn trains_prompt(self) -> bool {
        match self {
            Method::ZeroShot | Method::LinearProbe => false,
            Method::Coop
            | Method::Locoop
            | Method::Sct
            | Method::Negprompt
            | Method::Dpcoop
            | Method::Dplocoop
            | Method::Dpsct => true,
        }
    }

    /// The number of epochs in the paper of the method, or in the recipes of the dual-pattern repository; that of the method that
    /// it builds on, whose `[train]` section it shares; 0 for a method that trains no prompt.
    pub(crate) fn default_epochs(self) -> usize {
        match self {
            Method::ZeroShot | Method::LinearProbe => 0,
            Method::Coop | Method::Locoop | Method::Negprompt => 50,
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
            if let Some(base) = method.builds_on() {
                assert_eq!(method.default_epochs(), base.default_epochs());
                assert_eq!(method.uses_shots(), base.uses_shots());
                assert_eq!(method.has_texts(), base.has_texts());
            }
        }
    }

    #[test]
    fn unknown_methods_get_the_valid_ones() {
        let error = "locop".parse::<Method>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown method `locop`; did you mean `locoop`? valid: `zero-shot`, `coop`, `locoop`, `sct`, `negprompt`, \
             `linear-probe`, `dpcoop`, `dplocoop`, `dpsct`"
        );
    }

    #[test]
    fn a_dual_pattern_method_trains_like_its_namesake() {
        for method in Method::ALL {
            let trainer = method.trainer();
            assert!(!trainer.is_dual_pattern());
            assert_eq!(method.uses_patches(), trainer.uses_patches());
            assert_eq!(method.uses_shots(), trainer.uses_shots());
            assert_eq!(method.trains_prompt(), trainer.trains_prompt());
            let prefix = if method.is_dual_pattern() { "dp" } else { "" };
            assert_eq!(method.name(), format!("{prefix}{trainer}"));
        }
    }
}

//! The methods that make a prompt set.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::CoreError;
use crate::nearest::hint_with_list;

/// How the text side is made.
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
}

impl Method {
    /// All methods, in the order of the tables.
    pub const ALL: [Method; 4] = [Method::ZeroShot, Method::Coop, Method::Locoop, Method::Sct];

    /// The name in recipes and tables.
    pub fn name(self) -> &'static str {
        match self {
            Method::ZeroShot => "zero-shot",
            Method::Coop => "coop",
            Method::Locoop => "locoop",
            Method::Sct => "sct",
        }
    }

    /// Whether the method trains on labelled images, so that shots and seeds matter.
    pub fn uses_shots(self) -> bool {
        self != Method::ZeroShot
    }

    /// The epochs of the method's paper; 0 for a method that trains nothing.
    pub fn default_epochs(self) -> usize {
        match self {
            Method::ZeroShot => 0,
            Method::Coop | Method::Locoop => 50,
            Method::Sct => 25,
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
            assert_eq!(method.uses_shots(), method.default_epochs() > 0);
        }
    }

    #[test]
    fn unknown_methods_get_the_valid_ones() {
        let error = "dplocoop".parse::<Method>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown method `dplocoop`; did you mean `locoop`? valid: `zero-shot`, `coop`, `locoop`, `sct`"
        );
        let error = "linear-probe".parse::<Method>().unwrap_err().to_string();
        assert!(
            error.ends_with("; valid: `zero-shot`, `coop`, `locoop`, `sct`"),
            "{error}"
        );
    }
}

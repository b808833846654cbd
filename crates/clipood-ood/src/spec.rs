//! Detector specifications, `[alias=]kind[:key=value]...`, as text and as typed values.

use crate::detectors::Kind;
use crate::error::OodError;
use crate::info::{DetectorInfo, Needs};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A detector as a user names it: a kind, its parameters, and perhaps an alias for its column.
///
/// Serialises as its canonical text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DetectorSpec {
    alias: Option<String>,
    kind: Kind,
}

impl DetectorSpec {
    /// The same kind and parameters without alias.
    pub fn without_alias(&self) -> Self {
        Self {
            alias: None,
            kind: self.kind,
        }
    }

    /// Reads specifications separated by commas.
    ///
    /// # Errors
    /// [`OodError::Spec`] for the first that cannot be read, for an empty list, and for two with one name.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, OodError> {
        let specs: Vec<Self> = text
            .split(',')
            .map(|one| one.trim().parse())
            .collect::<Result<_, _>>()?;
        for (i, spec) in specs.iter().enumerate() {
            if specs[..i].iter().any(|other| other.name() == spec.name()) {
                return Err(OodError::Spec {
                    text: text.to_owned(),
                    problem: format!(
                        "{:?} stands twice; give one an alias, as in alias=kind",
                        spec.name()
                    ),
                });
            }
        }
        Ok(specs)
    }

    /// The kind and its parameters.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The entry of this kind in [`registry`](crate::registry()).
    pub fn info(&self) -> &'static DetectorInfo {
        self.kind.info()
    }

    /// What this detector needs beside image features, given its parameters.
    pub fn needs(&self) -> Needs {
        self.kind.needs()
    }

    /// Images that arrive together, for a kind that scores a stream of images.
    pub fn batch(&self) -> Option<usize> {
        self.kind.stream().map(|stream| stream.batch())
    }

    /// The name for columns and messages: the alias, else the kind with the parameters that differ from the defaults.
    pub fn name(&self) -> String {
        self.alias.clone().unwrap_or_else(|| self.canonical_kind())
    }

    /// `kind[:key=value]...` with the parameters that differ from the defaults, in the registry's order.
    fn canonical_kind(&self) -> String {
        let info = self.info();
        let mut text = info.kind.to_owned();
        for (parameter, value) in info.parameters.iter().zip(self.kind.write()) {
            if value != parameter.default {
                text.push_str(&format!(":{}={value}", parameter.key));
            }
        }
        text
    }
}

impl fmt::Display for DetectorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(alias) = &self.alias {
            write!(f, "{alias}=")?;
        }
        f.write_str(&self.canonical_kind())
    }
}

impl From<DetectorSpec> for String {
    fn from(spec: DetectorSpec) -> Self {
        spec.to_string()
    }
}

impl TryFrom<String> for DetectorSpec {
    type Error = OodError;

    fn try_from(text: String) -> Result<Self, OodError> {
        text.parse()
    }
}

impl FromStr for DetectorSpec {
    type Err = OodError;

    fn from_str(text: &str) -> Result<Self, OodError> {
        parse(text).map_err(|problem| OodError::Spec {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<DetectorSpec, String> {
    let mut fields = text.split(':');
    let head = fields.next().unwrap_or_default();
    let (alias, kind) = match head.split_once('=') {
        Some((alias, kind)) => (Some(alias), kind),
        None => (None, head),
    };
    if let Some(alias) = alias {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if alias.is_empty() || !alias.chars().all(allowed) {
            return Err(format!(
                "alias {alias:?} must be letters, digits, '_', '-' or '.'"
            ));
        }
    }
    Ok(DetectorSpec {
        alias: alias.map(str::to_owned),
        kind: Kind::read(kind, fields)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::registry;
    use crate::info::Negatives;
    use proptest::prelude::*;

    #[test]
    fn defaults_written_out_mean_the_bare_kind() {
        for info in registry() {
            let bare: DetectorSpec = info.kind.parse().unwrap();
            assert_eq!(bare.info().kind, info.kind);
            assert_eq!(bare.name(), info.kind);
            let mut text = info.kind.to_owned();
            for parameter in info.parameters {
                text.push_str(&format!(":{}={}", parameter.key, parameter.default));
            }
            assert_eq!(text.parse::<DetectorSpec>().unwrap(), bare);
        }
    }

    #[test]
    fn display_is_canonical_and_reads_back() {
        for (text, canonical, name) in [
            ("mcm:t=1.0", "mcm", "mcm"),
            ("mcm:t=.10", "mcm:t=0.1", "mcm:t=0.1"),
            (
                "gl_mcm:weight=0.5:t=0.1",
                "gl_mcm:t=0.1:weight=0.5",
                "gl_mcm:t=0.1:weight=0.5",
            ),
            ("near=knn:k=5", "near=knn:k=5", "near"),
            (
                "neglabel:shuffle=7:groups=4",
                "neglabel:groups=4:shuffle=7",
                "neglabel:groups=4:shuffle=7",
            ),
            ("energy:on=cosine", "energy:on=cosine", "energy:on=cosine"),
        ] {
            let spec: DetectorSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), canonical);
            assert_eq!(spec.name(), name);
            assert_eq!(canonical.parse::<DetectorSpec>().unwrap(), spec);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<DetectorSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn errors_name_the_word_and_the_nearest_valid_one() {
        for (text, part) in [
            ("mahalonobis", "did you mean \"mahalanobis\"?"),
            ("knn:kk=3", "did you mean \"k\"?"),
            ("knn:k=0", "at least 1, found \"0\""),
            ("mcm:t=-1", "above 0, found \"-1\""),
            ("mcm:t=nan", "found \"nan\""),
            ("mcm:t=1:t=2", "stands twice"),
            ("max_logit:t=1", "takes no parameters"),
            ("one_class_svm:nu=1.5", "(0, 1]"),
            ("energy:on=cosines", "did you mean \"cosine\"?"),
            ("neglabel:shuffle=x", "none or a seed"),
            ("=mcm", "alias"),
            ("a b=mcm", "alias"),
            ("mcm:t", "not key=value"),
            ("", "unknown kind"),
        ] {
            let message = text.parse::<DetectorSpec>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
        let message = DetectorSpec::parse_list("mcm, mcm:t=1.0").unwrap_err();
        assert!(message.to_string().contains("stands twice"));
        assert_eq!(DetectorSpec::parse_list("mcm,b=mcm").unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z_]{0,8}(=[a-z_:]{0,6})?(:[a-z]{1,6}=[0-9a-z.-]{0,4}){0,2}") {
            if let Ok(spec) = text.parse::<DetectorSpec>() {
                prop_assert_eq!(spec.to_string().parse::<DetectorSpec>().unwrap(), spec);
            }
        }

        #[test]
        fn numbers_survive_the_text(t in 1e-6..1e6f64, weight in -10.0..10.0f64) {
            let spec: DetectorSpec = format!("gl_mcm:t={t}:weight={weight}").parse().unwrap();
            let text = spec.to_string();
            prop_assert_eq!(text.parse::<DetectorSpec>().unwrap(), spec);
            let numbers: Vec<f64> = text
                .split(['=', ':'])
                .filter_map(|word| word.parse().ok())
                .collect();
            prop_assert_eq!(numbers, [t, weight]);
        }
    }

    #[test]
    fn the_alias_can_be_taken_off() {
        let spec: DetectorSpec = "near=knn:k=5".parse().unwrap();
        assert_eq!(spec.without_alias().to_string(), "knn:k=5");
        assert_eq!(spec.without_alias().without_alias(), spec.without_alias());
        assert_eq!(spec.needs(), spec.info().needs);
    }

    #[test]
    fn needs_depend_on_the_parameters() {
        let needs = |text: &str| text.parse::<DetectorSpec>().unwrap().needs();
        assert!(!needs("energy").texts);
        assert!(needs("energy:on=cosine").texts);
        assert!(!needs("mcm").is_fitted() && !needs("l_mcm").is_fitted());
        assert!(needs("knn").is_fitted() && needs("neglabel").is_fitted());
        assert_eq!(needs("neglabel").negatives, Some(Negatives::Mined));
        assert_eq!(needs("unknown_prompt").negatives, Some(Negatives::Unknown));
    }
}

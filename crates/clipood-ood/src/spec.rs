//! Detector specifications, `[alias=]kind[:key=value]...`, as text and as typed values.

use crate::error::OodError;
use crate::kind::{COVARIANCES, DetectorKind, ENERGIES, SPACES, Space, index, values};
use crate::registry::{DetectorInfo, registry};
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
    kind: DetectorKind,
}

impl DetectorSpec {
    /// A kind without alias.
    pub fn new(kind: DetectorKind) -> Self {
        Self { alias: None, kind }
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
    pub fn kind(&self) -> DetectorKind {
        self.kind
    }

    /// The registry's entry of this kind.
    pub fn info(&self) -> &'static DetectorInfo {
        // Every kind has one entry at the place that `index` gives (tested); the modulus only rules out a panic.
        &registry()[index(&self.kind) % registry().len()]
    }

    /// The name for columns and messages: the alias, else the kind with the parameters that differ from the defaults.
    pub fn name(&self) -> String {
        self.alias.clone().unwrap_or_else(|| self.canonical_kind())
    }

    /// `kind[:key=value]...` with the parameters that differ from the defaults, in the registry's order.
    fn canonical_kind(&self) -> String {
        let info = self.info();
        let mut text = info.kind.to_owned();
        for (parameter, value) in info.parameters.iter().zip(values(&self.kind)) {
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
    let kinds = registry().iter().map(|info| info.kind);
    let Some(info) = registry().iter().find(|info| info.kind == kind) else {
        return Err(unknown("kind", kind, kinds));
    };
    let mut given: Vec<Option<&str>> = vec![None; info.parameters.len()];
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("{field:?} is not key=value"));
        };
        let keys = info.parameters.iter().map(|parameter| parameter.key);
        let Some(place) = keys.clone().position(|known| known == key) else {
            return Err(if info.parameters.is_empty() {
                format!("{kind} takes no parameters, found {key:?}")
            } else {
                unknown(&format!("parameter of {kind}"), key, keys)
            });
        };
        if given[place].replace(value).is_some() {
            return Err(format!("parameter {key:?} stands twice"));
        }
    }
    let kind = build(&Values { info, given })?;
    Ok(DetectorSpec {
        alias: alias.map(str::to_owned),
        kind,
    })
}

fn unknown(what: &str, found: &str, valid: impl Iterator<Item = &'static str> + Clone) -> String {
    let nearest = clipood_core::nearest(found, valid.clone());
    let hint = nearest.map_or(String::new(), |near| format!(", did you mean {near:?}?"));
    let all: Vec<&str> = valid.collect();
    format!("unknown {what} {found:?}{hint} (known: {})", all.join(", "))
}

/// The texts given for the parameters of one kind, in the registry's order.
struct Values<'a> {
    info: &'static DetectorInfo,
    given: Vec<Option<&'a str>>,
}

impl Values<'_> {
    fn text(&self, key: &str) -> Result<&str, String> {
        let place = self.info.parameters.iter().position(|p| p.key == key);
        match place {
            Some(place) => Ok(self.given[place].unwrap_or(self.info.parameters[place].default)),
            None => Err(format!("{} has no parameter {key:?}", self.info.kind)),
        }
    }

    fn number(&self, key: &str, allowed: &str, ok: impl Fn(f64) -> bool) -> Result<f64, String> {
        let text = self.text(key)?;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() && ok(value) => Ok(value),
            _ => Err(format!("{key} must be {allowed}, found {text:?}")),
        }
    }

    fn positive(&self, key: &str) -> Result<f64, String> {
        self.number(key, "a finite number above 0", |value| value > 0.0)
    }

    fn count(&self, key: &str) -> Result<usize, String> {
        let text = self.text(key)?;
        match text.parse::<usize>() {
            Ok(value) if value > 0 => Ok(value),
            _ => Err(format!(
                "{key} must be a whole number of at least 1, found {text:?}"
            )),
        }
    }

    fn choice<T: Copy>(&self, key: &str, choices: &[(&'static str, T)]) -> Result<T, String> {
        let text = self.text(key)?;
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => Err(unknown(
                &format!("value of {key}"),
                text,
                choices.iter().map(|(word, _)| *word),
            )),
        }
    }

    fn space(&self) -> Result<Space, String> {
        self.choice("space", &SPACES)
    }
}

fn build(v: &Values<'_>) -> Result<DetectorKind, String> {
    Ok(match v.info.kind {
        "mcm" => DetectorKind::Mcm {
            t: v.positive("t")?,
        },
        "l_mcm" => DetectorKind::LMcm {
            t: v.positive("t")?,
        },
        "gl_mcm" => DetectorKind::GlMcm {
            t: v.positive("t")?,
            weight: v.number("weight", "a finite number", |_| true)?,
        },
        "msp" => DetectorKind::Msp { space: v.space()? },
        "max_logit" => DetectorKind::MaxLogit,
        "max_cosine" => DetectorKind::MaxCosine,
        "energy" => DetectorKind::Energy {
            on: v.choice("on", &ENERGIES)?,
        },
        "neg_entropy" => DetectorKind::NegEntropy,
        "gen" => DetectorKind::Gen {
            gamma: v.positive("gamma")?,
            m: v.count("m")?,
        },
        "mahalanobis" => DetectorKind::Mahalanobis {
            covariance: v.choice("covariance", &COVARIANCES)?,
        },
        "relative_mahalanobis" => DetectorKind::RelativeMahalanobis,
        "knn" => DetectorKind::Knn { k: v.count("k")? },
        "vim" => DetectorKind::Vim {
            dim: v.count("dim")?,
        },
        "residual" => DetectorKind::Residual {
            dim: v.count("dim")?,
        },
        "one_class_svm" => DetectorKind::OneClassSvm {
            gamma: v.positive("gamma")?,
            nu: v.number("nu", "a number in (0, 1]", |nu| nu > 0.0 && nu <= 1.0)?,
        },
        "neglabel" => DetectorKind::NegLabel {
            scale: v.positive("scale")?,
            groups: v.count("groups")?,
            shuffle: match v.text("shuffle")? {
                "none" => None,
                seed => Some(seed.parse().map_err(|_| {
                    format!("shuffle must be none or a seed (a whole number), found {seed:?}")
                })?),
            },
            space: v.space()?,
        },
        "unknown_prompt" => DetectorKind::UnknownPrompt {
            count: v.count("count")?,
            space: v.space()?,
        },
        "dpm_neg_min_kl" => DetectorKind::DpmNegMinKl {
            t: v.positive("t")?,
        },
        other => return Err(format!("{other:?} is listed but cannot be built")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let spec = DetectorSpec::new(DetectorKind::GlMcm { t, weight });
            prop_assert_eq!(spec.to_string().parse::<DetectorSpec>().unwrap(), spec);
        }
    }
}

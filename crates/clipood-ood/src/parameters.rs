//! Parameters of a detector between their text and their typed values.

use crate::info::{DetectorInfo, ParameterInfo};

/// The texts given for the parameters of one kind of detector; a parameter that is not given has its default.
pub(crate) struct Values<'a> {
    info: &'static DetectorInfo,
    /// In the order of `info.parameters`.
    given: Vec<Option<&'a str>>,
}

impl<'a> Values<'a> {
    /// Reads `key=value` fields.
    pub(crate) fn read(
        info: &'static DetectorInfo,
        fields: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let mut given: Vec<Option<&str>> = vec![None; info.parameters.len()];
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("{field:?} is not key=value"));
            };
            let keys = info.parameters.iter().map(|parameter| parameter.key);
            let Some(place) = keys.clone().position(|known| known == key) else {
                let kind = info.kind;
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
        Ok(Self { info, given })
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str, String> {
        let place = self.info.parameters.iter().position(|p| p.key == key);
        match place {
            Some(place) => Ok(self.given[place].unwrap_or(self.info.parameters[place].default)),
            None => Err(format!("{} has no parameter {key:?}", self.info.kind)),
        }
    }

    /// A finite number that passes `ok`; `allowed` says in words which numbers do.
    pub(crate) fn number(
        &self,
        key: &str,
        allowed: &str,
        ok: impl Fn(f64) -> bool,
    ) -> Result<f64, String> {
        let text = self.text(key)?;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() && ok(value) => Ok(value),
            _ => Err(format!("{key} must be {allowed}, found {text:?}")),
        }
    }

    pub(crate) fn positive(&self, key: &str) -> Result<f64, String> {
        self.number(key, "a finite number above 0", |value| value > 0.0)
    }

    /// A whole number of at least 1.
    pub(crate) fn count(&self, key: &str) -> Result<usize, String> {
        let text = self.text(key)?;
        match text.parse::<usize>() {
            Ok(value) if value > 0 => Ok(value),
            _ => Err(format!(
                "{key} must be a whole number of at least 1, found {text:?}"
            )),
        }
    }

    /// One of a fixed list of words.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&'static str, T)],
    ) -> Result<T, String> {
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
}

/// The word of a value in the list that [`Values::choice`] reads it with.
pub(crate) fn word<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> String {
    let found = choices.iter().find(|(_, choice)| *choice == value);
    found.map_or(String::new(), |(word, _)| (*word).to_owned())
}

/// The sentence for a word that is not on a list, with the nearest word that is.
pub(crate) fn unknown(
    what: &str,
    found: &str,
    valid: impl Iterator<Item = &'static str> + Clone,
) -> String {
    let nearest = clipood_core::nearest(found, valid.clone());
    let hint = nearest.map_or(String::new(), |near| format!(", did you mean {near:?}?"));
    let all: Vec<&str> = valid.collect();
    format!("unknown {what} {found:?}{hint} (known: {})", all.join(", "))
}

/// Whether a probability is reported as such or as its log-odds.
///
/// Near 1 an f32 probability has steps of 6e-8, so confident images tie. Their log-odds order them the same way and do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    /// The probability itself, computed in f64 and rounded once.
    Probability,
    /// `ln(p / (1 - p))`, computed without forming `1 - p`.
    LogOdds,
}

impl Space {
    pub(crate) const INFO: ParameterInfo = ParameterInfo::new(
        "space",
        "probability",
        "probability, or log_odds: the same order without the ties that f32 makes near 1",
    );
    const WORDS: [(&'static str, Space); 2] = [
        ("probability", Space::Probability),
        ("log_odds", Space::LogOdds),
    ];

    pub(crate) fn read(values: &Values<'_>) -> Result<Self, String> {
        values.choice(Self::INFO.key, &Self::WORDS)
    }

    pub(crate) fn word(self) -> String {
        word(&Self::WORDS, self)
    }
}

//! Prompt templates: texts in which `{}` stands for the name of a class.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{CoreError, Place};
use crate::nearest::hint_with_list;
use crate::text_file::lines;

/// The sets that have a name.
pub(crate) const NAMES: [&str; 3] = ["simple", "openai7", "openai80"];

const SIMPLE: [&str; 1] = ["a photo of a {}"];

/// What forward selection on ImageNet took first of the 80, in its order (OpenAI CLIP,
/// `Prompt_Engineering_for_ImageNet.ipynb`).
const OPENAI_7: [&str; 7] = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
];

/// The ensemble of the CLIP paper (OpenAI CLIP, `Prompt_Engineering_for_ImageNet.ipynb`).
const OPENAI_80: [&str; 80] = [
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
];

/// A set of prompt templates. In a recipe: the name of a set, or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateSet {
    /// `a photo of a {}`, as in MCM, without a full stop.
    Simple,
    /// Seven of the 80, which do slightly better on ImageNet than all of them.
    Openai7,
    /// The 80 templates of the CLIP paper's ImageNet ensemble.
    Openai80,
    /// A list of texts given by the user.
    Own(Vec<String>),
}

impl TemplateSet {
    /// The templates; `{}` stands for the class name.
    pub fn templates(&self) -> Vec<&str> {
        match self {
            TemplateSet::Simple => SIMPLE.to_vec(),
            TemplateSet::Openai7 => OPENAI_7.to_vec(),
            TemplateSet::Openai80 => OPENAI_80.to_vec(),
            TemplateSet::Own(texts) => texts.iter().map(String::as_str).collect(),
        }
    }

    /// The set of this name.
    ///
    /// # Errors
    /// [`CoreError::UnknownName`] with the nearest and the known names.
    pub fn named(name: &str) -> Result<TemplateSet, CoreError> {
        known(name).ok_or_else(|| CoreError::UnknownName {
            what: "template set",
            found: name.to_string(),
            hint: hint_with_list(name, &NAMES),
        })
    }

    /// Reads a file with one template per line; `origin` (its path) names it in errors. Blank lines at the end are passed
    /// over.
    ///
    /// # Errors
    /// [`CoreError::Syntax`] with the line: a template without exactly one `{}`, a blank or repeated one, no template at all.
    pub fn from_lines(text: &str, origin: &str) -> Result<TemplateSet, CoreError> {
        let templates: Vec<String> = lines(text)
            .into_iter()
            .map(|line| line.trim().to_string())
            .collect();
        match problem(&templates) {
            None => Ok(TemplateSet::Own(templates)),
            Some((index, message)) => Err(CoreError::Syntax {
                place: Place {
                    origin: origin.to_string(),
                    line: index.map(|index| index + 1),
                },
                message,
            }),
        }
    }

    /// What is wrong with the templates of the user; `None` if nothing is, and for the named sets.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            TemplateSet::Own(texts) => problem(texts).map(|(_, message)| message),
            TemplateSet::Simple | TemplateSet::Openai7 | TemplateSet::Openai80 => None,
        }
    }
}

fn known(name: &str) -> Option<TemplateSet> {
    match name {
        "simple" => Some(TemplateSet::Simple),
        "openai7" => Some(TemplateSet::Openai7),
        "openai80" => Some(TemplateSet::Openai80),
        _ => None,
    }
}

/// The index of the first unusable template and what is wrong with it; no index if there is no template.
fn problem(templates: &[String]) -> Option<(Option<usize>, String)> {
    if templates.is_empty() {
        let text = "found no template, allowed: one or more, such as `a photo of a {}`";
        return Some((None, text.to_string()));
    }
    let mut seen = BTreeMap::new();
    for (index, template) in templates.iter().enumerate() {
        let message = if template.trim().is_empty() {
            "found an empty template, allowed: a text with `{}` for the class name".to_string()
        } else if template.matches("{}").count() != 1 {
            let count = template.matches("{}").count();
            format!("found `{{}}` {count} times in `{template}`, allowed: once, for the class name")
        } else if let Some(first) = seen.insert(template, index) {
            format!(
                "found `{template}` as template {} and {}, allowed: once",
                first + 1,
                index + 1
            )
        } else {
            continue;
        };
        return Some((Some(index), message));
    }
    None
}

impl Serialize for TemplateSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TemplateSet::Simple => serializer.serialize_str("simple"),
            TemplateSet::Openai7 => serializer.serialize_str("openai7"),
            TemplateSet::Openai80 => serializer.serialize_str("openai80"),
            TemplateSet::Own(texts) => texts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TemplateSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SetVisitor)
    }
}

/// Reads the name of a set or a list of texts.
struct SetVisitor;

impl<'de> Visitor<'de> for SetVisitor {
    type Value = TemplateSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a template set or a list of templates")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<TemplateSet, E> {
        known(name).ok_or_else(|| E::unknown_variant(name, &NAMES))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TemplateSet, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(TemplateSet::Own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checksum that depends on every letter and on their order.
    fn checksum(templates: &[&str]) -> u64 {
        let text = templates.join("\n");
        (1u64..)
            .zip(text.bytes())
            .map(|(i, b)| i * u64::from(b))
            .sum()
    }

    #[test]
    fn the_published_sets_are_complete() {
        // Sums of the lists in OpenAI's notebook, which open_clip's `zero_shot_metadata.py` repeats.
        assert_eq!(checksum(&OPENAI_80), 132_100_239);
        assert_eq!(checksum(&OPENAI_7), 813_162);
        assert!(OPENAI_7.iter().all(|t| OPENAI_80.contains(t)));
        for name in NAMES {
            let set = TemplateSet::named(name).unwrap();
            let texts = set.templates().into_iter().map(String::from);
            assert_eq!(problem(&texts.collect::<Vec<_>>()), None);
            let json = serde_json::to_string(&set).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<TemplateSet>(&json).unwrap(), set);
        }
    }

    #[test]
    fn names_have_hints() {
        assert_eq!(
            TemplateSet::named("openai8").unwrap_err().to_string(),
            "unknown template set `openai8`; did you mean `openai7`? valid: `simple`, `openai7`, `openai80`"
        );
    }

    #[test]
    fn files_have_one_template_per_line() {
        let set = TemplateSet::from_lines("a {}\r\n  the {}, drawn.\n", "t.txt").unwrap();
        assert_eq!(set.templates(), ["a {}", "the {}, drawn."]);
        assert_eq!(
            TemplateSet::from_lines("a {}\r\nthe {}, drawn.\n\n \n", "t.txt")
                .unwrap()
                .templates(),
            set.templates()
        );
        assert!(TemplateSet::from_lines("\n\n", "t.txt").is_err());
        let error = |text: &str| {
            let error = TemplateSet::from_lines(text, "t.txt").unwrap_err();
            error.to_string()
        };
        assert!(error("").starts_with("t.txt: found no template"));
        assert!(error("a {}\n\nthe {}\n").starts_with("t.txt:2: found an empty template"));
        assert!(error("a {}\na photo\n").starts_with("t.txt:2: found `{}` 0 times in `a photo`"));
        assert!(error("{} or {}\n").starts_with("t.txt:1: found `{}` 2 times in `{} or {}`"));
        assert!(
            error("a {}\nb {}\na {}\n").starts_with("t.txt:3: found `a {}` as template 1 and 3")
        );
    }
}

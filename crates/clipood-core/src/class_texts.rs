//! Files about classes: the list of their names, and texts that describe each class.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::document::line_at;
use crate::error::{CoreError, Place};
use crate::nearest::nearest;

fn at_line(origin: &str, line: Option<usize>, message: String) -> CoreError {
    CoreError::Syntax {
        place: Place {
            origin: origin.to_string(),
            line,
        },
        message,
    }
}

/// Reads a list of class names, one per line: class `i` is on line `i + 1`. `origin` (the path of the file) names it in errors.
///
/// # Errors
/// [`CoreError::Syntax`] with the line: a blank line, a repeated name, no name at all.
pub fn class_list(text: &str, origin: &str) -> Result<Vec<String>, CoreError> {
    let mut lines = BTreeMap::new();
    let mut names = Vec::new();
    for (line, name) in (1..).zip(text.lines().map(str::trim)) {
        if name.is_empty() {
            let message = "found a blank line, allowed: the name of a class on every line";
            return Err(at_line(origin, Some(line), message.to_string()));
        }
        if let Some(first) = lines.insert(name, line) {
            let message = format!("found class `{name}` again, it is already on line {first}");
            return Err(at_line(origin, Some(line), message));
        }
        names.push(name.to_string());
    }
    if names.is_empty() {
        let message = "found no class, allowed: one name per line";
        return Err(at_line(origin, None, message.to_string()));
    }
    Ok(names)
}

/// The format of a file of class descriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptionFormat {
    /// `{"class": ["text", ...], ...}`.
    Json,
    /// `class = ["text", ...]`, one line per class.
    Toml,
}

/// Reads the texts of each of `classes`, in their order, from a file that lists them by name.
///
/// # Errors
/// [`CoreError::Syntax`], with the line if it is known: text that does not parse; a class that is repeated, missing, not
/// among `classes`, or has no text or an empty one.
pub fn class_descriptions(
    text: &str,
    origin: &str,
    format: DescriptionFormat,
    classes: &[String],
) -> Result<Vec<Vec<String>>, CoreError> {
    let entries = match format {
        DescriptionFormat::Json => serde_json::from_str::<Entries>(text)
            .map_err(|e| at_line(origin, Some(e.line()), e.to_string()))?,
        DescriptionFormat::Toml => toml::from_str::<Entries>(text).map_err(|e| {
            let line = e.span().map(|span| line_at(text, span.start));
            at_line(origin, line, e.message().to_string())
        })?,
    };
    let known: Vec<&str> = classes.iter().map(String::as_str).collect();
    let mut by_class: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (class, texts) in entries.0 {
        let wrong = |message: String| Err(at_line(origin, None, message));
        if !known.contains(&class.as_str()) {
            // A list of a thousand classes would not help.
            let hint = match nearest(&class, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "it is not among the classes".to_string(),
            };
            return wrong(format!("unknown class `{class}`; {hint}"));
        }
        if texts.is_empty() {
            return wrong(format!("class `{class}` has no text, allowed: one or more"));
        }
        if let Some(place) = texts.iter().position(|text| text.trim().is_empty()) {
            let number = place + 1;
            return wrong(format!("text {number} of class `{class}` is empty"));
        }
        if by_class.contains_key(&class) {
            return wrong(format!("found class `{class}` twice, allowed: once"));
        }
        by_class.insert(class, texts);
    }
    let texts_of = |class: &String| {
        by_class.remove(class).ok_or_else(|| {
            let message = format!("no texts for class `{class}`, every class needs some");
            at_line(origin, None, message)
        })
    };
    classes.iter().map(texts_of).collect()
}

/// A map in the order of the file, including repeated keys, of which a `BTreeMap` would silently keep only the last.
struct Entries(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts for each class")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_one_name_per_line() {
        let names = class_list("star\r\n great white shark \nfish", "c.txt").unwrap();
        assert_eq!(names, ["star", "great white shark", "fish"]);
        let error = |text: &str| class_list(text, "c.txt").unwrap_err().to_string();
        assert!(error("star\n\nfish\n").starts_with("c.txt:2: found a blank line"));
        assert!(error("star\nfish\nstar\n").starts_with("c.txt:3: found class `star` again"));
        assert!(error("").starts_with("c.txt: found no class"));
    }

    #[test]
    fn descriptions_come_in_the_order_of_the_classes() {
        let classes = ["star", "sea fish"].map(String::from);
        let json = r#"{"sea fish": ["with fins", "it swims"], "star": ["five corners"]}"#;
        let toml = "\"sea fish\" = [\"with fins\", \"it swims\"]\nstar = [\"five corners\"]\n";
        for (text, format) in [
            (json, DescriptionFormat::Json),
            (toml, DescriptionFormat::Toml),
        ] {
            let texts = class_descriptions(text, "d", format, &classes).unwrap();
            assert_eq!(texts[0], ["five corners"]);
            assert_eq!(texts[1], ["with fins", "it swims"]);
        }
    }

    #[test]
    fn wrong_descriptions_name_the_class() {
        let classes = ["star", "fish"].map(String::from);
        let error = |text: &str, format| {
            let error = class_descriptions(text, "d", format, &classes).unwrap_err();
            error.to_string()
        };
        let json = |text: &str| error(text, DescriptionFormat::Json);
        let toml = |text: &str| error(text, DescriptionFormat::Toml);
        assert!(json(r#"{"star": ["a"]}"#).contains("no texts for class `fish`"));
        assert!(json(r#"{"star": ["a"], "fihs": ["b"]}"#).contains("did you mean `fish`?"));
        assert!(json(r#"{"star": ["a"], "star": ["b"]}"#).contains("`star` twice"));
        assert!(json(r#"{"star": []}"#).contains("class `star` has no text"));
        assert!(json(r#"{"star": ["a", " "]}"#).contains("text 2 of class `star` is empty"));
        assert!(json("{\n\"star\": 3}").starts_with("d:2: "));
        assert!(toml("star = [\"a\"]\nstar = [\"b\"]\n").starts_with("d:2: "));
        assert!(toml("star = [\"a\"]\nfish = \"b\"\n").starts_with("d:2: "));
    }
}

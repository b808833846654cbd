//! Names of classes as texts, and the texts that describe each class.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::document::line_at;
use crate::error::{CoreError, Place};
use crate::nearest::nearest;

/// An error in the text called `origin`.
pub(crate) fn at_line(origin: &str, line: Option<usize>, message: String) -> CoreError {
    CoreError::Syntax {
        place: Place {
            origin: origin.to_string(),
            line,
        },
        message,
    }
}

/// A name with `_` and `-` as spaces, as the names of class folders are read.
pub fn spaced(name: &str) -> String {
    name.replace(['_', '-'], " ")
}

/// What names are compared by where they differ as they stand: [`spaced`], with one space between words.
pub(crate) fn comparable(name: &str) -> String {
    let spaced = spaced(name);
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The format of a file of class descriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptionFormat {
    /// `{"class": ["text", ...], ...}`.
    Json,
    /// `class = ["text", ...]`, one line per class.
    Toml,
}

/// Reads the texts of each of `classes`, in their order, from a file that lists them by name. Names are compared as they
/// stand, and else with `_` and `-` as spaces. Classes of the same name have the same texts.
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
    let Entries(entries): Entries<Vec<String>> = match format {
        DescriptionFormat::Json => serde_json::from_str(text)
            .map_err(|e| at_line(origin, Some(e.line()), e.to_string()))?,
        DescriptionFormat::Toml => toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| line_at(text, span.start));
            at_line(origin, line, e.message().to_string())
        })?,
    };
    let as_is: BTreeSet<&str> = classes.iter().map(String::as_str).collect();
    let read: BTreeSet<String> = classes.iter().map(|class| comparable(class)).collect();
    let mut by_name: BTreeMap<&str, &[String]> = BTreeMap::new();
    let mut by_reading: BTreeMap<String, (&str, &[String])> = BTreeMap::new();
    for (class, texts) in &entries {
        let wrong = |message: String| Err(at_line(origin, None, message));
        let reading = comparable(class);
        if !as_is.contains(class.as_str()) && !read.contains(&reading) {
            // A list of a thousand classes would not help.
            let hint = match nearest(class, as_is.iter().copied()) {
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
        if by_name.insert(class, texts).is_some() {
            return wrong(format!("found class `{class}` twice, allowed: once"));
        }
        if as_is.contains(class.as_str()) {
            continue;
        }
        if let Some((other, _)) = by_reading.insert(reading, (class, texts)) {
            return wrong(format!(
                "found `{other}` and `{class}`, which are read as one class, allowed: one of them"
            ));
        }
    }
    let mut used = BTreeSet::new();
    let mut all = Vec::with_capacity(classes.len());
    for class in classes {
        let reading = comparable(class);
        let texts = match (by_name.get(class.as_str()), by_reading.get(&reading)) {
            (Some(texts), _) => *texts,
            (None, Some((_, texts))) => {
                used.insert(reading);
                *texts
            }
            (None, None) => {
                let message = format!("no texts for class `{class}`, every class needs some");
                return Err(at_line(origin, None, message));
            }
        };
        all.push(texts.to_vec());
    }
    match by_reading
        .iter()
        .find(|(reading, _)| !used.contains(*reading))
    {
        None => Ok(all),
        Some((_, (class, _))) => {
            let message = format!("`{class}` is read as a class that has texts already");
            Err(at_line(origin, None, message))
        }
    }
}

/// A map in the order of the file, including repeated keys, of which a `BTreeMap` would silently keep only the last.
pub(crate) struct Entries<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
    type Value = Entries<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value for each class")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
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
    fn equal_classes_have_the_same_texts_and_names_are_read() {
        let of = |text: &str, classes: &[&str]| {
            let classes: Vec<String> = classes.iter().map(|class| class.to_string()).collect();
            class_descriptions(text, "d", DescriptionFormat::Json, &classes)
                .map_err(|error| error.to_string())
        };
        let texts = of(
            r#"{"star": ["a"], "fish": ["b"]}"#,
            &["star", "fish", "star"],
        )
        .unwrap();
        assert_eq!(texts, [["a"], ["b"], ["a"]]);
        for (key, class) in [
            ("great_white", "great white"),
            ("great white", "great_white"),
            ("great-white", "great_white"),
        ] {
            let texts = of(&format!("{{\"{key}\": [\"a\"]}}"), &[class]).unwrap();
            assert_eq!(texts, [["a"]], "{key}");
        }
        // As it stands first.
        let both = r#"{"great_white": ["a"], "great white": ["b"]}"#;
        let texts = of(both, &["great white", "great_white"]).unwrap();
        assert_eq!(texts, [["b"], ["a"]]);
        let error = of(both, &["great white"]).unwrap_err();
        assert!(
            error.contains("`great_white` is read as a class that has texts"),
            "{error}"
        );
        let error = of(both, &["great-white"]).unwrap_err();
        assert!(error.contains("read as one class"), "{error}");
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

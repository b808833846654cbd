//! The list of the classes: their names, and the WordNet ids of their folders if the file has them.
//!
//! A name is the text that stands for a class, not what identifies it: class `i` is the `i`-th of the list, and two
//! classes may have one name, as `missile` and `sunglasses` among the 1000 names that CLIP is evaluated with.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::class_texts::{Entries, at_line};
use crate::error::CoreError;
use crate::printable::first_of;
use crate::text_file::lines;

/// Headings of a column of class names, in lower case and without separators.
const HEADINGS: [&str; 9] = [
    "class",
    "classes",
    "classname",
    "classnames",
    "name",
    "names",
    "label",
    "labels",
    "category",
];

/// Pairs that [`equal_names`] writes out.
const SHOWN: usize = 3;

/// The classes of a task, in the order of their labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassList {
    /// The name of each class.
    pub names: Vec<String>,
    /// The WordNet id of each class, such as `n01440764`, if the file states them.
    pub ids: Option<Vec<String>>,
    /// What a user should know about how the file was read.
    pub notes: Vec<String>,
}

impl ClassList {
    /// Classes of these names.
    pub fn of(names: Vec<String>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// Reads the text of a class list; `origin` (the path of the file) names it in errors. These are read:
    ///
    /// - one name per line: class `i` is on line `i + 1`; blank lines at the end are passed over;
    /// - a CSV or TSV file of one column, with or without a heading such as `class` or `name`;
    /// - a WordNet id and a name per line (`n01440764 tench`), as `classnames.txt` of CoOp, `synset_words.txt` of Caffe and
    ///   `LOC_synset_mapping.txt` of ImageNet have them: everything after the id is the name;
    /// - JSON: a list of names; an object from ids to names (`{"n01440764": "tench"}`), in the order of the file; an
    ///   object from labels to names (`{"0": "tench"}`) or to ids and names (`{"0": ["n01440764", "tench"]}`, the
    ///   `imagenet_class_index.json` of Keras, where `_` stands for a space); an object from names to labels
    ///   (`{"tench": 0}`).
    ///
    /// # Errors
    /// [`CoreError::Syntax`] with the line if it is known: a blank line before the last name, an id that is repeated, labels
    /// that are not 0, 1, 2 and so on, no name at all, a file of another format.
    pub fn parse(text: &str, origin: &str) -> Result<Self, CoreError> {
        let wrong = |line, message: &str| at_line(origin, line, message.to_string());
        let whole = text.trim();
        // A class may be called `[unknown]`.
        let is_list = whole.starts_with('[') && whole.ends_with(']') && whole.contains(['"', '\'']);
        let is_json = whole.starts_with('{') || is_list || extension(origin) == "json";
        let list = match (whole.is_empty(), is_json) {
            (true, _) => None,
            (false, true) => Some(from_json(text, origin)?),
            (false, false) => Some(from_lines(text, origin)?),
        };
        let list = list.filter(|list| !list.names.is_empty());
        let list = list.ok_or_else(|| wrong(None, "found no class, allowed: one name per line"))?;
        if let Some(class) = list.names.iter().position(|name| name.trim().is_empty()) {
            let message = format!("the name of class {class} is empty");
            return Err(at_line(origin, None, message));
        }
        let mut first = BTreeMap::new();
        for (class, id) in list.ids.iter().flatten().enumerate() {
            if let Some(other) = first.insert(id, class) {
                let message = format!("found id `{id}` for the classes {other} and {class}");
                return Err(at_line(origin, None, message));
            }
        }
        Ok(list)
    }
}

/// The classes that have one name, for a note to the user; `None` if all names differ. Case does not count, because CLIP
/// reads all texts in lower case.
pub fn equal_names(names: &[String]) -> Option<String> {
    let mut classes_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (class, name) in names.iter().enumerate() {
        classes_of
            .entry(name.to_lowercase())
            .or_default()
            .push(class);
    }
    let mut shared: Vec<Vec<usize>> = classes_of.into_values().filter(|c| c.len() > 1).collect();
    shared.sort();
    if shared.is_empty() {
        return None;
    }
    let written = shared.iter().map(|classes| {
        let numbers: Vec<String> = classes.iter().map(usize::to_string).collect();
        format!("`{}` (classes {})", names[classes[0]], numbers.join(", "))
    });
    let written = first_of(written, shared.len(), SHOWN);
    let count = match shared.len() {
        1 => "1 class name is".to_string(),
        count => format!("{count} class names are"),
    };
    Some(format!(
        "{count} shared by several classes: {written}; they stay separate classes with the same text, and the first of them is \
         predicted"
    ))
}

/// The names, with the number of the class behind those that several classes have: `missile (class 657)`.
pub fn distinct_names(names: &[String]) -> Vec<String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *count.entry(name).or_default() += 1;
    }
    let distinct = names
        .iter()
        .enumerate()
        .map(|(class, name)| match count[name.as_str()] {
            1 => name.clone(),
            _ => format!("{name} (class {class})"),
        });
    distinct.collect()
}

/// Whether a word is a WordNet id of a noun: `n` and eight digits.
pub(crate) fn is_wordnet_id(word: &str) -> bool {
    word.len() == 9 && word.starts_with('n') && word[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// What follows the last full stop of a path, in lower case.
fn extension(origin: &str) -> String {
    origin.rsplit('.').next().unwrap_or_default().to_lowercase()
}

fn from_lines(text: &str, origin: &str) -> Result<ClassList, CoreError> {
    let lines: Vec<&str> = lines(text).into_iter().map(str::trim).collect();
    if let Some(blank) = lines.iter().position(|line| line.is_empty()) {
        let message = "found a blank line, allowed: the name of a class on every line";
        return Err(at_line(origin, Some(blank + 1), message.to_string()));
    }
    let separator = match extension(origin).as_str() {
        "csv" => Some(','),
        "tsv" => Some('\t'),
        _ => None,
    };
    if let Some(separator) = separator
        && lines.iter().all(|line| line.contains(separator))
    {
        let message = "found a table of several columns, allowed: one name per line, or JSON";
        return Err(at_line(origin, Some(1), message.to_string()));
    }
    if separator.is_some() {
        return Ok(of_one_column(&lines, origin));
    }
    let with_ids: Option<Vec<(&str, &str)>> = lines.iter().map(|line| id_and_name(line)).collect();
    let Some(with_ids) = with_ids else {
        let mut list = ClassList::of(lines.iter().map(|line| line.to_string()).collect());
        if lines.len() > 1 && (is_numbered(&lines, 0) || is_numbered(&lines, 1)) {
            list.notes.push(format!(
                "{origin}: every line begins with its number, which is a part of the class name as it stands there"
            ));
        }
        return Ok(list);
    };
    let has_number = |name: &str| {
        let mut words = name.splitn(2, char::is_whitespace);
        words.next().is_some_and(|word| word.parse::<u32>().is_ok()) && words.next().is_some()
    };
    if with_ids.iter().all(|(_, name)| has_number(name)) {
        let message =
            "found an id, a number and a name on every line, allowed: an id and a name, or a name";
        return Err(at_line(origin, Some(1), message.to_string()));
    }
    let commas = with_ids
        .iter()
        .filter(|(_, name)| name.contains(','))
        .count();
    let whole = match commas {
        0 => String::new(),
        _ => format!(" ({commas} of them with commas, as it stands there)"),
    };
    let (ids, names) = with_ids
        .into_iter()
        .map(|(id, name)| (id.to_string(), name.to_string()))
        .unzip();
    Ok(ClassList {
        names,
        ids: Some(ids),
        notes: vec![format!(
            "{origin}: every line begins with a WordNet id; what follows it is the class name{whole}, and folders that are \
             named as ids are labelled by them"
        )],
    })
}

/// The only column of a CSV file: pandas and polars write its heading first, and quote fields that need it.
fn of_one_column(lines: &[&str], origin: &str) -> ClassList {
    let field = |line: &&str| {
        let quoted = line.strip_prefix('"').and_then(|l| l.strip_suffix('"'));
        quoted.map_or(line.to_string(), |text| text.replace("\"\"", "\""))
    };
    let mut names: Vec<String> = lines.iter().map(field).collect();
    let heading = names[0].to_lowercase().replace(['_', '-', ' '], "");
    let mut notes = Vec::new();
    if names.len() > 1 && HEADINGS.contains(&heading.as_str()) {
        let heading = names.remove(0);
        notes.push(format!(
            "{origin}: its first line `{heading}` is taken for the heading of the column"
        ));
    }
    ClassList {
        notes,
        ..ClassList::of(names)
    }
}

/// The WordNet id at the beginning of a line, and what follows it.
fn id_and_name(line: &str) -> Option<(&str, &str)> {
    let id = line.get(..9).filter(|id| is_wordnet_id(id))?;
    let rest = &line[9..];
    let name = rest.trim_start_matches([' ', '\t', ',', ':']);
    (name.len() < rest.len() && !name.is_empty()).then_some((id, name))
}

/// Whether every line is a number and a name, the numbers counting up from `first`.
fn is_numbered(lines: &[&str], first: usize) -> bool {
    lines.iter().enumerate().all(|(index, line)| {
        let rest = line.strip_prefix(&(first + index).to_string());
        rest.is_some_and(|rest| rest.starts_with([' ', '\t', ',', ':', ';', '.']) && rest.len() > 1)
    })
}

fn from_json(text: &str, origin: &str) -> Result<ClassList, CoreError> {
    let wrong = |message: String| at_line(origin, None, message);
    let in_json = |error: serde_json::Error| {
        let message = match text.contains('\'') {
            true => format!(
                "expected JSON, which has double quotes only ({error}); a Python literal becomes JSON with \
                 `json.dumps(ast.literal_eval(text))`"
            ),
            false => error.to_string(),
        };
        at_line(origin, Some(error.line()), message)
    };
    if text.trim_start().starts_with('[') {
        let items: Vec<Value> = serde_json::from_str(text).map_err(in_json)?;
        let names: Option<Vec<String>> = items.iter().map(text_of).collect();
        let names = names.ok_or_else(|| {
            wrong("found a list with other values than names, allowed: a list of texts".to_string())
        })?;
        return Ok(ClassList::of(names));
    }
    let Entries(entries): Entries<Value> = serde_json::from_str(text).map_err(in_json)?;
    let keys_are_labels = entries.iter().all(|(key, _)| key.parse::<usize>().is_ok());
    let found = if entries
        .iter()
        .all(|(key, value)| is_wordnet_id(key) && value.is_string())
    {
        let (ids, names) = entries
            .iter()
            .filter_map(|(id, name)| Some((id.clone(), text_of(name)?)))
            .unzip();
        Some(ClassList {
            names,
            ids: Some(ids),
            notes: Vec::new(),
        })
    } else if keys_are_labels && entries.iter().all(|(_, value)| value.is_string()) {
        let labelled = entries
            .iter()
            .filter_map(|(label, name)| Some((label.parse().ok()?, text_of(name)?)));
        Some(ClassList::of(in_order(labelled, origin)?))
    } else if keys_are_labels && entries.iter().all(|(_, value)| id_pair(value).is_some()) {
        let labelled = entries
            .iter()
            .filter_map(|(label, value)| Some((label.parse().ok()?, id_pair(value)?)));
        let (ids, names) = in_order(labelled, origin)?.into_iter().unzip();
        Some(ClassList {
            names,
            ids: Some(ids),
            notes: Vec::new(),
        })
    } else if entries
        .iter()
        .all(|(name, value)| value.is_u64() && !is_wordnet_id(name))
    {
        let labelled = entries.iter().filter_map(|(name, label)| {
            Some((usize::try_from(label.as_u64()?).ok()?, name.clone()))
        });
        Some(ClassList::of(in_order(labelled, origin)?))
    } else {
        None
    };
    found.ok_or_else(|| {
        wrong(
            "found an object of another kind, allowed: {\"id\": \"name\"}, {\"0\": \"name\"}, {\"0\": [\"id\", \"name\"]} or \
             {\"name\": 0}"
                .to_string(),
        )
    })
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(|text| text.trim().to_string())
}

/// Id and name of a value of `imagenet_class_index.json`.
fn id_pair(value: &Value) -> Option<(String, String)> {
    match value.as_array()?.as_slice() {
        [id, name] => {
            let id = text_of(id).filter(|id| is_wordnet_id(id))?;
            Some((id, text_of(name)?.replace('_', " ")))
        }
        _ => None,
    }
}

/// The values in the order of their labels, which must be 0, 1, 2 and so on.
fn in_order<T>(
    labelled: impl Iterator<Item = (usize, T)>,
    origin: &str,
) -> Result<Vec<T>, CoreError> {
    let mut labelled: Vec<(usize, T)> = labelled.collect();
    labelled.sort_by_key(|(label, _)| *label);
    if let Some((expected, (found, _))) =
        (labelled.iter().enumerate()).find(|(index, (label, _))| index != label)
    {
        let message = format!(
            "found label {found} where {expected} is expected, allowed: each of 0, 1, 2 ... once"
        );
        return Err(at_line(origin, None, message));
    }
    Ok(labelled.into_iter().map(|(_, value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        ClassList::parse(text, "c.txt").unwrap().names
    }

    fn error(text: &str, origin: &str) -> String {
        ClassList::parse(text, origin).unwrap_err().to_string()
    }

    #[test]
    fn lists_have_one_name_per_line() {
        let lines = "star\r\n great white shark \nfish";
        assert_eq!(names(lines), ["star", "great white shark", "fish"]);
        assert_eq!(names("star\nfish\n\n \n\t\n"), ["star", "fish"]);
        // A name may repeat: it is a text, and the classes are the lines.
        assert_eq!(names("star\nfish\nstar\n"), ["star", "fish", "star"]);
        assert_eq!(names("0\n1\n2\n"), ["0", "1", "2"]);
        assert_eq!(
            names("[unknown]\nfish\n[other]\n"),
            ["[unknown]", "fish", "[other]"]
        );
        assert!(error("star\n\nfish\n", "c.txt").starts_with("c.txt:2: found a blank line"));
        assert!(error("\nstar\n", "c.txt").starts_with("c.txt:1: found a blank line"));
        for empty in ["", "\n\n", "{}"] {
            assert!(error(empty, "c.txt").starts_with("c.txt: found no class"));
        }
        let table = error("label,name\n0,star\n", "c.csv");
        assert!(table.starts_with("c.csv:1: found a table of several columns"));
        let column = ClassList::parse("Class_Name\nstar\n\"the \"\"big\"\" fish\"\n", "c.csv");
        let column = column.unwrap();
        assert_eq!(column.names, ["star", "the \"big\" fish"]);
        assert!(column.notes[0].contains("`Class_Name`"), "{column:?}");
        // In any other file, and alone, it is a class.
        assert_eq!(names("name\nstar\n"), ["name", "star"]);
        assert_eq!(ClassList::parse("label\n", "c.csv").unwrap().names.len(), 1);
        let numbered = ClassList::parse("1 star\n2 fish\n", "c.txt").unwrap();
        assert_eq!(numbered.names, ["1 star", "2 fish"]);
        assert!(numbered.notes[0].contains("every line begins with its number"));
    }

    #[test]
    fn wordnet_ids_at_the_head_of_all_lines_are_ids() {
        let list = ClassList::parse(
            "n02119789 kit fox\nn01440764 tench, Tinca tinca\n\n",
            "c.txt",
        )
        .unwrap();
        assert_eq!(list.names, ["kit fox", "tench, Tinca tinca"]);
        assert_eq!(list.ids.unwrap(), ["n02119789", "n01440764"]);
        assert!(
            list.notes[0].contains("WordNet id") && list.notes[0].contains("1 of them with commas")
        );
        // Not on all lines, or with nothing after it: a name like any other.
        assert_eq!(names("n02119789 kit fox\ntench\n")[0], "n02119789 kit fox");
        assert_eq!(names("n02119789\nn01440764\n")[0], "n02119789");
        let twice = error("n01440764 tench\nn01440764 fish\n", "c.txt");
        assert!(
            twice.contains("id `n01440764` for the classes 0 and 1"),
            "{twice}"
        );
        let three = error("n02119789 1 kit_fox\nn02100735 2 English_setter\n", "c.txt");
        assert!(three.contains("an id, a number and a name"), "{three}");
    }

    #[test]
    fn lists_of_other_programs_are_read_from_json() {
        assert_eq!(names(" [\"star\", \"star\"]"), ["star", "star"]);
        assert_eq!(names(r#"{"1": "fish", "0": "star"}"#), ["star", "fish"]);
        assert_eq!(names(r#"{"fish": 1, "star": 0}"#), ["star", "fish"]);
        let with_ids = |text: &str| {
            let list = ClassList::parse(text, "c.json").unwrap();
            (list.names, list.ids.unwrap())
        };
        // In the order of the file, not of the ids.
        let (names, ids) = with_ids(r#"{"n02119789": "kit fox", "n01440764": "tench"}"#);
        assert_eq!(
            (names[0].as_str(), ids[0].as_str()),
            ("kit fox", "n02119789")
        );
        let keras = r#"{"1": ["n01484850", "great_white_shark"], "0": ["n01440764", "tench"]}"#;
        let (names, ids) = with_ids(keras);
        assert_eq!(names, ["tench", "great white shark"]);
        assert_eq!(ids, ["n01440764", "n01484850"]);
        let gap = error(r#"{"0": "star", "2": "fish"}"#, "c.json");
        assert!(gap.contains("label 2 where 1 is expected"), "{gap}");
        assert!(error(r#"{"n01440764": 0}"#, "c.json").contains("an object of another kind"));
        assert!(error(r#"{"star": ["a"]}"#, "c.json").contains("an object of another kind"));
        assert!(error("[1, 2]", "c.json").contains("other values than names"));
        assert!(error(r#"["star", " "]"#, "c.json").contains("class 1 is empty"));
        assert!(error("['tench', 'hen']", "c.txt").contains("Python literal"));
        let python = error("{0: 'tench, Tinca tinca',\n 1: 'goldfish'}", "c.txt");
        assert!(
            python.starts_with("c.txt:1: ") && python.contains("Python literal"),
            "{python}"
        );
    }

    #[test]
    fn equal_names_are_counted() {
        let of =
            |names: &[&str]| equal_names(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["a", "b"]), None);
        let note = of(&["missile", "b", "Missile", "b"]).unwrap();
        let start = "2 class names are shared by several classes: `missile` (classes 0, 2), `b` (classes 1, 3); they";
        assert!(note.starts_with(start), "{note}");
        let names = ["missile", "b", "missile"].map(String::from);
        assert_eq!(
            distinct_names(&names),
            ["missile (class 0)", "b", "missile (class 2)"]
        );
        let many = of(&["a", "a", "b", "b", "c", "c", "d", "d"]).unwrap();
        assert!(many.contains(" and 1 more"), "{many}");
    }
}

//! Reading `--classes`.

use std::path::Path;

use anyhow::Result;
use clipood_core::text_file::read_text;
use clipood_core::{ClassList, equal_names};
use clipood_pipeline::PipelineError;

use super::arrays::extension;

/// Endings of the names of lists; a text with commas that ends so is a path.
const ENDINGS: [&str; 6] = ["txt", "csv", "tsv", "json", "npy", "parquet"];

/// Reads a class list, and says on standard error what is unusual about it. What is no file and looks like no path is the
/// names themselves, separated by commas.
///
/// # Errors
/// A file that cannot be read, as [`read_text`]; a list that is malformed, as [`ClassList::parse`]; a name between commas that
/// is blank.
pub fn read_class_list(path: &Path) -> Result<ClassList> {
    if let Some(problem) = blank_name(path) {
        return Err(PipelineError::Usage(problem).into());
    }
    let list = match names_in(path) {
        Some(names) => {
            if let [name] = names.as_slice() {
                clipood_pipeline::tell(&format!(
                    "note: no file is called {name}, so it is the name of the only class"
                ));
            }
            ClassList::of(names)
        }
        None => ClassList::parse(&read_text(path)?, &path.display().to_string())?,
    };
    for note in &list.notes {
        clipood_pipeline::tell(&format!("note: {note}"));
    }
    note_equal(&list.names);
    Ok(list)
}

/// The names of `a,b,c`; `None` for the path of a file.
fn names_in(path: &Path) -> Option<Vec<String>> {
    let text = path.to_str()?;
    let ending = extension(path);
    let has_ending = match text.contains(',') {
        true => ENDINGS.contains(&ending.as_str()),
        // `St. Bernard` has none.
        false => !ending.is_empty() && !ending.contains(char::is_whitespace),
    };
    let is_path = path.exists() || has_ending || text.contains(['/', '\\']);
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let whole = names.iter().all(|name| !name.is_empty());
    (!is_path && whole).then_some(names)
}

/// What is wrong with names separated by commas of which one is blank; `None` for the path of a file.
fn blank_name(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    if path.exists() || text.contains(['/', '\\']) {
        return None;
    }
    let names: Vec<&str> = text.split(',').collect();
    let blank = names.iter().position(|name| name.trim().is_empty())?;
    Some(format!(
        "--classes {text}: name {} of {} is blank, expected names separated by commas, or a file",
        blank + 1,
        names.len()
    ))
}

/// Says on standard error which classes have the same name.
pub fn note_equal(names: &[String]) {
    if let Some(note) = equal_names(names) {
        clipood_pipeline::tell(&format!("note: {note}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_between_commas_are_no_path() {
        let names = |text: &str| names_in(Path::new(text));
        let expected = ["cat", "sea lion"].map(str::to_owned).to_vec();
        assert_eq!(names("cat, sea lion"), Some(expected));
        assert_eq!(names("cat"), Some(vec!["cat".to_owned()]));
        let dogs = ["dog", "St. Bernard"].map(str::to_owned).to_vec();
        assert_eq!(names("dog,St. Bernard"), Some(dogs));
        assert_eq!(names("St. Bernard"), Some(vec!["St. Bernard".to_owned()]));
        for path in [
            "classes.txt",
            "classes.tx",
            "lists,new.txt",
            "lists/classes",
            "cat,,dog",
            "",
            ".",
        ] {
            assert_eq!(names(path), None, "{path}");
        }
        for (text, word) in [
            ("cat,,dog", "name 2 of 3"),
            ("cat,", "name 2 of 2"),
            ("", "name 1 of 1"),
        ] {
            let problem = blank_name(Path::new(text));
            assert!(
                problem.is_some_and(|problem| problem.contains(word)),
                "{text}"
            );
        }
        for path in ["classes.txt", "lists/a,,b", "cat,dog", "."] {
            assert_eq!(blank_name(Path::new(path)), None, "{path}");
        }
    }
}

//! Reading `--classes`.

use std::path::Path;

use anyhow::Result;
use clipood_core::text_file::read_text;
use clipood_core::{ClassList, equal_names};

/// Reads a class list, and says on standard error what is unusual about it.
///
/// # Errors
/// A file that cannot be read, as [`read_text`]; a list that is malformed, as [`ClassList::parse`].
pub fn read_class_list(path: &Path) -> Result<ClassList> {
    let list = ClassList::parse(&read_text(path)?, &path.display().to_string())?;
    for note in &list.notes {
        clipood_pipeline::tell(&format!("note: {note}"));
    }
    note_equal(&list.names);
    Ok(list)
}

/// Says on standard error which classes have the same name.
pub fn note_equal(names: &[String]) {
    if let Some(note) = equal_names(names) {
        clipood_pipeline::tell(&format!("note: {note}"));
    }
}

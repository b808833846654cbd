//! Choosing the column of scores among those of a table.

use std::path::Path;

use anyhow::{Result, bail};
use clipood_core::nearest;
use clipood_pipeline::PipelineError;

/// Letters of an entry that an error shows.
const LONGEST_SHOWN: usize = 80;

/// A column that may be chosen.
pub struct Candidate<'a> {
    pub name: &'a str,
    /// Whether it holds numbers.
    pub is_numeric: bool,
    /// Whether it is the row index of a data frame, which is no score.
    pub is_index: bool,
}

/// Index of the wanted column, or of the only numeric one.
pub fn choose(path: &Path, columns: &[Candidate<'_>], wanted: Option<&str>) -> Result<usize> {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let numbers: Vec<usize> = (0..columns.len())
        .filter(|&at| columns[at].is_numeric && !columns[at].is_index)
        .collect();
    let file = path.display();
    let problem = match (wanted, &numbers[..]) {
        (Some(wanted), _) => {
            let found: Vec<usize> = (0..names.len()).filter(|&at| names[at] == wanted).collect();
            match found[..] {
                [at] if columns[at].is_numeric => return Ok(at),
                [_] => format!("{file}: column `{wanted}` holds no numbers"),
                [] => {
                    let hint = nearest(wanted, names.iter().copied())
                        .map_or(String::new(), |close| format!("; did you mean `{close}`?"));
                    format!(
                        "{file}: no column `{wanted}`{hint} (columns: {})",
                        names.join(", ")
                    )
                }
                _ => format!(
                    "{file}: found {} columns `{wanted}`, expected one",
                    found.len()
                ),
            }
        }
        (None, [only]) => return Ok(*only),
        (None, []) => format!(
            "{file}: no column of numbers (columns: {})",
            names.join(", ")
        ),
        (None, several) => {
            let several: Vec<&str> = several.iter().map(|&at| names[at]).collect();
            format!(
                "{file}: several columns of numbers, choose one with --column: {}",
                several.join(", ")
            )
        }
    };
    Err(PipelineError::Usage(problem).into())
}

/// A column of a text or JSON table while it is read.
#[derive(Default)]
pub struct Column {
    pub name: String,
    pub is_index: bool,
    /// Whether it is a plain list, which has no columns to choose from.
    pub is_list: bool,
    values: Vec<f64>,
    /// Entries that are numbers, NaN among them, and entries that are texts.
    numbers: usize,
    texts: usize,
    /// Place of the first entry that is no score, and what it is.
    pub bad: Option<(String, String)>,
}

/// An entry of a text or JSON table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// A number, which may be infinite or NaN.
    Number(f64),
    /// Nothing, as the file writes it.
    Missing(&'a str),
    /// Anything else.
    Text(&'a str),
}

impl Column {
    /// A column without entries.
    pub fn new(name: &str, is_index: bool) -> Self {
        Self {
            name: name.to_owned(),
            is_index,
            ..Self::default()
        }
    }

    /// Adds an entry; `place` names it in errors.
    pub fn push(&mut self, cell: Cell<'_>, place: impl Fn() -> String) {
        let problem = match cell {
            Cell::Number(value) => {
                self.numbers += 1;
                if !value.is_nan() {
                    self.values.push(value);
                    return;
                }
                "found NaN, expected a number".to_owned()
            }
            Cell::Missing(text) => format!("the value is missing (`{text}`)"),
            Cell::Text(text) => {
                self.texts += 1;
                let end = text.char_indices().nth(LONGEST_SHOWN);
                match end {
                    None => format!("`{text}` is no number"),
                    Some((end, _)) => format!("`{}...` is no number", &text[..end]),
                }
            }
        };
        self.bad.get_or_insert_with(|| (place(), problem));
    }
}

/// The values of the wanted column, or of the only numeric one. For a plain list `wanted` is ignored.
pub fn chosen(path: &Path, mut columns: Vec<Column>, wanted: Option<&str>) -> Result<Vec<f64>> {
    let alone = columns.len() == 1;
    let wanted = wanted.filter(|_| !(alone && columns[0].is_list));
    let candidates: Vec<Candidate<'_>> = columns
        .iter()
        .map(|column| Candidate {
            name: &column.name,
            // A column of scores in which some are missing or are words is no other column's excuse: it is reported. The
            // requested column, or the only one, is read in any case.
            is_numeric: column.numbers > column.texts || alone || wanted == Some(&*column.name),
            is_index: column.is_index && !alone,
        })
        .collect();
    let at = choose(path, &candidates, wanted)?;
    let column = columns.swap_remove(at);
    if let Some((place, problem)) = column.bad {
        bail!(
            "{}: column `{}`, {place}: {problem}",
            path.display(),
            column.name
        );
    }
    Ok(column.values)
}

//! Tables of text: fields separated by semicolons, tabs, commas, bars or spaces, with or without a line of names.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use clipood_core::text_file::decode_text;
use clipood_pipeline::PipelineError;

use super::choose::{Cell, Column, chosen};

/// Separators in the order in which they are tried: commas stand inside the fields of the first two, too.
const SEPARATORS: [u8; 5] = *b";\t,| ";
/// Records that are looked at to find the separator.
const LOOKED_AT: usize = 100;
/// Texts that stand for a missing value, besides the empty one.
const MISSING: [&str; 9] = [
    "na", "n/a", "null", "none", "<na>", "#n/a", "nil", "missing", "-",
];

/// The wanted column, or the only one of numbers. The first line holds the names if none of its fields is a number;
/// without names, columns are called 1, 2, and so on.
pub fn column(path: &Path, bytes: Vec<u8>, wanted: Option<&str>) -> Result<Vec<f64>> {
    let given = || path.display().to_string();
    let text = decode_text(bytes, &path.display().to_string())?;
    let body = Body::of(&text);
    body.check_quotes().with_context(given)?;
    let records = body.records().with_context(given)?;
    let Some(((_, first), rest)) = records.split_first() else {
        return chosen(path, Vec::new(), wanted);
    };
    let has_names = body
        .first_is_names(first, rest, wanted)
        .with_context(given)?;
    let named = first.iter().any(|name| !name.is_empty());
    let mut columns: Vec<Column> = (1..)
        .zip(first)
        .map(|(number, name)| match has_names {
            // The first name is empty where pandas, R and others write the row index.
            true => Column::new(
                name,
                number == 1 && (named && name.is_empty() || name == "Unnamed: 0"),
            ),
            false => Column::new(&number.to_string(), false),
        })
        .collect();
    let mut marks = vec![Marks::default(); columns.len()];
    for (line, record) in &records[usize::from(has_names)..] {
        for ((column, marks), field) in columns.iter_mut().zip(&mut marks).zip(record) {
            let mut cell = body.cell(field);
            if marks.add(field, cell) {
                cell = Cell::Text(field);
            }
            column.push(cell, || format!("line {line}"));
        }
    }
    if let [only] = &mut columns[..] {
        body.blank_lines(only);
        only.is_list = !has_names;
    }
    for column in &mut columns {
        if let Some((_, problem)) = &mut column.bad
            && problem.contains(',')
            && body.separator != b';'
        {
            *problem += "; for decimal commas, separate fields with semicolons";
        }
    }
    chosen(path, columns, wanted)
}

/// The records of a file, without the lines before them.
struct Body<'a> {
    text: &'a str,
    /// Lines before it: comments, as numpy.savetxt writes them, and Excel's `sep=;`.
    skipped: u64,
    separator: u8,
}

/// A line number and the fields of a record.
type Record = (u64, csv::StringRecord);

impl<'a> Body<'a> {
    fn of(text: &'a str) -> Self {
        let mut body = Self {
            text,
            skipped: 0,
            separator: b',',
        };
        let mut stated = None;
        while let Some((line, rest)) = body.text.split_once('\n') {
            let sep = line.trim_end().strip_prefix("sep=").map(str::as_bytes);
            match sep {
                Some(&[separator]) if body.skipped == 0 => stated = Some(separator),
                _ if line.starts_with('#') => {}
                _ => break,
            }
            body.text = rest;
            body.skipped += 1;
        }
        body.separator = stated.unwrap_or_else(|| body.sniffed());
        body
    }

    fn reader(&self, separator: u8, flexible: bool) -> csv::Reader<&'a [u8]> {
        csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .delimiter(separator)
            .flexible(flexible)
            .from_reader(self.text.as_bytes())
    }

    /// The first separator that gives every record the same number of fields, at least two; or else the first that
    /// separates the first record, so that the error names the record that differs; or else a comma.
    fn sniffed(&self) -> u8 {
        let widths = |separator: u8| -> Vec<usize> {
            let reader = self.reader(separator, true);
            let records = reader.into_records().take(LOOKED_AT);
            records
                .map(|record| record.map_or(0, |record| record.len()))
                .collect()
        };
        let separates = |separator: &u8, all: bool| {
            let widths = widths(*separator);
            let first = widths.first().copied().unwrap_or(0);
            first > 1 && (!all || widths.iter().all(|width| *width == first))
        };
        let find = |all: bool| SEPARATORS.into_iter().find(|s| separates(s, all));
        find(true).or_else(|| find(false)).unwrap_or(b',')
    }

    /// Fails at a quoted field that does not end, or that goes on after its closing quote, as one does whose closing
    /// quote is missing.
    fn check_quotes(&self) -> Result<()> {
        let (mut line, mut opened) = (self.skipped + 1, 0);
        let mut place = Place::Start;
        for byte in self.text.bytes() {
            place = match (place, byte) {
                (Place::Inside, b'"') => Place::Closed,
                (Place::Inside, _) => Place::Inside,
                (Place::Start, b'"') => {
                    opened = line;
                    Place::Inside
                }
                (Place::Closed, b'"') => Place::Inside,
                (_, b'\n' | b'\r') => Place::Start,
                (_, byte) if byte == self.separator => Place::Start,
                (Place::Closed, b' ') => Place::Closed,
                (Place::Closed, _) => {
                    bail!(
                        "line {line}: text after the closing quote of a field that begins in line {opened}"
                    )
                }
                (Place::Start | Place::Plain, _) => Place::Plain,
            };
            line += u64::from(byte == b'\n');
        }
        match place {
            Place::Inside => bail!("line {opened}: a quote is opened and never closed"),
            _ => Ok(()),
        }
    }

    /// The line of the file on which a record begins. For the reader it begins where the one before is complete, which is
    /// before blank lines, and between `\r` and `\n`.
    fn line(&self, start: &csv::Position) -> u64 {
        let place = usize::try_from(start.byte()).unwrap_or(usize::MAX);
        let rest = self.text.as_bytes().get(place..).unwrap_or_default();
        let breaks = rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r'));
        let passed = breaks.filter(|byte| **byte == b'\n').count();
        start.line() + passed as u64 + self.skipped
    }

    fn records(&self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for record in self.reader(self.separator, false).into_records() {
            let record = record.map_err(|error| match error.kind() {
                csv::ErrorKind::UnequalLengths {
                    pos: Some(pos),
                    expected_len,
                    len,
                } => anyhow!(
                    "line {}: found {len} fields, expected {expected_len} as in the line before",
                    self.line(pos)
                ),
                _ => anyhow!(error),
            })?;
            let line = record.position().map_or(0, |pos| self.line(pos));
            all.push((line, record));
        }
        Ok(all)
    }

    /// Whether the first record holds the names of the columns.
    fn first_is_names(
        &self,
        first: &csv::StringRecord,
        rest: &[Record],
        wanted: Option<&str>,
    ) -> Result<bool> {
        let is_number = |field: &str| matches!(self.cell(field), Cell::Number(_));
        if !first.iter().any(is_number) {
            return Ok(true);
        }
        // pandas calls columns without names 0, 1, ...; the column of its index, if it is written, has an empty name.
        let after_index = first.get(0) == Some("");
        let names = first.iter().skip(usize::from(after_index));
        if !(0..).zip(names).all(|(i, name)| name == i.to_string()) {
            return Ok(false);
        }
        let has_floats = |at: usize| {
            let mut fields = rest.iter().filter_map(|(_, record)| record.get(at));
            fields.any(|field| is_number(field) && field.contains(['.', 'e', 'E', ',']))
        };
        if after_index {
            return Ok(true);
        }
        if !(0..first.len()).all(has_floats) {
            return Ok(false);
        }
        match (first.len(), wanted) {
            (1, Some("1")) => Ok(false),
            (1, None) => Err(PipelineError::Usage(
                "line 1 is 0: a score, or the name that pandas gives a column? say --column 1 or --column 0".to_owned(),
            )
            .into()),
            _ => Ok(true),
        }
    }

    /// A field as a number, if it is one. Commas are decimal marks only between semicolons.
    fn cell<'f>(&self, field: &'f str) -> Cell<'f> {
        if let Ok(value) = field.parse() {
            return Cell::Number(value);
        }
        if self.separator == b';' && field.matches(',').count() == 1 && !field.contains('.') {
            let pointed = field.replace(',', ".");
            if let Ok(value) = pointed.parse() {
                return Cell::Number(value);
            }
        }
        let small = field.to_ascii_lowercase();
        match field.is_empty() || MISSING.contains(&small.as_str()) {
            true => Cell::Missing(field),
            false => Cell::Text(field),
        }
    }

    /// Notes the first blank line between the records of a table with one column: a missing value that the reader of
    /// records skips.
    fn blank_lines(&self, column: &mut Column) {
        // Line breaks inside quotes belong to names of texts, not to numbers.
        if self.text.contains('"') {
            return;
        }
        let lines = (self.skipped + 1..).zip(self.text.trim_end().lines());
        let begun = lines.skip_while(|(_, line)| line.trim().is_empty());
        let mut blank = begun.filter(|(_, line)| line.trim().is_empty());
        if let Some((line, _)) = blank.next() {
            column.push(Cell::Missing(""), || format!("line {line}"));
        }
    }
}

/// Where the scan for quotes is: before, in or after a field.
#[derive(Clone, Copy)]
enum Place {
    Start,
    Plain,
    Inside,
    Closed,
}

/// Which decimal marks a column has had.
#[derive(Clone, Copy, Default)]
struct Marks {
    comma: bool,
    point: bool,
}

impl Marks {
    /// Adds those of a field; whether it is the first with which there are both, so that one of them separates thousands.
    fn add(&mut self, field: &str, cell: Cell<'_>) -> bool {
        let before = self.comma && self.point;
        if matches!(cell, Cell::Number(_)) {
            self.comma |= field.contains(',');
            self.point |= field.contains('.');
        }
        !before && self.comma && self.point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(text: &str, wanted: Option<&str>) -> Result<Vec<f64>> {
        column(Path::new("t.csv"), text.as_bytes().to_vec(), wanted)
    }

    #[test]
    fn separators_names_and_decimal_commas_are_found() {
        for text in [
            "score\n0.5\n-inf\n",
            "0.5\n-inf",
            "\u{feff}score\r\n0.5\r\n-Infinity\r\n",
            "name;score\na;0,5\nb;-inf\n",
            "name\tscore\na, b\t0.5\nc\t-inf\n",
            "\"name\",\"score\"\n\"a,\"\"\nb\",\"0.5\"\nc,-inf\n",
            ",score\n0,0.5\n1,-inf\n",
            "Unnamed: 0,score\n0,0.5\n1,-inf\n",
            ",0\n0,0.5\n1,-inf\n",
            "# numpy\n5.0e-01\n-inf\n",
            "a.png 0.5\nb.png -inf\n",
            "sep=;\nname;score\na,b;0.5\nc;-inf\n",
        ] {
            let found = scores(text, None).unwrap_or_else(|e| panic!("{text:?}: {e:#}"));
            assert_eq!(found, [0.5, f64::NEG_INFINITY], "{text:?}");
        }
        assert_eq!(scores("x,y\n1,2\n3,4\n", Some("y")).unwrap(), [2.0, 4.0]);
        assert_eq!(scores("1 2\n3 4\n", Some("2")).unwrap(), [2.0, 4.0]);
        assert_eq!(scores("0\n0.5\n", Some("0")).unwrap(), [0.5]);
        assert_eq!(scores("0\n0.5\n", Some("1")).unwrap(), [0.0, 0.5]);
        assert_eq!(scores("0\n1\n", None).unwrap(), [0.0, 1.0]);
    }

    #[test]
    fn what_is_no_score_is_named_with_its_line() {
        for (text, wanted, words) in [
            ("s\n1\nnan\n", None, &["`s`", "line 3", "NaN"][..]),
            ("s\n1\n\n2\n", None, &["line 3", "missing"]),
            ("n,s\na,1\nb,\n", None, &["`s`", "line 3", "missing (``)"]),
            (
                "n,s\r\na,1\r\nb,NA\r\n",
                None,
                &["line 3", "missing (`NA`)"],
            ),
            ("n,s\r\na,1\r\nb\r\n", None, &["line 3", "found 1 fields"]),
            ("n,s\na,1\nb,NA\n", None, &["line 3", "missing (`NA`)"]),
            ("n,s\n\na,1\n\n\nb,NA\n", None, &["line 6", "missing"]),
            ("n,s\r\n\r\na,1\r\n\r\nb\r\n", None, &["line 5", "found 1"]),
            ("n,s\na,1\nb,null\n", None, &["line 3", "missing (`null`)"]),
            // The labels are not taken for the scores.
            ("l,s\n0,0.5\n1,\n", None, &["several", "l, s"]),
            ("l,s\n0,0.5\n1,\n", Some("s"), &["line 3", "missing"]),
            ("n,s\na,1\nb,\"2\nc,3\n", None, &["line 3", "never closed"]),
            ("n,s\n\"a,1\n\"b\",2\n", None, &["line 2", "closing quote"]),
            ("s\n0,5\n0,7\n", None, &["line 2", "1"]),
            (
                "a;b\nw;1,5\nx;2,5\ny;1.234\nz;1,5\n",
                None,
                &["line 4", "`1.234`"],
            ),
            ("n,s\na,1\nb\n", None, &["line 3", "found 1 fields"]),
            ("0\n0.5\n", None, &["--column 0"]),
            ("s,s\n1,2\n", Some("s"), &["2 columns `s`"]),
            (
                "a.png,0.5\nb.png,x\nc.png,1\n",
                None,
                &["`2`", "line 2", "`x`"],
            ),
        ] {
            let error = format!("{:#}", scores(text, wanted).unwrap_err());
            for word in words {
                assert!(error.contains(word), "{text:?}: no {word} in: {error}");
            }
        }
    }
}

//! Pairs in text files: one per line under a line of headings.

use std::io::{self, BufRead, Read};
use std::path::Path;

use super::{CAPTIONS, IMAGES, PairColumns, PairImage, PairRow, column, filled, wrong};
use crate::byte_file::ByteFile;
use crate::error::DataError;
use crate::layouts::rows::lines_behind;

/// What may separate columns; the first that the headings contain does.
const SEPARATORS: [u8; 4] = [b'\t', b'|', b';', b','];
/// Most bytes of the line of headings.
const HEADINGS: u64 = 64 * 1024;

pub(super) fn of_lines(path: &Path, columns: &PairColumns) -> Result<Vec<PairRow>, DataError> {
    let io = |source| DataError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = ByteFile::open(path).map_err(io)?;
    let mut first = Vec::new();
    file.reader(0)
        .take(HEADINGS)
        .read_until(b'\n', &mut first)
        .map_err(io)?;
    if first.len() as u64 == HEADINGS {
        let problem = format!("the first line is longer than {HEADINGS} bytes, expected headings");
        return Err(wrong(path, problem));
    }
    of_reader(path, columns, &first, file.reader(0))
}

fn of_reader(
    path: &Path,
    columns: &PairColumns,
    heading: &[u8],
    text: impl Read,
) -> Result<Vec<PairRow>, DataError> {
    let separator = SEPARATORS.into_iter().find(|s| heading.contains(s));
    let separator = separator.ok_or_else(|| {
        let start: String = String::from_utf8_lossy(heading)
            .trim()
            .chars()
            .take(80)
            .collect();
        wrong(
            path,
            format!("expected a line of headings, found `{start}`"),
        )
    })?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(Quotes::new(text, separator));
    let behind = lines_behind(heading);
    let failed = |error| csv_error(path, error, behind);
    let headings = reader.headers().map_err(failed)?.clone();
    let names: Vec<&str> = headings
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').trim())
        .collect();
    let place = |named: &Option<String>, usual: &[&str], what: &str| {
        column(named.as_deref(), usual, what, &names).map_err(|problem| wrong(path, problem))
    };
    let image = place(&columns.image, &IMAGES, "images")?;
    let caption = place(&columns.caption, &CAPTIONS, "captions")?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let line = record.position().map_or(0, csv::Position::line) + behind;
        if record.len() > names.len() {
            return Err(wrong(
                path,
                format!(
                    "line {line}: found {} cells, expected {}; a text with `{}` needs quotation marks",
                    record.len(),
                    names.len(),
                    separator.escape_ascii()
                ),
            ));
        }
        let cell = |column: usize| record.get(column).and_then(filled);
        rows.push(PairRow {
            number: line,
            image: cell(image).map(PairImage::Named),
            captions: cell(caption).into_iter().collect(),
        });
    }
    match reader.get_ref().open_since() {
        Some(line) => {
            let problem = format!("line {line}: a quotation mark is opened and never closed");
            Err(wrong(path, problem))
        }
        None => Ok(rows),
    }
}

/// Bytes on their way to the reader of CSV, for which an open quotation mark reaches to the end of the file.
struct Quotes<R> {
    inner: R,
    separator: u8,
    place: Place,
    line: u64,
    /// Line of the last quotation mark that opened a cell.
    opened: u64,
}

/// Where the next byte stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// At the start of a cell.
    Start,
    /// Between quotation marks.
    Inside,
    /// After the second quotation mark, or the first of two that stand for one.
    Closed,
    /// In a cell without quotation marks.
    Plain,
}

impl<R> Quotes<R> {
    fn new(inner: R, separator: u8) -> Self {
        Self {
            inner,
            separator,
            place: Place::Start,
            line: 1,
            opened: 0,
        }
    }

    fn see(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Inside, b'"') => Place::Closed,
            (Place::Inside, _) | (Place::Closed, b'"') => Place::Inside,
            (Place::Start, b'"') => {
                self.opened = self.line;
                Place::Inside
            }
            (_, b'\n' | b'\r') => Place::Start,
            (_, byte) if byte == self.separator => Place::Start,
            _ => Place::Plain,
        };
        self.line += u64::from(byte == b'\n');
    }

    /// The line of a quotation mark that is still open.
    fn open_since(&self) -> Option<u64> {
        (self.place == Place::Inside).then_some(self.opened)
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        for byte in &buffer[..count] {
            self.see(*byte);
        }
        Ok(count)
    }
}

fn csv_error(path: &Path, error: csv::Error, behind: u64) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::Io {
            path: path.to_path_buf(),
            source,
        },
        csv::ErrorKind::Utf8 { pos, .. } => {
            let line = pos.map_or(0, |pos| pos.line() + behind);
            wrong(path, format!("line {line} is not UTF-8"))
        }
        other => wrong(path, format!("no readable CSV file: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, columns: &PairColumns) -> Result<Vec<PairRow>, String> {
        let heading = text
            .split_inclusive('\n')
            .next()
            .unwrap_or_default()
            .as_bytes();
        of_reader(Path::new("c.csv"), columns, heading, text.as_bytes())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn files_of_captions_are_read_as_they_are_published() {
        let open_clip = "filepath\ttitle\nimages/1.jpg\ta dog, with glasses\nimages/2.jpg\ta cat\n";
        let flickr30k =
            "image_name| comment_number| comment\n1.jpg| 0| A dog .\n1.jpg| 1| Dog , again\n";
        let flickr8k = "\u{feff}image,caption\r\n1.jpg,\"A dog, with glasses\"\r\n2.jpg,A cat\r\n";
        for (text, rows, image, caption) in [
            (open_clip, 2, "images/1.jpg", "a dog, with glasses"),
            (flickr30k, 2, "1.jpg", "A dog ."),
            (flickr8k, 2, "1.jpg", "A dog, with glasses"),
        ] {
            let found = parsed(text, &PairColumns::default()).unwrap();
            assert_eq!(found.len(), rows);
            assert_eq!(found[0].image, Some(PairImage::Named(image.to_owned())));
            assert_eq!(found[0].captions, [caption]);
            assert_eq!([found[0].number, found[1].number], [2, 3]);
        }
    }

    #[test]
    fn named_columns_win_and_empty_cells_are_absent() {
        let text = "image,photo,caption,alt\na.jpg,b.jpg,one,two\n,,x,\nc.jpg\n";
        let named = PairColumns {
            image: Some("photo".to_owned()),
            caption: Some("alt".to_owned()),
        };
        let rows = parsed(text, &named).unwrap();
        assert_eq!(rows[0].image, Some(PairImage::Named("b.jpg".to_owned())));
        assert_eq!(rows[0].captions, ["two"]);
        assert_eq!((&rows[1].image, rows[1].captions.len()), (&None, 0));
        assert_eq!(rows[2].image, None);
        let unknown = PairColumns {
            caption: Some("captoin".to_owned()),
            ..PairColumns::default()
        };
        let message = parsed(text, &unknown).unwrap_err();
        assert!(message.contains("no column `captoin` of captions: did you mean `caption`?"));
    }

    #[test]
    fn what_is_no_list_of_pairs_is_refused() {
        for (text, part) in [
            ("", "headings"),
            (
                "image,label\n1.jpg,3\n",
                "no column of captions: found image, label",
            ),
            ("name,caption\n1.jpg,a\n", "no column of images"),
            (
                "image,caption\n1.jpg,a dog, with glasses\n",
                "line 2: found 3 cells, expected 2",
            ),
            (
                "image,caption\n1.jpg,\"a \"\"big\"\" dog\"\n2.jpg,\"a cat\n3.jpg,a fish\n",
                "line 3: a quotation mark is opened",
            ),
        ] {
            let message = parsed(text, &PairColumns::default()).unwrap_err();
            assert!(message.starts_with("c.csv: "), "{message}");
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }
}

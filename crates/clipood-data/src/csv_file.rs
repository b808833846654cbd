//! Text files of columns under a line of names: their records, each with the line on which it begins.

use std::collections::VecDeque;
use std::io::{self, Read};

/// Why a file cannot be read.
pub(crate) enum CsvError {
    /// The file system.
    Io(io::Error),
    /// The text; a fragment that names the line.
    Text(String),
}

/// The records of a text.
pub(crate) struct CsvFile<R> {
    reader: csv::Reader<Watched<R>>,
    names: csv::StringRecord,
    separator: u8,
    record: csv::StringRecord,
    short: bool,
}

impl<R: Read> CsvFile<R> {
    /// A text whose columns `separator` separates. With `short` a record may have fewer cells than there are names.
    ///
    /// # Errors
    /// A first record that cannot be read. A text without one has no names.
    pub fn new(text: R, separator: u8, short: bool) -> Result<Self, CsvError> {
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .delimiter(separator)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(Watched::new(text, separator));
        let mut file = Self {
            reader,
            names: csv::StringRecord::new(),
            separator,
            record: csv::StringRecord::new(),
            short,
        };
        file.read()?;
        file.names = file.record.clone();
        Ok(file)
    }

    /// Names of the columns.
    pub fn names(&self) -> Vec<String> {
        let names = self.names.iter();
        names
            .map(|name| name.trim_start_matches('\u{feff}').trim().to_owned())
            .collect()
    }

    /// The next record and the number of its first line, from 1; `None` behind the last one. Cells have no white space around
    /// them.
    ///
    /// # Errors
    /// Text that is not UTF-8; a record that does not have as many cells as there are names; a quotation mark that is never
    /// closed.
    pub fn next(&mut self) -> Result<Option<(u64, &csv::StringRecord)>, CsvError> {
        let Some(line) = self.read()? else {
            return Ok(None);
        };
        let (found, expected) = (self.record.len(), self.names.len());
        if found > expected {
            return Err(CsvError::Text(format!(
                "line {line}: found {found} cells, expected {expected}; a text with `{}` needs quotation marks",
                self.separator.escape_ascii()
            )));
        }
        if found < expected && !self.short {
            return Err(CsvError::Text(format!(
                "line {line}: found {found} cells, expected {expected}"
            )));
        }
        Ok(Some((line, &self.record)))
    }

    /// Reads a record; its first line.
    fn read(&mut self) -> Result<Option<u64>, CsvError> {
        let read = self.reader.read_record(&mut self.record);
        let seen = self.reader.get_mut();
        let line = seen.begun.pop_front();
        // The text behind such a mark has become one record.
        if seen.ended && seen.begun.is_empty() && seen.place == Place::Inside {
            return Err(CsvError::Text(format!(
                "line {}: a quotation mark is opened and never closed",
                seen.opened
            )));
        }
        match read.map_err(csv::Error::into_kind) {
            Ok(true) => Ok(Some(line.unwrap_or(1))),
            Ok(false) => Ok(None),
            Err(csv::ErrorKind::Io(error)) => Err(CsvError::Io(error)),
            Err(csv::ErrorKind::Utf8 { .. }) => {
                let line = line.unwrap_or(1);
                Err(CsvError::Text(format!("line {line} is not UTF-8")))
            }
            Err(other) => Err(CsvError::Text(format!("no readable CSV file: {other:?}"))),
        }
    }
}

/// Bytes on their way to the reader of CSV, which counts neither blank lines nor the second byte of `\r\n`, and for which an
/// open quotation mark reaches to the end of the file.
struct Watched<R> {
    inner: R,
    separator: u8,
    place: Place,
    /// Bytes seen.
    seen: u64,
    /// Line of the next byte.
    line: u64,
    /// First lines of the records that begin in what has been seen and have not been read.
    begun: VecDeque<u64>,
    /// Line of the last quotation mark that opened a cell.
    opened: u64,
    /// Whether the text is at its end.
    ended: bool,
}

/// Where the next byte stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before a record.
    Between,
    /// At the start of a cell.
    Start,
    /// Between quotation marks.
    Inside,
    /// After the second quotation mark, or the first of two that stand for one.
    Closed,
    /// In a cell without quotation marks.
    Plain,
}

impl<R> Watched<R> {
    fn new(inner: R, separator: u8) -> Self {
        Self {
            inner,
            separator,
            place: Place::Between,
            seen: 0,
            line: 1,
            begun: VecDeque::new(),
            opened: 0,
            ended: false,
        }
    }

    fn see(&mut self, byte: u8) {
        let place = self.seen;
        self.seen += 1;
        // A mark of the byte order is no part of the first cell.
        if place < 3 && b"\xef\xbb\xbf"[place as usize] == byte && self.place == Place::Between {
            return;
        }
        let ends = matches!(byte, b'\n' | b'\r');
        if self.place == Place::Between && !ends {
            self.begun.push_back(self.line);
            self.place = Place::Start;
        }
        self.place = match (self.place, byte) {
            (Place::Inside, b'"') => Place::Closed,
            (Place::Inside, _) | (Place::Closed, b'"') => Place::Inside,
            (Place::Start, b'"') => {
                self.opened = self.line;
                Place::Inside
            }
            _ if ends => Place::Between,
            (_, byte) if byte == self.separator => Place::Start,
            _ => Place::Plain,
        };
        self.line += u64::from(byte == b'\n');
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        for byte in &buffer[..count] {
            self.see(*byte);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of all records, or the message.
    fn lines(text: &[u8]) -> Result<Vec<u64>, String> {
        let message = |error| match error {
            CsvError::Io(error) => error.to_string(),
            CsvError::Text(text) => text,
        };
        let mut file = CsvFile::new(text, b',', false).map_err(message)?;
        assert_eq!(file.names(), ["path", "label"]);
        let mut lines = Vec::new();
        while let Some((line, _)) = file.next().map_err(message)? {
            lines.push(line);
        }
        Ok(lines)
    }

    #[test]
    fn records_have_the_lines_that_an_editor_shows() {
        for text in [
            "path,label\na,b\n\nc,d\n\n\ne,\"f\n\ng\"\nh,i",
            "\n\npath,label\n\na,\"b\n\n\"\nc,d\n",
            "\u{feff}\"path\",\"label\"\na,\"b\"\"\n\"\n\"c\",d\n",
        ] {
            for ends in ["\n", "\r\n"] {
                let text = text.replace('\n', ends);
                let shown: Vec<u64> = (1..)
                    .zip(text.split('\n'))
                    .filter(|(_, line)| {
                        line.trim_start_matches('"')
                            .starts_with(['a', 'c', 'e', 'h'])
                    })
                    .map(|(number, _)| number)
                    .collect();
                assert_eq!(lines(text.as_bytes()).unwrap(), shown, "{text:?}");
            }
        }
    }

    #[test]
    fn records_that_are_none_are_named_by_their_line() {
        for (text, message) in [
            (
                &b"path,label\n\na,b\nc\n"[..],
                "line 4: found 1 cells, expected 2",
            ),
            (
                b"path,label\r\n\r\na,b,c\r\n",
                "line 3: found 3 cells, expected 2; a text with `,` needs quotation marks",
            ),
            (b"path,label\n\n\xff,b\n", "line 3 is not UTF-8"),
            (
                b"path,label\na,\"b\nc,d\ne,f\n",
                "line 2: a quotation mark is opened and never closed",
            ),
        ] {
            assert_eq!(lines(text).unwrap_err(), message);
        }
    }

    #[test]
    fn every_record_has_a_line_of_its_own() {
        let alphabet = b"a,\"\n\r ";
        for number in 0..50_000usize {
            let mut rest = number;
            let mut text = b"a,b,c,d,e,f,g,h\n".to_vec();
            while rest > 0 {
                text.push(alphabet[rest % alphabet.len()]);
                rest /= alphabet.len();
            }
            let Ok(mut file) = CsvFile::new(&text[..], b',', true) else {
                panic!("names of {text:?}");
            };
            let mut before = 1;
            let unclosed = loop {
                match file.next() {
                    Ok(Some((line, _))) => {
                        assert!(line > before || text.contains(&b'\r'), "{text:?}");
                        before = line;
                    }
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            let seen = file.reader.get_ref();
            assert!(seen.begun.is_empty(), "{text:?}");
            assert_eq!(unclosed, seen.place == Place::Inside, "{text:?}");
        }
    }
}

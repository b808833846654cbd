//! Pairs in text files: one per line under a line of headings.

use std::io::{BufRead, Read};
use std::path::Path;

use super::{CAPTIONS, IMAGES, PairColumns, PairImage, PairRow, column, filled, wrong};
use crate::byte_file::ByteFile;
use crate::csv_file::{CsvError, CsvFile};
use crate::error::DataError;

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
    let failed = |error| match error {
        CsvError::Io(source) => DataError::Io {
            path: path.to_path_buf(),
            source,
        },
        CsvError::Text(problem) => wrong(path, problem),
    };
    let mut records = CsvFile::new(text, separator, true).map_err(failed)?;
    let names = records.names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let place = |named: &Option<String>, usual: &[&str], what: &str| {
        column(named.as_deref(), usual, what, &names).map_err(|problem| wrong(path, problem))
    };
    let image = place(&columns.image, &IMAGES, "images")?;
    let caption = place(&columns.caption, &CAPTIONS, "captions")?;
    let mut rows = Vec::new();
    while let Some((line, record)) = records.next().map_err(failed)? {
        let cell = |column: usize| record.get(column).and_then(filled);
        rows.push(PairRow {
            number: line,
            image: cell(image).map(PairImage::Named),
            captions: cell(caption).into_iter().collect(),
        });
    }
    Ok(rows)
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

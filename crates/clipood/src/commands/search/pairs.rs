//! Images with their captions, from a CSV file.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use clipood_core::shown;
use clipood_core::text_file::read_text;
use clipood_pipeline::PipelineError;

/// Headings of the column of images, the first that a file has counts.
const IMAGES: [&str; 8] = [
    "image_key",
    "image",
    "filepath",
    "file_name",
    "filename",
    "image_name",
    "image_path",
    "path",
];
/// Headings of the column of captions.
const TEXTS: [&str; 5] = ["caption", "text", "title", "comment", "sentence"];

/// Captions, each with the name of its image.
#[derive(Debug)]
pub struct Pairs {
    /// The captions.
    pub texts: Vec<String>,
    /// The image of each, as the file names it.
    images: Vec<String>,
    /// The file, for messages.
    file: String,
}

impl Pairs {
    /// Reads a file whose first line names the columns, separated by commas, tabs, semicolons or bars.
    ///
    /// # Errors
    /// A file that cannot be read, without the columns, or with an empty entry in one of them.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path)?, &shown(path))
    }

    fn parse(text: &str, file: &str) -> Result<Self> {
        let usage = |problem: String| PipelineError::Usage(format!("{file}: {problem}"));
        let heading = text.lines().next().unwrap_or_default();
        let separators = [b'\t', b'|', b';', b','];
        let separator = separators
            .into_iter()
            .find(|separator| heading.as_bytes().contains(separator))
            .ok_or_else(|| usage(format!("expected a line of headings, found `{heading}`")))?;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let headings = reader.headers().context(file.to_owned())?.clone();
        let column = |names: &[&str], what: &str| {
            let place = |name: &&str| headings.iter().position(|h| h.eq_ignore_ascii_case(name));
            names.iter().find_map(place).ok_or_else(|| {
                let found: Vec<&str> = headings.iter().collect();
                usage(format!(
                    "no column of {what}: found {}, expected one of {}",
                    found.join(", "),
                    names.join(", ")
                ))
            })
        };
        let (image, caption) = (column(&IMAGES, "images")?, column(&TEXTS, "captions")?);
        let mut pairs = Self {
            texts: Vec::new(),
            images: Vec::new(),
            file: file.to_owned(),
        };
        for record in reader.records() {
            let record = record.context(file.to_owned())?;
            let line = record.position().map_or(0, csv::Position::line);
            let entry = |column: usize, what: &str| match record.get(column) {
                Some(text) if !text.is_empty() => Ok(text.to_owned()),
                _ => Err(usage(format!("line {line}: no {what}"))),
            };
            pairs.images.push(entry(image, "image")?);
            pairs.texts.push(entry(caption, "caption")?);
        }
        match pairs.texts.is_empty() {
            true => Err(usage("holds no pair".to_owned()).into()),
            false => Ok(pairs),
        }
    }

    /// The number of each caption's image among `names`: the image of that name, or the only one whose path ends with
    /// it.
    ///
    /// # Errors
    /// An image that is not among them, or with several of its name.
    pub fn rows(&self, names: &[String]) -> Result<Vec<usize>> {
        let whole: HashMap<&str, usize> = (0..)
            .zip(names)
            .map(|(row, name)| (name.as_str(), row))
            .collect();
        let mut ends: HashMap<&str, Vec<usize>> = HashMap::new();
        for (row, name) in names.iter().enumerate() {
            ends.entry(file_name(name)).or_default().push(row);
        }
        let find = |image: &String| {
            if let Some(row) = whole.get(image.as_str()) {
                return Ok(*row);
            }
            let slashes = image.replace('\\', "/");
            let wanted = slashes.trim_start_matches("./");
            let among = ends.get(file_name(wanted)).map_or(&[][..], Vec::as_slice);
            let fits = |row: &&usize| {
                let before = names[**row].strip_suffix(wanted);
                before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
            };
            let rows: Vec<&usize> = among.iter().filter(fits).collect();
            match rows[..] {
                [row] => Ok(*row),
                [] => Err(format!("is not among the {} images", names.len())),
                [a, b, ..] => Err(format!("may be {} or {}", names[*a], names[*b])),
            }
        };
        let found = self.images.iter().map(|image| {
            find(image).map_err(|problem| {
                PipelineError::Usage(format!("{}: {} {problem}", self.file, shown(image)))
            })
        });
        Ok(found.collect::<Result<_, _>>()?)
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_captions_are_read_as_they_are_published() {
        let open_clip = "filepath\ttitle\nimages/1.jpg\ta dog, with glasses\nimages/2.jpg\ta cat\n";
        let flickr30k =
            "image_name| comment_number| comment\n1.jpg| 0| A dog .\n1.jpg| 1| Dog , again\n";
        let flickr8k = "image,caption\n1.jpg,\"A dog, with glasses\"\n";
        for (text, images, texts) in [
            (open_clip, 2, "a dog, with glasses"),
            (flickr30k, 2, "A dog ."),
            (flickr8k, 1, "A dog, with glasses"),
        ] {
            let pairs = Pairs::parse(text, "c.csv").unwrap();
            assert_eq!(
                (pairs.images.len(), pairs.texts[0].as_str()),
                (images, texts)
            );
        }
    }

    #[test]
    fn images_are_found_by_name_or_by_the_end_of_their_path() {
        let names = [
            "flickr/test/a/1.jpg",
            "flickr/test/b/1.jpg",
            "flickr/test/b/2.jpg",
        ]
        .map(str::to_owned);
        let rows = |image: &str| {
            let text = format!("image,caption\n{image},words\n");
            Pairs::parse(&text, "c.csv")
                .unwrap()
                .rows(&names)
                .map_err(|error| error.to_string())
        };
        assert_eq!(rows("flickr/test/b/1.jpg"), Ok(vec![1]));
        assert_eq!(rows("b/1.jpg"), Ok(vec![1]));
        assert_eq!(rows(".\\b\\1.jpg"), Ok(vec![1]));
        assert_eq!(rows("2.jpg"), Ok(vec![2]));
        assert!(
            rows("1.jpg")
                .unwrap_err()
                .contains("may be flickr/test/a/1.jpg or")
        );
        assert!(
            rows("3.jpg")
                .unwrap_err()
                .contains("3.jpg is not among the 3 images")
        );
        // The end of a file name is no name.
        assert!(rows(".jpg").is_err());
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
            ("image,caption\n", "no pair"),
            ("image,caption\n1.jpg,\n", "line 2: no caption"),
        ] {
            let error = Pairs::parse(text, "c.csv").unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}

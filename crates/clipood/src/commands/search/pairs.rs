//! The images of a file of pairs among those that are searched.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use clipood_core::shown;
use clipood_data::{PairColumns, PairImage, PairRows};
use clipood_pipeline::PipelineError;

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
    /// Reads a file whose rows name images.
    ///
    /// # Errors
    /// As [`PairRows::read`], a row without image or caption, and one that holds its image instead of naming it.
    pub fn read(path: &Path) -> Result<Self> {
        let found = PairRows::read(path, &PairColumns::default()).map_err(PipelineError::from)?;
        let mut pairs = Self {
            texts: Vec::new(),
            images: Vec::new(),
            file: shown(path),
        };
        for row in &found.rows {
            let problem = match &row.image {
                Some(PairImage::Named(_)) if row.captions.is_empty() => "no caption",
                Some(PairImage::Named(image)) => {
                    for caption in &row.captions {
                        pairs.images.push(image.clone());
                        pairs.texts.push(caption.clone());
                    }
                    continue;
                }
                Some(PairImage::Stored(_)) => "the bytes of an image, expected its name",
                None => "no image",
            };
            let (file, place) = (&pairs.file, found.place(row));
            return Err(PipelineError::Usage(format!("{file}: {place}: {problem}")).into());
        }
        Ok(pairs)
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
        // By the number of components of an end: the first two images with each end.
        let mut by_length: HashMap<usize, HashMap<&str, (usize, Option<usize>)>> = HashMap::new();
        let mut find = |image: &String| {
            if let Some(row) = whole.get(image.as_str()) {
                return Ok(*row);
            }
            let slashes = image.replace('\\', "/");
            let wanted = slashes.trim_start_matches("./");
            let length = wanted.split('/').count();
            let ends = by_length
                .entry(length)
                .or_insert_with(|| by_end(names, length));
            match ends.get(wanted) {
                Some((row, None)) => Ok(*row),
                None => Err(format!("is not among the {} images", names.len())),
                Some((a, Some(b))) => {
                    let (a, b) = (shown(&names[*a]), shown(&names[*b]));
                    Err(format!("may be {a} or {b}"))
                }
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

/// The first two names with each end of `length` components.
fn by_end(names: &[String], length: usize) -> HashMap<&str, (usize, Option<usize>)> {
    let mut ends: HashMap<&str, (usize, Option<usize>)> = HashMap::new();
    for (row, name) in names.iter().enumerate() {
        let mut slashes = name.rmatch_indices('/');
        let begin = match slashes.nth(length - 1) {
            Some((slash, _)) => slash + 1,
            None if name.split('/').count() == length => 0,
            None => continue,
        };
        ends.entry(&name[begin..])
            .and_modify(|(_, second)| *second = second.or(Some(row)))
            .or_insert((row, None));
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pairs> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.csv");
        std::fs::write(&path, text).unwrap();
        Pairs::read(&path)
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
            read(&format!("image,caption\n{image},words\n"))
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
    fn rows_without_image_or_caption_are_refused() {
        for (text, part) in [
            ("image,caption\n", "no pair"),
            ("image,caption\n1.jpg,\n", "line 2: no caption"),
            ("image,caption\n1.jpg,a\n,b\n", "line 3: no image"),
            ("image,label\n1.jpg,3\n", "no column of captions"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text:?}: {error}");
            assert_eq!(super::super::super::exit_code(&error), 2);
        }
    }
}

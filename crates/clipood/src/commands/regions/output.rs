//! What `clipood regions` writes: pictures, a page, and one JSON object per image.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clipood_core::text_file::read_text;
use clipood_core::{shown, stored};
use clipood_pipeline::{RegionsPage, SeenImage};
use serde_json::{Value, json};

use super::task::Task;

/// Fewest columns of a picture, in pixels.
const SIDE: usize = 448;
/// The file with one JSON object per image.
const LINES: &str = "regions.jsonl";
/// Longest part of a file's name that is taken from an image or a class.
const LONGEST: usize = 40;

/// An image with what its patches show.
pub struct Seen {
    /// The picture's numbers.
    pub image: SeenImage,
    /// Of each class with a heat map: its number, the cosine of the whole image, and its probability, `softmax(100 c)` over the
    /// classes.
    pub of_image: Vec<(usize, f64, f64)>,
}

/// The folder that is written.
pub struct Output {
    folder: PathBuf,
    /// Opened with the first image: until then everything of an earlier call stays.
    lines: Option<File>,
    /// Pictures of an earlier call that are not drawn again.
    stale: Vec<PathBuf>,
    page: RegionsPage,
    /// Images so far.
    images: usize,
}

impl Output {
    /// Makes the folder, unless it exists. The first image replaces what an earlier call has written, the `stale` pictures
    /// included.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn create(folder: &Path, page: RegionsPage, stale: Vec<PathBuf>) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", shown(folder)))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            lines: None,
            stale,
            page,
            images: 0,
        })
    }

    /// The file of lines, which is made, and the stale pictures removed, in the first call.
    fn lines(&mut self) -> Result<&mut File> {
        let file = match self.lines.take() {
            Some(file) => file,
            None => {
                for picture in &self.stale {
                    // One that is gone, or cannot be removed, does no harm: the page does not name it.
                    let _ = std::fs::remove_file(picture);
                }
                let path = self.folder.join(LINES);
                File::create(&path).with_context(|| cannot_write(&path))?
            }
        };
        Ok(self.lines.insert(file))
    }

    /// Writes the pictures and the line of an image, and returns the line.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, path: &Path, seen: &Seen, classes: &[String]) -> Result<String> {
        self.lines()?;
        self.images += 1;
        let stem = plain(&stored(Path::new(path.file_stem().unwrap_or_default())));
        let begin = format!("{:03}-{stem}", self.images);
        let maps = seen.image.regions.maps.iter().enumerate();
        let names: Vec<String> = std::iter::once(format!("{begin}-extracted.png"))
            .chain(maps.map(|(number, map)| {
                format!("{begin}-{}-{}.png", number + 1, plain(&classes[map.class]))
            }))
            .collect();
        for (name, picture) in names.iter().zip(seen.image.drawn(SIDE)) {
            let path = self.folder.join(name);
            std::fs::write(&path, picture.png()?).with_context(|| cannot_write(&path))?;
        }
        let line = format!("{}\n", as_json(path, seen, classes, &names));
        let path = self.folder.join(LINES);
        self.lines()?
            .write_all(line.as_bytes())
            .with_context(|| cannot_write(&path))?;
        self.page.add(&seen.image)?;
        Ok(line)
    }

    /// Writes the page, and returns its path.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(self) -> Result<PathBuf> {
        let Self { folder, page, .. } = self;
        let path = folder.join("index.html");
        std::fs::write(&path, page.html()?).with_context(|| cannot_write(&path))?;
        Ok(path)
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", shown(path))
}

/// The pictures in a folder that the lines of an earlier call list.
pub fn earlier(folder: &Path) -> Vec<PathBuf> {
    let Ok(text) = read_text(&folder.join(LINES)) else {
        return Vec::new();
    };
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let names = lines.flat_map(|line: Value| {
        let maps = line["maps"].as_array().cloned().unwrap_or_default();
        let files = std::iter::once(&line).chain(&maps).map(|one| &one["file"]);
        files
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    });
    names
        .filter(|name| is_own(name))
        .map(|name| folder.join(name))
        .collect()
}

/// Whether a file is called as [`Output::add`] calls its pictures: `001-NAME.png`.
fn is_own(name: &str) -> bool {
    let number = name.split('-').next().unwrap_or_default();
    number.len() >= 3
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && name.ends_with(".png")
        && !name.contains(['/', '\\'])
}

/// Letters and digits of a name; everything else becomes `_`.
fn plain(name: &str) -> String {
    let kept = |c: char| match c.is_ascii_alphanumeric() || matches!(c, '-' | '.') {
        true => c,
        false => '_',
    };
    name.chars().map(kept).take(LONGEST).collect()
}

/// The numbers of an image; `files` are the names of its pictures.
fn as_json(path: &Path, seen: &Seen, classes: &[String], files: &[String]) -> Value {
    let (image, regions) = (&seen.image, &seen.image.regions);
    let grid = regions.grid.max(1);
    let maps = regions.maps.iter().zip(&seen.of_image).zip(&files[1..]);
    let maps: Vec<Value> = maps
        .map(|((map, (_, cosine, probability)), file)| {
            json!({
                "class": classes[map.class],
                "image_cosine": cosine,
                "prob": probability,
                "cosines": map.cosines.chunks(grid).collect::<Vec<_>>(),
                "file": file,
            })
        })
        .collect();
    json!({
        "image": stored(path),
        "label": classes[regions.label],
        "label_from": image.label_from,
        "pred_name": image.predicted.0,
        "prob": image.predicted.1,
        "top_k": regions.top_k,
        "classes": classes.len(),
        "patches": regions.ranks.len(),
        "extracted": regions.count(),
        "share": regions.share(),
        "ranks": regions.ranks.chunks(grid).collect::<Vec<_>>(),
        "file": files[0],
        "maps": maps,
    })
}

/// The numbers of an image for people.
pub fn as_text(path: &Path, seen: &Seen, task: &Task) -> String {
    let regions = &seen.image.regions;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}\n{}",
        shown(path),
        seen.image.summary(&task.classes)
    );
    let _ = writeln!(
        out,
        "rank of the label in every patch (above {}: extracted)",
        regions.top_k
    );
    let width = task.classes.len().to_string().len() + 2;
    for row in regions.ranks.chunks(regions.grid.max(1)) {
        let cells: String = row.iter().map(|rank| format!("{rank:>width$}")).collect();
        let _ = writeln!(out, "{cells}");
    }
    let _ = writeln!(
        out,
        "{:>8}  {:>8}  {:>8}  {:>8}  class (cosine of the image; least, mean and largest of its patches)",
        "image", "least", "mean", "largest"
    );
    for (map, (_, cosine, _)) in regions.maps.iter().zip(&seen.of_image) {
        let (least, largest) = map.range();
        let sum: f64 = map.cosines.iter().map(|cosine| f64::from(*cosine)).sum();
        let mean = sum / map.cosines.len().max(1) as f64;
        let _ = writeln!(
            out,
            "{cosine:>8.4}  {least:>8.4}  {mean:>8.4}  {largest:>8.4}  {}",
            task.classes[map.class]
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(plain("sea lion/2.x"), "sea_lion_2.x");
        assert_eq!(plain("../é"), "..__");
        assert_eq!(plain(&"a".repeat(99)).len(), LONGEST);
        assert!(is_own("001-sea_lion-extracted.png") && is_own("1000-1-2-star.png"));
        for other in [
            "photo.png",
            "1-a.png",
            "001-a.jpg",
            "001-/../a.png",
            "2024_001.png",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }
}

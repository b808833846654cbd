//! Contact sheets: pages of images in groups, for commands that find or judge images.

use clipood_core::counted;
use clipood_data::{Roots, Source};
use rayon::prelude::*;

use super::bounds::SHEET;
use super::page::{Block, Page, Section};
use super::table::Table;
use super::thumbnails::{Tile, thumbnail};
use crate::error::Result;

/// A page of images in groups: one HTML file with the images in it.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// Title of the window, and heading.
    pub title: String,
    /// One line below the heading: from what the sheet was made.
    pub subtitle: String,
    /// The outcome in a sentence.
    pub verdict: String,
    /// The groups, in their order on the page.
    pub groups: Vec<SheetGroup>,
}

/// Images below a heading.
#[derive(Debug, Clone, Default)]
pub struct SheetGroup {
    /// The heading.
    pub title: String,
    /// A paragraph before the images; may be empty.
    pub text: String,
    /// The images, in their order on the page.
    pub images: Vec<SheetImage>,
    /// Images that belong to the group and are not among its images.
    pub left_out: usize,
    /// A table behind a line that unfolds it: its title and itself.
    pub table: Option<(String, Table)>,
}

/// An image of a sheet.
#[derive(Debug, Clone)]
pub struct SheetImage {
    /// Where it lies on this machine, or why it cannot be found.
    pub source: std::result::Result<Source, String>,
    /// Its key or path.
    pub name: String,
    /// The line that stands out below it.
    pub heading: String,
    /// Further lines.
    pub lines: Vec<String>,
}

impl Sheet {
    /// Largest number of images that a command should put on a sheet: each costs a few kilobytes of the page.
    pub const MOST: usize = SHEET;

    /// The page. Images are read and made small in parallel; of one that cannot be read the page says why.
    ///
    /// # Errors
    /// None for the templates of this crate.
    pub fn html(&self) -> Result<String> {
        let sections = self.groups.iter().zip(1..);
        let page = Page {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            verdict: self.verdict.clone(),
            sections: sections
                .map(|(group, number)| group.section(number))
                .collect(),
        };
        page.html()
    }
}

impl SheetGroup {
    fn section(&self, number: usize) -> Section {
        let mut section = Section::new(&format!("group-{number}"), &self.title);
        if !self.text.is_empty() {
            section.text(&self.text);
        }
        let tiles: Vec<Tile> = self.images.par_iter().map(SheetImage::tile).collect();
        match tiles.is_empty() {
            true if self.left_out == 0 => {
                section.blocks.push(Block::Missing("No image.".to_string()));
            }
            true => {}
            false => section.blocks.push(Block::Mosaic(tiles)),
        }
        if self.left_out > 0 {
            section.blocks.push(Block::Missing(format!(
                "{} left out of this page.",
                counted(self.left_out, "further image is", "further images are")
            )));
        }
        if let Some((title, table)) = &self.table {
            let block = Block::table(&format!("group-{number}"), title, table);
            section.folded(title, vec![block]);
        }
        section
    }
}

impl SheetImage {
    fn tile(&self) -> Tile {
        let made = match &self.source {
            Ok(source) => thumbnail(source, &Roots::default(), ""),
            Err(reason) => Err(reason.clone()),
        };
        let tile = Tile {
            heading: self.heading.clone(),
            lines: self.lines.clone(),
            name: self.name.clone(),
            ..Tile::default()
        };
        tile.with(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::Cell;

    #[test]
    fn a_sheet_shows_images_and_says_why_others_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("white.ppm");
        std::fs::write(&path, [b"P6 2 2 255\n".as_slice(), &[255; 12]].concat()).unwrap();
        let picture = |source, name: &str| SheetImage {
            source,
            name: name.to_string(),
            heading: "1 · 0.2500".to_string(),
            lines: vec!["a <b>".to_string()],
        };
        let mut table = Table::new(&[("image", "image")]);
        table.rows = vec![vec![Cell::text("white.ppm")]];
        let sheet = Sheet {
            title: "Sheet".to_string(),
            groups: vec![
                SheetGroup {
                    title: "<found>".to_string(),
                    images: vec![
                        picture(Ok(Source::found(&path)), "white.ppm"),
                        picture(Err("no such dataset".to_string()), "gone.png"),
                    ],
                    left_out: 7,
                    table: Some(("As a table".to_string(), table)),
                    ..SheetGroup::default()
                },
                SheetGroup::default(),
            ],
            ..Sheet::default()
        };
        let html = sheet.html().unwrap();
        assert_eq!(html.matches("src=\"data:image/jpeg;base64,").count(), 1);
        for part in [
            "&lt;found&gt;",
            "a &lt;b&gt;",
            "no picture: no such dataset",
            "7 further images are left out",
            "id=\"table-group-1\"",
            "No image.",
        ] {
            assert!(html.contains(part), "no `{part}` in {html}");
        }
    }
}

//! The page of `clipood regions`, and the drawings of one image, which the report of a run has, too.

use clipood_core::counted;
use serde::Serialize;

use super::bounds::{REGION_PICTURES, REGION_SIDE};
use super::page::{Block, Folded, Page, Section, data_url};
use super::table::{Cell, Table};
use crate::error::Result;
use crate::regions::{Picture, Regions};

/// Quality of the JPEG files, of 100.
const QUALITY: u8 = 80;
/// Sizes of the bar with the colours of a heat map.
const BAR: (usize, usize) = (192, 12);

/// An image with what its patches show.
#[derive(Debug, Clone)]
pub struct SeenImage {
    /// Its name.
    pub name: String,
    /// How its label is known: `given` (`--label`), `known` (from the dataset) or `predicted`.
    pub label_from: String,
    /// What the model takes the image for, and with which probability in 0 to 1.
    pub predicted: (String, f64),
    /// What its patches show.
    pub regions: Regions,
    /// The evaluation view `[side, side, 3]`, or why there is none.
    pub view: std::result::Result<Vec<u8>, String>,
}

/// Images with what is drawn over them.
#[derive(Debug, Clone, Serialize)]
pub struct Pictures {
    images: Vec<Captioned>,
    /// The colours of the heat maps.
    bar: Option<Bar>,
}

#[derive(Debug, Clone, Serialize)]
struct Captioned {
    /// A `data:` URL.
    image: String,
    title: String,
    caption: String,
}

#[derive(Debug, Clone, Serialize)]
struct Bar {
    /// A `data:` URL.
    image: String,
    least: String,
    most: String,
}

impl SeenImage {
    /// Label, prediction, K and the number of extracted patches in one line; `classes` are the names of the classes.
    pub fn summary(&self, classes: &[String]) -> String {
        let Regions { label, top_k, .. } = self.regions;
        format!(
            "label {} ({}), predicted {} ({:.1}%); {} of {} patches extracted ({:.1}%), K = {top_k} of {} classes",
            name_of(classes, label),
            self.label_from,
            self.predicted.0,
            100.0 * self.predicted.1,
            self.regions.count(),
            self.regions.ranks.len(),
            100.0 * self.regions.share(),
            classes.len(),
        )
    }

    /// The pictures with at least `least` columns: the extracted patches, then the heat maps in their order. None without the
    /// view.
    pub fn drawn(&self, least: usize) -> Vec<Picture> {
        let Ok(view) = &self.view else {
            return Vec::new();
        };
        let side = (view.len() / 3).isqrt();
        let picture = Picture::of_view(view, side, least);
        let Regions { grid, maps, .. } = &self.regions;
        let range = self.regions.range();
        let heat = maps
            .iter()
            .map(|map| picture.clone().with_heat(*grid, &map.cosines, range));
        let extracted = picture
            .clone()
            .with_extracted(*grid, &self.regions.extracted());
        std::iter::once(extracted).chain(heat).collect()
    }

    /// Its part of a page: the summary, the pictures, and a folded table that is called `id`.
    ///
    /// # Errors
    /// A view without pixels.
    pub fn blocks(&self, classes: &[String], id: &str) -> Result<Vec<Block>> {
        let mut blocks = vec![Block::Text(format!("{}.", self.summary(classes)))];
        let label = name_of(classes, self.regions.label);
        let mut captions = vec![(
            "Extracted patches".to_string(),
            match self.regions.top_k {
                1 => format!("Orange: {label} is not the most similar class of the patch."),
                k => format!(
                    "Orange: {label} is not among the {k} most similar classes of the patch."
                ),
            },
        )];
        for map in &self.regions.maps {
            let (least, most) = map.range();
            captions.push((
                name_of(classes, map.class),
                format!("Cosine of each patch, {least:.4} to {most:.4}."),
            ));
        }
        let mut images = Vec::new();
        for (picture, (title, caption)) in self.drawn(REGION_SIDE).iter().zip(captions) {
            images.push(Captioned {
                image: data_url("image/jpeg", &picture.jpeg(QUALITY)?),
                title,
                caption,
            });
        }
        let (least, most) = self.regions.range();
        blocks.push(match &self.view {
            Err(reason) => Block::Missing(format!(
                "Nothing is drawn over the image, because it {reason}."
            )),
            Ok(_) => Block::Pictures(Pictures {
                images,
                bar: match self.regions.maps.is_empty() {
                    true => None,
                    false => Some(Bar {
                        image: data_url("image/png", &Picture::colour_bar(BAR.0, BAR.1).png()?),
                        least: format!("{least:.4}"),
                        most: format!("{most:.4}"),
                    }),
                },
            }),
        });
        blocks.push(Block::Folded(Folded {
            title: "Rank of the label in every patch".to_string(),
            blocks: vec![Block::table(id, "Patches", &self.table())],
        }));
        Ok(blocks)
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("row", "row"),
            ("column", "column"),
            ("rank of the label", "rank"),
            ("extracted", "extracted"),
        ]);
        let grid = self.regions.grid.max(1);
        for (patch, rank) in self.regions.ranks.iter().enumerate() {
            let extracted = *rank > self.regions.top_k;
            table.rows.push(vec![
                Cell::Count((patch / grid + 1) as u64),
                Cell::Count((patch % grid + 1) as u64),
                Cell::Count(*rank as u64),
                Cell::text(if extracted { "yes" } else { "no" }),
            ]);
        }
        table
    }
}

/// The page of `clipood regions`: one section per image.
#[derive(Debug, Clone)]
pub struct RegionsPage {
    model: String,
    texts: String,
    classes: Vec<String>,
    /// K, and where it comes from.
    top_k: String,
    sections: Vec<Section>,
    images: usize,
    /// Pictures so far.
    pictures: usize,
}

impl RegionsPage {
    /// A page without images: the model as the user named it, the source of the texts, the names of the classes, K with
    /// where it comes from.
    pub fn new(model: &str, texts: &str, classes: &[String], top_k: &str) -> Self {
        Self {
            model: model.to_string(),
            texts: texts.to_string(),
            classes: classes.to_vec(),
            top_k: top_k.to_string(),
            sections: Vec::new(),
            images: 0,
            pictures: 0,
        }
    }

    /// Adds an image; once the page has 400 pictures, further images are only counted.
    ///
    /// # Errors
    /// As [`SeenImage::blocks`].
    pub fn add(&mut self, image: &SeenImage) -> Result<()> {
        self.images += 1;
        if self.pictures < REGION_PICTURES {
            self.pictures += 1 + image.regions.maps.len();
            let number = self.images;
            let mut section = Section::new(&format!("image-{number}"), &image.name);
            section.blocks = image.blocks(&self.classes, &format!("patches-{number}"))?;
            self.sections.push(section);
        }
        Ok(())
    }

    /// The page: one self-contained HTML file.
    ///
    /// # Errors
    /// None for the templates of this crate.
    pub fn html(self) -> Result<String> {
        let first = self.sections.len();
        let left_out = match self.images - first {
            0 => String::new(),
            more => format!(
                " This page shows the first {first}; the pictures of {} lie beside it.",
                counted(more, "further image", "further images")
            ),
        };
        let page = Page {
            title: "Regions".to_string(),
            subtitle: format!(
                "Model {}, texts {}, {}, {}.{left_out}",
                self.model,
                self.texts,
                counted(self.classes.len(), "class", "classes"),
                counted(self.images, "image", "images")
            ),
            verdict: format!(
                "LoCoOp extracts a patch as background if the label is not among its K most similar classes; here {}. Heat maps show the cosine of each \
                 patch with the text of a class; the colours of all maps of an image have one scale.",
                self.top_k
            ),
            sections: self.sections,
        };
        page.html()
    }
}

fn name_of(classes: &[String], class: usize) -> String {
    classes.get(class).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regions::HeatMap;

    fn image(view: std::result::Result<Vec<u8>, String>) -> SeenImage {
        SeenImage {
            name: "a <b>.png".into(),
            label_from: "given".into(),
            predicted: ("fish".into(), 0.75),
            regions: Regions {
                grid: 2,
                label: 0,
                top_k: 1,
                ranks: vec![1, 2, 3, 1],
                maps: vec![HeatMap {
                    class: 2,
                    cosines: vec![0.1, 0.2, 0.3, 0.25],
                }],
            },
            view,
        }
    }

    fn classes() -> [String; 3] {
        ["star & moon", "fish", "house"].map(String::from)
    }

    fn page(images: &[SeenImage]) -> String {
        let mut page = RegionsPage::new("demo", "simple", &classes(), "K = 1");
        for image in images {
            page.add(image).unwrap();
        }
        page.html().unwrap()
    }

    #[test]
    fn the_page_shows_pictures_and_numbers_and_escapes_names() {
        let html = page(&[image(Ok(vec![90; 4 * 4 * 3]))]);
        for word in [
            "a &lt;b&gt;.png",
            "label star &amp; moon (given), predicted fish (75.0%); 2 of 4 patches extracted (50.0%), K = 1 of 3 classes.",
            "<strong>house</strong>",
            "0.1000 to 0.3000",
            "id=\"table-patches-1\"",
            "cosine 0.1000 <img src=\"data:image/png;base64,",
        ] {
            assert!(html.contains(word), "no `{word}` in {html}");
        }
        // The extracted patches and one heat map.
        assert_eq!(html.matches("data:image/jpeg;base64,").count(), 2);
        assert!(!html.contains("a <b>"));
    }

    #[test]
    fn without_the_image_there_are_numbers_alone() {
        let html = page(&[image(Err("cannot be read: gone".into()))]);
        assert!(html.contains("because it cannot be read: gone."), "{html}");
        assert!(html.contains("id=\"table-patches-1\""));
        assert!(!html.contains("<img"), "{html}");
    }

    #[test]
    fn of_many_images_the_first_are_on_the_page() {
        // Each has two pictures.
        let first = REGION_PICTURES / 2;
        let html = page(&vec![image(Err("is gone".into())); first + 1]);
        assert_eq!(html.matches("<section ").count(), first);
        for words in [
            "201 images. This page shows the first 200; the pictures of 1 further image lie beside it.",
            "3 classes, ",
        ] {
            assert!(html.contains(words), "no `{words}` in {html}");
        }
    }
}

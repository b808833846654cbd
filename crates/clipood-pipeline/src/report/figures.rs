//! The figures of a report, one file each: numbers in, SVG out.

pub mod bars;
pub mod curves;
pub mod distributions;
pub mod heat_map;
pub mod intervals;
pub mod scatter;
pub mod shots;

use serde::Serialize;

/// A figure of the page.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Name of its file, without the ending.
    pub id: String,
    /// Heading.
    pub title: String,
    /// What is drawn, from which numbers, by which convention.
    pub caption: String,
    /// The drawing.
    pub svg: String,
}

impl Figure {
    /// A figure with its drawing.
    pub fn new(id: &str, title: &str, caption: impl Into<String>, svg: String) -> Self {
        Self {
            id: id.to_string(),
            title: title.to_string(),
            caption: caption.into(),
            svg,
        }
    }
}

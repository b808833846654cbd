//! Matrices: confusion of classes, and differences between methods.

use super::super::svg::{Anchor, Svg, shortened, widest};

/// A cell of the matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatCell {
    /// Row.
    pub row: usize,
    /// Column.
    pub column: usize,
    /// Darkness, 0 to 1.
    pub share: f64,
    /// Class of the colour: `f2` or `f4`.
    pub colour: &'static str,
    /// Text in the cell, if it is large enough.
    pub text: String,
    /// Text for pointers.
    pub title: String,
}

/// Names of rows and columns, and of both axes.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// What is drawn.
    pub title: &'a str,
    /// Rows.
    pub rows: &'a [String],
    /// Columns.
    pub columns: &'a [String],
    /// What the columns are.
    pub across: &'a str,
    /// What the rows are.
    pub down: &'a str,
    /// Width and height of a cell in pixels.
    pub cell: (f64, f64),
}

const LETTERS: usize = 26;

/// The matrix; `None` for no rows or columns.
pub fn draw(names: Names<'_>, cells: &[HeatCell]) -> Option<String> {
    if names.rows.is_empty() || names.columns.is_empty() {
        return None;
    }
    let (width, height) = names.cell;
    let short =
        |all: &[String]| -> Vec<String> { all.iter().map(|n| shortened(n, LETTERS)).collect() };
    let (rows, columns) = (short(names.rows), short(names.columns));
    let left = 26.0 + widest(rows.iter().map(String::as_str));
    let top = 28.0 + widest(columns.iter().map(String::as_str));
    let size = (width * columns.len() as f64, height * rows.len() as f64);
    let mut svg = Svg::new(left + size.0 + 12.0, top + size.1 + 8.0, names.title);
    svg.classed_text(
        (left + size.0 / 2.0, 12.0),
        Anchor::Middle,
        "strong",
        names.across,
    );
    svg.upward((12.0, top + size.1 / 2.0), Anchor::Middle, names.down);
    svg.rect("frame", (left, top), size, names.title);
    for (r, name) in rows.iter().enumerate() {
        svg.text(
            (left - 6.0, top + height * (r as f64 + 0.5) + 4.0),
            Anchor::End,
            name,
        );
    }
    for (c, name) in columns.iter().enumerate() {
        svg.upward(
            (left + width * (c as f64 + 0.5) + 4.0, top - 6.0),
            Anchor::Start,
            name,
        );
    }
    for cell in cells {
        let corner = (
            left + width * cell.column as f64,
            top + height * cell.row as f64,
        );
        let opacity = 0.08 + 0.8 * cell.share.clamp(0.0, 1.0);
        svg.shaded_rect(cell.colour, corner, names.cell, (opacity, &cell.title));
        if width >= 20.0 && !cell.text.is_empty() {
            let class = if opacity > 0.5 { "on-dark" } else { "" };
            let middle = (corner.0 + width / 2.0, corner.1 + height / 2.0 + 4.0);
            svg.classed_text(middle, Anchor::Middle, class, &cell.text);
        }
    }
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_named_and_escaped() {
        let names = ["star & moon", "fish"].map(String::from);
        let layout = Names {
            title: "t",
            rows: &names,
            columns: &names,
            across: "predicted",
            down: "known",
            cell: (30.0, 22.0),
        };
        let cell = HeatCell {
            row: 0,
            column: 1,
            share: 0.5,
            colour: "f4",
            text: "3".into(),
            title: "star & moon as fish: 3".into(),
        };
        let svg = draw(layout, &[cell]).unwrap();
        assert!(
            svg.contains("<title>star &amp; moon as fish: 3</title>") && svg.contains(">3</text>")
        );
        assert!(
            draw(
                Names {
                    rows: &[],
                    ..layout
                },
                &[]
            )
            .is_none()
        );
    }
}

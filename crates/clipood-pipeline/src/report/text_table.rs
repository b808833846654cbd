//! Text tables for the console and the page.

/// A text table: headings, and rows of the same length.
pub struct TextTable {
    /// Names of the columns.
    pub headings: Vec<String>,
    /// Cells; each row has as many as there are headings.
    pub rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Columns padded to their widest cell, the first ones left-aligned, numbers right-aligned.
    pub fn to_text(&self, left: usize) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|c| {
                let cells = self.rows.iter().map(|row| row[c].chars().count());
                cells
                    .chain([self.headings[c].chars().count()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(c, (cell, width))| match c < left {
                    true => format!("{cell:<width$}"),
                    false => format!("{cell:>width$}"),
                })
                .collect();
            format!("{}\n", padded.join("  ").trim_end())
        };
        let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        let mut text = line(&self.headings) + &line(&rule);
        for row in &self.rows {
            text += &line(row);
        }
        text
    }

    /// The table as HTML, with escaped names.
    pub fn to_html(&self, left: usize) -> String {
        let cells = |tag: &str, row: &[String]| -> String {
            row.iter()
                .enumerate()
                .map(|(c, cell)| {
                    let class = if c < left { "" } else { " class=\"figure\"" };
                    format!("<{tag}{class}>{}</{tag}>", escape(cell))
                })
                .collect()
        };
        let body: String = self
            .rows
            .iter()
            .map(|row| format!("<tr>{}</tr>\n", cells("td", row)))
            .collect();
        format!(
            "<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n",
            cells("th", &self.headings)
        )
    }
}

/// A text escaped for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

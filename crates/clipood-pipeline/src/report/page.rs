//! The HTML page: sections of blocks, rendered by the templates in `page/`. One file that needs no network, no server and no
//! script; with scripts its tables can be sorted and searched and its figures saved.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, context, escape_formatter};
use serde::Serialize;

use super::bounds::ROWS;
use super::figures::Figure;
use super::regions::Pictures;
use super::svg::escape;
use super::table::{Cell, Table};
use super::thumbnails::Tile;
use crate::error::{PipelineError, Result};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const FIGURE_STYLE: &str = include_str!("page/figure.css");
const SCRIPT: &str = include_str!("page/page.js");

/// A page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// Title of the window, and heading.
    pub title: String,
    /// One line below the heading.
    pub subtitle: String,
    /// What the page shows, in a sentence or two.
    pub verdict: String,
    /// The sections.
    pub sections: Vec<Section>,
}

/// A section of a page.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Section {
    /// Name for links.
    pub id: String,
    /// Heading.
    pub title: String,
    /// Its contents.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", content = "of", rename_all = "lowercase")]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A paragraph that stands out.
    Warning(String),
    /// Why something is not on the page.
    Missing(String),
    /// Lines.
    List(Vec<String>),
    /// A text with its own lines and spaces.
    Code(String),
    /// A drawing.
    Figure(Figure),
    /// A table.
    Table(TableView),
    /// Images.
    Mosaic(Vec<Tile>),
    /// Images with what is drawn over them.
    Pictures(Pictures),
    /// What is shown on request.
    Folded(Folded),
    /// Blocks beside each other where there is room.
    Row(Vec<Block>),
}

/// Blocks behind a line that unfolds them.
#[derive(Debug, Clone, Serialize)]
pub struct Folded {
    /// The line.
    pub title: String,
    /// The blocks.
    pub blocks: Vec<Block>,
}

/// A file of a media type such as `image/png` as a `data:` URL.
pub fn data_url(kind: &str, file: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(file))
}

/// A table for the page.
#[derive(Debug, Clone, Serialize)]
pub struct TableView {
    id: String,
    title: String,
    columns: Vec<ColumnView>,
    rows: Vec<Vec<CellView>>,
    /// Rows that are left out.
    more: usize,
    /// The whole table as a `data:` URL.
    csv: String,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Clone, Serialize)]
struct ColumnView {
    title: String,
    figure: bool,
}

#[derive(Debug, Clone, Serialize)]
struct CellView {
    text: String,
    figure: bool,
    sort: Option<f64>,
    badges: Vec<String>,
}

impl Section {
    /// A section without blocks.
    pub fn new(id: &str, title: &str) -> Self {
        Self {
            id: id.to_string(),
            title: title.to_string(),
            blocks: Vec::new(),
        }
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    /// Adds a figure, or the reason why there is none.
    pub fn figure(&mut self, figure: Option<Figure>, reason: &str) {
        self.blocks.push(match figure {
            Some(figure) => Block::Figure(figure),
            None => Block::Missing(reason.to_string()),
        });
    }

    /// Adds a table with a name for its file and a title.
    pub fn table(&mut self, id: &str, title: &str, table: &Table) {
        self.blocks.push(Block::table(id, title, table));
    }

    /// Adds blocks behind a line.
    pub fn folded(&mut self, title: &str, blocks: Vec<Block>) {
        self.blocks.push(Block::Folded(Folded {
            title: title.to_string(),
            blocks,
        }));
    }
}

impl Block {
    /// A table with a name for its file and a title.
    pub fn table(id: &str, title: &str, table: &Table) -> Self {
        let columns = table
            .columns
            .iter()
            .enumerate()
            .map(|(c, column)| ColumnView {
                title: column.title.clone(),
                figure: table.is_figure(c),
            });
        let rows = table
            .rows
            .iter()
            .take(ROWS)
            .map(|row| row.iter().map(CellView::of).collect());
        let text = table.to_csv();
        Self::Table(TableView {
            id: id.to_string(),
            title: title.to_string(),
            columns: columns.collect(),
            rows: rows.collect(),
            more: table.rows.len().saturating_sub(ROWS),
            csv: data_url("text/csv", text.as_bytes()),
            text,
        })
    }
}

impl CellView {
    fn of(cell: &Cell) -> Self {
        Self {
            text: match cell {
                Cell::Badges(_) => String::new(),
                other => other.shown(),
            },
            figure: cell.is_figure(),
            sort: cell.sort_key().filter(|key| key.is_finite()),
            badges: match cell {
                Cell::Badges(badges) => badges.iter().map(|b| (*b).to_string()).collect(),
                _ => Vec::new(),
            },
        }
    }
}

impl Page {
    /// The page as one HTML file.
    ///
    /// # Errors
    /// A template that does not fit its values, which the tests exclude.
    pub fn html(&self) -> Result<String> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        // Its own escaping of text writes slashes as entities, too, which makes paths unreadable in the source.
        environment.set_formatter(|out, state, value| match value.as_str() {
            Some(text) if !value.is_safe() => Ok(out.write_str(&escape(text))?),
            _ => escape_formatter(out, state, value),
        });
        let fail = |e: minijinja::Error| {
            PipelineError::Inconsistent(format!("template of the page: {e:#}"))
        };
        environment.add_template("page.html", PAGE).map_err(fail)?;
        let template = environment.get_template("page.html").map_err(fail)?;
        template
            .render(context! { page => Value::from(Serde(self)), style => STYLE, figure_style => FIGURE_STYLE, script => SCRIPT })
            .map_err(fail)
    }

    /// The files of the page for papers: every figure as SVG, every table as CSV. Pairs of a name and contents.
    pub fn files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for section in &self.sections {
            collect(&section.blocks, &mut files);
        }
        files
    }
}

fn collect(blocks: &[Block], files: &mut Vec<(String, String)>) {
    for block in blocks {
        match block {
            Block::Figure(figure) => {
                let style = format!("<style>{FIGURE_STYLE}</style>\n<title>");
                let svg = figure.svg.replacen("<title>", &style, 1);
                files.push((format!("{}.svg", figure.id), svg));
            }
            Block::Table(table) => files.push((format!("{}.csv", table.id), table.text.clone())),
            Block::Folded(folded) => collect(&folded.blocks, files),
            Block::Row(blocks) => collect(blocks, files),
            Block::Text(_)
            | Block::Warning(_)
            | Block::Missing(_)
            | Block::List(_)
            | Block::Code(_)
            | Block::Mosaic(_)
            | Block::Pictures(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::Spread;

    fn page() -> Page {
        let mut table = Table::new(&[("name", "name"), ("AUROC", "auroc"), ("", "badges")]);
        table.rows = vec![vec![
            Cell::text("a <b> & \"c\""),
            Cell::Rate(0.5, Spread::None),
            Cell::Badges(vec!["oracle"]),
        ]];
        let mut section = Section::new("one", "One & only");
        section.text("<script>alert(1)</script>");
        section.figure(None, "no images <here>");
        section.table("t", "Table", &table);
        let figure = Figure::new(
            "f",
            "Figure",
            "caption",
            "<svg><title>x</title></svg>".into(),
        );
        section.folded("more", vec![Block::Row(vec![Block::Figure(figure)])]);
        Page {
            title: "run <1>".into(),
            sections: vec![section],
            ..Page::default()
        }
    }

    #[test]
    fn names_are_escaped_and_nothing_is_fetched() {
        let html = page().html().unwrap();
        assert!(html.contains("a &lt;b&gt; &amp; &quot;c&quot;"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)") && html.contains("no images &lt;here&gt;"));
        assert!(html.contains("<svg><title>x</title></svg>"));
        assert!(html.contains("<title>clipood: run &lt;1&gt;</title>"));
        for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn figures_and_tables_are_files_too() {
        let files = page().files();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["t.csv", "f.svg"]);
        assert!(files[0].1.starts_with("name,auroc,badges\r\n"));
        assert!(files[1].1.contains("<svg><style>"));
    }
}

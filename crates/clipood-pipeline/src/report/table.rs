//! Tables of a report as plain data, and their text for consoles, spreadsheets and papers.

/// A table: columns, and rows with one cell per column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// The columns.
    pub columns: Vec<Column>,
    /// The cells; each row has as many as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Heading for people.
    pub title: String,
    /// Name in CSV files: that of the column in the tables of metrics where there is one.
    pub key: String,
}

/// A cell of a [`Table`].
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing is known.
    Blank,
    /// A name.
    Text(String),
    /// Short words about the row.
    Badges(Vec<&'static str>),
    /// A number of things.
    Count(u64),
    /// A number in a unit of its own, such as a score.
    Number(f64),
    /// A rate between 0 and 1, shown in percent.
    Rate(f64, Spread),
    /// A difference of two rates, shown in percentage points with its sign.
    Difference(f64, Spread),
}

/// How far a figure may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// Not known.
    None,
    /// One standard deviation over seeds.
    Deviation(f64),
    /// Ends of the 95% bootstrap interval.
    Interval(f64, f64),
}

impl Spread {
    /// The interval, if both ends are known.
    pub fn interval(lo: Option<f64>, hi: Option<f64>) -> Self {
        match (lo, hi) {
            (Some(lo), Some(hi)) => Self::Interval(lo, hi),
            _ => Self::None,
        }
    }
}

impl Cell {
    /// A name, or nothing if it is empty.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        match text.is_empty() {
            true => Self::Blank,
            false => Self::Text(text),
        }
    }

    /// Whether columns with this cell are aligned to the right.
    pub fn is_figure(&self) -> bool {
        !matches!(self, Self::Blank | Self::Text(_) | Self::Badges(_))
    }

    /// The value that a column of such cells is sorted by.
    pub fn sort_key(&self) -> Option<f64> {
        match self {
            Self::Blank | Self::Text(_) | Self::Badges(_) => None,
            Self::Count(count) => Some(*count as f64),
            Self::Number(value) => Some(*value),
            Self::Rate(value, _) | Self::Difference(value, _) => Some(*value),
        }
    }

    fn spread(&self) -> Spread {
        match self {
            Self::Rate(_, spread) | Self::Difference(_, spread) => *spread,
            Self::Blank | Self::Text(_) | Self::Badges(_) | Self::Count(_) | Self::Number(_) => {
                Spread::None
            }
        }
    }

    /// The cell for people: `81.40 ± 0.52`, `81.40 (80.11-82.63)`, `+1.20 (-0.30 to +2.70)`.
    pub fn shown(&self) -> String {
        match self {
            Self::Blank => String::new(),
            Self::Text(text) => text.clone(),
            Self::Badges(badges) => badges.join(", "),
            Self::Count(count) => count.to_string(),
            Self::Number(value) if !value.is_finite() => String::new(),
            Self::Number(value) => format!("{value:.6}"),
            Self::Rate(value, _) if !value.is_finite() => String::new(),
            Self::Rate(value, spread) => {
                let value = percent(*value);
                match spread {
                    Spread::None => value,
                    Spread::Deviation(std) => format!("{value} ± {}", percent(*std)),
                    Spread::Interval(lo, hi) => {
                        format!("{value} ({}-{})", percent(*lo), percent(*hi))
                    }
                }
            }
            Self::Difference(value, spread) => {
                let value = signed(*value);
                match spread {
                    Spread::None => value,
                    Spread::Deviation(std) => format!("{value} ± {}", percent(*std)),
                    Spread::Interval(lo, hi) => {
                        format!("{value} ({} to {})", signed(*lo), signed(*hi))
                    }
                }
            }
        }
    }
}

/// A rate in percent, with two decimals.
pub fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

fn signed(value: f64) -> String {
    format!("{:+.2}", 100.0 * value)
}

impl Table {
    /// A table without rows; `columns` are pairs of a heading and a name for CSV files.
    pub fn new(columns: &[(&str, &str)]) -> Self {
        let columns = columns.iter().map(|(title, key)| Column {
            title: (*title).to_string(),
            key: (*key).to_string(),
        });
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// Whether the column holds figures and nothing else.
    pub fn is_figure(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| &row[column]);
        let blank = |cell: &Cell| *cell == Cell::Blank;
        cells.clone().any(Cell::is_figure) && cells.all(|c| c.is_figure() || blank(c))
    }

    /// Columns padded to their widest cell, names left-aligned, figures right-aligned.
    pub fn to_text(&self) -> String {
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| shown(row)).collect();
        let titles: Vec<String> = self.columns.iter().map(|c| c.title.clone()).collect();
        let width = |c: usize| {
            let cells = rows.iter().map(|row| row[c].chars().count());
            cells.chain([titles[c].chars().count()]).max().unwrap_or(0)
        };
        let columns: Vec<(usize, bool)> = (0..titles.len())
            .map(|c| (width(c), self.is_figure(c)))
            .collect();
        let line = |cells: &[String]| {
            let padded = cells
                .iter()
                .zip(&columns)
                .map(|(cell, (width, right))| match right {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                });
            let padded: Vec<String> = padded.collect();
            format!("{}\n", padded.join("  ").trim_end())
        };
        let rule: Vec<String> = columns
            .iter()
            .map(|(width, _)| "-".repeat(*width))
            .collect();
        let mut text = line(&titles) + &line(&rule);
        text.extend(rows.iter().map(|row| line(row)));
        text
    }

    /// The table for spreadsheets and programs, RFC 4180: every rate between 0 and 1 with all its digits, its deviation or
    /// interval in columns of their own (`auroc_std`, `auroc_lo`, `auroc_hi`).
    pub fn to_csv(&self) -> String {
        let has = |c: usize, wanted: fn(Spread) -> bool| {
            self.rows.iter().any(|row| wanted(row[c].spread()))
        };
        let mut heading = Vec::new();
        let mut kinds = Vec::new();
        for (c, column) in self.columns.iter().enumerate() {
            let std = has(c, |s| matches!(s, Spread::Deviation(_)));
            let ends = has(c, |s| matches!(s, Spread::Interval(..)));
            heading.push(quoted(&column.key));
            if std {
                heading.push(quoted(&format!("{}_std", column.key)));
            }
            if ends {
                heading.push(quoted(&format!("{}_lo", column.key)));
                heading.push(quoted(&format!("{}_hi", column.key)));
            }
            kinds.push((std, ends));
        }
        let mut csv = heading.join(",") + "\r\n";
        for row in &self.rows {
            let mut fields = Vec::new();
            for (cell, (std, ends)) in row.iter().zip(&kinds) {
                fields.push(match cell {
                    Cell::Blank => String::new(),
                    Cell::Text(text) => quoted(text),
                    Cell::Badges(_) => quoted(&cell.shown()),
                    Cell::Count(count) => count.to_string(),
                    Cell::Number(value) | Cell::Rate(value, _) | Cell::Difference(value, _) => {
                        number(*value)
                    }
                });
                let (own_std, own_ends) = match cell.spread() {
                    Spread::None => (None, None),
                    Spread::Deviation(std) => (Some(std), None),
                    Spread::Interval(lo, hi) => (None, Some((lo, hi))),
                };
                if *std {
                    fields.push(own_std.map(number).unwrap_or_default());
                }
                if *ends {
                    fields.push(own_ends.map(|(lo, _)| number(lo)).unwrap_or_default());
                    fields.push(own_ends.map(|(_, hi)| number(hi)).unwrap_or_default());
                }
            }
            csv += &(fields.join(",") + "\r\n");
        }
        csv
    }

    /// A table for Markdown files.
    pub fn to_markdown(&self) -> String {
        let line = |cells: Vec<String>| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let titles = self.columns.iter().map(|c| c.title.clone()).collect();
        let rules = (0..self.columns.len()).map(|c| match self.is_figure(c) {
            true => "---:".to_string(),
            false => "---".to_string(),
        });
        let mut text = line(titles) + &line(rules.collect());
        text.extend(self.rows.iter().map(|row| line(shown(row))));
        text
    }

    /// A `tabular` for LaTeX with the package booktabs.
    pub fn to_latex(&self) -> String {
        let figures: Vec<bool> = (0..self.columns.len()).map(|c| self.is_figure(c)).collect();
        let kinds: String = figures
            .iter()
            .map(|right| if *right { 'r' } else { 'l' })
            .collect();
        let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
        let titles = self.columns.iter().map(|c| latex(&c.title)).collect();
        let mut text =
            format!("% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{kinds}}}\n\\toprule\n");
        text += &line(titles);
        text += "\\midrule\n";
        for row in &self.rows {
            let cells = row.iter().map(|cell| match cell {
                Cell::Rate(..) | Cell::Difference(..) => {
                    let shown = cell.shown();
                    match shown.is_empty() {
                        true => shown,
                        false => format!(
                            "${}$",
                            shown
                                .replace(" ± ", " \\pm ")
                                .replace(" to ", "\\;\\mathrm{to}\\;")
                                .replace(" (", "\\,(")
                        ),
                    }
                }
                Cell::Blank
                | Cell::Text(_)
                | Cell::Badges(_)
                | Cell::Count(_)
                | Cell::Number(_) => latex(&cell.shown()),
            });
            text += &line(cells.collect());
        }
        text + "\\bottomrule\n\\end{tabular}\n"
    }
}

fn shown(row: &[Cell]) -> Vec<String> {
    row.iter().map(Cell::shown).collect()
}

/// A number with all its digits, or nothing if it is not finite.
fn number(value: f64) -> String {
    match value.is_finite() {
        true => value.to_string(),
        false => String::new(),
    }
}

/// A field of a CSV file.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

/// A text in which no letter means anything to LaTeX.
fn latex(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '\\' => escaped += "\\textbackslash{}",
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            '±' => escaped += "$\\pm$",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("method", "method"), ("AUROC", "auroc"), ("images", "n")]);
        let row = |name: &str, rate: Cell| vec![Cell::text(name), rate, Cell::Count(7)];
        table.rows = vec![
            row("a_b, \"c\"|", Cell::Rate(0.5, Spread::Deviation(0.0125))),
            row("d", Cell::Rate(0.75, Spread::Interval(0.7, 0.8))),
            row("e", Cell::Blank),
        ];
        table
    }

    #[test]
    fn text_aligns_names_left_and_figures_right() {
        let text = table().to_text();
        let lines: Vec<&str> = text.lines().collect();
        let line =
            |name: &str, rate: &str, images: &str| format!("{name:<9}  {rate:>19}  {images:>6}");
        assert_eq!(lines[0], line("method", "AUROC", "images"));
        assert_eq!(lines[2], line("a_b, \"c\"|", "50.00 ± 1.25", "7"));
        assert_eq!(lines[3], line("d", "75.00 (70.00-80.00)", "7"));
        assert_eq!(lines[4], line("e", "", "7"));
    }

    #[test]
    fn csv_has_every_digit_and_a_column_for_each_kind_of_spread() {
        let csv = table().to_csv();
        let lines: Vec<&str> = csv.split("\r\n").collect();
        assert_eq!(lines[0], "method,auroc,auroc_std,auroc_lo,auroc_hi,n");
        assert_eq!(lines[1], "\"a_b, \"\"c\"\"|\",0.5,0.0125,,,7");
        assert_eq!(lines[2], "d,0.75,,0.7,0.8,7");
        assert_eq!(lines[3], "e,,,,,7");
    }

    #[test]
    fn names_mean_nothing_to_markdown_and_latex() {
        assert!(
            table()
                .to_markdown()
                .contains("| a_b, \"c\"\\| | 50.00 ± 1.25 | 7 |")
        );
        assert!(table().to_markdown().contains("| --- | ---: | ---: |"));
        let latex = table().to_latex();
        assert!(
            latex.contains("a\\_b, \"c\"| & $50.00 \\pm 1.25$ & 7 \\\\"),
            "{latex}"
        );
        assert!(latex.contains("\\begin{tabular}{lrr}"));
        assert_eq!(
            super::latex("50% & #1\\"),
            "50\\% \\& \\#1\\textbackslash{}"
        );
    }

    #[test]
    fn what_is_not_finite_is_left_blank() {
        assert_eq!(Cell::Rate(f64::NAN, Spread::None).shown(), "");
        assert_eq!(
            Cell::Difference(-0.012, Spread::Interval(-0.02, 0.001)).shown(),
            "-1.20 (-2.00 to +0.10)"
        );
        let shown = [-2.5, f64::INFINITY].map(|value| Cell::Number(value).shown());
        assert_eq!(shown, ["-2.500000", ""]);
    }
}

//! Bar charts for the terminal.

use std::fmt::Write;

/// Rows that are drawn; of more, the largest.
const ROWS: usize = 20;
/// Characters of the longest bar.
const WIDTH: u64 = 40;
/// Characters of a name.
const NAME: usize = 28;
/// An eighth of a character to seven eighths.
const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// A chart of counts under a heading, one row per name; if there are more than 20 names, those with the largest counts, and
/// a line with the number, the smallest and the largest count of the others.
pub fn bars(heading: &str, counts: &[(String, u64)]) -> String {
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let mut drawn: Vec<&(String, u64)> = counts.iter().collect();
    let mut rest = Vec::new();
    if counts.len() > ROWS {
        // Stable: of equal counts the first.
        drawn.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        rest = drawn.split_off(ROWS);
    }
    let names: Vec<String> = drawn.iter().map(|(name, _)| shortened(name)).collect();
    let wide = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let name_width = wide(&mut names.iter().map(|name| name.chars().count()));
    let count_width = most.to_string().len();
    let mut text = format!("{heading}:\n");
    for (name, (_, count)) in names.iter().zip(&drawn) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {name:<name_width$}  {count:>count_width$}  {}",
            bar(*count, most)
        );
    }
    if let (Some((_, largest)), Some((_, smallest))) = (rest.first(), rest.last()) {
        let _ = writeln!(
            text,
            "  and {} more, with {smallest} to {largest} images",
            rest.len()
        );
    }
    text
}

fn bar(count: u64, most: u64) -> String {
    let eighths = (u128::from(count) * u128::from(8 * WIDTH)).div_ceil(u128::from(most.max(1)));
    let (whole, part) = ((eighths / 8) as usize, (eighths % 8) as usize);
    let mut bar = "█".repeat(whole);
    bar.extend(part.checked_sub(1).map(|part| PARTS[part]));
    bar
}

fn shortened(name: &str) -> String {
    match name.chars().count() > NAME {
        true => name.chars().take(NAME - 1).chain(['…']).collect(),
        false => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(counts: &[(&str, u64)]) -> String {
        let counts: Vec<_> = counts
            .iter()
            .map(|(name, n)| (name.to_string(), *n))
            .collect();
        bars("images", &counts)
    }

    #[test]
    fn bars_are_as_long_as_their_counts() {
        let text = chart(&[("cat", 40), ("great tit", 20), ("owl", 0), ("elk", 1)]);
        let full = "█".repeat(40);
        let half = "█".repeat(20);
        let expected = format!(
            "images:\n  cat        40  {full}\n  great tit  20  {half}\n  owl         0  \n  elk         1  █\n"
        );
        assert_eq!(text, expected);
        assert_eq!(chart(&[]), "images:\n");
        assert_eq!(bar(u64::MAX, u64::MAX).chars().count(), 40);
        assert_eq!(bar(1, 1000), "▏");
    }

    #[test]
    fn the_largest_of_many_are_drawn_and_the_others_counted() {
        let names: Vec<String> = (0..30).map(|n| format!("class {n}")).collect();
        let counts: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(1..).collect();
        let text = chart(&counts);
        assert_eq!(text.lines().count(), 22);
        assert!(text.contains("  class 29  30  ") && !text.contains("class 9 "));
        assert!(
            text.ends_with("  and 10 more, with 1 to 10 images\n"),
            "{text}"
        );
        let long = chart(&[("a name that is much longer than a line of a terminal", 3)]);
        assert!(long.contains("a name that is much longer …  3"), "{long}");
    }
}

//! Patterns of file names, as a shell has them.

use std::fmt;

/// Files that one pattern may write out.
const MOST: usize = 1 << 20;

/// The pattern of a path below a root.
pub(super) struct Pattern {
    text: String,
    parts: Vec<Part>,
}

/// The pattern of one component of a path.
pub(super) struct Part {
    /// What the braces stand for.
    words: Vec<String>,
    /// The words as patterns; `None` if all are plain names.
    globs: Option<Vec<glob::Pattern>>,
}

impl Pattern {
    /// Reads a pattern; an error says what is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let parts = text.split('/').filter(|part| !part.is_empty());
        let parts = parts.map(Part::new).collect::<Result<_, _>>()?;
        let text = text.to_string();
        Ok(Pattern { text, parts })
    }

    /// The components, from the outermost folder to the file.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Part {
    fn new(text: &str) -> Result<Part, String> {
        let words = expanded(text)?;
        let globs = words
            .iter()
            .any(|word| word.contains(['*', '?', '[']))
            .then(|| {
                let glob = |word: &String| {
                    glob::Pattern::new(word).map_err(|error| format!("pattern `{word}`: {error}"))
                };
                words.iter().map(glob).collect::<Result<_, _>>()
            })
            .transpose()?;
        Ok(Part { words, globs })
    }

    /// All names that the pattern stands for; `None` if it must be compared with those in a folder.
    pub fn names(&self) -> Option<&[String]> {
        self.globs.is_none().then_some(&self.words)
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match &self.globs {
            Some(globs) => globs.iter().any(|glob| glob.matches(name)),
            None => self.words.iter().any(|word| word == name),
        }
    }
}

/// The words of a text with braces: `a{0..2}.tar` and `a{0,1,2}.tar` are three each. Numbers keep their leading zeros.
fn expanded(text: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = text.split_once('{') else {
        return Ok(vec![text.to_string()]);
    };
    let (inside, after) = rest
        .split_once('}')
        .ok_or_else(|| format!("pattern `{text}` has a `{{` without a `}}`"))?;
    let middle: Vec<String> = match inside.split_once("..") {
        Some((first, last)) => numbers(first, last).ok_or_else(|| {
            format!("pattern `{{{inside}}}`, expected numbers as in `{{000..127}}`")
        })?,
        None => inside.split(',').map(String::from).collect(),
    };
    let ends = expanded(after)?;
    if middle.len().saturating_mul(ends.len()) > MOST {
        return Err(format!(
            "pattern `{text}` stands for more than {MOST} names"
        ));
    }
    let words = middle.iter().flat_map(|word| {
        let ends = ends.iter();
        ends.map(move |end| format!("{before}{word}{end}"))
    });
    Ok(words.collect())
}

fn numbers(first: &str, last: &str) -> Option<Vec<String>> {
    let (from, to): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    let is_short = to.checked_sub(from)? < MOST;
    let width = if first.starts_with('0') {
        first.len()
    } else {
        0
    };
    is_short.then(|| (from..=to).map(|n| format!("{n:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_written_out_and_stars_are_compared() {
        assert_eq!(
            expanded("t-{0008..0011}.tar").unwrap().join(" "),
            "t-0008.tar t-0009.tar t-0010.tar t-0011.tar"
        );
        assert_eq!(expanded("{a,b}{0..1}").unwrap().join(" "), "a0 a1 b0 b1");
        assert_eq!(expanded("plain").unwrap(), ["plain"]);
        for (wrong, said) in [
            ("a{0..1", "without a `}`"),
            ("{a..b}", "expected numbers"),
            ("{5..1}", "expected numbers"),
            ("{0..9999999999}", "expected numbers"),
            ("{0..99999}{0..99999}", "more than"),
        ] {
            let error = expanded(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
        let pattern = Pattern::new("data/{train,val}-*.parquet").unwrap();
        let parts: Vec<&Part> = pattern.parts().collect();
        assert_eq!(parts[0].names().unwrap(), ["data"]);
        assert!(parts[1].names().is_none());
        assert!(parts[1].matches("val-00000-of-00001.parquet"));
        assert!(!parts[1].matches("test-00000-of-00001.parquet"));
        assert!(Pattern::new("a[").is_err());
    }
}

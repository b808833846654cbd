//! "Did you mean": the valid word nearest to a misspelt one.

/// The candidate with the smallest edit distance to `word` (ignoring case; a swap of neighbouring letters counts as one edit),
/// or `None` if no candidate is near. The limit is a third of the letters of `word`, at least two edits but fewer than its
/// letters. Among equally near candidates the first is returned.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let letters = word.chars().count();
    let limit = (letters / 3).max(2).min(letters.saturating_sub(1));
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= limit)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`? valid: ..." for a word of a short fixed set.
pub(crate) fn hint_with_list(word: &str, candidates: &[&str]) -> String {
    let list = quoted(candidates);
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? valid: {list}"),
        None => format!("valid: {list}"),
    }
}

/// "did you mean `x`?" for a key, or the list of candidates if none is near.
pub(crate) fn hint(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("valid: {}", quoted(candidates)),
    }
}

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_misspellings_and_nothing_else() {
        let words = ["methods", "shots", "seeds", "lr", "n_ctx", "weight_decay"];
        let near = |word| nearest(word, words);
        assert_eq!(near("shot"), Some("shots"));
        assert_eq!(near("Metohds"), Some("methods"));
        assert_eq!(near("ctx"), Some("n_ctx"));
        assert_eq!(near("weightdecay"), Some("weight_decay"));
        assert_eq!(near("l"), None);
        assert_eq!(near("xy"), None);
        assert_eq!(near("bootstrap"), None);
        assert_eq!(near(""), None);
        assert_eq!(nearest("a", []), None);
    }
}

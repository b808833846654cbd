//! Words of a POSIX shell.

/// The word so that a shell reads it unchanged: as it is if that is safe, otherwise in single quotes.
pub fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(safe) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// All words, separated by blanks.
pub fn line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_every_word_unchanged() {
        let words = [
            "plain",
            "",
            "two words",
            "it's",
            "$HOME",
            "`id`",
            "a\nb",
            "*",
            "~",
            "\\",
            "a;b",
            "#",
            "ü",
            "\"",
        ];
        let words: Vec<String> = words.map(String::from).into();
        let script = format!("printf '%s|' {}", line(&words));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        assert_eq!(read, words.join("|") + "|");
    }
}

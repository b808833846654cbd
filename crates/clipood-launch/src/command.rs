//! Running the programs of a cluster.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::error::{LaunchError, Result};

/// Runs `program` with `words`, writes `input` to its standard input, and returns its standard output.
///
/// # Errors
/// [`LaunchError::Usage`] with `hint` if there is no such program, [`LaunchError::Program`] with its messages if it fails.
pub fn run(program: &str, words: &[String], input: &str, hint: &str) -> Result<String> {
    let failed = |status: Option<i32>, message: String| LaunchError::Program {
        program: [program.to_string()]
            .iter()
            .chain(words.iter().take(1))
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
        status,
        message,
    };
    let child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(LaunchError::Usage(format!(
                "found no program `{program}`; {hint}"
            )));
        }
        Err(error) => return Err(failed(None, error.to_string())),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read to the end says why on its own.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(None, error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            let mut message = text(&output.stderr);
            if message.is_empty() {
                message = text(&output.stdout);
            }
            Err(failed(output.status.code(), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_failures_and_missing_programs_are_told_apart() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| word.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(run("cat", &[], "through\n", "").unwrap(), "through");
        let failed = run("sh", &words(&["-c", "echo why >&2; exit 7"]), "", "").unwrap_err();
        assert_eq!(failed.to_string(), "sh -c failed with exit code 7: why");
        let missing = run("no-such-program", &[], "", "install it").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "found no program `no-such-program`; install it"
        );
        // A program that reads nothing of a long input.
        assert_eq!(run("true", &[], &"x".repeat(1 << 20), "").unwrap(), "");
    }
}

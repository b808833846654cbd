//! Standard error: errors, panics and traces, as text or with `--json-log` as one JSON object per line.

use std::ffi::OsString;
use std::io::{self, Write};

use clipood_core::nearest;
use clipood_pipeline::{panic_message, tell};
use serde_json::json;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The crates that write traces.
const CRATES: [&str; 10] = [
    "clipood",
    "clipood_clip",
    "clipood_core",
    "clipood_data",
    "clipood_hub",
    "clipood_kernels",
    "clipood_launch",
    "clipood_ood",
    "clipood_pipeline",
    "clipood_store",
];

/// Whether `--json-log` is among the words of the command line. It is looked for before the words are parsed, so that
/// usage errors are JSON as well.
pub fn wants_json(words: &[OsString]) -> bool {
    let mut options = words.iter().skip(1).take_while(|word| *word != "--");
    options.any(|word| word == "--json-log")
}

/// Prints `error: ...`, or `{"error": "..."}`.
pub fn error(message: &str, as_json: bool) {
    match as_json {
        true => tell(&json!({ "error": message }).to_string()),
        false => tell(&format!("error: {message}")),
    }
}

/// Prints panics like errors: `{"panic": "...", "thread": "...", "place": "..."}` where the log is JSON. Most panics are
/// caught afterwards, such as those of a decoder.
pub fn catch_panics(as_json: bool) {
    if !as_json {
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let line = json!({
            "panic": panic_message(panic.payload()),
            "thread": thread.name().unwrap_or_default(),
            "place": panic.location().map(ToString::to_string),
        });
        tell(&line.to_string());
    }));
}

/// Prints events, and spans with their duration when they end.
///
/// # Errors
/// A filter that is not a level, or names a crate or level that does not exist; what is expected instead.
pub fn listen(filter: &str, as_json: bool) -> Result<(), String> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(Lines { as_json })
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(layer)
        .with(targets(filter)?)
        .init();
    Ok(())
}

/// Reads a filter: a level, or `crate=level`, separated by commas.
fn targets(filter: &str) -> Result<Targets, String> {
    let mut targets = Targets::new();
    for word in filter.split(',').map(str::trim) {
        let (target, level) = match word.split_once('=') {
            Some((target, level)) => (Some(target), level),
            // A crate without a level has all of them.
            None if word.parse::<LevelFilter>().is_err() && word.starts_with("clipood") => {
                (Some(word), "trace")
            }
            None => (None, word),
        };
        let known: LevelFilter = match level {
            "off" | "error" | "warn" | "info" | "debug" | "trace" => level
                .parse()
                .map_err(|_| format!("`{level}` is not a level"))?,
            _ => {
                return Err(format!(
                    "`{level}` is not a level: expected off, error, warn, info, debug or trace, or for one crate \
                     `clipood_store=debug`"
                ));
            }
        };
        let Some(target) = target else {
            targets = targets.with_default(known);
            continue;
        };
        let name = target.split("::").next().unwrap_or_default();
        if !CRATES.contains(&name) {
            let hint = match nearest(name, CRATES) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("expected one of {}", CRATES.join(", ")),
            };
            return Err(format!("`{name}` is not a crate of this command: {hint}"));
        }
        targets = targets.with_target(target, known);
    }
    Ok(targets)
}

/// Where traces are written: one event is one write.
#[derive(Clone, Copy)]
struct Lines {
    as_json: bool,
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = text.trim_end();
        match self.as_json {
            true => tell(&json!({ "trace": line }).to_string()),
            false => tell(line),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_wanted_wherever_its_option_stands() {
        let wants = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            wants_json(&words)
        };
        assert!(wants(&["clipood", "run", "demo", "--json-log"]));
        assert!(wants(&["clipood", "worker", "--json-log", "--wrong"]));
        assert!(!wants(&["clipood", "run", "demo"]));
        assert!(!wants(&["clipood", "detect", "--", "--json-log"]));
    }

    #[test]
    fn a_filter_names_levels_and_crates_that_exist() {
        for good in [
            "info",
            "clipood_store=debug",
            "warn,clipood_pipeline::run=trace",
            "clipood_hub",
            "off",
        ] {
            assert!(targets(good).is_ok(), "{good}");
        }
        for (wrong, word) in [
            ("verbose", "`verbose` is not a level"),
            ("", "expected off"),
            ("clipood_store=loud", "`loud`"),
            ("clipood_stor=debug", "did you mean `clipood_store`?"),
            ("hyper=debug", "expected one of clipood"),
            ("7", "`7`"),
        ] {
            let problem = targets(wrong).map(|_| ()).unwrap_err();
            assert!(problem.contains(word), "{wrong}: {problem}");
        }
    }
}

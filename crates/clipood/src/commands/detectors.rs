//! `clipood detectors`: lists the detectors that `--detectors` accepts.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clipood_ood::{DetectorInfo, registry};
use serde_json::{Value, json};

use super::print;

/// Options of `clipood detectors`.
#[derive(clap::Args)]
pub struct Args {
    /// Print a JSON array with formulas, papers and the meaning of every parameter.
    #[arg(long)]
    json: bool,
}

/// Prints the registry.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.json {
        let all: Vec<Value> = registry().iter().map(entry).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        print(&listing())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn entry(info: &DetectorInfo) -> Value {
    let parameters: Vec<Value> = info
        .parameters
        .iter()
        .map(|p| json!({"key": p.key, "default": p.default, "summary": p.summary}))
        .collect();
    json!({
        "kind": info.kind,
        "summary": info.summary,
        "formula": info.formula,
        "paper": info.paper,
        "fitted_on": info.fitted_on(),
        "parameters": parameters,
    })
}

/// One line per kind: kind, parameters with their defaults, summary, in aligned columns.
fn listing() -> String {
    let rows: Vec<(&str, String, &str)> = registry()
        .iter()
        .map(|info| {
            let parameters: Vec<String> = info
                .parameters
                .iter()
                .map(|p| format!("{}={}", p.key, p.default))
                .collect();
            (info.kind, parameters.join(" "), info.summary)
        })
        .collect();
    let kinds = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let parameters = rows.iter().map(|row| row.1.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, row| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:kinds$}  {:parameters$}  {}", row.0, row.1, row.2);
        text
    })
}

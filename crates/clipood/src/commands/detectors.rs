//! `clipood detectors`: lists the detectors that `--detectors` accepts.

mod markdown;

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use clipood_ood::{DetectorInfo, registry};
use serde_json::{Value, json};

use super::print;

/// Options of `clipood detectors`.
#[derive(clap::Args)]
pub struct Args {
    /// Print a JSON array with formulas, papers, costs, traps and the meaning of every parameter.
    #[arg(long)]
    json: bool,
    /// Print the page docs/DETECTORS.md.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// Prints the registry.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.json {
        let all: Vec<Value> = registry().iter().map(entry).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else if args.markdown {
        print(&markdown::page())?;
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
        "transductive": info.needs.stream,
        "cost": info.cost,
        "trap": info.trap,
        "parameters": parameters,
    })
}

/// One line per kind: kind, parameters with their defaults, summary, in aligned columns; kinds that score streams are
/// marked.
fn listing() -> String {
    let rows: Vec<(&DetectorInfo, String)> = registry()
        .iter()
        .map(|info| {
            let parameters: Vec<String> = info
                .parameters
                .iter()
                .map(|p| format!("{}={}", p.key, p.default))
                .collect();
            (info, parameters.join(" "))
        })
        .collect();
    let kinds = rows.iter().map(|row| row.0.kind.len()).max().unwrap_or(0);
    // The parameters of streams are many; they do not widen the column of the others.
    let inductive = rows.iter().filter(|row| !row.0.needs.stream);
    let parameters = inductive.map(|row| row.1.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (info, own)| {
        let badge = match info.needs.stream {
            true => "transductive: ",
            false => "",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:kinds$}  {own:parameters$}  {badge}{}",
            info.kind, info.summary
        );
        text
    })
}

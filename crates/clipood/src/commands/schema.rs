//! `clipood schema`: JSON Schemas, with which editors complete and check TOML files.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use clipood_core::{cluster_schema, manifest_schema, recipe_schema};

use super::print;

/// Options of `clipood schema`.
#[derive(clap::Args)]
#[command(
    after_help = "Editors with taplo (VS Code: Even Better TOML) read the schema that the first line of a TOML file names:\n\n  \
    clipood schema recipe > recipe.schema.json\n  #:schema ./recipe.schema.json\n\nor the rules of `.taplo.toml`:\n\n  \
    [[rule]]\n  include = [\"pipelines/*.toml\"]\n  schema.path = \"./recipe.schema.json\""
)]
pub struct Args {
    /// The kind of file.
    #[arg(value_name = "KIND")]
    kind: Kind,
}

/// The kinds of TOML files.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// What to compute: `pipelines/*.toml`
    Recipe,
    /// Where a dataset is: `manifests/datasets/*.toml`
    Manifest,
    /// How a run is submitted: `manifests/clusters/*.toml`
    Cluster,
}

/// Prints the schema of a kind of file.
pub fn run(args: &Args) -> Result<ExitCode> {
    let schema = match args.kind {
        Kind::Recipe => recipe_schema(),
        Kind::Manifest => manifest_schema(),
        Kind::Cluster => cluster_schema(),
    };
    print(&format!("{}\n", serde_json::to_string_pretty(&schema)?))?;
    Ok(ExitCode::SUCCESS)
}

//! `clipood recipes`: lists the recipes that can be run by name. Also finds recipes by name for other commands.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clipood_core::nearest;
use clipood_core::text_file::read_text;
use clipood_pipeline::{PipelineError, builtin};
use serde_json::{Value, json};

use super::print;

/// Where recipes are looked for, relative to the working directory.
const FOLDER: &str = "pipelines";

/// Options of `clipood recipes`.
#[derive(clap::Args)]
pub struct Args {
    /// Print the TOML of this recipe.
    #[arg(long, value_name = "NAME")]
    show: Option<String>,
    /// Print JSON: an array of recipes, or with --show one object.
    #[arg(long)]
    json: bool,
}

/// A recipe, not parsed yet.
#[derive(Debug, PartialEq)]
pub struct Recipe {
    name: String,
    /// Its origin.
    pub origin: Origin,
    /// Its TOML.
    pub text: String,
}

/// The origin of a recipe.
#[derive(Debug, PartialEq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Embedded in the command.
    BuiltIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::BuiltIn => f.write_str("built in"),
        }
    }
}

/// Lists the recipes, or prints one.
pub fn run(args: Args) -> Result<ExitCode> {
    let text = match &args.show {
        Some(name) => shown(find(name)?, args.json),
        None => listed(all(Path::new(FOLDER))?, args.json),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The recipe called `name`: a file of that path, `pipelines/NAME.toml` in the working directory, or an embedded
/// recipe.
///
/// # Errors
/// [`PipelineError::Usage`] with the nearest name if there is none; a file that cannot be read.
pub fn find(name: &str) -> Result<Recipe> {
    find_in(name, Path::new(FOLDER))
}

fn find_in(name: &str, folder: &Path) -> Result<Recipe> {
    let named = folder.join(format!("{name}.toml"));
    for path in [Path::new(name), &named] {
        if path.is_file() {
            return read(name, path);
        }
    }
    if let Some(text) = builtin::recipe(name) {
        return Ok(built_in(name, text));
    }
    let known = all(folder)?;
    let hint = match nearest(name, known.iter().map(|recipe| recipe.name.as_str())) {
        Some(close) => format!("; did you mean `{close}`?"),
        None => "; `clipood recipes` lists them".to_string(),
    };
    let named = named.display();
    let problem = format!("no recipe `{name}`: neither a file nor {named} nor built in{hint}");
    Err(PipelineError::Usage(problem).into())
}

/// All named recipes, sorted by name; a file hides the embedded recipe of the same name.
fn all(folder: &Path) -> Result<Vec<Recipe>> {
    let embedded = builtin::recipes().map(|(name, text)| (name.to_string(), built_in(name, text)));
    let mut found: BTreeMap<String, Recipe> = embedded.collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name().into_string().unwrap_or_default();
        if let Some(name) = file.strip_suffix(".toml")
            && entry.path().is_file()
        {
            found.insert(name.to_string(), read(name, &entry.path())?);
        }
    }
    Ok(found.into_values().collect())
}

fn read(name: &str, path: &Path) -> Result<Recipe> {
    let text = read_text(path)?;
    Ok(Recipe {
        name: name.to_string(),
        origin: Origin::File(path.to_path_buf()),
        text,
    })
}

fn built_in(name: &str, text: &str) -> Recipe {
    Recipe {
        name: name.to_string(),
        origin: Origin::BuiltIn,
        text: text.to_string(),
    }
}

impl Recipe {
    /// How messages about its lines refer to it.
    pub fn place(&self) -> String {
        match &self.origin {
            Origin::File(path) => path.display().to_string(),
            Origin::BuiltIn => format!("built-in recipe {}", self.name),
        }
    }

    /// Its first line, if it is a comment.
    fn summary(&self) -> &str {
        let first = self.text.lines().next().unwrap_or_default();
        first.strip_prefix('#').unwrap_or_default().trim()
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "summary": self.summary(),
            "file": match &self.origin {
                Origin::File(path) => Some(path.display().to_string()),
                Origin::BuiltIn => None,
            },
        })
    }
}

fn shown(recipe: Recipe, as_json: bool) -> String {
    if !as_json {
        return recipe.text;
    }
    let mut object = recipe.to_json();
    object["toml"] = recipe.text.into();
    format!("{object:#}\n")
}

/// One line per recipe, in aligned columns, or a JSON array.
fn listed(recipes: Vec<Recipe>, as_json: bool) -> String {
    if as_json {
        let all: Vec<Value> = recipes.iter().map(Recipe::to_json).collect();
        return format!("{:#}\n", Value::Array(all));
    }
    let rows: Vec<(&str, String, &str)> = recipes
        .iter()
        .map(|recipe| {
            (
                recipe.name.as_str(),
                recipe.origin.to_string(),
                recipe.summary(),
            )
        })
        .collect();
    let names = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let origins = rows.iter().map(|row| row.1.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, origin, summary)| {
            let line = format!("{name:names$}  {origin:origins$}  {summary}");
            format!("{}\n", line.trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_before_the_embedded_recipe_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pipelines");
        let own = "# My demo.\nname = \"demo\"\n";
        assert_eq!(find_in("demo", &folder).unwrap().origin, Origin::BuiltIn);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("demo.toml"), own).unwrap();
        std::fs::write(folder.join("notes.txt"), "no recipe").unwrap();
        let file = folder.join("demo.toml");
        let found = find_in("demo", &folder).unwrap();
        assert_eq!(
            (found.origin, found.text.as_str()),
            (Origin::File(file.clone()), own)
        );
        let by_path = find_in(file.to_str().unwrap(), Path::new("none")).unwrap();
        assert_eq!(by_path.text, own);

        let known = all(&folder).unwrap();
        assert_eq!(known.len(), builtin::recipes().count());
        let demo = known.iter().find(|recipe| recipe.name == "demo").unwrap();
        assert_eq!(demo.summary(), "My demo.");
        let table = listed(known, false);
        assert!(
            table
                .lines()
                .any(|line| line.starts_with("stamps ") && line.contains("built in")),
            "{table}"
        );
        assert!(
            table
                .lines()
                .any(|line| line.contains("demo.toml") && line.ends_with("My demo.")),
            "{table}"
        );
    }

    #[test]
    fn an_unknown_recipe_is_a_usage_error_with_the_nearest_name_of_either_kind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my-benchmark.toml"), "").unwrap();
        for (typo, near) in [
            ("few-shot-gird", "few-shot-grid"),
            ("my-benchmrak", "my-benchmark"),
        ] {
            let error = find_in(typo, dir.path()).unwrap_err();
            assert_eq!(super::super::exit_code(&error), 2);
            let text = error.to_string();
            assert!(text.contains(&format!("did you mean `{near}`?")), "{text}");
        }
        let error = find_in("something else", dir.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("clipood recipes"), "{error}");
    }

    #[test]
    fn json_tells_where_a_recipe_is_from() {
        let all: Value =
            serde_json::from_str(&listed(vec![built_in("a", "# An a.\n")], true)).unwrap();
        assert_eq!(
            all,
            json!([{"name": "a", "summary": "An a.", "file": null}])
        );
        let one: Value = serde_json::from_str(&shown(built_in("a", "x = 1\n"), true)).unwrap();
        assert_eq!(
            (&one["toml"], &one["summary"]),
            (&json!("x = 1\n"), &json!(""))
        );
    }
}

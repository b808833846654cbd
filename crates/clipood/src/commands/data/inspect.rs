//! `clipood data inspect`: how the images of a place are stored, and the manifest to use.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clipood_core::{DatasetManifest, Role, is_url, shown};
use clipood_data::{Census, DataError, Guess, Sample, Split, candidates, census, sample, settle};
use clipood_pipeline::{
    Interrupt, PipelineError, Reporting, bars, fetch_dataset, fetch_split, manifest_of_hub,
};

use super::super::print;

/// Images that are decoded.
const DECODED: usize = 64;

/// Options of `clipood data inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// A folder or a file, or a dataset of the Hugging Face hub: hub:ORGANISATION/NAME, then @REVISION, :CONFIGURATION and :SPLIT where needed.
    place: String,
    /// Name of the dataset in the manifest (default: that of the folder).
    #[arg(long)]
    name: Option<String>,
    /// Role of the dataset (default: id if its images have classes).
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// Print the manifest only, to be redirected into a file.
    #[arg(long)]
    manifest: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleArg {
    Id,
    Ood,
}

/// A manifest that fits, its text, and what it lists.
struct Fits {
    manifest: DatasetManifest,
    toml: String,
    census: Census,
}

/// Finds a manifest, and prints it with what it lists.
pub fn run(args: &Args) -> Result<ExitCode> {
    let found = match args.place.strip_prefix("hub:") {
        Some(name) => of_hub(name, args)?,
        None => of_place(args)?,
    };
    if args.manifest {
        print(&found.toml)?;
        return Ok(ExitCode::SUCCESS);
    }
    let sample = sample(&found.census, DECODED);
    print(&description(&found, &sample))?;
    let name = &found.manifest.name;
    print(&format!(
        "\nmanifest, for manifests/datasets/{name}.toml:\n\n{}",
        found.toml
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The first of the manifests that may fit which lists images; in distribution if that is possible and not ruled out.
fn of_place(args: &Args) -> Result<Fits> {
    let place = absolute(Path::new(&args.place))?;
    let usage = |problem: String| PipelineError::Usage(problem);
    if !is_url(&place) && !place.exists() {
        return Err(usage(format!("{}: no such file or folder", shown(&place))).into());
    }
    let guesses = candidates(&place).map_err(PipelineError::from)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => dataset_name(&place),
    };
    let roles = match args.role {
        Some(RoleArg::Id) => vec![Role::Id],
        Some(RoleArg::Ood) => vec![Role::Ood],
        None => vec![Role::Id, Role::Ood],
    };
    let mut problems = Vec::new();
    for guess in &guesses {
        for role in roles
            .iter()
            .filter(|role| guess.role.is_none_or(|only| only == **role))
        {
            match try_out(guess, &name, *role) {
                Ok(found) => return Ok(found),
                Err(error) => problems.push(format!("as {}: {error}", guess.layout)),
            }
        }
    }
    problems.dedup();
    let place = shown(&place);
    Err(match problems.is_empty() {
        true => usage(format!("{place}: nothing there looks like a dataset")),
        false => usage(format!(
            "{place}: no layout fits:\n  {}",
            problems.join("\n  ")
        )),
    }
    .into())
}

/// What a guessed manifest lists, or why it does not fit.
fn try_out(guess: &Guess, name: &str, role: Role) -> std::result::Result<Fits, String> {
    let told = |error: DataError| error.to_string();
    let manifest = guess.manifest(name, role).map_err(told)?;
    let mut settled = manifest.clone();
    settle(&mut settled, Path::new("")).map_err(told)?;
    let census = census(&settled, Path::new("")).map_err(told)?;
    if census.of(Split::Test) == 0 {
        return Err("no image to test on".to_string());
    }
    if role == Role::Id && census.classes.len() < 2 {
        return Err("fewer than two classes".to_string());
    }
    Ok(Fits {
        toml: guess.toml(name, role),
        manifest,
        census,
    })
}

fn of_hub(text: &str, args: &Args) -> Result<Fits> {
    let (mut manifest, split) = manifest_of_hub(text)?;
    if let Some(name) = &args.name {
        manifest.name.clone_from(name);
    }
    if let Some(RoleArg::Ood) = args.role {
        manifest.role = Role::Ood;
    }
    let asked = manifest.root.clone();
    let interrupt = Interrupt::default();
    match split {
        Some(split) => fetch_split(&mut manifest, vec![split], Reporting::Human, &interrupt)?,
        None => fetch_dataset(&mut manifest, Reporting::Human, &interrupt)?,
    }
    let census = census(&manifest, Path::new("")).map_err(PipelineError::from)?;
    let role = match manifest.role {
        Role::Id => "id",
        Role::Ood => "ood",
    };
    let mut toml = format!(
        "# The commit when this was written: {}\nname = \"{}\"\nrole = \"{role}\"\nlayout = \"parquet\"\nroot = \"{}\"\n\n[splits]\n",
        manifest.root.display(),
        manifest.name,
        asked.display()
    );
    for (role, split) in &manifest.splits {
        toml += &format!("{role} = \"{}\"\n", split.display());
    }
    Ok(Fits {
        manifest,
        toml,
        census,
    })
}

fn absolute(place: &Path) -> Result<PathBuf> {
    if is_url(place) {
        return Ok(place.to_path_buf());
    }
    Ok(std::path::absolute(place)?)
}

/// A name of a dataset from that of its folder.
fn dataset_name(place: &Path) -> String {
    let stem = match place.is_file() {
        true => place.file_stem(),
        false => place.file_name(),
    };
    let stem = stem.unwrap_or_default().to_string_lossy();
    let plain = |c: char| match c.is_ascii_alphanumeric() || "-_.".contains(c) {
        true => c,
        false => '-',
    };
    let name: String = stem.trim_start_matches('.').chars().map(plain).collect();
    match name.is_empty() {
        true => "dataset".to_string(),
        false => name,
    }
}

fn description(found: &Fits, sample: &Sample) -> String {
    let Fits {
        manifest, census, ..
    } = found;
    let mut lines = vec![
        format!("layout: {}", manifest.layout.name()),
        format!("images: {}", census.images()),
    ];
    for split in [Split::Train, Split::Val, Split::Test] {
        if census.of(split) > 0 {
            lines.push(format!("  {}: {}", split.name(), census.of(split)));
        }
    }
    if census.files > 0 {
        lines.push(format!(
            "bytes: {} in {} files, {} each on average",
            size(census.bytes),
            census.files,
            size(census.bytes / census.files as u64)
        ));
    }
    if sample.images > 0 {
        let formats: Vec<String> = (sample.formats.iter())
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        lines.push(format!(
            "formats of {} images: {}",
            sample.images,
            formats.join(", ")
        ));
    }
    let side = |place: usize| sample.sizes.get(place).map(|(w, h)| format!("{w} x {h}"));
    if let (Some(least), Some(middle), Some(most)) = (
        side(0),
        side(sample.sizes.len() / 2),
        side(sample.sizes.len().saturating_sub(1)),
    ) {
        lines.push(format!("pixels: {least} to {most}, median {middle}"));
    }
    for (what, count, first) in [
        (
            "listed files that do not exist",
            census.missing_count,
            census.missing.first(),
        ),
        ("empty files", census.empty_count, census.empty.first()),
    ] {
        if let Some(first) = first {
            lines.push(format!("{what}: {count}, the first is {}", shown(first)));
        }
    }
    if let Some((path, reason)) = sample.unreadable.first() {
        lines.push(format!(
            "{} of these images cannot be decoded; the first is {path}: {reason}",
            sample.unreadable.len()
        ));
    }
    if !census.left_out.is_only_junk() {
        lines.push(census.left_out.to_string());
    }
    lines.extend(census.notes.iter().cloned());
    let named: Vec<(String, u64)> = (census.classes.iter())
        .filter(|((_, name), _)| !name.is_empty())
        .map(|((label, name), count)| {
            let name = match label {
                Some(label) => format!("{label} {name}"),
                None => name.clone(),
            };
            (name, *count)
        })
        .collect();
    let mut text = lines.join("\n") + "\n";
    let counts = named.iter().map(|(_, count)| *count);
    if let (Some(least), Some(most)) = (counts.clone().min(), counts.max()) {
        text += &format!("classes: {}, with {least} to {most} images\n", named.len());
        text += &bars("images of each class", &named);
    }
    text
}

/// A number of bytes with a unit.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_become_names_of_datasets() {
        for (place, name) in [
            ("/data/my photos", "my-photos"),
            ("/data/.hidden", "hidden"),
            ("/data/straße", "stra-e"),
            ("/", "dataset"),
        ] {
            assert_eq!(dataset_name(Path::new(place)), name);
        }
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}

//! Cluster manifests by name: a file, one in `manifests/clusters/`, or an embedded one.

use std::path::Path;

use anyhow::Result;
use clipood_core::text_file::read_text;
use clipood_core::{ClusterManifest, nearest};
use clipood_launch::builtin;
use clipood_pipeline::PipelineError;

/// Folder of the cluster manifests in the working directory.
const FOLDER: &str = "manifests/clusters";

/// Reads the cluster manifest called `name`: the path of a file, the name of one in `manifests/clusters/`, or an embedded
/// one.
///
/// # Errors
/// [`PipelineError::Usage`] with the nearest name if there is none; a file that cannot be read; its mistakes.
pub fn find(name: &str) -> Result<ClusterManifest> {
    find_in(name, Path::new(FOLDER))
}

fn find_in(name: &str, folder: &Path) -> Result<ClusterManifest> {
    let named = folder.join(format!("{name}.toml"));
    for path in [Path::new(name), &named] {
        if path.is_file() {
            let text = read_text(path)?;
            return Ok(ClusterManifest::parse(&text, &path.display().to_string())?);
        }
    }
    if let Some(text) = builtin::cluster(name) {
        return Ok(ClusterManifest::parse(
            text,
            &format!("built-in cluster manifest {name}"),
        )?);
    }
    let mut known: Vec<String> = builtin::cluster_names().map(String::from).collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name().into_string().unwrap_or_default();
        known.extend(file.strip_suffix(".toml").map(String::from));
    }
    known.sort();
    known.dedup();
    let hint = match nearest(name, known.iter().map(String::as_str)) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("known are {}", known.join(", ")),
    };
    let named = named.display();
    let problem =
        format!("no cluster manifest `{name}`: neither a file nor {named} nor built in; {hint}");
    Err(PipelineError::Usage(problem).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_first_and_typing_errors_get_the_nearest_name() {
        let dir = tempfile::tempdir().unwrap();
        let built_in = find_in("slurm-example", dir.path()).unwrap();
        assert_eq!(built_in.workers, 4);
        let own = "engine = \"slurm\"\nworkers = 99\n[resources]\n";
        std::fs::write(dir.path().join("slurm-example.toml"), own).unwrap();
        assert_eq!(find_in("slurm-example", dir.path()).unwrap().workers, 99);
        std::fs::write(dir.path().join("ours.toml"), own).unwrap();
        for (typo, near) in [("our", "ours"), ("slurm-exampel", "slurm-example")] {
            let error = find_in(typo, dir.path()).unwrap_err();
            assert_eq!(super::super::exit_code(&error), 2);
            assert!(error.to_string().contains(near), "{error}");
        }
        let error = find_in("somewhere", dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("kubernetes-example, ours, slurm-example"),
            "{error}"
        );
    }
}

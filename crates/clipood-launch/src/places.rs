//! Paths as the nodes of a cluster see them.

use std::path::{Path, PathBuf};

use clipood_core::{ClusterManifest, Engine};

use crate::error::{LaunchError, Result};

/// Folders of one machine only, on practically every cluster.
const LOCAL: [&str; 5] = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/proc"];

/// The absolute path of `path`, or `path` itself if it is a URL. `.` and `..` are resolved by their text alone, so that a
/// link that the nodes see as well stays as it is written.
///
/// # Errors
/// [`LaunchError::Usage`] for a relative path if the working directory is unknown.
pub fn absolute(path: &str) -> Result<String> {
    if path.contains("://") {
        return Ok(path.to_string());
    }
    let found = std::path::absolute(path)
        .map_err(|error| LaunchError::Usage(format!("{path}: {error}")))?;
    let mut clean = PathBuf::new();
    for part in found.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    Ok(clean.display().to_string())
}

/// Checks that the nodes can see `path`, which is absolute or a URL and is called `what` in messages.
///
/// # Errors
/// [`LaunchError::Usage`] for memory, a folder outside those that all nodes see, or one that is known to be local.
pub fn check_visible(manifest: &ClusterManifest, what: &str, path: &str) -> Result<()> {
    if path.starts_with("memory:") {
        let text = format!("{what} {path}: the nodes cannot see the memory of this process");
        return Err(LaunchError::Usage(text));
    }
    let path = match path.strip_prefix("file://") {
        Some(path) => path,
        None if path.contains("://") => return Ok(()),
        None => path,
    };
    let below = |folder: &Path| Path::new(path).starts_with(folder);
    match manifest.engine {
        Engine::Slurm => check_shared(manifest, what, path, below),
        Engine::Kubernetes => check_mounted(manifest, what, path, below),
    }
}

fn check_shared(
    manifest: &ClusterManifest,
    what: &str,
    path: &str,
    below: impl Fn(&Path) -> bool,
) -> Result<()> {
    if manifest.shared.is_empty() {
        return match LOCAL.iter().find(|folder| below(Path::new(folder))) {
            None => Ok(()),
            Some(folder) => Err(LaunchError::Usage(format!(
                "{what} {path}: the nodes do not see {folder} of this machine; choose a folder of a shared file system or a URL \
                 such as s3://bucket/{what}, or list the folder under `shared` in the cluster manifest if all nodes see it"
            ))),
        };
    }
    match manifest.shared.iter().any(|folder| below(folder)) {
        true => Ok(()),
        false => Err(LaunchError::Usage(format!(
            "{what} {path}: not below a folder that all nodes see (`shared` in the cluster manifest: {})",
            listed(&manifest.shared)
        ))),
    }
}

fn check_mounted(
    manifest: &ClusterManifest,
    what: &str,
    path: &str,
    below: impl Fn(&Path) -> bool,
) -> Result<()> {
    // Folders that the image or the nodes bring along.
    if manifest.shared.iter().any(|folder| below(folder)) {
        return Ok(());
    }
    match &manifest.kubernetes.mount {
        Some(mount) if below(mount) => Ok(()),
        Some(mount) => Err(LaunchError::Usage(format!(
            "{what} {path}: not below {}, where the claim is mounted (`kubernetes.mount` in the cluster manifest)",
            mount.display()
        ))),
        None => Err(LaunchError::Usage(format!(
            "{what} {path}: the pods see no folder of this machine; give a URL such as s3://bucket/{what}, or `claim` and \
             `mount` under [kubernetes] in the cluster manifest"
        ))),
    }
}

fn listed(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    folders.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(more: &str, engine: &str) -> ClusterManifest {
        let text =
            format!("engine = \"{engine}\"\nworkers = 1\ncontainer = \"c\"\n{more}\n[resources]\n");
        ClusterManifest::parse(&text, "c").unwrap()
    }

    fn check(manifest: &ClusterManifest, path: &str) -> std::result::Result<(), String> {
        check_visible(manifest, "run", path).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_become_absolute_and_urls_stay() {
        let here = std::env::current_dir().unwrap().display().to_string();
        assert_eq!(absolute("runs/a").unwrap(), format!("{here}/runs/a"));
        assert_eq!(absolute("/a/./b/../c").unwrap(), "/a/c");
        assert_eq!(
            absolute("s3://bucket/a/../b").unwrap(),
            "s3://bucket/a/../b"
        );
        assert!(absolute("").is_err());
    }

    #[test]
    fn a_run_that_the_nodes_cannot_see_is_refused() {
        let open = manifest("", "slurm");
        assert!(check(&open, "/scratch/run").is_ok() && check(&open, "s3://bucket/run").is_ok());
        for path in [
            "/tmp/run",
            "/dev/shm/run",
            "memory:///run",
            "file:///tmp/run",
        ] {
            let error = check(&open, path).unwrap_err();
            assert!(error.contains("the nodes"), "{path}: {error}");
        }
        assert!(
            check(&open, "/tmpfiles/run").is_ok(),
            "compared by components"
        );
        let shared = manifest("shared = [\"/scratch\", \"/tmp/shared\"]", "slurm");
        assert!(
            check(&shared, "/scratch/run").is_ok() && check(&shared, "/tmp/shared/run").is_ok()
        );
        assert!(
            check(&shared, "/home/me/run")
                .unwrap_err()
                .contains("/scratch, /tmp/shared")
        );

        let pods = manifest("", "kubernetes");
        assert!(check(&pods, "s3://bucket/run").is_ok());
        assert!(check(&pods, "/scratch/run").unwrap_err().contains("claim"));
        let mount = "[kubernetes]\nclaim = \"c\"\nmount = \"/clipood\"";
        let pods = manifest(mount, "kubernetes");
        assert!(check(&pods, "/clipood/run").is_ok());
        let baked = manifest("shared = [\"/data\"]", "kubernetes");
        assert!(check(&baked, "/data/run").is_ok() && check(&baked, "/other/run").is_err());
        assert!(
            check(&pods, "/scratch/run")
                .unwrap_err()
                .contains("/clipood")
        );
    }
}

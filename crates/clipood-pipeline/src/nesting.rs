//! Run directories and stores that lie inside one another.

use std::path::{Path, PathBuf};

use clipood_store::Store;

use crate::error::{PipelineError, Result};

/// Folders of a store whose contents belong to it alone: `clipood gc` removes what no run needs there.
const OF_STORE: [&str; 2] = ["features", "prompts"];
/// Folders of a run directory whose contents belong to it alone: readers take every file there for a part.
const OF_RUN: [&str; 8] = [
    "images",
    "scores",
    "validation",
    "streams",
    "validation-streams",
    "metrics",
    "report",
    "_run",
];

/// Refuses a run directory inside the features or prompts of its store, and a store inside the tables of the run. A store
/// beside the tables, or the same directory for both, is allowed.
///
/// # Errors
/// [`PipelineError::Usage`].
pub fn check_nesting(run: &Store, shared: &Store) -> Result<()> {
    let refuse = |inner: &str, outer: &Store, folder: &str| {
        Err(PipelineError::Usage(format!(
            "{inner} lies inside {}, whose contents belong to it alone; choose another place",
            outer.display(folder)
        )))
    };
    if let Some(folder) = OF_STORE
        .into_iter()
        .find(|folder| lies_in(run, shared, folder))
    {
        return refuse(
            &format!("the run directory {}", run.display("")),
            shared,
            folder,
        );
    }
    if let Some(folder) = OF_RUN
        .into_iter()
        .find(|folder| lies_in(shared, run, folder))
    {
        return refuse(&format!("the store {}", shared.display("")), run, folder);
    }
    Ok(())
}

/// Whether `inner` is `folder` of `outer`, or lies inside it.
fn lies_in(inner: &Store, outer: &Store, folder: &str) -> bool {
    match (inner.local_path(""), outer.local_path(folder)) {
        (Some(inner), Some(outer)) => resolved(&inner).starts_with(resolved(&outer)),
        (None, None) => {
            let (inner, outer) = (inner.display(""), outer.display(folder));
            inner == outer || inner.starts_with(&format!("{outer}/"))
        }
        _ => false,
    }
}

/// The path without symbolic links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(known), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return known.join(rest);
        }
    }
    path.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(run: &str, shared: &str) -> bool {
        let open = |location: &str| Store::open(location).unwrap();
        check_nesting(&open(run), &open(shared)).is_ok()
    }

    #[test]
    fn what_belongs_to_one_cannot_hold_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |relative: &str| folder.path().join(relative).display().to_string();
        assert!(allowed(&at("runs/a"), &at("store")));
        assert!(allowed(&at("both"), &at("both")));
        assert!(allowed(&at("store/runs/a"), &at("store")));
        assert!(allowed(&at("run"), &at("run/store")));
        assert!(allowed(&at("store/prompts-of-mine"), &at("store")));
        for inside in ["prompts", "prompts/a", "features/x/y"] {
            assert!(
                !allowed(&at(&format!("store/{inside}")), &at("store")),
                "{inside}"
            );
        }
        for inside in ["scores", "_run/store", "images/dataset=a"] {
            assert!(
                !allowed(&at("run"), &at(&format!("run/{inside}"))),
                "{inside}"
            );
        }
        assert!(!allowed("memory:///store/prompts/a", "memory:///store"));
        assert!(allowed("memory:///store/a", "memory:///store"));
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_hide_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        std::fs::create_dir_all(store.join("prompts")).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(store.join("prompts"), &link).unwrap();
        let run = link.join("run").display().to_string();
        assert!(!allowed(&run, &store.display().to_string()));
    }
}

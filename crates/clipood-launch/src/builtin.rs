//! The cluster manifests of the repository, embedded so that they are found in any folder.

/// `manifests/clusters/*.toml`.
const CLUSTERS: [(&str, &str); 2] = [
    (
        "kubernetes-example",
        include_str!("../../../manifests/clusters/kubernetes-example.toml"),
    ),
    (
        "slurm-example",
        include_str!("../../../manifests/clusters/slurm-example.toml"),
    ),
];

/// The TOML of the embedded cluster manifest called `name`.
pub fn cluster(name: &str) -> Option<&'static str> {
    let found = CLUSTERS.iter().find(|(other, _)| *other == name)?;
    Some(found.1)
}

/// Names of the embedded cluster manifests, in order.
pub fn cluster_names() -> impl Iterator<Item = &'static str> {
    CLUSTERS.into_iter().map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clipood_core::ClusterManifest;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded_and_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/clusters");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let names: Vec<String> = cluster_names().map(|name| format!("{name}.toml")).collect();
        assert_eq!(files, names);
        for name in cluster_names() {
            ClusterManifest::parse(cluster(name).unwrap(), name).unwrap();
        }
        assert_eq!(cluster("no such cluster"), None);
    }
}

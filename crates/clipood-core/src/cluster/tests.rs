use super::*;

const SLURM: &str = "engine = \"slurm\"\nworkers = 8\n[resources]\ngpus = 1\ntime = \"04:00:00\"\n";
const KUBERNETES: &str = "engine = \"kubernetes\"\nworkers = 8\ncontainer = \"registry/clipood:1\"\n[resources]\ngpus = 1\n";

fn parse(text: &str) -> Result<ClusterManifest, String> {
    ClusterManifest::parse(text, "c.toml").map_err(|error| error.to_string())
}

#[test]
fn defaults_follow_from_the_resources() {
    let gpus = parse(SLURM).unwrap();
    assert_eq!((gpus.devices(), gpus.dtype.as_str()), ("cuda:all", "f32"));
    assert_eq!((gpus.retries, gpus.slurm.max_array_size), (2, 1001));
    let cpus = parse("engine = \"slurm\"\nworkers = 1\n[resources]\ncpus = 4\n").unwrap();
    assert_eq!(cpus.devices(), "cpu");
    let report = parse(&format!("{SLURM}[jobs.report]\ngpus = 0\n")).unwrap();
    let resources = report.jobs.report.or(&report.resources);
    assert_eq!(
        (resources.gpus, resources.time),
        (Some(0), Some(TimeLimit(14_400)))
    );
}

#[test]
fn mistakes_are_named_with_line_key_and_what_is_allowed() {
    for (text, words) in [
        (
            SLURM.replace("slurm", "slrum"),
            &["c.toml:1", "did you mean `slurm`"][..],
        ),
        (
            SLURM.replace("engine = \"slurm\"\n", ""),
            &["missing key `engine`"],
        ),
        (
            SLURM.replace("workers = 8", "wrokers = 8"),
            &["c.toml:2", "did you mean `workers`"],
        ),
        (
            SLURM.replace("workers = 8", "workers = 0"),
            &["c.toml:2", "`workers`", "1 to"],
        ),
        (
            SLURM.replace("04:00:00", "4 hours"),
            &["resources.time", "4 hours", "04:00:00"],
        ),
        (
            SLURM.replace("04:00:00", "00:01:00"),
            &["resources.time", "00:01:00", "90 s"],
        ),
        (
            format!("{SLURM}[jobs.report]\ntime = \"1\"\n"),
            &["jobs.report.time"],
        ),
        (
            format!("{SLURM}[jobs.reprot]\n"),
            &["did you mean `report`"],
        ),
        (
            format!("{SLURM}memory = \"lots\"\n"),
            &["resources.memory", "lots", "64G"],
        ),
        (
            format!("{SLURM}[slurm]\npartition = \"a b\"\n"),
            &["slurm.partition", "a b"],
        ),
        (
            format!("{SLURM}[slurm]\npartition = \"a\\n#SBATCH --uid=0\"\n"),
            &["slurm.partition"],
        ),
        (
            format!("{SLURM}[slurm]\noptions = [\"--array=1\"]\n"),
            &["slurm.options", "--array"],
        ),
        (
            format!("{SLURM}[slurm]\noptions = [\"exclusive\"]\n"),
            &["slurm.options", "exclusive"],
        ),
        (
            format!("{SLURM}[environment]\n\"A B\" = \"1\"\n"),
            &["environment", "A B"],
        ),
        (
            format!("{SLURM}[rates]\nimages_per_second = 0.0\n"),
            &["rates.images_per_second"],
        ),
        (
            format!("devices = \"auto\"\n{SLURM}"),
            &["devices", "auto", "cuda:all"],
        ),
        (
            format!("shared = [\"scratch\"]\n{SLURM}"),
            &["shared", "absolute"],
        ),
        (
            KUBERNETES.replace("container = \"registry/clipood:1\"\n", ""),
            &["container"],
        ),
        (
            format!("{KUBERNETES}time = \"4:00:00\"\n"),
            &["resources.time", "slurm"],
        ),
        (
            format!("{KUBERNETES}[kubernetes]\nclaim = \"a\"\n"),
            &["claim", "mount"],
        ),
        (
            format!("{KUBERNETES}[kubernetes]\nnamespace = \"My Space\"\n"),
            &["My Space"],
        ),
    ] {
        let error = parse(&text).unwrap_err();
        for word in words {
            assert!(error.contains(word), "no `{word}` in `{error}` of:\n{text}");
        }
    }
    assert!(parse(KUBERNETES).is_ok());
}

//! Which jobs a run needs: stages that run one after the other on the same kind of machine, as one array.

use clipood_core::{ClusterManifest, JobResources, Resources};

/// Jobs with their stages, in the order in which they run. Every stage of a run but `plan` is in one of them.
pub const GROUPS: [Group; 4] = [
    Group {
        name: "extract",
        stages: &["extract"],
        uses_devices: true,
        resources: |jobs| &jobs.extract,
    },
    Group {
        name: "train",
        stages: &["negative", "train"],
        uses_devices: true,
        resources: |jobs| &jobs.train,
    },
    Group {
        name: "score",
        stages: &["fit", "score", "stream"],
        uses_devices: false,
        resources: |jobs| &jobs.score,
    },
    Group {
        name: "report",
        stages: &["aggregate", "report"],
        uses_devices: false,
        resources: |jobs| &jobs.report,
    },
];

/// An entry of [`GROUPS`].
#[derive(Debug)]
pub struct Group {
    /// Name of the job.
    pub name: &'static str,
    /// Its stages.
    pub stages: &'static [&'static str],
    /// Whether these stages run the model.
    pub uses_devices: bool,
    resources: fn(&JobResources) -> &Resources,
}

/// A stage with the number of its units that are not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStage {
    /// Name of the stage.
    pub stage: String,
    /// Units that are not done, claimed ones included.
    pub open: usize,
}

/// A job: workers that do the same stages.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name: that of its group.
    pub name: &'static str,
    /// The stages that the workers do; done ones among them cost nothing.
    pub stages: &'static [&'static str],
    /// Number of workers.
    pub workers: usize,
    /// Whether its stages run the model.
    pub uses_devices: bool,
    /// What each worker gets.
    pub resources: Resources,
}

/// The jobs for the stages with open units, in the order in which they run. A job gets a worker for each open unit of its
/// largest stage, at most `workers`; the last one, whose units take seconds, gets one.
pub fn jobs(manifest: &ClusterManifest, open: &[OpenStage]) -> Vec<Job> {
    let units = |group: &Group| {
        let of_group = open.iter();
        let of_group = of_group.filter(|stage| group.stages.contains(&stage.stage.as_str()));
        of_group.map(|stage| stage.open).max().unwrap_or(0)
    };
    let last = GROUPS.last().map(|group| group.name);
    let groups = GROUPS.iter().filter(|group| units(group) > 0);
    groups
        .map(|group| Job {
            name: group.name,
            stages: group.stages,
            workers: match Some(group.name) == last {
                true => 1,
                false => units(group).min(manifest.workers),
            },
            uses_devices: group.uses_devices,
            resources: (group.resources)(&manifest.jobs).or(&manifest.resources),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(counts: &[(&str, usize)]) -> Vec<OpenStage> {
        let stages = counts.iter().map(|(stage, open)| OpenStage {
            stage: stage.to_string(),
            open: *open,
        });
        stages.collect()
    }

    #[test]
    fn only_open_stages_get_jobs_and_no_more_workers_than_units() {
        let text =
            "engine = \"slurm\"\nworkers = 8\n[resources]\ngpus = 1\n[jobs.report]\ngpus = 0\n";
        let manifest = ClusterManifest::parse(text, "c").unwrap();
        let counts = [
            ("plan", 0),
            ("extract", 40),
            ("negative", 1),
            ("train", 3),
            ("fit", 3),
            ("score", 5),
            ("aggregate", 3),
            ("report", 1),
        ];
        let all = jobs(&manifest, &open(&counts));
        let found: Vec<_> = all.iter().map(|job| (job.name, job.workers)).collect();
        assert_eq!(
            found,
            [("extract", 8), ("train", 3), ("score", 5), ("report", 1)]
        );
        assert_eq!(all[0].resources.gpus, Some(1));
        assert_eq!(all[3].resources.gpus, Some(0));

        let rest = jobs(
            &manifest,
            &open(&[("extract", 0), ("train", 0), ("score", 1), ("report", 1)]),
        );
        let found: Vec<_> = rest.iter().map(|job| (job.name, job.workers)).collect();
        assert_eq!(found, [("score", 1), ("report", 1)]);
        assert_eq!(jobs(&manifest, &open(&[("report", 0)])), []);
    }
}

//! Values of a cluster manifest that are not allowed.

use super::{ClusterManifest, Engine, Rates, Resources};
use crate::document::Problem;

/// Most workers of a job, and largest array: far above any cluster, far below an overflow.
const MOST: usize = 100_000;

impl ClusterManifest {
    pub(super) fn check(&self) -> Result<(), Problem> {
        within("workers", self.workers, 1, MOST)?;
        if self.retries > 100 {
            return Err(found("retries", self.retries, "0 to 100"));
        }
        if self.devices() == "auto" {
            return Err(Problem::new(
                "devices",
                "found `auto`, allowed: `cpu` or `cuda:all` (the plan is made on a machine that may have other devices)",
            ));
        }
        if let Some(batch) = self.batch {
            within("batch", batch, 1, 65_536)?;
        }
        for folder in &self.shared {
            if !folder.is_absolute() {
                return Err(found("shared", folder.display(), "absolute paths"));
            }
        }
        for name in self.environment.keys() {
            if !is_variable(name) {
                let allowed = "names of letters, digits and `_` that do not start with a digit";
                return Err(found("environment", name, allowed));
            }
        }
        for (key, resources) in self.all_resources() {
            self.check_resources(key, resources)?;
        }
        self.rates.check()?;
        match self.engine {
            Engine::Slurm => self.check_slurm(),
            Engine::Kubernetes => self.check_kubernetes(),
        }
    }

    fn all_resources(&self) -> [(&'static str, &Resources); 5] {
        [
            ("resources", &self.resources),
            ("jobs.extract", &self.jobs.extract),
            ("jobs.train", &self.jobs.train),
            ("jobs.score", &self.jobs.score),
            ("jobs.report", &self.jobs.report),
        ]
    }

    fn check_resources(&self, key: &str, resources: &Resources) -> Result<(), Problem> {
        let key = |name: &str| format!("{key}.{name}");
        if let Some(gpus) = resources.gpus {
            within(&key("gpus"), gpus, 0, 1024)?;
        }
        if let Some(cpus) = resources.cpus {
            within(&key("cpus"), cpus, 1, MOST)?;
        }
        if self.engine == Engine::Kubernetes {
            for (name, is_given) in [
                ("time", resources.time.is_some()),
                ("partition", resources.partition.is_some()),
            ] {
                if is_given {
                    let text = "found with engine `kubernetes`, allowed: engine `slurm`";
                    return Err(Problem::new(key(name), text));
                }
            }
        }
        match &resources.partition {
            Some(partition) => word(&key("partition"), partition),
            None => Ok(()),
        }
    }

    fn check_slurm(&self) -> Result<(), Problem> {
        let slurm = &self.slurm;
        within("slurm.workers_per_node", slurm.workers_per_node, 1, 1024)?;
        within("slurm.max_array_size", slurm.max_array_size, 1, 4_000_001)?;
        if slurm.max_running == Some(0) {
            return Err(found("slurm.max_running", 0, "at least 1"));
        }
        if !(1..=65_535).contains(&slurm.signal_seconds) {
            return Err(found(
                "slurm.signal_seconds",
                slurm.signal_seconds,
                "1 to 65535, as `sbatch --signal` takes it",
            ));
        }
        let words = [
            ("slurm.account", &slurm.account),
            ("slurm.partition", &slurm.partition),
            ("slurm.qos", &slurm.qos),
            ("slurm.constraint", &slurm.constraint),
            ("slurm.reservation", &slurm.reservation),
            ("slurm.gres", &slurm.gres),
        ];
        for (key, value) in words {
            if let Some(value) = value {
                word(key, value)?;
            }
        }
        for option in &slurm.options {
            let is_option = option.starts_with('-') && !option.contains(['\n', '\r']);
            if !is_option {
                let allowed = "options of sbatch, one in each entry, such as `--exclude=node7`";
                return Err(found("slurm.options", option, allowed));
            }
            if let Some(own) = own_option(option) {
                return Err(found(
                    "slurm.options",
                    option,
                    format!("any option but `{own}`, which the scripts need"),
                ));
            }
        }
        // A limit that the signal does not leave room for would interrupt every worker at once.
        for (key, resources) in self.all_resources() {
            if let Some(time) = resources.time
                && time.0 <= slurm.signal_seconds
            {
                return Err(found(
                    &format!("{key}.time"),
                    time.slurm(),
                    format!(
                        "more than the {} s of `slurm.signal_seconds`, after whose signal nothing is begun any more",
                        slurm.signal_seconds
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_kubernetes(&self) -> Result<(), Problem> {
        let kubernetes = &self.kubernetes;
        if self.container.is_none() {
            let text = "missing, allowed: the image that the pods run";
            return Err(Problem::new("container", text));
        }
        if kubernetes.claim.is_some() != kubernetes.mount.is_some() {
            let text =
                "found `claim` without `mount` or `mount` without `claim`, allowed: both or none";
            return Err(Problem::new("kubernetes.mount", text));
        }
        if let Some(mount) = &kubernetes.mount
            && !mount.is_absolute()
        {
            return Err(found(
                "kubernetes.mount",
                mount.display(),
                "an absolute path",
            ));
        }
        let names = [
            ("kubernetes.namespace", kubernetes.namespace.as_deref()),
            ("kubernetes.claim", kubernetes.claim.as_deref()),
            (
                "kubernetes.service_account",
                kubernetes.service_account.as_deref(),
            ),
            (
                "kubernetes.priority_class",
                kubernetes.priority_class.as_deref(),
            ),
        ];
        let secrets = kubernetes.secrets.iter();
        let secrets = secrets.map(|secret| ("kubernetes.secrets", Some(secret.as_str())));
        for (key, name) in names.into_iter().chain(secrets) {
            match name {
                Some(name) if !is_resource_name(name) => {
                    let allowed = "lower-case letters, digits, `-` and `.`";
                    return Err(found(key, name, allowed));
                }
                _ => {}
            }
        }
        within(
            "kubernetes.grace_seconds",
            kubernetes.grace_seconds as usize,
            1,
            86_400,
        )
    }
}

impl Rates {
    fn check(&self) -> Result<(), Problem> {
        for (key, rate) in [
            ("rates.images_per_second", self.images_per_second),
            ("rates.step_seconds", self.step_seconds),
            ("rates.scores_per_second", self.scores_per_second),
        ] {
            match rate {
                Some(rate) if !(rate.is_finite() && rate > 0.0) => {
                    return Err(found(key, rate, "a number above 0"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The option of the scripts that `option` would replace.
fn own_option(option: &str) -> Option<&'static str> {
    const OWN: [&str; 9] = [
        "--array",
        "--dependency",
        "--signal",
        "--no-requeue",
        "--requeue",
        "--open-mode",
        "--ntasks-per-node",
        "--job-name",
        "--wrap",
    ];
    let name = option.split('=').next().unwrap_or_default();
    OWN.into_iter().find(|own| *own == name)
}

fn found(key: &str, found: impl std::fmt::Display, allowed: impl std::fmt::Display) -> Problem {
    Problem::new(key, format!("found `{found}`, allowed: {allowed}"))
}

fn within(key: &str, number: usize, least: usize, most: usize) -> Result<(), Problem> {
    match (least..=most).contains(&number) {
        true => Ok(()),
        false => Err(found(key, number, format!("{least} to {most}"))),
    }
}

/// Values of `#SBATCH` lines end at a blank, and must not start a new line.
fn word(key: &str, value: &str) -> Result<(), Problem> {
    let is_word = !value.is_empty() && !value.chars().any(|c| c.is_whitespace() || c.is_control());
    match is_word {
        true => Ok(()),
        false => Err(found(key, value, "one word without blanks")),
    }
}

fn is_variable(name: &str) -> bool {
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_word && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A DNS subdomain, as Kubernetes names most things.
fn is_resource_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: char| c.is_ascii_alphanumeric();
    name.len() <= 253 && name.chars().all(allowed) && name.starts_with(edge) && name.ends_with(edge)
}

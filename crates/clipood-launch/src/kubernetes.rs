//! Kubernetes: one Indexed Job whose workers do all stages up to the scores together, and a Job that waits for them,
//! computes the metrics and writes the report.
//!
//! Kubernetes has no order between Jobs, so the workers go from stage to stage by themselves, and the second Job waits by
//! `--wait`. Exit codes: a pod that is evicted, or ends with 3, is replaced; 2 ends its index; any other failure is
//! tried again `retries` times.

mod submit;

use clipood_core::{ClusterManifest, Engine, Resources};
use serde_json::{Map, Value, json};

use crate::campaign::Campaign;
use crate::error::{LaunchError, Result};
use crate::jobs::Job;

pub use submit::{active, submit};

/// Name of the container in a pod.
const CONTAINER: &str = "worker";
/// Name of the volume of the claim.
const VOLUME: &str = "shared";
/// Longest part of a recipe's name in the name of a Job: with everything around it, and the index of a pod, a name must
/// not be longer than the 63 characters of a host name.
const RECIPE_LETTERS: usize = 24;

/// A Job.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// `workers` or `report`.
    pub job: &'static str,
    /// Its name in the cluster.
    pub cluster_name: String,
    /// Number of its workers.
    pub workers: usize,
    /// The object, as `kubectl` takes it.
    pub object: Value,
}

/// The Jobs for `jobs`.
pub fn manifests(campaign: &Campaign, manifest: &ClusterManifest, jobs: &[Job]) -> Vec<Manifest> {
    debug_assert_eq!(manifest.engine, Engine::Kubernetes);
    let (last, first): (Vec<&Job>, Vec<&Job>) = jobs.iter().partition(|job| job.name == "report");
    let mut all = Vec::new();
    if let Some(most) = first.iter().max_by_key(|job| job.workers) {
        let mut stages: Vec<&str> = Vec::new();
        for job in &first {
            stages.extend(job.stages);
        }
        // One kind of pod does everything, so it has a GPU if any of its stages does.
        let uses_devices = first.iter().any(|job| job.uses_devices);
        let resources = &first[0].resources;
        let worker = Pods {
            job: "workers",
            stages: &stages,
            workers: most.workers,
            uses_devices,
            resources,
            waits_for: None,
        };
        all.push(worker.manifest(campaign, manifest));
    }
    if let Some(report) = last.first() {
        let pods = Pods {
            job: "report",
            stages: report.stages,
            workers: 1,
            uses_devices: report.uses_devices,
            resources: &report.resources,
            waits_for: Some(all.first().map_or(0, |workers| workers.workers)),
        };
        all.push(pods.manifest(campaign, manifest));
    }
    all
}

/// The pods of one Job.
struct Pods<'a> {
    job: &'static str,
    stages: &'a [&'a str],
    workers: usize,
    uses_devices: bool,
    resources: &'a Resources,
    /// The number of other workers whose stages these wait for.
    waits_for: Option<usize>,
}

impl Pods<'_> {
    fn manifest(&self, campaign: &Campaign, cluster: &ClusterManifest) -> Manifest {
        let kubernetes = &cluster.kubernetes;
        let name = job_name(campaign, self.job);
        let mut spec = json!({
            "completionMode": "Indexed",
            "completions": self.workers,
            "parallelism": self.workers,
            "backoffLimitPerIndex": cluster.retries,
            "podFailurePolicy": { "rules": [
                {
                    // Releases before 1.35 require the status.
                    "action": "Ignore",
                    "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }],
                },
                { "action": "FailIndex", "onExitCodes": exit_code(2) },
                { "action": "Ignore", "onExitCodes": exit_code(3) },
            ] },
        });
        spec["template"] = json!({
            "metadata": { "labels": labels(campaign) },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": kubernetes.grace_seconds,
                "serviceAccountName": kubernetes.service_account,
                "priorityClassName": kubernetes.priority_class,
                "nodeSelector": not_empty(json!(kubernetes.node_selector)),
                "tolerations": not_empty(kubernetes.tolerations.iter().map(|key| {
                    json!({ "key": key, "operator": "Exists" })
                }).collect()),
                "containers": [self.container(campaign, cluster)],
                "volumes": kubernetes.claim.iter().map(|claim| {
                    json!({ "name": VOLUME, "persistentVolumeClaim": { "claimName": claim } })
                }).collect::<Value>(),
            },
        });
        let object = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": name, "namespace": kubernetes.namespace, "labels": labels(campaign) },
            "spec": spec,
        });
        Manifest {
            job: self.job,
            cluster_name: name,
            workers: self.workers,
            object: without_nothing(object),
        }
    }

    fn container(&self, campaign: &Campaign, cluster: &ClusterManifest) -> Value {
        let kubernetes = &cluster.kubernetes;
        let mut words = campaign.worker(cluster, self.uses_devices, self.stages);
        match self.waits_for {
            None => words.extend(["--count".to_string(), self.workers.to_string()]),
            // A number that no other pod has: a worker is known by it.
            Some(others) => {
                words.extend(["--index".to_string(), others.to_string()]);
                words.extend(["--count".to_string(), (others + 1).to_string()]);
                words.push("--wait".to_string());
            }
        }
        let env = cluster.environment.iter();
        let secrets = kubernetes.secrets.iter();
        json!({
            "name": CONTAINER,
            "image": cluster.container,
            "command": [campaign.program],
            "args": words,
            "env": not_empty(env.map(|(name, value)| json!({ "name": name, "value": value })).collect()),
            "envFrom": not_empty(secrets.map(|name| json!({ "secretRef": { "name": name } })).collect()),
            "resources": self.resources(cluster),
            "volumeMounts": kubernetes.mount.iter().map(|mount| {
                json!({ "name": VOLUME, "mountPath": mount })
            }).collect::<Value>(),
        })
    }

    /// Requests of processors and memory, limits of memory and GPUs.
    fn resources(&self, cluster: &ClusterManifest) -> Value {
        let (mut requests, mut limits) = (Map::new(), Map::new());
        if let Some(cpus) = self.resources.cpus {
            requests.insert("cpu".into(), json!(cpus.to_string()));
        }
        if let Some(memory) = self.resources.memory {
            requests.insert("memory".into(), json!(memory.kubernetes()));
            limits.insert("memory".into(), json!(memory.kubernetes()));
        }
        match self.resources.gpus {
            Some(gpus) if gpus > 0 => {
                let resource = cluster.kubernetes.gpu_resource.clone();
                limits.insert(resource, json!(gpus.to_string()));
            }
            _ => {}
        }
        not_empty(json!({
            "requests": not_empty(Value::Object(requests)),
            "limits": not_empty(Value::Object(limits)),
        }))
    }
}

fn exit_code(code: i32) -> Value {
    json!({ "containerName": CONTAINER, "operator": "In", "values": [code] })
}

fn labels(campaign: &Campaign) -> Value {
    json!({ "app.kubernetes.io/name": "clipood", "clipood/run": campaign.short() })
}

/// Lower-case letters, digits and `-`.
fn job_name(campaign: &Campaign, job: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let recipe: String = campaign
        .recipe
        .chars()
        .map(plain)
        .take(RECIPE_LETTERS)
        .collect();
    let recipe = recipe.trim_matches('-');
    format!(
        "clipood-{recipe}-{}-{}-{job}",
        campaign.short(),
        campaign.number
    )
}

fn not_empty(value: Value) -> Value {
    let is_empty = match &value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match is_empty {
        true => Value::Null,
        false => value,
    }
}

/// Without members that are null or empty lists: options that the manifest does not set.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(key, value)| (key, without_nothing(value)));
            let fields = fields.filter(|(_, value)| {
                !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty())
            });
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.into_iter().map(without_nothing).collect(),
        other => other,
    }
}

/// All Jobs as YAML documents.
///
/// # Errors
/// [`LaunchError::Yaml`].
pub fn yaml(manifests: &[Manifest]) -> Result<String> {
    let mut text = String::new();
    for manifest in manifests {
        let document =
            serde_saphyr::to_string(&manifest.object).map_err(|error| LaunchError::Yaml {
                job: manifest.job.to_string(),
                message: error.to_string(),
            })?;
        text += &format!("---\n{document}");
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

//! `clipood submit`: plans a run and queues its workers on a cluster.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clipood_clip::model::Devices;
use clipood_core::{ClusterManifest, Engine};
use clipood_launch::places::{absolute, check_visible};
use clipood_launch::{
    Campaign, Job as ClusterJob, JobRecord, LaunchError, LongestUnit, OpenStage, Submission,
    check_time, jobs, kubernetes, next_number, read_submissions, slurm, write_submission,
};
use clipood_pipeline::{Estimate, Job, PipelineError, Planned, estimate};

use super::args::JsonLogArg;
use super::clusters;
use super::reporting;
use super::run::{PlanArgs, open};

/// Options of `clipood submit`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// Cluster manifest: the path of a file, the name of one in `manifests/clusters/`, or a built-in one (slurm-example,
    /// kubernetes-example).
    #[arg(long, value_name = "CLUSTER")]
    cluster: String,
    /// Plan the run and print the scripts or manifests, but queue nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    log: JsonLogArg,
}

/// Plans, then queues the workers for what is missing.
pub fn run(args: Args) -> Result<ExitCode> {
    let cluster = clusters::find(&args.cluster)?;
    let program = program(&cluster)?;
    if !args.dry_run {
        check_program(&cluster)?;
    }
    let store = visible(&cluster, "store", &args.plan.store.store)?;
    let data = visible(
        &cluster,
        "data",
        &args.plan.data.images.data.display().to_string(),
    )?;
    let run = args.plan.run.as_deref();
    // The default lies in the working directory, whatever its name will be.
    visible(&cluster, "run", run.unwrap_or("runs/run"))?;

    let job = open(args.plan, devices(&cluster)?, reporting(args.log.json_log))?;
    let planned = Planned::make(&job)?;
    let work = estimate(&job, &planned)?;
    let wanted = jobs(&cluster, &open_stages(&work));
    let run = absolute(&job.places.run_location).map_err(launch_error)?;
    if wanted.is_empty() {
        super::print(&format!(
            "run: {run}\nnothing to submit: the run is finished\n"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    check_time(&cluster, &wanted, &longest_units(&cluster, &work)).map_err(launch_error)?;
    let places = job.places.run.store();
    let campaign = Campaign {
        recipe: job.experiment.recipe.name.clone(),
        fingerprint: job.experiment.fingerprint.to_string(),
        run,
        store,
        data,
        program,
        number: next_number(places).map_err(launch_error)?,
    };
    if args.dry_run {
        super::print(&rendered(&campaign, &cluster, &wanted)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    refuse_twice(&cluster, &job)?;
    let queued = queue(&campaign, &cluster, &wanted)?;
    let lines: Vec<String> = queued.iter().map(job_line).collect();
    super::print(&format!(
        "run: {}\nsubmitted: {}\n",
        campaign.run,
        lines.join(", ")
    ))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let submission = Submission {
        number: campaign.number,
        engine: engine(&cluster).to_string(),
        cluster: args.cluster,
        at: since.map_or(0, |since| since.as_secs()),
        jobs: queued,
    };
    write_submission(places, &submission).map_err(launch_error)?;
    let (run, store) = (&campaign.run, &campaign.store);
    super::print(&format!(
        "watch it: clipood status {run} --store {store} --watch\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A queued job for people: `extract 12 (8 workers)`.
pub fn job_line(job: &JobRecord) -> String {
    let workers = if job.workers == 1 {
        "worker"
    } else {
        "workers"
    };
    format!("{} {} ({} {workers})", job.name, job.id, job.workers)
}

/// An error of a submission with the exit code that it deserves.
pub fn launch_error(error: LaunchError) -> anyhow::Error {
    match error {
        LaunchError::Usage(text) => PipelineError::Usage(text).into(),
        LaunchError::Store(error) => PipelineError::Store(error).into(),
        other @ (LaunchError::Program { .. } | LaunchError::Yaml { .. }) => other.into(),
    }
}

fn engine(cluster: &ClusterManifest) -> &'static str {
    match cluster.engine {
        Engine::Slurm => "slurm",
        Engine::Kubernetes => "kubernetes",
    }
}

/// The command on the nodes.
fn program(cluster: &ClusterManifest) -> Result<String> {
    if let Some(program) = &cluster.program {
        return Ok(program.clone());
    }
    if cluster.container.is_some() {
        return Ok("clipood".to_string());
    }
    let own = std::env::current_exe().context("cannot find the program that runs")?;
    let own = own.display().to_string();
    check_visible(cluster, "program", &own).map_err(launch_error)?;
    Ok(own)
}

/// The absolute path of `path`, if the nodes can see it.
fn visible(cluster: &ClusterManifest, what: &str, path: &str) -> Result<String> {
    let path = absolute(path).map_err(launch_error)?;
    check_visible(cluster, what, &path).map_err(launch_error)?;
    Ok(path)
}

/// Refuses a machine without the program that queues, before the run is planned.
fn check_program(cluster: &ClusterManifest) -> Result<()> {
    let (program, hint) = match cluster.engine {
        Engine::Slurm => ("sbatch", "submit from a login node of the cluster"),
        Engine::Kubernetes => (
            "kubectl",
            "install it and choose the context of the cluster",
        ),
    };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&folders).any(|folder| folder.join(program).is_file());
    match is_there {
        true => Ok(()),
        false => Err(PipelineError::Usage(format!(
            "found no program `{program}`; {hint}, or print what would be submitted with --dry-run"
        ))
        .into()),
    }
}

/// The devices that the workers will have, whatever this machine has.
fn devices(cluster: &ClusterManifest) -> Result<Devices> {
    let named = cluster.devices();
    let backend = match named.split([':', ',']).next() {
        Some("cuda") => "cuda",
        Some("sim") => "simulated",
        Some("cpu") => "cpu",
        _ => {
            let problem = format!(
                "cluster manifest: devices `{named}`: expected cpu, cuda:all or cuda:0,cuda:1"
            );
            return Err(PipelineError::Usage(problem).into());
        }
    };
    let devices = Devices::recorded(backend, &cluster.dtype);
    Ok(devices.map_err(|error| PipelineError::Usage(format!("cluster manifest: {error}")))?)
}

fn open_stages(work: &Estimate) -> Vec<OpenStage> {
    let stages = work.stages.iter();
    let stages = stages.map(|(stage, _, open)| OpenStage {
        stage: stage.to_string(),
        open: *open,
    });
    stages.collect()
}

/// The longest units of the stages whose rates are known.
fn longest_units(cluster: &ClusterManifest, work: &Estimate) -> Vec<LongestUnit> {
    let rates = &cluster.rates;
    let extract = rates.images_per_second.map(|rate| LongestUnit {
        job: "extract",
        what: format!("unit of {} views", work.largest_unit),
        seconds: work.largest_unit as f64 / rate,
    });
    let score = rates.scores_per_second.map(|rate| LongestUnit {
        job: "score",
        what: format!("unit of {} scores", work.largest_shard),
        seconds: work.largest_shard as f64 / rate,
    });
    extract.into_iter().chain(score).collect()
}

fn rendered(
    campaign: &Campaign,
    cluster: &ClusterManifest,
    wanted: &[ClusterJob],
) -> Result<String> {
    match cluster.engine {
        Engine::Slurm => Ok(slurm::dry_run(&slurm::scripts(campaign, cluster, wanted))),
        Engine::Kubernetes => {
            let manifests = kubernetes::manifests(campaign, cluster, wanted);
            kubernetes::yaml(&manifests).map_err(launch_error)
        }
    }
}

/// Refuses to queue workers beside those of an earlier submission, who would do the same work.
fn refuse_twice(cluster: &ClusterManifest, job: &Job) -> Result<()> {
    let submissions = read_submissions(job.places.run.store()).map_err(launch_error)?;
    let of_engine: Vec<Submission> = submissions
        .into_iter()
        .filter(|one| one.engine == engine(cluster))
        .collect();
    let (active, cancel) = match cluster.engine {
        Engine::Slurm => (slurm::active(&of_engine), "scancel"),
        Engine::Kubernetes => {
            let namespace = cluster.kubernetes.namespace.as_deref();
            (
                kubernetes::active(&of_engine, namespace),
                "kubectl delete job",
            )
        }
    };
    let active = active.map_err(launch_error)?;
    if active.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = active.iter().map(job_line).collect();
    let ids: Vec<&str> = active.iter().map(|job| job.id.as_str()).collect();
    Err(PipelineError::Usage(format!(
        "{}: jobs of this run are queued or running: {}; wait for them, or cancel them with `{cancel} {}`",
        job.places.run_location,
        lines.join(", "),
        ids.join(" ")
    ))
    .into())
}

fn queue(
    campaign: &Campaign,
    cluster: &ClusterManifest,
    wanted: &[ClusterJob],
) -> Result<Vec<JobRecord>> {
    match cluster.engine {
        Engine::Slurm => {
            let scripts = slurm::scripts(campaign, cluster, wanted);
            let folder = slurm::log_folder(campaign, cluster);
            keep(&folder, &scripts)?;
            slurm::submit(&scripts).map_err(launch_error)
        }
        Engine::Kubernetes => {
            let manifests = kubernetes::manifests(campaign, cluster, wanted);
            let namespace = cluster.kubernetes.namespace.as_deref();
            kubernetes::submit(&manifests, namespace).map_err(launch_error)
        }
    }
}

/// Makes the folder of the logs, which Slurm does not, and keeps the scripts there.
fn keep(folder: &Path, scripts: &[slurm::Script]) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for script in scripts {
        let path = folder.join(&script.file);
        std::fs::write(&path, &script.text)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

//! Options that several commands share, so that devices, stores and runs are given in the same way everywhere.

use std::path::PathBuf;

use clipood_clip::ClipError;
use clipood_clip::model::{Devices, Dtype};
use clipood_pipeline::{PipelineError, Table};

/// Headings of the options in a command's help.
pub mod heading {
    pub const RECIPE: &str = "Recipe overrides";
    pub const MODEL: &str = "Model";
    pub const DEVICE: &str = "Device";
    pub const FILES: &str = "Folders and stores";
}

/// Most images per pass of an image tower: their pixels alone are tens of gigabytes then.
pub const MOST_IMAGES: usize = 65_536;

/// Reads a number from 1 to `MOST`.
pub fn count<const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 1 to {MOST}")),
    }
}

/// Help text of `RUN` in all commands.
const RUN_HELP: &str = "Run directory, a path or URL";

/// Where a model runs.
#[derive(clap::Args)]
pub struct DevicesArg {
    /// Where the model runs: auto, cpu, cpu:THREADS, cuda:all, or GPUs separated by commas as in cuda:0,cuda:1. A GPU
    /// named twice gets two workers.
    #[arg(long, alias = "device", default_value = "auto", help_heading = heading::DEVICE)]
    devices: String,
}

/// Where a model runs, and in which number format.
#[derive(clap::Args)]
pub struct DeviceArgs {
    #[command(flatten)]
    devices: DevicesArg,
    /// Number format of the image tower: f32; on GPUs also f16 or bf16, on a CPU with AVX-512 BF16 also bf16 (ViT
    /// only).
    #[arg(long, default_value = "f32", help_heading = heading::DEVICE)]
    dtype: String,
}

/// The devices of a run.
#[derive(clap::Args)]
pub struct RunDeviceArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Images per pass of the image tower (default: 32 on the CPU, by memory on a GPU).
    #[arg(long, value_name = "N", value_parser = count::<MOST_IMAGES>, help_heading = heading::DEVICE)]
    batch: Option<usize>,
}

impl DevicesArg {
    /// The devices of a command whose output is a result, in the number format `dtype`.
    ///
    /// # Errors
    /// As [`devices`].
    pub fn open(&self, dtype: &str) -> Result<Devices, PipelineError> {
        devices(&self.devices, dtype)
    }
}

impl DeviceArgs {
    /// The devices of a command whose output is a result.
    ///
    /// # Errors
    /// As [`devices`].
    pub fn open(&self) -> Result<Devices, PipelineError> {
        self.devices.open(&self.dtype)
    }
}

impl RunDeviceArgs {
    /// The devices of `plan`, `run` and `worker`, which may be simulated.
    ///
    /// # Errors
    /// [`PipelineError::Usage`] for devices or number formats that this build or machine does not support.
    pub fn open(&self) -> Result<Devices, PipelineError> {
        let devices = run_devices(&self.device.devices.devices, &self.device.dtype)?;
        Ok(devices.with_batch(self.batch))
    }
}

/// The devices `devices` in the number format `dtype`, for commands whose output is a result.
///
/// # Errors
/// [`PipelineError::Usage`] for devices or number formats that this build or machine does not support, and for
/// simulated devices, which compute nothing.
fn devices(devices: &str, dtype: &str) -> Result<Devices, PipelineError> {
    let devices = run_devices(devices, dtype)?;
    if devices.simulated.is_some() {
        return Err(PipelineError::Usage(
            "simulated devices compute nothing; only `clipood plan`, `run` and `worker` take them, for tests".to_string(),
        ));
    }
    Ok(devices)
}

fn run_devices(devices: &str, dtype: &str) -> Result<Devices, PipelineError> {
    let usage = |error: ClipError| PipelineError::Usage(error.to_string());
    let dtype: Dtype = dtype.parse().map_err(usage)?;
    let devices: Devices = devices.parse().map_err(usage)?;
    dtype.check(devices.first()).map_err(usage)?;
    Ok(devices.with_dtype(dtype))
}

/// Where images are.
#[derive(clap::Args)]
pub struct DataArg {
    /// Folder that relative dataset roots start from.
    #[arg(long, value_name = "DIR", default_value = "data", help_heading = heading::FILES)]
    pub data: PathBuf,
}

/// What to do about images that have changed since the run was planned.
#[derive(clap::Args)]
pub struct ChangedDataArg {
    /// Go on with an existing plan although the folders of the images, or the names or sizes of their files, are not those
    /// that it was made from.
    #[arg(long, help_heading = heading::FILES)]
    pub accept_changed_data: bool,
}

/// Where images are, and where their datasets are described.
#[derive(clap::Args)]
pub struct DataArgs {
    /// Where images are.
    #[command(flatten)]
    pub images: DataArg,
    /// Folder of the dataset manifests.
    #[arg(long, value_name = "DIR", default_value = "manifests/datasets", help_heading = heading::FILES)]
    pub manifests: PathBuf,
}

/// Where features and prompts are stored.
#[derive(clap::Args)]
pub struct StoreArg {
    /// Store of features and prompts, a path or URL.
    #[arg(long, default_value = "store", help_heading = heading::FILES)]
    pub store: String,
}

/// An existing run directory.
#[derive(clap::Args)]
pub struct RunArg {
    #[arg(value_name = "RUN", help = RUN_HELP)]
    pub run: String,
}

/// Existing run directories.
#[derive(clap::Args)]
pub struct RunsArg {
    #[arg(value_name = "RUN", required = true, help = RUN_HELP)]
    pub runs: Vec<String>,
}

/// An existing run directory, for `worker`, where it was the option `--run` before.
#[derive(clap::Args)]
pub struct WorkerRunArg {
    #[arg(value_name = "RUN", required_unless_present = "run_option", help = RUN_HELP)]
    run: Option<String>,
    #[arg(
        long = "run",
        id = "run_option",
        value_name = "RUN",
        hide = true,
        conflicts_with = "run"
    )]
    run_option: Option<String>,
}

impl WorkerRunArg {
    /// The run directory; the parser ensures that one is given.
    pub fn into_run(self) -> String {
        self.run.or(self.run_option).unwrap_or_default()
    }
}

/// How a table is written to standard output.
#[derive(clap::Args)]
pub struct FormatArgs {
    /// Print the table as CSV: rates between 0 and 1 with all digits, deviations and intervals in columns of their own.
    #[arg(long, group = "format")]
    csv: bool,
    /// Print the table for LaTeX (booktabs).
    #[arg(long, group = "format")]
    latex: bool,
    /// Print the table for Markdown.
    #[arg(long, group = "format")]
    markdown: bool,
}

impl FormatArgs {
    /// The table in the format that was asked for; `None` if none was.
    pub fn format(&self, table: &Table) -> Option<String> {
        match (self.csv, self.latex, self.markdown) {
            (true, ..) => Some(table.to_csv()),
            (_, true, _) => Some(table.to_latex()),
            (.., true) => Some(table.to_markdown()),
            _ => None,
        }
    }
}

/// How progress is reported.
#[derive(clap::Args)]
pub struct JsonLogArg {
    /// Progress and errors as JSON on standard error, one object per line.
    #[arg(long)]
    pub json_log: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Worker {
        #[command(flatten)]
        run: WorkerRunArg,
        #[command(flatten)]
        devices: DevicesArg,
    }

    #[test]
    fn a_worker_takes_its_run_by_place_or_by_the_older_option() {
        let run = |words: &[&str]| {
            let parsed = Worker::try_parse_from([&["worker"], words].concat());
            parsed.map(|worker| worker.run.into_run())
        };
        assert_eq!(run(&["runs/demo"]).unwrap(), "runs/demo");
        assert_eq!(run(&["--run", "runs/demo"]).unwrap(), "runs/demo");
        assert!(run(&[]).is_err_and(|error| error.to_string().contains("RUN")));
        assert!(run(&["a", "--run", "b"]).is_err());
    }

    #[test]
    fn the_older_name_of_devices_is_still_taken() {
        for option in ["--devices", "--device"] {
            let worker = Worker::try_parse_from(["worker", "a", option, "cpu"]).unwrap();
            assert_eq!(worker.devices.devices, "cpu");
        }
    }

    #[test]
    fn counts_are_bounded() {
        assert_eq!(count::<MOST_IMAGES>("65536"), Ok(MOST_IMAGES));
        for text in ["0", "65537", "1000000000000", "-1", "x"] {
            let error = count::<MOST_IMAGES>(text).unwrap_err();
            assert!(error.contains("1 to 65536"), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_run_takes_simulated_devices() {
        assert!(devices("sim:10", "f32").is_err());
        assert!(run_devices("sim:10", "f32").is_ok());
        assert!(devices("cpu", "f64").is_err_and(|error| error.exit_code() == 2));
    }
}

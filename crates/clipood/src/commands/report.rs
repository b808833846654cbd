//! `clipood report`: prints tables of a finished run, or makes its page again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_pipeline::{
    By, PUBLISHED_NOTE, PipelineError, Store, View, console, kept_published, notes, page_files,
    published_table, read_metrics, report_table,
};

use super::args::{DataArg, FormatArgs, RunArg, StoreArg};
use super::arrays::check_output;
use super::look;
use super::run::where_it_is;

/// Options of `clipood report`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: RunArg,
    /// Print the rows of a detector, or of `all` detectors and selections, instead of the headline detector's.
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
    /// What the rows are: methods, or methods on each dataset, every seed, or one column per number of shots.
    #[arg(long, value_enum)]
    by: Option<Rows>,
    /// Print the figures of papers that the recipe names, with their sources, beside the measured ones.
    #[arg(long, conflicts_with_all = ["detector", "by"])]
    published: bool,
    #[command(flatten)]
    format: FormatArgs,
    /// Write the page to FILE, of a run that is not finished, too; its thumbnails are made from the images below `--data`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["detector", "by", "published"])]
    page: Option<PathBuf>,
    /// Write every figure of the page as SVG and every table as CSV into a folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["detector", "by", "published"])]
    figures: Option<PathBuf>,
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    store: StoreArg,
}

/// What the rows of the table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rows {
    /// Methods and numbers of shots.
    Method,
    /// Each OOD set.
    Dataset,
    /// Each prompt set.
    Seed,
    /// One column per number of shots.
    Shots,
}

impl Rows {
    fn by(self) -> By {
        match self {
            Rows::Method => By::Method,
            Rows::Dataset => By::Dataset,
            Rows::Seed => By::Seed,
            Rows::Shots => By::Shots,
        }
    }
}

/// Prints the table that was asked for, or writes the files.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.page.is_some() || args.figures.is_some() {
        return write(&args);
    }
    let run = args.run.run;
    let store = Store::open(&run).map_err(PipelineError::from)?;
    let Some(metrics) = read_metrics(&store)? else {
        return Err(PipelineError::Usage(format!(
            "{run} has no metric tables: it is no run directory, or its run is not finished; `clipood status {run}` shows how far it is, and \
             `clipood report {run} --page FILE` writes what there is"
        ))
        .into());
    };
    let view = View {
        by: args.by.map_or(By::Method, Rows::by),
        detector: args.detector,
    };
    let asked = view.detector.is_some() || args.by.is_some() || args.published;
    let published = kept_published(&store)?;
    if args.published && published.is_empty() {
        let problem = format!("the recipe of {run} names no published figures (`[[published]]`)");
        return Err(PipelineError::Usage(problem).into());
    }
    let table = match args.published {
        true => published_table(&metrics, &published),
        false => report_table(&metrics, &view)?,
    };
    if let Some(text) = args.format.format(&table) {
        super::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = match asked {
        false => console(&metrics, &published),
        true => {
            let about = args.published.then_some(PUBLISHED_NOTE);
            let notes = notes(&table).into_iter().chain(about);
            let notes: String = notes.map(|note| format!("\n{note}\n")).collect();
            format!("in percent:\n\n{}{notes}", table.to_text())
        }
    };
    super::print(&format!("{text}\n{}", where_it_is(&run)))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page, or the files of its figures and tables.
fn write(args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.page {
        check_output(path)?;
    }
    let job = look::open_with_data(&args.run.run, &args.store, args.data.data.clone())?;
    let files = page_files(&job)?;
    let mut lines = String::new();
    let (page, rest) = files.split_first().context("the page has no files")?;
    if let Some(path) = &args.page {
        write_file(path, &page.1)?;
        lines += &format!("page: {}\n", path.display());
    }
    if let Some(folder) = &args.figures {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, contents) in rest {
            write_file(&folder.join(name), contents)?;
        }
        lines += &format!(
            "figures and tables: {} files in {}\n",
            rest.len(),
            folder.display()
        );
    }
    super::print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

fn write_file(path: &Path, contents: &str) -> Result<()> {
    std::fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

//! `clipood regions`: pictures of what a model sees in the patches of an image.

mod output;
mod task;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clipood_core::shown;
use clipood_pipeline::regions::{PatchCosines, likeliest_classes};
use clipood_pipeline::{
    EncodedImage, Engine, PipelineError, SeenImage, encode_files, read_eval_view,
};

use self::output::{Output, Seen};
use self::task::{Task, TaskArgs};
use super::args::DeviceArgs;
use super::images::{Named, exit_of, named_images, none_readable, report_unreadable};
use super::models::ModelArgs;
use super::{check_dtype, print};

/// Most heat maps of an image, beside that of the label.
const MOST_MAPS: i64 = 100;

/// Options of `clipood regions`.
#[derive(clap::Args)]
pub struct Args {
    /// Image files, or folders that are searched for them. Those that cannot be read are listed on standard error and
    /// left out; the exit code is 1 then.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten)]
    task: TaskArgs,
    /// Number of classes most similar to the image whose heat maps are drawn, beside that of the label.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_MAPS))]
    top: u16,
    /// Print one JSON object per image and line instead of text, as in `regions.jsonl`.
    #[arg(long)]
    json: bool,
    /// Folder to write `index.html`, `regions.jsonl` and the pictures of every image into; files of earlier calls are
    /// replaced.
    #[arg(long, value_name = "DIR", default_value = "regions")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Draws every image, and prints its numbers.
pub fn run(args: Args) -> Result<ExitCode> {
    let devices = args.device.open()?;
    let task = args.task.read()?;
    let (files, stale) = without_own(named_images(&args.images)?, &args)?;
    let model = args.model.open_or("demo")?;
    check_dtype(&model, &devices)?;
    let text = args.task.features(&task, &model, devices.first())?;
    let size = model.config.image.size;
    let side = u32::try_from(size).map_err(|_| {
        PipelineError::Usage(format!("images of {size} x {size} pixels are too large"))
    })?;
    let page = args.task.page(&task, args.model.name_or("demo"));
    let mut output = Output::create(&args.out, page, stale)?;
    let classes = Classes {
        task: &task,
        text: &text,
        top: usize::from(args.top),
    };
    let engine = Engine {
        local: true,
        ..Engine::for_files(&model, &devices).spread(files.len())
    };
    let mut drawn = 0;
    // The pipeline has no error for files or the console, so such an error is kept here.
    let mut failure = None;
    let done = encode_files(&engine, &files, |number, outcome| {
        let path = &files[number];
        let read = outcome.and_then(|encoded| Ok((encoded, read_eval_view(path, side)?)));
        let (encoded, view) = match read {
            Ok(read) => read,
            Err(reason) => {
                report_unreadable(path, &reason);
                return Ok(());
            }
        };
        let seen = classes.seen(path, &encoded, view)?;
        drawn += 1;
        let written = output.add(path, &seen, &task.classes);
        let shown = written.and_then(|line| match args.json {
            true => print(&line),
            false => print(&output::as_text(path, &seen, &task)),
        });
        shown.map_err(|error| {
            failure = Some(error);
            PipelineError::Interrupted
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    done?;
    if drawn == 0 {
        return Err(none_readable(files.len()));
    }
    let page = output.finish()?;
    clipood_pipeline::tell(&format!("page: {}", page.display()));
    Ok(exit_of(files.len() - drawn))
}

/// The images without those of an earlier call in the folder that is written, unless they are named themselves, and the
/// pictures of that call that are not among them.
fn without_own(found: Vec<Named>, args: &Args) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut own: BTreeMap<PathBuf, PathBuf> = output::earlier(&args.out)
        .into_iter()
        .filter_map(|picture| Some((picture.canonicalize().ok()?, picture)))
        .collect();
    let mut files = Vec::with_capacity(found.len());
    let mut named = Vec::new();
    for path in found.into_iter().map(|image| image.path) {
        let place = match own.is_empty() {
            true => None,
            false => path.canonicalize().ok(),
        };
        let is_own = place.as_ref().is_some_and(|place| own.contains_key(place));
        if !is_own || args.images.contains(&path) {
            files.push(path);
            named.extend(place);
        }
    }
    if files.is_empty() {
        bail!(
            "no image in the folders given but those of an earlier call in {}",
            shown(&args.out)
        );
    }
    named.iter().for_each(|place| drop(own.remove(place)));
    Ok((files, own.into_values().collect()))
}

/// What images are compared with.
struct Classes<'a> {
    task: &'a Task,
    /// Normalised text features, `[classes, D]`.
    text: &'a [f32],
    /// Number of the most similar classes with a heat map.
    top: usize,
}

impl Classes<'_> {
    /// What the patches of an image show.
    fn seen(
        &self,
        path: &Path,
        encoded: &EncodedImage,
        view: Vec<u8>,
    ) -> Result<Seen, PipelineError> {
        let name = shown(path);
        let dim = encoded.global.len();
        let cosines = PatchCosines::new(&encoded.local, self.text, dim, &name)?;
        let likeliest = likeliest_classes(&encoded.global, self.text);
        // There is at least one class: K is below their number.
        let (predicted, _, probability) = likeliest[0];
        let label = self.task.label.unwrap_or(predicted);
        let nearest = likeliest.iter().take(self.top).map(|(class, ..)| *class);
        let drawn: Vec<usize> = std::iter::once(label)
            .chain(nearest.filter(|class| *class != label))
            .collect();
        let of_class = |class: &usize| likeliest.iter().find(|(other, ..)| other == class).copied();
        Ok(Seen {
            of_image: drawn.iter().filter_map(of_class).collect(),
            image: SeenImage {
                name,
                label_from: match self.task.label {
                    Some(_) => "given".to_owned(),
                    None => "predicted".to_owned(),
                },
                predicted: (self.task.classes[predicted].clone(), probability),
                regions: cosines.regions(label, self.task.top_k, &drawn)?,
                view: Ok(view),
            },
        })
    }
}

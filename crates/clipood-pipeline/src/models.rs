//! Opening models by name: the embedded one, folders and files, repositories of the hub.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::model::Model;
use clipood_hub::{Event, HubOptions, Name, Snapshot, resolve};

use crate::error::{PipelineError, Result};
use crate::interrupt::Interrupt;
use crate::progress::{Reporting, StageProgress};

/// A model and its origin.
#[derive(Debug)]
pub struct NamedModel {
    /// The model.
    pub model: Model,
    /// The commit of its hub repository; absent for local files.
    pub revision: Option<String>,
}

/// The model called `name`: `demo` is the embedded one; an existing folder or weight file takes precedence over a
/// repository of the hub, which is downloaded into Hugging Face's cache if it is not there.
///
/// # Errors
/// A name that is neither a path nor on the hub, a checkpoint that cannot be read, a repository that cannot be
/// downloaded.
pub fn open_named(name: &str, options: &OpenOptions, reporting: Reporting) -> Result<NamedModel> {
    open_until(name, options, reporting, &Interrupt::default())
}

/// [`open_named`], which ends with [`PipelineError::Interrupted`] soon after `interrupt` is set, at any moment of a
/// download.
///
/// # Errors
/// As [`open_named`].
pub fn open_until(
    name: &str,
    options: &OpenOptions,
    reporting: Reporting,
    interrupt: &Interrupt,
) -> Result<NamedModel> {
    if name == "demo" {
        let files = clipood_demo::model_files();
        let model = Model::from_open_clip(files.config, files.weights, "the embedded demo model")?;
        return Ok(NamedModel {
            model,
            revision: None,
        });
    }
    let path = Path::new(name);
    let hub = match path.exists() {
        true => None,
        false => Name::parse(name)?,
    };
    let (model, revision) = match hub {
        None => (Model::open(path, options)?, None),
        Some(name) => {
            let snapshot = fetch(&name, reporting, interrupt)?;
            (
                Model::open(&snapshot.folder, options)?,
                Some(snapshot.commit),
            )
        }
    };
    for warning in model.warnings() {
        reporting.say(&format!("warning: {warning}"));
    }
    Ok(NamedModel { model, revision })
}

/// [`open_named`] with default options.
///
/// # Errors
/// As [`open_named`].
pub fn open_model(name: &str) -> Result<Model> {
    Ok(open_named(name, &OpenOptions::default(), Reporting::Human)?.model)
}

/// How often a download is asked whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// What a download reports to the thread that waits for it.
enum News {
    Received(String, u64, Option<u64>),
    Note(String),
    End(std::result::Result<Snapshot, clipood_hub::HubError>),
}

/// The files of a repository, with progress for each that has to be downloaded.
///
/// The download has a thread of its own: looking up a host or connecting to it cannot be stopped, so after an
/// interruption that thread is left behind. It ends at its next piece, for nobody listens any more.
fn fetch(name: &Name, reporting: Reporting, interrupt: &Interrupt) -> Result<Snapshot> {
    let options = HubOptions::from_env()?;
    let (sender, news) = channel();
    let wanted = name.clone();
    let download = move || {
        let end = resolve(&wanted, &options, &mut |event| {
            let told = match event {
                Event::Received(p) => News::Received(p.file.to_owned(), p.done, p.total),
                Event::Note(text) => News::Note(text.to_owned()),
            };
            sender.send(told).is_ok()
        });
        // Nobody waits for it after an interruption.
        let _ = sender.send(News::End(end));
    };
    let thread = std::thread::Builder::new().name("download".to_string());
    thread
        .spawn(download)
        .map_err(|source| PipelineError::File {
            path: name.to_string(),
            action: "cannot start the thread of the download",
            source,
        })?;
    let mut shown: Option<(String, u64, StageProgress)> = None;
    loop {
        interrupt.check()?;
        match news.recv_timeout(LOOK) {
            Ok(News::Received(file, done, total)) => {
                show(&mut shown, name, (file, done, total), reporting);
            }
            Ok(News::Note(text)) => reporting.say(&text),
            Ok(News::End(end)) => {
                if let Some((_, _, bar)) = shown {
                    bar.finish();
                }
                return Ok(end?);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PipelineError::Panicked {
                    stage: "fetch",
                    message: format!("the download of {name} ended without a result"),
                });
            }
        }
    }
}

/// Shows the progress of a file: its name, the bytes that are there and its size.
fn show(
    shown: &mut Option<(String, u64, StageProgress)>,
    name: &Name,
    (file, done, total): (String, u64, Option<u64>),
    reporting: Reporting,
) {
    let kib = done / 1024;
    match shown {
        Some((known, before, bar)) if *known == file => {
            bar.add(kib.saturating_sub(*before));
            *before = kib;
        }
        other => {
            let total = total.unwrap_or(done) / 1024;
            let mut bar = reporting.stage("fetch", "KiB", total);
            bar.note(&format!("{name}: {file}"));
            bar.add(kib);
            if let Some((_, _, bar)) = other.replace((file, kib, bar)) {
                bar.finish();
            }
        }
    }
}

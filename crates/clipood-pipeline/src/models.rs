//! Opening models by name: the embedded one, folders and files, repositories of the hub.

use std::path::Path;

use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::model::Model;
use clipood_hub::{HubOptions, Name, resolve};

use crate::error::Result;
use crate::hub::{Listener, download};
use crate::interrupt::Interrupt;
use crate::progress::Reporting;

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
            let (hub, wanted) = (HubOptions::from_env()?, name.clone());
            let work = move |listener: Listener<'_>| resolve(&wanted, &hub, listener);
            let snapshot = download(&name.to_string(), reporting, interrupt, work)?;
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

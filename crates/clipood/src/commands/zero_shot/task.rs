//! Images, classes, texts, detector and device: the options that `zero-shot` and `threshold` share.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clipood_clip::model::{Devices, Model};
use clipood_ood::{DetectorSpec, OodError};
use clipood_pipeline::{Classifier, PipelineError, PromptSet};

use super::super::args::{DataArgs, DeviceArgs};
use super::super::check_dtype;
use super::super::models::ModelArgs;
use super::super::prompt::text_features;
use super::texts::TextArgs;

/// Images, and the classes that they are compared with.
#[derive(clap::Args)]
pub struct LabelledArgs {
    /// Image files, or folders that are searched for them. Folders directly below a folder name the classes of
    /// their images, `_` and `-` read as spaces.
    #[arg(long, num_args = 1.., value_name = "PATH", conflicts_with = "dataset")]
    pub images: Vec<PathBuf>,
    /// A dataset by the name of its manifest, or one of the Hugging Face hub: hub:ORGANISATION/NAME, then @REVISION, :CONFIGURATION and :SPLIT where needed.
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Which of the dataset's images: train, val or test (default: val for a threshold, else test).
    #[arg(long, requires = "dataset")]
    pub split: Option<String>,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub texts: TextArgs,
}

/// Options that both commands take.
#[derive(clap::Args)]
pub struct Task {
    #[command(flatten)]
    pub(in super::super) model: ModelArgs,
    #[command(flatten)]
    pub(in super::super) labelled: LabelledArgs,
    /// Detector that scores how well an image fits any class (higher: better), as `kind[:key=value]...`; it may need
    /// texts only.
    #[arg(long, default_value = "mcm")]
    detector: String,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The opened model, devices and detector.
pub struct Opened {
    /// The model.
    pub model: Model,
    /// Where it runs.
    pub devices: Devices,
    /// The detector.
    pub detector: DetectorSpec,
    /// The texts of each class.
    pub texts: Vec<Vec<String>>,
    /// Classification and scores from the text features of the classes.
    pub classifier: Classifier,
}

impl Task {
    /// Opens the model and encodes the texts of `classes`, unless `prompt`, a file with its contents, has their features; the classifier returns
    /// the `top` most likely classes.
    pub fn open(
        &self,
        classes: &[String],
        top: usize,
        prompt: Option<(&Path, PromptSet)>,
    ) -> Result<Opened> {
        let devices = self.device.open()?;
        let usage = |e: OodError| PipelineError::Usage(format!("--detector: {e}"));
        let detector: DetectorSpec = self.detector.parse().map_err(usage)?;
        let texts = self.labelled.texts.class_texts(classes)?;
        let model = self.model.open_or("demo")?;
        check_dtype(&model, &devices)?;
        let features = match prompt {
            None => {
                let given = &self.labelled.texts;
                given.encode(&model, devices.first(), classes, &texts)?
            }
            Some((path, set)) => text_features(&set, path, model.config.embed_dim)?.to_vec(),
        };
        let classifier = Classifier::new(features, None, model.config.embed_dim, top, &detector)
            .map_err(|e| PipelineError::Usage(format!("--detector {}: {e}", self.detector)))?;
        Ok(Opened {
            model,
            devices,
            detector,
            texts,
            classifier,
        })
    }
}

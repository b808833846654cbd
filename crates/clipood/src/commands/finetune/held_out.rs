//! Zero-shot accuracy on images of known classes that are not trained on.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clipood_clip::model::{Devices, Model};
use clipood_data::Split;
use clipood_ood::DetectorSpec;
use clipood_pipeline::{Classifier, Engine, Tally, classify_files};

use super::super::args::DataArgs;
use super::super::images::{none_readable, report_unreadable};
use super::super::zero_shot::inputs::Inputs;
use super::super::zero_shot::task::LabelledArgs;
use super::super::zero_shot::texts::TextArgs;
use super::usage;

/// Options that name held-out images with their classes.
#[derive(clap::Args)]
pub struct HeldOutArgs {
    /// Images of known classes for the zero-shot accuracy before and after: a folder with a folder for each class, or a
    /// dataset by the name of its manifest (its test images) or of the hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    eval: Option<String>,
    /// Which images of that dataset instead: train, val or test.
    #[arg(long, value_name = "SPLIT", requires = "eval")]
    eval_split: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    texts: TextArgs,
}

/// Held-out images.
pub struct HeldOut {
    inputs: Inputs,
    asked: LabelledArgs,
    detector: DetectorSpec,
}

/// Shares of the images of a known class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Images that were classified and whose class is known.
    pub images: u64,
    /// Whose class is the most likely one.
    pub top1: f64,
    /// Whose class is among the five most likely ones.
    pub top5: f64,
}

impl HeldOut {
    /// Lists the images; `None` if none are asked for.
    ///
    /// # Errors
    /// As [`Inputs::gather`], and classes without images to compare.
    pub fn gather(args: HeldOutArgs) -> Result<Option<Self>> {
        let Some(eval) = args.eval else {
            return match args.texts.classes {
                Some(_) => Err(usage(
                    "--classes names those of --eval, which is missing".to_owned(),
                )),
                None => Ok(None),
            };
        };
        let is_folder = Path::new(&eval).is_dir();
        if is_folder && args.eval_split.is_some() {
            let problem = format!("--eval-split: --eval {eval} is a folder, which has no splits");
            return Err(usage(problem));
        }
        let (images, dataset) = match is_folder {
            true => (vec![PathBuf::from(eval)], None),
            false => (Vec::new(), Some(eval)),
        };
        let asked = LabelledArgs {
            images,
            dataset,
            split: args.eval_split,
            data: args.data,
            texts: args.texts,
        };
        let inputs = Inputs::gather(&asked, Split::Test, None)?;
        if inputs.labels.iter().all(Option::is_none) {
            return Err(usage(format!(
                "--eval: no image of {} is of a known class",
                inputs.source
            )));
        }
        Ok(Some(Self {
            inputs,
            asked,
            detector: "mcm".parse()?,
        }))
    }

    /// Description of where the images come from.
    pub fn source(&self) -> &str {
        &self.inputs.source
    }

    /// Classifies the images with the texts of the classes.
    ///
    /// # Errors
    /// A text that does not fit the model, a device that fails, no readable image of a known class.
    pub fn accuracy(&self, model: &Model, devices: &Devices) -> Result<Accuracy> {
        let (inputs, texts) = (&self.inputs, &self.asked.texts);
        let class_texts = texts.class_texts(&inputs.classes)?;
        let features = texts.encode(model, devices.first(), &inputs.classes, &class_texts)?;
        let dim = model.config.embed_dim;
        let classifier = Classifier::new(features, None, dim, 5, &self.detector)?;
        let engine = Engine::for_files(model, devices).spread(inputs.files.len());
        let mut tally = Tally::new(inputs.classes.len());
        classify_files(&engine, &inputs.files, &classifier, |file, outcome| {
            match outcome {
                Ok(image) => tally.add(&image.top, inputs.labels[file]),
                Err(reason) => report_unreadable(inputs.files[file].to_string(), &reason),
            }
            Ok(())
        })?;
        let (top1, top5) = tally
            .accuracy()
            .ok_or_else(|| none_readable(inputs.files.len()))?;
        Ok(Accuracy {
            images: tally.labelled,
            top1,
            top5,
        })
    }
}

//! [`Judge`]: the model, classes, detector and threshold of `clipood detect`, from a fitted file or from options.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clipood_clip::model::{Device, Devices, Model};
use clipood_core::shown;
use clipood_data::Source;
use clipood_ood::metrics::threshold_at_tpr;
use clipood_ood::{DetectorSpec, OodError};
use clipood_pipeline::{Classifier, Engine, PipelineError, classify_files};

use super::super::args::DeviceArgs;
use super::super::check_dtype;
use super::super::class_list::read_class_list;
use super::super::encode::read_texts;
use super::super::images::{none_readable, report_unreadable};
use super::super::models::ModelArgs;
use super::super::threshold::{self, Fitted};
use super::super::zero_shot::inputs::files_of;
use super::super::zero_shot::texts::TextArgs;

/// The detector where there is no threshold for another: softmax mass on the classes against texts for the unknown.
const AGAINST_UNKNOWN: &str = "neglabel";
/// Its threshold: at least as much mass on the classes as on the unknown.
const HALF: f64 = 0.5;
/// Texts for what belongs to no class.
const UNKNOWN: [&str; 4] = [
    "a photo of an unknown object.",
    "a photo of something else.",
    "a photo of a background without any object.",
    "an abstract pattern.",
];

/// Options that say what is in-distribution, and from which score on.
#[derive(clap::Args)]
pub struct JudgeArgs {
    /// Images with at least this score are in-distribution: a number, or a file of `clipood threshold`, which names
    /// model, classes, texts and detector. Without it and without --calibrate an image must fit the classes better than texts
    /// for the unknown.
    #[arg(long, value_name = "NUMBER|FILE", conflicts_with = "calibrate")]
    threshold: Option<String>,
    /// A folder of in-distribution images, kept out of any result, whose scores determine the threshold: it accepts 95% of
    /// them.
    #[arg(long, value_name = "DIR")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    texts: TextArgs,
    /// Detector that scores how well an image fits any class (higher: better), as `kind[:key=value]...`; it may need
    /// texts only [default: mcm with a threshold or --calibrate, else neglabel].
    #[arg(long, value_name = "SPEC")]
    detector: Option<String>,
    /// File with one text per line for what belongs to no class, for detectors with negative texts [default: four texts
    /// such as `a photo of an unknown object.`].
    #[arg(long, value_name = "FILE")]
    unknown: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
}

/// Everything that decides.
pub struct Judge {
    /// The model.
    pub model: Model,
    /// Where it runs.
    pub devices: Devices,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Classification and scores.
    pub classifier: Classifier,
    /// The detector.
    pub detector: DetectorSpec,
    /// Images with at least this score are in-distribution.
    pub threshold: f64,
    /// Where the threshold came from, in words.
    pub origin: String,
}

impl JudgeArgs {
    /// Opens the model, encodes the texts, and finds the threshold; the classifier returns the `top` most likely classes.
    ///
    /// # Errors
    /// Options that contradict each other, a file that cannot be read or was fitted with other weights, a detector that
    /// needs more than texts.
    pub fn open(&self, device: &DeviceArgs, top: usize) -> Result<Judge> {
        match &self.threshold {
            Some(text) if text.parse::<f64>().is_err() => self.fitted(Path::new(text), device, top),
            _ => self.free(device, top),
        }
    }

    /// From a file of `clipood threshold`.
    fn fitted(&self, path: &Path, device: &DeviceArgs, top: usize) -> Result<Judge> {
        let others = [
            ("--classes", self.texts.classes.is_some()),
            ("--descriptions", self.texts.descriptions.is_some()),
            ("--detector", self.detector.is_some()),
        ];
        if let Some((option, _)) = others.iter().find(|(_, given)| *given) {
            return usage(format!(
                "{option} stands beside --threshold {}, which names it already: leave one of them out",
                shown(path)
            ));
        }
        let fitted: Fitted = threshold::read(path)?;
        let file = shown(path);
        let devices = device.open_as(&fitted.dtype)?;
        let detector: DetectorSpec = fitted
            .detector
            .parse()
            .with_context(|| format!("{file}: detector"))?;
        let model = self.model.open_or(&fitted.model)?;
        if model.hash != fitted.weights_hash {
            return usage(format!(
                "{file} was fitted with weights {}, {} has {}: fit the threshold again",
                fitted.weights_hash,
                self.model.name_or(&fitted.model),
                model.hash
            ));
        }
        let features = model
            .text_encoder(devices.first())?
            .ensembles(&fitted.texts)
            .with_context(|| format!("{file}: texts"))?;
        let classifier = Classifier::new(features, None, model.config.embed_dim, top, &detector)
            .with_context(|| format!("{file}: detector {detector}"))?;
        Ok(Judge {
            model,
            devices,
            classes: fitted.classes,
            classifier,
            detector,
            threshold: fitted.threshold,
            origin: format!("fitted on {}", fitted.fitted_on),
        })
    }

    /// From options.
    fn free(&self, device: &DeviceArgs, top: usize) -> Result<Judge> {
        let Some(list) = &self.texts.classes else {
            return usage(
                "what is in-distribution? give --classes, or --threshold with a file of `clipood threshold`".to_owned(),
            );
        };
        let given: Option<f64> = self.threshold.as_ref().and_then(|text| text.parse().ok());
        if given.is_some_and(f64::is_nan) {
            return usage("--threshold: found NaN, expected a number".to_owned());
        }
        let has_threshold = given.is_some() || self.calibrate.is_some();
        if self.detector.is_some() && !has_threshold {
            return usage(
                "--detector needs a threshold for its scores: give --threshold NUMBER or --calibrate DIR".to_owned(),
            );
        }
        let spec = match &self.detector {
            Some(spec) => spec,
            None if has_threshold => "mcm",
            None => AGAINST_UNKNOWN,
        };
        let bad = |error: OodError| PipelineError::Usage(format!("--detector: {error}"));
        let detector: DetectorSpec = spec.parse().map_err(bad)?;
        let devices = device.open()?;
        let classes = read_class_list(list)?.names;
        let texts = self.texts.class_texts(&classes)?;
        let calibration = match &self.calibrate {
            Some(folder) => files_of(std::slice::from_ref(folder))?,
            None => Vec::new(),
        };
        let model = self.model.open_or("demo")?;
        check_dtype(&model, &devices)?;
        let first = devices.first();
        let features = self.texts.encode(&model, first, &classes, &texts)?;
        let negative = match detector.needs().negatives {
            Some(_) => Some(self.unknown(&model, first)?),
            None if self.unknown.is_some() => {
                return usage(format!("--unknown: {detector} uses no texts of no class"));
            }
            None => None,
        };
        let classifier = Classifier::new(
            features,
            negative.as_deref(),
            model.config.embed_dim,
            top,
            &detector,
        )
        .map_err(|error| PipelineError::Usage(format!("--detector {spec}: {error}")))?;
        let (threshold, origin) = match (given, &self.calibrate) {
            (Some(number), _) => (number, "given".to_owned()),
            (None, Some(folder)) => {
                let engine = Engine::for_files(&model, &devices);
                let (threshold, images) = calibrated(&engine, &calibration, &classifier)?;
                let origin = format!("calibrated on {images} images of {}", shown(folder));
                (threshold, origin)
            }
            (None, None) => (HALF, "texts for the unknown".to_owned()),
        };
        Ok(Judge {
            model,
            devices,
            classes,
            classifier,
            detector,
            threshold,
            origin,
        })
    }

    /// Normalised features of the texts of no class.
    fn unknown(&self, model: &Model, device: Device) -> Result<Vec<f32>> {
        let texts = match &self.unknown {
            Some(path) => read_texts(path)?,
            None => UNKNOWN.map(str::to_owned).to_vec(),
        };
        let each: Vec<Vec<String>> = texts.into_iter().map(|text| vec![text]).collect();
        model
            .text_encoder(device)?
            .ensembles(&each)
            .context("texts for the unknown")
    }
}

/// The threshold that accepts 95% of the images that can be read, and their number.
fn calibrated(
    engine: &Engine<'_>,
    files: &[PathBuf],
    classifier: &Classifier,
) -> Result<(f64, usize)> {
    let mut scores = Vec::with_capacity(files.len());
    let sources: Vec<Source> = files.iter().map(|path| Source::found(path)).collect();
    classify_files(engine, &sources, classifier, |number, outcome| {
        match outcome {
            Ok(found) => scores.push(found.score),
            Err(reason) => report_unreadable(&files[number], &reason),
        }
        Ok(())
    })?;
    if scores.is_empty() {
        return Err(none_readable(files.len()));
    }
    Ok((threshold_at_tpr(&scores, 0.95)?, scores.len()))
}

fn usage<T>(problem: String) -> Result<T> {
    Err(PipelineError::Usage(problem).into())
}

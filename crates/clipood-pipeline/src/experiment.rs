//! An [`Experiment`]: what to compute. The recipe with everything that it names, the model, and the number format and
//! backend; together they determine every result.

use clipood_clip::model::{Devices, Dtype, Model};
use clipood_core::{Fingerprint, FingerprintBuilder, Recipe, Resize};
use serde_json::{Value, json};

use crate::class_templates::with_class_templates;
use crate::columns::{Candidates, ScoreColumn, score_columns, stream_columns};
use crate::error::Result;
use crate::manifests::Manifests;
use crate::models::NamedModel;

/// Version of what the stages compute. A change that alters results raises it, and with it every fingerprint.
pub const RESULTS_VERSION: u32 = 1;

/// How the pixels of the evaluation view are computed, as a field of fingerprints.
const PREPROCESSING: &str = "rgb, pillow bicubic short side, centre crop";

/// Version of the decoders, as a field of fingerprints. A change that alters the pixels of an image raises it: 1, implied
/// where the field is absent, read JPEG with other rounding.
const DECODER: u32 = 2;

/// Version of the kernels that the towers use on a CPU, as a field of fingerprints. A change that alters the bits of features
/// raises it: 1, implied where the field is absent, used Burn's convolutions and other orders of sums; 2 summed convolutions of
/// 512 channels directly.
const CPU_KERNELS: u32 = 3;

/// What to compute: everything that determines the results of a run.
#[derive(Debug)]
pub struct Experiment {
    /// The recipe, overrides applied.
    pub recipe: Recipe,
    /// The datasets and word lists that the recipe names.
    pub manifests: Manifests,
    /// The columns of the score tables.
    pub columns: Vec<ScoreColumn>,
    /// The hyperparameters to select, with their candidates.
    pub selections: Vec<Candidates>,
    /// The columns of the stream tables: detectors that learn from the images they score.
    pub streams: Vec<ScoreColumn>,
    /// The hyperparameters of detectors of streams to select.
    pub stream_selections: Vec<Candidates>,
    /// The model.
    pub model: Model,
    /// Commit of the hub repository that the model is from; absent for local files.
    pub model_revision: Option<String>,
    /// Backend and number format of the model, as fields of fingerprints.
    pub numerics: Numerics,
    /// Fingerprint of all of these.
    pub fingerprint: Fingerprint,
}

/// Backend and number format, which determine the rounding of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numerics {
    /// `cpu`, `cuda-kernels`, `cuda` (Burn's operations on GPUs) or `simulated`.
    pub backend: &'static str,
    /// Number format of the towers.
    pub dtype: Dtype,
}

impl Numerics {
    /// Backend and number format of a list of devices.
    pub fn of(devices: &Devices) -> Self {
        Self {
            backend: devices.backend(),
            dtype: devices.dtype,
        }
    }

    /// Adds the version of the backend's kernels, where there is more than one.
    pub fn with_kernels(&self, fingerprint: FingerprintBuilder) -> FingerprintBuilder {
        match self.backend {
            "cpu" => fingerprint.field("kernels", &CPU_KERNELS),
            _ => fingerprint,
        }
    }
}

impl Experiment {
    /// Joins the parts and fingerprints them.
    ///
    /// # Errors
    /// A detector that cannot be read or does not fit the methods.
    pub fn new(
        recipe: Recipe,
        manifests: Manifests,
        model: NamedModel,
        numerics: Numerics,
    ) -> Result<Self> {
        let (columns, selections) = score_columns(&recipe)?;
        let (streams, stream_selections) = stream_columns(&recipe)?;
        let NamedModel { model, revision } = model;
        let mut fingerprint = FingerprintBuilder::new("run")
            .field("results", &RESULTS_VERSION)
            .field("recipe", &recipe)
            .field("id", &manifests.id)
            .field("ood", &manifests.ood)
            .field("validation_ood", &manifests.validation_ood)
            .field("model", &model.hash)
            .field("backend", &numerics.backend)
            .field("decoder", &DECODER);
        fingerprint = numerics.with_kernels(fingerprint);
        // Fields that were added later enter only if they differ from the value that earlier runs implied.
        if numerics.dtype != Dtype::F32 {
            fingerprint = fingerprint.field("dtype", &numerics.dtype.name());
        }
        if let Some(revision) = &revision {
            fingerprint = fingerprint.field("model_revision", revision);
        }
        if !manifests.words.is_empty() {
            fingerprint = fingerprint.field("words", &manifests.words);
        }
        if !manifests.splits.is_empty() {
            fingerprint = fingerprint.field("splits", &manifests.splits);
        }
        fingerprint = with_class_templates(&recipe, &columns, fingerprint)?;
        Ok(Self {
            fingerprint: fingerprint.finish()?,
            recipe,
            manifests,
            columns,
            selections,
            streams,
            stream_selections,
            model,
            model_revision: revision,
            numerics,
        })
    }

    /// The columns of the score and stream tables.
    pub fn all_columns(&self) -> impl Iterator<Item = &ScoreColumn> {
        self.columns.iter().chain(&self.streams)
    }

    /// Seeds of the orders of arrival of the streams.
    pub fn stream_orders(&self) -> Vec<u64> {
        self.recipe.streams.clone().unwrap_or_default().orders
    }

    /// The configuration that `run.json` stores and from which a run directory is opened again.
    pub fn config(&self) -> Value {
        let mut config = json!({
            "results_version": RESULTS_VERSION,
            "recipe": self.recipe,
            "manifests": self.manifests,
            "model_hash": self.model.hash,
            "backend": self.numerics.backend,
            "fingerprint": self.fingerprint,
        });
        if self.numerics.dtype != Dtype::F32 {
            config["dtype"] = json!(self.numerics.dtype.name());
        }
        if let Some(revision) = &self.model_revision {
            config["model_revision"] = json!(revision);
        }
        config
    }

    /// Everything that determines the features of an image view.
    pub fn feature_inputs(&self) -> FingerprintBuilder {
        let inputs = FingerprintBuilder::new("features")
            .field("results", &RESULTS_VERSION)
            .field("model", &self.model.hash)
            .field("preprocessing", &PREPROCESSING)
            .field("dtype", &self.numerics.dtype.name())
            .field("backend", &self.numerics.backend)
            .field("decoder", &DECODER);
        let inputs = self.numerics.with_kernels(inputs);
        match self.recipe.data.resize {
            Resize::Pillow12 => inputs,
            resize @ Resize::Pillow13 => inputs.field("resize", &resize.name()),
        }
    }

    /// The description of the preprocessing in tables.
    pub fn preprocessing(&self) -> String {
        format!("{PREPROCESSING}, {0}x{0}", self.model.config.image.size)
    }

    /// Width of a feature.
    pub fn dim(&self) -> usize {
        self.model.config.embed_dim
    }

    /// Number of patches per image.
    pub fn patches(&self) -> usize {
        self.model.config.image.positions()
    }

    /// Whether a detector of the recipe scores patches.
    ///
    /// # Errors
    /// None for an experiment that was opened.
    pub fn detectors_use_patches(&self) -> Result<bool> {
        for column in &self.columns {
            for method in &self.recipe.methods {
                if column.spec(*method)?.is_some_and(|s| s.needs().patches) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Rows per shard, so that its global and local features take about `engine.shard_bytes` together.
    pub fn shard_rows(&self) -> usize {
        let row = self.dim() * (4 + 2 * self.patches());
        (self.recipe.engine.shard_bytes as usize / row).max(1)
    }
}

//! The file of a prompt set: class list, text features, and the context if it was trained; or the weights of a linear
//! probe.

use std::collections::HashMap;

use bytes::Bytes;
use clipood_clip::prompt::PromptState;
use clipood_clip::safetensors_file::{ArrayFile, ArrayFileError, NamedArray, to_bytes};
use clipood_ood::LinearProbe;
use clipood_store::{Ledger, PartFooter, Unit, blank_seal, stamp};

use crate::error::{PipelineError, Result};
use crate::tables::SEAL;

/// The text features of one method, number of shots and seed, or the linear probe instead.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptSet {
    /// Fingerprint of all its inputs.
    pub fingerprint: String,
    /// Class names, by label.
    pub classes: Vec<String>,
    /// Normalised text features `[classes, D]`; empty for a probe.
    pub text: Vec<f32>,
    /// Context and momentum after the last epoch; `None` for hand-written prompts and probes.
    pub state: Option<PromptState>,
    /// The linear classifier of raw image features that replaces texts.
    pub probe: Option<LinearProbe>,
    /// Learned texts of what the classes are not.
    pub negatives: Option<NegativePrompts>,
}

/// Learned negative prompts of a class list.
#[derive(Debug, Clone, PartialEq)]
pub struct NegativePrompts {
    /// Prompts per class.
    pub per_class: usize,
    /// Normalised text features `[per class, classes, D]`.
    pub text: Vec<f32>,
    /// Their contexts, one after the other, each of the shape of the positive one.
    pub context: Vec<f32>,
}

const FINGERPRINT: &str = "clipood.fingerprint";
const CLASSES: &str = "clipood.classes";
const EPOCH: &str = "clipood.epoch";
const STEP: &str = "clipood.step";
const PROBE_STEPS: &str = "clipood.probe_steps";
const PROBE_CONVERGED: &str = "clipood.probe_converged";
const NEGATIVES: &str = "clipood.negatives_per_class";

impl PromptSet {
    /// The matrix with one row per class, `[classes, D]`: text features, or the weights of the probe.
    pub fn class_rows(&self) -> &[f32] {
        match &self.probe {
            Some(probe) => &probe.weights,
            None => &self.text,
        }
    }

    /// The set as safetensors: `text` `[classes, D]`, and `context` and `momentum` `[values]` of a trained one; of a
    /// linear probe `weights` `[classes, D]` and `biases` `[classes]`; with negative prompts also `negative_text` `[per class,
    /// classes, D]` and `negative_context` `[values]`.
    ///
    /// # Errors
    /// The serializer refused.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let fail = |e: String| PipelineError::Inconsistent(format!("prompt set: {e}"));
        let mut metadata = HashMap::from([
            (FINGERPRINT.to_string(), self.fingerprint.clone()),
            (
                CLASSES.to_string(),
                serde_json::to_string(&self.classes).map_err(|e| fail(e.to_string()))?,
            ),
            (SEAL.to_string(), blank_seal()),
        ]);
        let width = self.class_rows().len() / self.classes.len().max(1);
        let shape = vec![self.classes.len(), width];
        let name = match &self.probe {
            Some(_) => "weights",
            None => "text",
        };
        let mut arrays = vec![NamedArray::f32(name, shape, self.class_rows())];
        if let Some(probe) = &self.probe {
            metadata.insert(PROBE_STEPS.to_string(), probe.steps.to_string());
            metadata.insert(PROBE_CONVERGED.to_string(), probe.converged.to_string());
            let shape = vec![probe.biases.len()];
            arrays.push(NamedArray::f32("biases", shape, &probe.biases));
        }
        if let Some(state) = &self.state {
            metadata.insert(EPOCH.to_string(), state.epoch.to_string());
            metadata.insert(STEP.to_string(), state.step.to_string());
            for (name, values) in [("context", &state.context), ("momentum", &state.momentum)] {
                arrays.push(NamedArray::f32(name, vec![values.len()], values));
            }
        }
        if let Some(negatives) = &self.negatives {
            let per_class = negatives.per_class;
            metadata.insert(NEGATIVES.to_string(), per_class.to_string());
            let shape = vec![per_class, self.classes.len(), width];
            arrays.push(NamedArray::f32("negative_text", shape, &negatives.text));
            let shape = vec![negatives.context.len()];
            let context = NamedArray::f32("negative_context", shape, &negatives.context);
            arrays.push(context);
        }
        let mut bytes = to_bytes(&arrays, metadata).map_err(|e| fail(e.to_string()))?;
        stamp(&mut bytes);
        Ok(bytes)
    }

    /// Reads what [`PromptSet::to_bytes`] wrote; `path` names it in errors.
    ///
    /// # Errors
    /// The file is damaged or of another kind.
    pub fn from_bytes(bytes: &[u8], path: &str) -> Result<Self> {
        let fail = |e: String| PipelineError::Inconsistent(format!("{path}: {e}"));
        let broken = |e: ArrayFileError| fail(e.to_string());
        let file = ArrayFile::read(bytes).map_err(broken)?;
        let entry = |key: &str| file.entry(key).map_err(broken);
        let floats = |name: &str| file.f32(name).map_err(broken);
        let number = |key: &str| file.count(key).map_err(broken);
        let classes: Vec<String> =
            serde_json::from_str(entry(CLASSES)?).map_err(|e| fail(format!("`{CLASSES}`: {e}")))?;
        let state = match file.has_entry(EPOCH) {
            false => None,
            true => Some(PromptState {
                context: floats("context")?,
                momentum: floats("momentum")?,
                epoch: number(EPOCH)?,
                step: number(STEP)?,
                ..PromptState::default()
            }),
        };
        let probe = match file.has_entry(PROBE_STEPS) {
            false => None,
            true => Some(LinearProbe {
                weights: floats("weights")?,
                biases: floats("biases")?,
                steps: number(PROBE_STEPS)?,
                converged: entry(PROBE_CONVERGED)? == "true",
            }),
        };
        if let Some(probe) = &probe
            && probe.biases.len() != classes.len()
        {
            let found = probe.biases.len();
            return Err(fail(format!(
                "{found} biases for {} classes",
                classes.len()
            )));
        }
        let negatives = match file.has_entry(NEGATIVES) {
            false => None,
            true => Some(NegativePrompts {
                per_class: number(NEGATIVES)?,
                text: floats("negative_text")?,
                context: floats("negative_context")?,
            }),
        };
        let set = Self {
            fingerprint: entry(FINGERPRINT)?.to_string(),
            text: match &probe {
                Some(_) => Vec::new(),
                None => floats("text")?,
            },
            classes,
            state,
            probe,
            negatives,
        };
        let (values, count) = (set.class_rows().len(), set.classes.len());
        if count == 0 || values == 0 || values % count != 0 {
            return Err(fail(format!(
                "{values} values are not one row for each of {count} classes"
            )));
        }
        if let Some(negatives) = &set.negatives
            && (negatives.per_class == 0
                || Some(negatives.text.len()) != values.checked_mul(negatives.per_class))
        {
            return Err(fail(format!(
                "{} values of negative texts for {} prompts per class and {values} values of the classes",
                negatives.text.len(),
                negatives.per_class
            )));
        }
        Ok(set)
    }
}

/// Path of a unit's prompt set, relative to the store of prompts.
pub fn prompt_path(unit: &Unit) -> String {
    format!("{}/prompt.safetensors", unit.fingerprint)
}

/// Reads a prompt set that was committed in `stage` of `ledger`.
///
/// # Errors
/// A file that is missing or damaged.
pub fn read_prompt(ledger: &Ledger, stage: &str, unit: &Unit) -> Result<PromptSet> {
    let path = prompt_path(unit);
    let bytes = ledger.read_part(stage, unit, &path)?;
    PromptSet::from_bytes(&bytes, &ledger.store().display(&path))
}

/// Reads what the commit protocol needs to know about a prompt file.
pub fn prompt_footer(bytes: &Bytes) -> Option<PartFooter> {
    let set = PromptSet::from_bytes(bytes, "prompt set").ok()?;
    Some(PartFooter {
        fingerprint: set.fingerprint,
        rows: set.classes.len() as u64,
        quarantined: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let trained = PromptSet {
            fingerprint: "0123456789abcdef".into(),
            classes: vec!["star".into(), "fish".into()],
            text: vec![1.0, 0.0, 0.6, 0.8],
            state: Some(PromptState {
                context: vec![0.5; 6],
                momentum: vec![-0.25; 6],
                epoch: 3,
                step: 12,
                ..PromptState::default()
            }),
            probe: None,
            negatives: None,
        };
        let with_negatives = PromptSet {
            negatives: Some(NegativePrompts {
                per_class: 3,
                text: vec![0.5; 12],
                context: vec![0.25; 18],
            }),
            ..trained.clone()
        };
        let written = PromptSet {
            state: None,
            ..trained.clone()
        };
        let probe = PromptSet {
            text: Vec::new(),
            probe: Some(LinearProbe {
                weights: vec![2.0, -1.0, 0.5, 3.0],
                biases: vec![0.25, -0.25],
                steps: 7,
                converged: true,
            }),
            ..written.clone()
        };
        for set in [trained, with_negatives, written, probe] {
            let bytes = set.to_bytes().unwrap();
            assert_eq!(PromptSet::from_bytes(&bytes, "here").unwrap(), set);
            let cut = PromptSet::from_bytes(&bytes[..bytes.len() - 3], "here");
            assert!(cut.unwrap_err().to_string().starts_with("here: "));
        }
    }

    #[test]
    fn text_features_that_are_not_a_row_for_each_class_are_refused() {
        for (classes, values) in [
            (r#"["star", "fish"]"#, 3),
            (r#"["star", "fish"]"#, 0),
            ("[]", 4),
        ] {
            let text = NamedArray::f32("text", vec![values], &vec![1.0; values]);
            let metadata = [
                (FINGERPRINT, "0123456789abcdef".to_owned()),
                (CLASSES, classes.to_owned()),
            ];
            let bytes = to_bytes(&[text], metadata).unwrap();
            let message = PromptSet::from_bytes(&bytes, "here")
                .unwrap_err()
                .to_string();
            let expected = format!("here: {values} values are not one row for each of ");
            assert!(message.starts_with(&expected), "{message}");
        }
    }

    #[test]
    fn negative_texts_of_another_size_are_refused() {
        let set = PromptSet {
            fingerprint: "0123456789abcdef".into(),
            classes: vec!["star".into(), "fish".into()],
            text: vec![1.0, 0.0, 0.6, 0.8],
            state: None,
            probe: None,
            negatives: Some(NegativePrompts {
                per_class: 2,
                text: vec![0.5; 8],
                context: Vec::new(),
            }),
        };
        let bytes = set.to_bytes().unwrap();
        assert_eq!(PromptSet::from_bytes(&bytes, "here").unwrap(), set);
        for wrong in ["0", "3"] {
            let text = NamedArray::f32("text", vec![2, 2], &set.text);
            let negatives = NamedArray::f32("negative_text", vec![2, 2, 2], &[0.5; 8]);
            let context = NamedArray::f32("negative_context", vec![0], &[]);
            let metadata = [
                (FINGERPRINT, "0123456789abcdef".to_owned()),
                (CLASSES, r#"["star", "fish"]"#.to_owned()),
                (NEGATIVES, wrong.to_owned()),
            ];
            let bytes = to_bytes(&[text, negatives, context], metadata).unwrap();
            let error = PromptSet::from_bytes(&bytes, "here").unwrap_err();
            assert!(
                error.to_string().contains("8 values of negative texts"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_probe_without_a_bias_for_every_class_is_refused() {
        let set = PromptSet {
            fingerprint: "0123456789abcdef".into(),
            classes: vec!["star".into(), "fish".into()],
            text: Vec::new(),
            state: None,
            probe: Some(LinearProbe {
                weights: vec![2.0, -1.0, 0.5, 3.0],
                biases: vec![0.25],
                steps: 7,
                converged: false,
            }),
            negatives: None,
        };
        let error = PromptSet::from_bytes(&set.to_bytes().unwrap(), "here").unwrap_err();
        assert_eq!(error.to_string(), "here: 1 biases for 2 classes");
    }
}

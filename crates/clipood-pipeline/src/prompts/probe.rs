//! Fits the linear probes: logistic regression on the evaluation views of the shots, before normalisation.

use clipood_core::Recipe;
use clipood_ood::{LinearProbeOptions, Matrix, fit_linear_probe};
use clipood_store::Unit;

use super::data::{name_losses, shot_features};
use super::file::PromptSet;
use super::stage::PromptKey;
use crate::error::{PipelineError, Result};
use crate::extract::FeatureIndex;
use crate::job::Job;
use crate::plan::Plan;

/// The recipe's options of linear probes.
pub fn options_of(recipe: &Recipe) -> LinearProbeOptions {
    let section = recipe.linear_probe.unwrap_or_default();
    LinearProbeOptions {
        c: section.c,
        max_iter: section.max_iter,
    }
}

/// Fits the probe of `key`, and says in a sentence how that went.
///
/// # Errors
/// Features that cannot be read, or a class that has lost all its images.
pub fn linear_probe(
    job: &Job,
    plan: &Plan,
    index: &FeatureIndex,
    key: &PromptKey,
    unit: &Unit,
) -> Result<(PromptSet, String)> {
    let name = key.name();
    let (Some(shots), Some(seed)) = (key.shots, key.seed) else {
        return Err(PipelineError::Inconsistent(format!(
            "linear probe {name} is fitted without shots"
        )));
    };
    let (features, labels) = shot_features(job, plan, index, seed, shots)?;
    name_losses(job, plan, seed, shots, &labels)?;
    let dim = job.model.config.embed_dim;
    let features = Matrix::new("shots", &features, labels.len(), dim)?;
    let options = options_of(&job.recipe);
    let probe = fit_linear_probe(&features, &labels, plan.classes.len(), &options)?;
    let note = match probe.converged {
        true => format!("{name}: minimum after {} steps", probe.steps),
        false => format!(
            "{name}: stopped after {} steps, before its minimum; raise linear_probe.max_iter",
            probe.steps
        ),
    };
    let set = PromptSet {
        fingerprint: unit.fingerprint.clone(),
        classes: plan.classes.clone(),
        text: Vec::new(),
        state: None,
        probe: Some(probe),
    };
    Ok((set, note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_recipes_are_those_of_the_fit() {
        let text = "name = \"r\"\nmodel = \"demo\"\nmethods = [\"linear-probe\"]\nshots = [1]\nseeds = [1]\n\
                    detectors = [\"msp\"]\n[data]\nid = \"a\"\nood = [\"b\"]\n";
        let recipe = Recipe::parse(text, "r.toml").unwrap();
        assert_eq!(options_of(&recipe), LinearProbeOptions::default());
        let recipe = Recipe::parse(&format!("{text}[linear_probe]\nc = 2\n"), "r.toml").unwrap();
        let options = options_of(&recipe);
        assert_eq!((options.c, options.max_iter), (2.0, 1000));
    }
}

//! Linear probes: logistic regression on the evaluation views of the shots, before normalisation.

use clipood_core::Recipe;
use clipood_ood::{LinearProbeOptions, Matrix, fit_linear_probe};
use serde::Serialize;

use super::work::Work;
use crate::error::Result;
use crate::prompts::file::PromptSet;

/// Everything that determines a probe besides model, classes and images. The fit uses no random numbers: the seed only
/// selects the images, and seeds that select the same images share a probe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProbeFit {
    /// Inverse of the strength of the L2 term, as scikit-learn's `C`.
    pub c: f64,
    /// Largest number of L-BFGS steps.
    pub max_iter: usize,
}

impl ProbeFit {
    /// The specification in a recipe.
    pub fn of(recipe: &Recipe) -> Self {
        let section = recipe.linear_probe.unwrap_or_default();
        Self {
            c: section.c,
            max_iter: section.max_iter,
        }
    }

    fn options(&self) -> LinearProbeOptions {
        LinearProbeOptions {
            c: self.c,
            max_iter: self.max_iter,
        }
    }

    /// Fits the probe on image features `[n, dim]` and their labels.
    ///
    /// # Errors
    /// Features that are not finite, or fewer than two classes.
    pub fn make(
        &self,
        work: &Work<'_>,
        features: &Matrix<'_>,
        labels: &[u32],
    ) -> Result<PromptSet> {
        let probe = fit_linear_probe(features, labels, work.classes.len(), &self.options())?;
        work.note(&match probe.converged {
            true => format!("minimum after {} steps", probe.steps),
            false => format!(
                "stopped after {} steps, before its minimum; raise linear_probe.max_iter",
                probe.steps
            ),
        });
        work.add(1);
        Ok(PromptSet {
            fingerprint: work.unit.fingerprint.clone(),
            classes: work.classes.to_vec(),
            text: Vec::new(),
            state: None,
            probe: Some(probe),
            negatives: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_recipes_are_those_of_the_fit() {
        let text = "name = \"r\"\nmodel = \"demo\"\nmethods = [\"linear-probe\"]\nshots = [1]\nseeds = [1]\n\
                    detectors = [\"msp\"]\n[data]\nid = \"a\"\nood = [\"b\"]\n";
        let recipe = Recipe::parse(text, "r.toml").unwrap();
        assert_eq!(
            ProbeFit::of(&recipe).options(),
            LinearProbeOptions::default()
        );
        let recipe = Recipe::parse(&format!("{text}[linear_probe]\nc = 2\n"), "r.toml").unwrap();
        let options = ProbeFit::of(&recipe).options();
        assert_eq!((options.c, options.max_iter), (2.0, 1000));
    }
}

//! The trainings of a run: loss and accuracy by epoch, and the words nearest to the learned vectors.

use super::bounds::{TRAININGS, VECTORS};
use super::figures::curves::Line;
use crate::error::Result;
use crate::job::Job;
use crate::places::Shelf;
use crate::planned::Planned;
use crate::prompts::file::read_prompt;
use crate::prompts::trainers::PlannedPrompt;
use crate::prompts::words::nearest_tokens;
use crate::stages::train::TRAIN;
use crate::tables::read_train_log;

/// What is known about the trainings.
#[derive(Debug, Clone, Default)]
pub struct Trainings {
    /// Mean loss by epoch, one line per prompt set.
    pub loss: Vec<Line>,
    /// Accuracy on the training views by epoch.
    pub accuracy: Vec<Line>,
    /// For each prompt set, the tokens nearest to each vector of its context.
    pub words: Vec<(String, Vec<Vec<String>>)>,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// Tokens named for each vector.
const TOKENS: usize = 3;

/// The trainings to show: of each method with a trained context the largest number of shots with the first seed.
fn shown(planned: &Planned) -> Vec<&PlannedPrompt> {
    let mut shown: Vec<&PlannedPrompt> = Vec::new();
    for prompt in planned
        .prompts
        .iter()
        .filter(|p| p.key.method.trains_prompt())
    {
        match shown
            .iter_mut()
            .find(|other| other.key.method == prompt.key.method)
        {
            Some(other) if prompt.key.shots > other.key.shots => *other = prompt,
            Some(_) => {}
            None => shown.push(prompt),
        }
    }
    shown.truncate(TRAININGS);
    shown
}

/// Reads the trainings that are done.
///
/// # Errors
/// A prompt set that is damaged.
pub fn trainings(job: &Job, planned: &Planned) -> Result<Trainings> {
    let mut all = Trainings::default();
    let ledger = job.places.ledger(Shelf::Prompts);
    for prompt in shown(planned) {
        if !ledger.is_done(TRAIN, &prompt.unit)? {
            continue;
        }
        let name = prompt.key.name();
        let path = format!("{}/train_log.parquet", prompt.unit.fingerprint);
        let log = match ledger.store().get(&path)? {
            Some(bytes) => read_train_log(bytes, &path).map_err(|e| e.to_string()),
            None => Err(format!("{path} is missing")),
        };
        match log {
            Err(problem) => all
                .problems
                .push(format!("training log of {name}: {problem}")),
            Ok(log) => {
                let line = |figure: fn(&crate::tables::TrainLogRow) -> f64| Line {
                    name: name.clone(),
                    points: log
                        .iter()
                        .map(|row| (row.epoch as f64, figure(row)))
                        .collect(),
                };
                all.loss.push(line(|row| row.loss));
                all.accuracy.push(line(|row| 100.0 * row.accuracy));
            }
        }
        let set = read_prompt(ledger, TRAIN, &prompt.unit)?;
        if let Some(state) = &set.state {
            let width = job.experiment.model.config.text.width;
            let context = &state.context[..state.context.len().min(VECTORS * width)];
            match nearest_tokens(&job.experiment.model, context, TOKENS) {
                Ok(near) => {
                    let names = near
                        .into_iter()
                        .map(|tokens| tokens.into_iter().map(|(token, _)| token).collect());
                    all.words.push((name, names.collect()));
                }
                Err(error) => all.problems.push(format!("words of {name}: {error}")),
            }
        }
    }
    Ok(all)
}

//! The sections of the page of a run. Every number comes from the tables of the run, the plan, or the store.

mod about;
mod comparisons;
mod data;
mod patches;
mod results;
mod scores;

use super::headline::verdict;
use super::page::{Page, Section};
use super::scored::{PromptScores, prompt_scores};
use crate::error::Result;
use crate::job::Job;
use crate::metrics::{DUAL_PATTERN, Metrics};
use crate::planned::Planned;
use crate::prompts::trainers::PlannedPrompt;
use crate::status::status;

/// The page of a run, finished or not.
///
/// # Errors
/// Tables, features or prompts that are damaged.
pub fn run_page(job: &Job, metrics: Option<&Metrics>) -> Result<Page> {
    let recipe = &job.experiment.recipe;
    let mut page = Page {
        title: recipe.name.clone(),
        subtitle: format!(
            "Model {}, run {}. Figures in percent; ID is the positive class; FPR95 at the threshold whose recall is nearest to 95%.",
            recipe.model,
            job.experiment.fingerprint.short()
        ),
        ..Page::default()
    };
    let planned = Planned::read(job)?;
    let Some(planned) = planned else {
        page.verdict =
            "This run has no plan yet: no image has been listed, and there is nothing to show."
                .to_string();
        page.sections.push(about::provenance(job)?);
        return Ok(page);
    };
    match metrics {
        Some(metrics) => {
            page.verdict = verdict(metrics)
                .unwrap_or_else(|| "The tables of this run have no rows.".to_string());
            measured(job, &planned, metrics, &mut page)?;
        }
        None => {
            page.verdict = "This run is not finished, so it has no metrics yet. What is missing is listed below; the rest is shown.".to_string();
            page.sections.push(about::progress(&status(job)?));
        }
    }
    page.sections.push(data::classes(&planned));
    if metrics.is_some() {
        page.sections.push(data::map(job, &planned)?);
    }
    page.sections.extend(data::training(job, &planned)?);
    page.sections.push(data::account(job, &planned)?);
    page.sections.push(about::definitions(job));
    page.sections.push(about::provenance(job)?);
    Ok(page)
}

/// The sections about metrics and scores.
fn measured(job: &Job, planned: &Planned, metrics: &Metrics, page: &mut Page) -> Result<()> {
    let badges = results::Badges::of(job);
    page.sections.push(results::results(job, metrics, &badges)?);
    let lines = compared(job, planned, metrics)?;
    page.sections
        .push(comparisons::comparisons(job, metrics, &lines)?);
    page.sections.extend(results::shots(metrics));
    let focus = focus(metrics, &lines);
    page.sections
        .extend(scores::sections(job, planned, metrics, focus));
    page.sections
        .push(patches::patches(job, planned, &lines, focus)?);
    page.sections.push(results::everything(metrics)?);
    Ok(())
}

/// The scores that are compared with each other and drawn: of every method the prompt set with the most shots and the
/// first seed, under the detector of its headline.
fn compared(job: &Job, planned: &Planned, metrics: &Metrics) -> Result<Vec<PromptScores>> {
    let mut shown: Vec<&PlannedPrompt> = Vec::new();
    for prompt in &planned.prompts {
        match shown
            .iter_mut()
            .find(|other| other.key.method == prompt.key.method)
        {
            Some(other) if prompt.key.shots > other.key.shots => *other = prompt,
            Some(_) => {}
            None => shown.push(prompt),
        }
    }
    shown.truncate(super::bounds::COMPARED);
    let headlines = super::headline::headlines(metrics, None);
    let mut all = Vec::new();
    for prompt in shown {
        let method = prompt.key.method.to_string();
        let shots = prompt.key.shots.map(|s| s as u32);
        let own = headlines
            .iter()
            .find(|h| h.row.method == method && h.row.shots == shots);
        // The fused score is no column; its base is.
        let own = own
            .map(|h| h.row.detector.as_str())
            .filter(|name| *name != DUAL_PATTERN);
        let columns = job
            .experiment
            .columns
            .iter()
            .map(|column| column.name.as_str());
        for detector in own.into_iter().chain(columns) {
            if let Some(found) = prompt_scores(job, planned, prompt, detector)? {
                all.push(found);
                break;
            }
        }
    }
    Ok(all)
}

/// The prompt set whose scores are drawn: that of the method with the largest AUROC.
fn focus<'a>(metrics: &Metrics, lines: &'a [PromptScores]) -> Option<&'a PromptScores> {
    let auroc = |line: &PromptScores| {
        let mut rows = metrics.ood.iter();
        let row = rows.find(|row| {
            row.prompt == line.prompt
                && row.detector == line.detector
                && row.ood_dataset == crate::metrics::AVERAGE
                && row.selection == "fixed"
        });
        row.map_or(f64::NEG_INFINITY, |row| row.auroc)
    };
    lines.iter().max_by(|a, b| auroc(a).total_cmp(&auroc(b)))
}

/// A section that holds nothing but the reason why.
fn missing(id: &str, title: &str, reason: impl Into<String>) -> Section {
    let mut section = Section::new(id, title);
    section
        .blocks
        .push(super::page::Block::Missing(reason.into()));
    section
}

//! Whether every text of a run fits the text tower, before any image is read.

use clipood_clip::tokenizer::Tokenizer;
use clipood_core::{DatasetManifest, Method};

use crate::error::{PipelineError, Result};
use crate::experiment::Experiment;
use crate::negative::negative_section;

/// Letters of a text that a message shows.
const SHOWN: usize = 80;

/// Checks the class names in every template and behind every learned context, and the texts of no class.
///
/// # Errors
/// [`PipelineError::Usage`] for the first text that is too long, with the class and the place that it is named at.
pub(super) fn check_texts(experiment: &Experiment, classes: &[String]) -> Result<()> {
    let lengths = Lengths {
        tokenizer: Tokenizer::new(),
        context: experiment.model.config.text.context,
    };
    let recipe = &experiment.recipe;
    let class = |name: &str| class_place(&experiment.manifests.id, name);
    if recipe.methods.contains(&Method::ZeroShot) {
        for template in recipe.prompt.templates.templates() {
            for name in classes {
                let text = template.replace("{}", name);
                lengths.check(&text, || {
                    format!("{} in the template `{template}`", class(name))
                })?;
            }
        }
    }
    if recipe.methods.iter().any(|method| method.trains_prompt()) {
        let vectors = match &recipe.prompt.ctx_init {
            Some(words) => lengths.tokens(&words.replace('_', " ")),
            None => recipe.prompt.n_ctx,
        };
        if vectors == 0 {
            return Err(PipelineError::Usage(
                "prompt.ctx_init: found no token, allowed: at least one".to_string(),
            ));
        }
        for name in classes {
            // As `PromptLearner` puts it together, with a token at each end.
            let tokens = lengths.tokens(&format!("{}.", name.replace('_', " "))) + vectors + 2;
            lengths.compare(tokens, || {
                format!("{} behind {vectors} context vectors", class(name))
            })?;
        }
    }
    let Some(section) = negative_section(experiment)? else {
        return Ok(());
    };
    for list in section.lists.iter().chain(&section.imagined) {
        let own = experiment.manifests.words.iter();
        let words = own
            .filter(|words| words.name == list.words)
            .flat_map(|w| &w.words);
        let place = |what: String| format!("{what} in the template `{}`", list.template);
        for name in classes {
            let text = list.text(name);
            lengths.check(&text, || place(class(name)))?;
        }
        for word in words {
            let text = list.text(word);
            lengths.check(&text, || {
                place(format!(
                    "word list `{}`: word `{}`",
                    list.words,
                    shown(word)
                ))
            })?;
        }
    }
    for text in &section.unknown {
        lengths.check(text, || {
            format!("negative_labels.unknown: `{}`", shown(text))
        })?;
    }
    Ok(())
}

/// A class with the place that it is named at.
fn class_place(manifest: &DatasetManifest, name: &str) -> String {
    let key = manifest
        .class_names
        .iter()
        .find(|(_, other)| *other == name);
    let place = match key {
        Some((folder, _)) => format!("manifest key `class_names.{}`", shown(folder)),
        None => "named as its folder".to_string(),
    };
    let name = shown(name);
    format!("dataset `{}`: class `{name}` ({place})", manifest.name)
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Counts tokens.
struct Lengths {
    tokenizer: Tokenizer,
    /// Tokens of a full context.
    context: usize,
}

impl Lengths {
    fn tokens(&self, text: &str) -> usize {
        self.tokenizer.encode(text).len()
    }

    /// Checks a text that the text tower reads alone.
    fn check(&self, text: &str, place: impl Fn() -> String) -> Result<()> {
        // A token is at least one byte, and cleaning a text does not double its bytes; most texts are short.
        if 2 * text.len() + 2 <= self.context {
            return Ok(());
        }
        self.compare(self.tokens(text) + 2, place)
    }

    fn compare(&self, tokens: usize, place: impl Fn() -> String) -> Result<()> {
        if tokens <= self.context {
            return Ok(());
        }
        Err(PipelineError::Usage(format!(
            "{} takes {tokens} tokens, allowed: {}",
            place(),
            self.context
        )))
    }
}

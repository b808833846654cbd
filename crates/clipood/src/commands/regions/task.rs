//! What the patches of images are compared with: classes with their texts, the label, and LoCoOp's K.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clipood_clip::model::{Device, Model};
use clipood_core::{distinct_names, first_of, nearest};
use clipood_pipeline::regions::Regions;
use clipood_pipeline::{PipelineError, PromptSet, RegionsPage};

use super::super::class_list::read_class_list;
use super::super::prompt::{self, text_features};
use super::super::zero_shot::texts::TextArgs;

/// Classes that a message lists.
const LISTED: usize = 5;

/// Options that say what patches are compared with.
#[derive(clap::Args)]
pub struct TaskArgs {
    #[command(flatten)]
    texts: TextArgs,
    /// A prompt set instead of templates: from a store (`prompts/FINGERPRINT/prompt.safetensors`), or imported. With --classes
    /// beside it only these of its classes are compared.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["templates", "descriptions"])]
    prompt: Option<PathBuf>,
    /// The class that the images are of [default: the most similar class of each image].
    #[arg(long, value_name = "CLASS")]
    label: Option<String>,
    /// LoCoOp's K: a patch is extracted if the label is not among its K most similar classes [default: a fifth of the classes,
    /// at least 1; 200 of the 1,000 classes of ImageNet, as in the paper].
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
}

/// The options, read.
pub struct Task {
    /// Names of the classes, which may repeat.
    names: Vec<String>,
    /// Names of the classes, with their number from 0 where several have one name.
    pub classes: Vec<String>,
    /// The class that the images are of, if it was given.
    pub label: Option<usize>,
    /// LoCoOp's K, below the number of classes.
    pub top_k: usize,
    /// The prompt set, its file, and which of its classes are compared.
    prompt: Option<(PromptSet, PathBuf, Vec<usize>)>,
}

impl TaskArgs {
    /// Reads classes and prompt set, and checks label and K.
    ///
    /// # Errors
    /// No class, a blank class, an unknown label or one that several classes have, K out of range, files that cannot be read.
    pub fn read(&self) -> Result<Task> {
        let list = match &self.texts.classes {
            Some(path) => Some(read_class_list(path)?.names),
            None => None,
        };
        let set = match &self.prompt {
            Some(path) => Some((prompt::read(path)?, path.clone())),
            None => None,
        };
        let (names, prompt) = match (list, set) {
            (None, None) => {
                return usage(
                    "what are patches compared with? give --classes or --prompt".to_owned(),
                );
            }
            (Some(names), None) => (names, None),
            (None, Some((set, path))) => {
                let all = (0..set.classes.len()).collect();
                (set.classes.clone(), Some((set, path, all)))
            }
            (Some(names), Some((set, path))) => {
                let rows = rows_of(&names, &set)?;
                (names, Some((set, path, rows)))
            }
        };
        let classes = distinct_names(&names);
        let top_k = match self.top_k {
            Some(top_k) => {
                Regions::check_top_k(top_k, classes.len())
                    .map_err(|error| PipelineError::Usage(format!("--top-k: {error}")))?;
                top_k
            }
            None => Regions::default_top_k(classes.len())?,
        };
        let label = match &self.label {
            Some(label) => Some(label_of(label, &names, &classes)?),
            None => None,
        };
        Ok(Task {
            names,
            classes,
            label,
            top_k,
            prompt,
        })
    }

    /// Normalised text features of the classes, `[classes, D]`.
    ///
    /// # Errors
    /// A text that is longer than the context, a prompt set of another model, a linear probe.
    pub fn features(&self, task: &Task, model: &Model, device: Device) -> Result<Vec<f32>> {
        match &task.prompt {
            None => {
                let texts = self.texts.class_texts(&task.names)?;
                self.texts.encode(model, device, &task.names, &texts)
            }
            Some((set, path, rows)) => {
                let dim = model.config.embed_dim;
                let text = text_features(set, path, dim)?;
                let rows = rows.iter().map(|row| &text[row * dim..(row + 1) * dim]);
                Ok(rows.flatten().copied().collect())
            }
        }
    }

    /// A page without images.
    pub fn page(&self, task: &Task, model: &str) -> RegionsPage {
        let texts = match &self.prompt {
            Some(path) => path.display().to_string(),
            None => self.texts.origin(),
        };
        let origin = match self.top_k {
            Some(_) => "given",
            None => "the default, a fifth of the classes",
        };
        let top_k = format!("K = {} ({origin})", task.top_k);
        RegionsPage::new(model, &texts, &task.classes, &top_k)
    }
}

/// Which classes of a prompt set are called `names`. A name that as many of `names` have as of its classes stands for all of
/// these, in their order.
fn rows_of(names: &[String], set: &PromptSet) -> Result<Vec<usize>, PipelineError> {
    let all = distinct_names(&set.classes);
    let classes_of = |names: &[String]| {
        let mut classes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (class, name) in names.iter().enumerate() {
            classes.entry(name.clone()).or_default().push(class);
        }
        classes
    };
    let (wanted, own) = (classes_of(names), classes_of(&set.classes));
    let row = |(place, name): (usize, &String)| match (&wanted[name], own.get(name)) {
        // A place of `names` is among the places of its name.
        (wanted, Some(own)) if wanted.len() == own.len() => {
            Ok(own[wanted.partition_point(|other| *other < place)])
        }
        _ => class_called(name, &set.classes, &all, "--classes"),
    };
    names.iter().enumerate().map(row).collect()
}

fn label_of(label: &str, names: &[String], distinct: &[String]) -> Result<usize, PipelineError> {
    class_called(label, names, distinct, "--label")
}

/// The class of a name, or of a name with its number.
fn class_called(
    name: &str,
    names: &[String],
    distinct: &[String],
    option: &str,
) -> Result<usize, PipelineError> {
    let is_called = |class: &usize| names[*class] == name || distinct[*class] == name;
    let found: Vec<usize> = (0..names.len()).filter(is_called).collect();
    let problem = match found.as_slice() {
        [class] => return Ok(*class),
        [] => {
            let hint = match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the classes are {}", listed(distinct.iter())),
            };
            format!("no class has this name; {hint}")
        }
        several => {
            let which = listed(several.iter().map(|class| &distinct[*class]));
            format!("several classes have this name; name one of {which}")
        }
    };
    Err(PipelineError::Usage(format!("{option} {name}: {problem}")))
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = names.len();
    first_of(names.map(|name| format!("`{name}`")), count, LISTED)
}

fn usage<T>(problem: String) -> Result<T> {
    Err(PipelineError::Usage(problem).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_label_is_a_name_or_a_name_with_its_number() {
        let all = names(&["star", "crane", "fish", "crane"]);
        let distinct = distinct_names(&all);
        let label = |name: &str| label_of(name, &all, &distinct);
        assert_eq!(label("fish").ok(), Some(2));
        assert_eq!(label("crane (class 3)").ok(), Some(3));
        for (name, words) in [
            ("fisch", ["--label fisch", "`fish`"]),
            ("crane", ["`crane (class 1)`", "`crane (class 3)`"]),
            ("telescope", ["`star`", "`crane (class 3)`"]),
        ] {
            let error = label(name).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            for word in words {
                assert!(error.to_string().contains(word), "no {word}: {error}");
            }
        }
        let many: Vec<String> = (0..9).map(|class| format!("bird number {class}")).collect();
        let error = label_of("x", &many, &many).unwrap_err().to_string();
        assert!(error.contains("`bird number 4` and 4 more"), "{error}");
    }

    #[test]
    fn classes_beside_a_prompt_set_are_some_of_its() {
        let set = PromptSet {
            fingerprint: String::new(),
            classes: names(&["star", "fish", "house", "fish"]),
            text: vec![0.0; 8],
            negatives: None,
            state: None,
            probe: None,
        };
        let rows = rows_of(&names(&["house", "star"]), &set).unwrap();
        assert_eq!(rows, [2, 0]);
        let rows = rows_of(&names(&["fish", "star", "fish"]), &set).unwrap();
        assert_eq!(rows, [1, 0, 3]);
        let rows = rows_of(&names(&["fish (class 3)", "star"]), &set).unwrap();
        assert_eq!(rows, [3, 0]);
        assert!(rows_of(&names(&["fish"]), &set).is_err());
        let error = rows_of(&names(&["hous"]), &set).unwrap_err().to_string();
        assert!(
            error.contains("--classes hous") && error.contains("`house`"),
            "{error}"
        );
    }
}

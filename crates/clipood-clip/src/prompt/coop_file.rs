//! The context in a file of the CoOp repository, `prompt_learner/model.pth.tar-N` of Dassl's trainer.
//!
//! Other methods of its family save files of the same kind that hold more than a context, without which they compute
//! something else: these are refused by name.

use crate::checkpoint::value::{Tensor, Value};
use crate::weights::first_not_finite;

/// A context as CoOp saves it.
#[derive(Debug, Clone, PartialEq)]
pub struct CoopContext {
    /// Row-major `[n_ctx, width]`, or `[classes, n_ctx, width]` if it is class-specific.
    pub values: Vec<f32>,
    /// Context vectors of a prompt.
    pub n_ctx: usize,
    /// Whether each class has vectors of its own.
    pub class_specific: bool,
    /// Epochs of its training, 0 if the file does not say.
    pub epoch: usize,
}

/// What CoOp saves beside `ctx`: the embeddings of the class names that it was trained with, which are computed again here.
const BESIDE: [&str; 2] = ["token_prefix", "token_suffix"];

/// Parts of names of tensors, and the methods that have them.
const OTHER_METHODS: [(&str, &str); 6] = [
    (
        "meta_net",
        "CoCoOp, whose meta-network changes the context with every image",
    ),
    (
        "compound_prompt",
        "MaPLe, which has prompts in the deeper layers of both towers",
    ),
    (
        "VPT",
        "a method with visual prompts (VPT, IVLP, PromptSRC), whose image features are others than the model's",
    ),
    (
        "proj.",
        "MaPLe, which projects the context into the image tower",
    ),
    (
        "image_encoder.",
        "a whole model with its towers, which may have been trained as well",
    ),
    (
        "lora_",
        "a method with LoRA adapters, whose towers are others than the model's",
    ),
];

/// Why a file is not the context of a prompt, in words that do not name the file: the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CoopContextError(String);

impl From<String> for CoopContextError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl CoopContext {
    /// Finds the context in `checkpoint`, for a model whose text tower is `width` wide and for `classes` classes.
    ///
    /// # Errors
    /// There is no `state_dict.ctx`; there are tensors of a method that is more than a context; it has another width or another
    /// number of classes; it holds no floats, or values that are not finite.
    pub fn find(
        checkpoint: &Value<Tensor>,
        width: usize,
        classes: usize,
    ) -> Result<Self, CoopContextError> {
        Ok(find(checkpoint, width, classes)?)
    }
}

fn find(checkpoint: &Value<Tensor>, width: usize, classes: usize) -> Result<CoopContext, String> {
    let state = checkpoint.get("state_dict").ok_or_else(|| {
        let found = listed(checkpoint.items().iter().filter_map(|(key, _)| key.as_text()));
        format!("expected a dictionary with the tensor state_dict.ctx of a prompt learner, found {found}")
    })?;
    let tensors: Vec<(&str, &Tensor)> = (state.items().iter())
        .filter_map(|(key, value)| Some((plain(key.as_text()?), value.as_tensor()?)))
        .collect();
    let names = || tensors.iter().map(|(name, _)| *name);
    for (part, method) in OTHER_METHODS {
        if let Some(name) = names().find(|name| name.contains(part)) {
            return Err(format!(
                "state_dict holds `{name}`: this is {method}; only contexts of the CoOp kind, the same for all images, are \
                 imported"
            ));
        }
    }
    let tensor = |wanted: &str| tensors.iter().find(|(name, _)| *name == wanted);
    let Some((_, context)) = tensor("ctx") else {
        return Err(format!(
            "expected the tensor state_dict.ctx of a prompt learner, found {}",
            listed(names())
        ));
    };
    if let Some(name) = names().find(|name| *name != "ctx" && !BESIDE.contains(name)) {
        return Err(format!(
            "state_dict holds `{name}` beside ctx, which no method of the CoOp kind has: the context alone would not be \
             the trained prompt"
        ));
    }
    let shape = &context.shape;
    let trained = tensor("token_prefix").and_then(|(_, prefix)| prefix.shape.first());
    let (n_ctx, class_specific) = match shape[..] {
        [_, wide] | [_, _, wide] if wide != width => {
            return Err(format!(
                "state_dict.ctx has shape {shape:?}: vectors of {wide} values, and those of this model's text tower have \
                 {width}; it was trained with another model"
            ));
        }
        [n_ctx, _] => (n_ctx, false),
        [count, _, _] if trained.is_some_and(|trained| *trained != count) => {
            return Err(format!(
                "state_dict.ctx has shape {shape:?}: {count} contexts for {} class names, neither one for all nor one for \
                 each (PLOT and ProDA have several for all)",
                trained.map_or(0, |trained| *trained)
            ));
        }
        [count, n_ctx, _] if count == classes => (n_ctx, true),
        [count, _, _] => {
            return Err(format!(
                "state_dict.ctx has shape {shape:?}: class-specific vectors for {count} classes, and the list has {classes}; \
                 expected [{classes}, vectors, {width}], or [vectors, {width}] for all classes"
            ));
        }
        _ => {
            return Err(format!(
                "state_dict.ctx has shape {shape:?}, expected [vectors, {width}] or [{classes}, vectors, {width}]"
            ));
        }
    };
    let values = context
        .as_floats()
        .ok_or("state_dict.ctx holds no floats")?;
    if n_ctx == 0 {
        return Err(format!(
            "state_dict.ctx has shape {shape:?}: it holds no vector"
        ));
    }
    if let Some(position) = first_not_finite(values) {
        return Err(format!(
            "state_dict.ctx holds {} in vector {}, value {}: its training has failed",
            values[position],
            position / width,
            position % width
        ));
    }
    Ok(CoopContext {
        values: values.to_vec(),
        n_ctx,
        class_specific,
        epoch: match checkpoint.get("epoch") {
            Some(Value::Int(epoch)) => usize::try_from(*epoch).unwrap_or(0),
            _ => 0,
        },
    })
}

/// The name without what `DataParallel` and `torch.compile` put before it, and without the part of the model that it is in.
fn plain(name: &str) -> &str {
    ["module.", "_orig_mod.", "prompt_learner."]
        .iter()
        .fold(name, |name, prefix| {
            name.strip_prefix(prefix).unwrap_or(name)
        })
}

/// The first names, for messages.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let first: Vec<&str> = names.take(4).collect();
    match first[..] {
        [] => "no names".to_owned(),
        [a, b, c, _] => format!("{a}, {b}, {c}, ..."),
        _ => first.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tensor's name and shape.
    type NamedShape<'a> = (&'a str, &'a [usize]);

    fn tensor(shape: &[usize]) -> Value<Tensor> {
        let count = shape.iter().product();
        Value::Tensor(Tensor::floats(shape.to_vec(), vec![0.5; count]))
    }

    fn checkpoint(tensors: &[(&str, &[usize])]) -> Value<Tensor> {
        let state = tensors
            .iter()
            .map(|(name, shape)| ((*name).to_owned(), tensor(shape)))
            .collect();
        Value::from_iter([
            ("state_dict".to_owned(), state),
            ("epoch".to_owned(), Value::Int(50)),
        ])
    }

    fn read(tensors: &[(&str, &[usize])]) -> Result<CoopContext, String> {
        CoopContext::find(&checkpoint(tensors), 6, 3).map_err(|e| e.to_string())
    }

    #[test]
    fn contexts_of_both_kinds_are_found() {
        let prefix: (&str, &[usize]) = ("token_prefix", &[3, 1, 6]);
        let suffix: (&str, &[usize]) = ("token_suffix", &[3, 72, 6]);
        let shared = read(&[("ctx", &[4, 6]), prefix, suffix]).unwrap();
        assert_eq!(
            (shared.n_ctx, shared.class_specific, shared.epoch),
            (4, false, 50)
        );
        assert_eq!(shared.values, [0.5; 24]);
        // A shared context may be imported for other classes than it was trained with.
        let moved = read(&[("ctx", &[4, 6]), ("token_prefix", &[1000, 1, 6])]).unwrap();
        assert_eq!(moved.values, shared.values);
        let own = read(&[("ctx", &[3, 2, 6]), prefix, suffix]).unwrap();
        assert_eq!((own.n_ctx, own.class_specific), (2, true));
        for name in ["module.ctx", "_orig_mod.ctx", "prompt_learner.ctx"] {
            assert_eq!(read(&[(name, &[4, 6])]).unwrap().n_ctx, 4, "{name}");
        }
    }

    /// Names and shapes as the repositories of the methods save them.
    #[test]
    fn what_is_more_than_a_context_is_refused_by_its_name() {
        let ctx: (&str, &[usize]) = ("ctx", &[4, 6]);
        let cases: [(&[NamedShape], &[&str]); 11] = [
            (
                &[ctx, ("meta_net.linear1.weight", &[2, 5])],
                &["CoCoOp", "meta_net.linear1.weight"],
            ),
            (
                &[
                    ("prompt_learner.ctx", &[2, 6]),
                    ("prompt_learner.compound_prompts_text.0", &[2, 6]),
                ],
                &["MaPLe"],
            ),
            (&[ctx, ("proj.weight", &[8, 6])], &["MaPLe", "proj.weight"]),
            (
                &[ctx, ("image_encoder.VPT", &[4, 8])],
                &["visual prompts", "image_encoder.VPT"],
            ),
            (
                &[("image_encoder.transformer.resblocks.1.VPT_shallow", &[4, 8])],
                &["visual prompts"],
            ),
            (&[ctx, ("image_encoder.proj", &[2, 2])], &["a whole model"]),
            (
                &[ctx, ("bias_vectors", &[4, 6])],
                &["`bias_vectors` beside ctx"],
            ),
            (
                &[("ctx_positive", &[4, 6]), ("ctx_negative", &[4, 6])],
                &[
                    "expected the tensor state_dict.ctx",
                    "ctx_positive, ctx_negative",
                ],
            ),
            (
                &[("ctx", &[4, 8])],
                &["[4, 8]", "vectors of 8 values", "have 6"],
            ),
            (
                &[("ctx", &[4, 2, 6])],
                &[
                    "[4, 2, 6]",
                    "for 4 classes, and the list has 3",
                    "[3, vectors, 6]",
                ],
            ),
            (
                &[("ctx", &[3, 16, 6]), ("token_prefix", &[9, 1, 6])],
                &["PLOT", "3 contexts for 9 class names"],
            ),
        ];
        for (tensors, words) in cases {
            let message = read(tensors).unwrap_err();
            for word in words {
                assert!(message.contains(word), "no `{word}` in {message}");
            }
        }
        let message = read(&[("ctx", &[0, 6])]).unwrap_err();
        assert!(message.contains("no vector"), "{message}");
        let message = find(&Value::None, 6, 3).unwrap_err();
        assert!(message.contains("found no names"), "{message}");
    }

    #[test]
    fn a_context_that_is_not_finite_is_refused_with_its_place() {
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut values = vec![0.5; 24];
            values[15] = wrong;
            let context = Value::Tensor(Tensor::floats(vec![4, 6], values));
            let state = Value::from_iter([("ctx".to_owned(), context)]);
            let checkpoint = Value::from_iter([("state_dict".to_owned(), state)]);
            let message = find(&checkpoint, 6, 3).unwrap_err();
            let expected = format!("holds {wrong} in vector 2, value 3");
            assert!(message.contains(&expected), "{message}");
        }
    }
}

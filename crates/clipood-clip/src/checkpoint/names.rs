//! Names of tensors: Hugging Face's and open_clip's become OpenAI's.

use std::collections::BTreeMap;

use crate::error::{ClipError, Result};
use crate::weights::{WeightTensor, Weights};

/// What `torch.compile` puts before the names of each module that it compiled, at any depth.
const COMPILED: &str = "_orig_mod.";

/// What training programs put before every name.
const WRAPPERS: [&str; 5] = ["module.", "state_dict.", "model.", "clip_model.", "clip."];

/// Beginnings of Hugging Face's names, and OpenAI's.
const PLACES: [(&str, &str); 10] = [
    (
        "vision_model.embeddings.class_embedding",
        "visual.class_embedding",
    ),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    (
        "vision_model.embeddings.position_embedding.weight",
        "visual.positional_embedding",
    ),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    (
        "vision_model.encoder.layers.",
        "visual.transformer.resblocks.",
    ),
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    (
        "text_model.embeddings.position_embedding.weight",
        "positional_embedding",
    ),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
];

/// Parts of a block.
const PARTS: [(&str, &str); 5] = [
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.out_proj.", ".attn.out_proj."),
];

/// The same tensors under OpenAI's names. Buffers that hold no parameters are left out.
///
/// # Errors
/// Parts of an attention that do not belong together, or two tensors with one name.
pub(super) fn to_openai(weights: Weights) -> Result<Weights> {
    let mut out = Weights::new(weights.origin.clone());
    let mut tensors = not_compiled(weights.into_tensors(), &out.origin)?;
    while let Some(wrapper) = common_wrapper(&tensors) {
        tensors = tensors
            .into_iter()
            .map(|(name, tensor)| (name[wrapper.len()..].to_owned(), tensor))
            .collect();
    }
    // Thirds of a block's input projection, which OpenAI keeps as one tensor.
    let mut thirds: BTreeMap<String, [Option<WeightTensor>; 3]> = BTreeMap::new();
    for (name, tensor) in tensors {
        let name = openai_name(&name);
        if is_buffer(&name) {
            continue;
        }
        if let Some((joined, third)) = third_of(&name) {
            thirds.entry(joined).or_default()[third] = Some(tensor);
            continue;
        }
        let (name, tensor) = match name.as_str() {
            "visual_projection.weight" => ("visual.proj".to_owned(), transposed(tensor)),
            "text_projection.weight" => ("text_projection".to_owned(), transposed(tensor)),
            _ => (name, tensor),
        };
        add(&mut out, name, tensor)?;
    }
    for (name, parts) in thirds {
        let [Some(query), Some(key), Some(value)] = parts else {
            return Err(ClipError::Format {
                origin: out.origin,
                reason: format!("`{name}` misses one of q_proj, k_proj and v_proj"),
            });
        };
        let tensor = joined(&name, query, key, value).map_err(|reason| ClipError::Format {
            origin: out.origin.clone(),
            reason,
        })?;
        add(&mut out, name, tensor)?;
    }
    Ok(out)
}

fn add(weights: &mut Weights, name: String, tensor: WeightTensor) -> Result<()> {
    if weights.get(&name).is_some() {
        return Err(ClipError::Format {
            origin: weights.origin.clone(),
            reason: format!("two tensors are OpenAI's `{name}`"),
        });
    }
    weights.insert_tensor(name, tensor);
    Ok(())
}

/// The tensors without the marks of `torch.compile`.
fn not_compiled(
    tensors: BTreeMap<String, WeightTensor>,
    origin: &str,
) -> Result<BTreeMap<String, WeightTensor>> {
    if !tensors.keys().any(|name| name.contains(COMPILED)) {
        return Ok(tensors);
    }
    let mut out = BTreeMap::new();
    for (name, tensor) in tensors {
        let plain = name.replace(COMPILED, "");
        if out.insert(plain.clone(), tensor).is_some() {
            return Err(ClipError::Format {
                origin: origin.to_owned(),
                reason: format!("`{plain}` is there twice, with and without `{COMPILED}`"),
            });
        }
    }
    Ok(out)
}

/// The wrapper that stands before every name.
fn common_wrapper(tensors: &BTreeMap<String, WeightTensor>) -> Option<&'static str> {
    let wraps_all = |wrapper: &&str| tensors.keys().all(|name| name.starts_with(*wrapper));
    let found = WRAPPERS.into_iter().find(wraps_all)?;
    (!tensors.is_empty()).then_some(found)
}

fn openai_name(name: &str) -> String {
    for (from, to) in PLACES {
        if let Some(rest) = name.strip_prefix(from) {
            let mut name = format!("{to}{rest}");
            for (from, to) in PARTS {
                name = name.replace(from, to);
            }
            return name;
        }
    }
    // open_clip keeps the text tower apart in some of its models.
    name.strip_prefix("text.").unwrap_or(name).to_owned()
}

/// Masks, positions 0, 1, 2, ... and settings, which programs store beside the parameters.
fn is_buffer(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    matches!(
        last,
        "attn_mask"
            | "position_ids"
            | "num_batches_tracked"
            | "input_resolution"
            | "context_length"
            | "vocab_size"
    )
}

/// The tensor that `NAME.self_attn.q_proj.weight` is a third of, and which third.
fn third_of(name: &str) -> Option<(String, usize)> {
    let (block, part) = name.split_once(".self_attn.")?;
    let (which, kind) = part.split_once('.')?;
    let third = ["q_proj", "k_proj", "v_proj"]
        .iter()
        .position(|known| *known == which)?;
    Some((format!("{block}.attn.in_proj_{kind}"), third))
}

/// Query, key and value one below the other.
fn joined(
    name: &str,
    query: WeightTensor,
    key: WeightTensor,
    value: WeightTensor,
) -> std::result::Result<WeightTensor, String> {
    if query.shape != key.shape || query.shape != value.shape || query.shape.is_empty() {
        return Err(format!(
            "the parts of `{name}` have the shapes {:?}, {:?} and {:?}, expected equal ones",
            query.shape, key.shape, value.shape
        ));
    }
    let mut shape = query.shape;
    shape[0] *= 3;
    let data = [&*query.data, &*key.data, &*value.data].concat().into();
    Ok(WeightTensor { shape, data })
}

/// Columns become rows; what is no matrix stays as it is, for the check of shapes to name it.
fn transposed(tensor: WeightTensor) -> WeightTensor {
    let [rows, columns] = tensor.shape[..] else {
        return tensor;
    };
    let mut data = Vec::with_capacity(tensor.data.len());
    for column in 0..columns {
        data.extend((0..rows).map(|row| tensor.data[row * columns + column]));
    }
    WeightTensor {
        shape: vec![columns, rows],
        data: data.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn weights(names: &[(&str, &[usize])]) -> Weights {
        let mut weights = Weights::new("x");
        for (name, shape) in names {
            let count = shape.iter().product::<usize>();
            let data: Vec<f32> = (0..count).map(|i| i as f32).collect();
            weights.insert(*name, shape.to_vec(), data);
        }
        weights
    }

    #[test]
    fn wrappers_and_buffers_go() {
        let found = to_openai(weights(&[
            ("module.model.text.ln_final.bias", &[2]),
            ("module.model.text.attn_mask", &[2, 2]),
            ("module.model.visual.attnpool.q_proj.weight", &[2, 2]),
        ]))
        .unwrap();
        let names: Vec<&str> = found.names().collect();
        assert_eq!(names, ["ln_final.bias", "visual.attnpool.q_proj.weight"]);
    }

    #[test]
    fn marks_of_a_compiled_module_go_at_any_depth() {
        let found = to_openai(weights(&[
            ("module._orig_mod.ln_final.bias", &[2]),
            ("module._orig_mod.visual._orig_mod.proj", &[2, 2]),
        ]))
        .unwrap();
        let names: Vec<&str> = found.names().collect();
        assert_eq!(names, ["ln_final.bias", "visual.proj"]);
        let twice = weights(&[("ln_final.bias", &[2]), ("_orig_mod.ln_final.bias", &[2])]);
        let message = to_openai(twice).unwrap_err().to_string();
        assert!(
            message.contains("`ln_final.bias` is there twice"),
            "{message}"
        );
    }

    #[test]
    fn projections_of_hugging_face_are_joined_and_transposed() {
        let block = "vision_model.encoder.layers.11.self_attn";
        let found = to_openai(weights(&[
            (&format!("{block}.q_proj.bias"), &[2]),
            (&format!("{block}.k_proj.bias"), &[2]),
            (&format!("{block}.v_proj.bias"), &[2]),
            ("visual_projection.weight", &[2, 3]),
        ]))
        .unwrap();
        let bias = found.get("visual.transformer.resblocks.11.attn.in_proj_bias");
        assert_eq!(*bias.unwrap().data, [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        let projection = found.get("visual.proj").unwrap();
        assert_eq!(projection.shape, [3, 2]);
        assert_eq!(*projection.data, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn a_missing_or_crooked_part_is_named() {
        let block = "text_model.encoder.layers.0.self_attn";
        let (q, k, v) = (
            format!("{block}.q_proj.bias"),
            format!("{block}.k_proj.bias"),
            format!("{block}.v_proj.bias"),
        );
        let error = to_openai(weights(&[(&q, &[2]), (&k, &[2])])).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("resblocks.0.attn.in_proj_bias"),
            "{message}"
        );
        let error = to_openai(weights(&[(&q, &[2]), (&k, &[2]), (&v, &[3])])).unwrap_err();
        assert!(error.to_string().contains("[3]"), "{error}");
    }
}

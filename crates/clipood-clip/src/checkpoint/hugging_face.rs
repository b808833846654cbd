//! `config.json`, `processor_config.json` and `preprocessor_config.json` of a Hugging Face `CLIPModel`.
//!
//! Defaults are those of transformers' `CLIPTextConfig` and `CLIPVisionConfig`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use crate::error::{ClipError, Result};

/// Result with a reason in words.
type Outcome<T> = std::result::Result<T, String>;

#[derive(Deserialize)]
struct File {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    projection_dim: Option<usize>,
    text_config: Option<Text>,
    vision_config: Option<Vision>,
    /// Older files repeat a part under this name, which then counts.
    text_config_dict: Option<Text>,
    vision_config_dict: Option<Vision>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Text {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
    eos_token_id: Option<u64>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            vocab_size: 49408,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
            eos_token_id: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Vision {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

impl Default for Vision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
        }
    }
}

#[derive(Deserialize)]
struct Preprocessor {
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    size: Option<Value>,
    crop_size: Option<Value>,
    resample: Option<u64>,
    rescale_factor: Option<f64>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
}

/// The configuration in `json`, with OpenAI's mean and standard deviation until [`preprocess`] finds others.
pub(super) fn config(json: &str, origin: &str) -> Result<ClipConfig> {
    let config = read(json).map_err(|reason| config_error(origin, reason))?;
    config.check(origin)?;
    Ok(config)
}

fn config_error(origin: &str, reason: String) -> ClipError {
    ClipError::Config {
        origin: origin.to_owned(),
        reason,
    }
}

fn read(json: &str) -> Outcome<ClipConfig> {
    let file: File = serde_json::from_str(json).map_err(|e| e.to_string())?;
    match file.model_type.as_deref() {
        Some("clip") => {}
        Some(other) => {
            let what = match other {
                "clip_vision_model" => {
                    ", an image tower without the text tower that class names need"
                }
                "clip_text_model" => ", a text tower without an image tower",
                "siglip" | "siglip2" => ", whose towers and tokenizer are others than CLIP's",
                _ => "",
            };
            return Err(format!("model_type is `{other}`{what}, expected `clip`"));
        }
        None => return Err("model_type is missing, expected `clip`".to_owned()),
    }
    if let Some(found) = &file.architectures
        && !found.is_empty()
        && !found.iter().any(|name| name == "CLIPModel")
    {
        return Err(format!(
            "architectures is {}, expected CLIPModel, which has both towers and is computed without code of its own",
            found.join(", ")
        ));
    }
    let text = file
        .text_config_dict
        .or(file.text_config)
        .unwrap_or_default();
    let vision = file
        .vision_config_dict
        .or(file.vision_config)
        .unwrap_or_default();
    let activation = activation("text_config", &text.hidden_act)?;
    if self::activation("vision_config", &vision.hidden_act)? != activation {
        return Err(format!(
            "hidden_act is `{}` for texts and `{}` for images, expected the same",
            text.hidden_act, vision.hidden_act
        ));
    }
    for (part, width, inner, epsilon) in [
        (
            "text_config",
            text.hidden_size,
            text.intermediate_size,
            text.layer_norm_eps,
        ),
        (
            "vision_config",
            vision.hidden_size,
            vision.intermediate_size,
            vision.layer_norm_eps,
        ),
    ] {
        if width.checked_mul(4) != Some(inner) {
            return Err(format!(
                "{part}.intermediate_size is {inner}, expected 4 times hidden_size {width}"
            ));
        }
        if (epsilon - 1e-5).abs() > 1e-9 {
            return Err(format!("{part}.layer_norm_eps is {epsilon}, expected 1e-5"));
        }
    }
    if vision.num_channels != 3 {
        return Err(format!(
            "vision_config.num_channels is {}, expected 3",
            vision.num_channels
        ));
    }
    // 2 stands in old files and means the same: the end of a text is its largest id.
    if let Some(end) = text.eos_token_id
        && end != 49407
        && end != 2
    {
        return Err(format!(
            "text_config.eos_token_id is {end}, expected 49407 of CLIP's tokenizer"
        ));
    }
    Ok(ClipConfig {
        embed_dim: file.projection_dim.unwrap_or(512),
        image: ImageConfig {
            size: vision.image_size,
            width: vision.hidden_size,
            heads: vision.num_attention_heads,
            family: ImageFamily::Vit {
                layers: vision.num_hidden_layers,
                patch: vision.patch_size,
            },
        },
        text: TextConfig {
            context: text.max_position_embeddings,
            vocab: text.vocab_size,
            width: text.hidden_size,
            heads: text.num_attention_heads,
            layers: text.num_hidden_layers,
        },
        activation,
        mean: OPENAI_MEAN,
        std: OPENAI_STD,
    })
}

fn activation(part: &str, name: &str) -> Outcome<Activation> {
    name.parse()
        .map_err(|reason: String| format!("{part}.hidden_act: {reason}"))
}

/// The settings of the images in `processor_config.json`, which transformers 5 writes for a whole processor; `None` in the
/// files of older versions, which have them in `preprocessor_config.json` alone.
pub(super) fn image_processor(json: &str, origin: &str) -> Result<Option<Value>> {
    let mut file: Map<String, Value> =
        serde_json::from_str(json).map_err(|e| config_error(origin, e.to_string()))?;
    let settings = file.remove("image_processor");
    Ok(settings.filter(|settings| !settings.is_null()))
}

/// Takes mean and standard deviation from the settings of an image processor (`preprocessor_config.json`, or
/// [`image_processor`]), and refuses another geometry than CLIP's.
pub(super) fn preprocess(config: &mut ClipConfig, settings: Value, origin: &str) -> Result<()> {
    read_preprocessor(config, settings).map_err(|reason| config_error(origin, reason))?;
    config.check(origin)
}

fn read_preprocessor(config: &mut ClipConfig, settings: Value) -> Outcome<()> {
    let file: Preprocessor = serde_json::from_value(settings).map_err(|e| e.to_string())?;
    for (key, value) in [
        ("do_resize", file.do_resize),
        ("do_center_crop", file.do_center_crop),
        ("do_rescale", file.do_rescale),
        ("do_normalize", file.do_normalize),
    ] {
        if value == Some(false) {
            return Err(format!("{key} is false, which is not computed here"));
        }
    }
    if let Some(filter) = file.resample
        && filter != 3
    {
        return Err(format!("resample is {filter}, expected 3 (bicubic)"));
    }
    if let Some(factor) = file.rescale_factor
        && (factor * 255.0 - 1.0).abs() > 1e-6
    {
        return Err(format!("rescale_factor is {factor}, expected 1/255"));
    }
    let expected = config.image.size;
    if let Some(size) = &file.size {
        let side = size
            .as_u64()
            .or_else(|| size.get("shortest_edge")?.as_u64());
        if side != Some(expected as u64) {
            return Err(format!(
                "size is {size}, expected a shortest edge of {expected} as the image tower takes"
            ));
        }
    }
    if let Some(size) = &file.crop_size {
        let side = size.as_u64().or_else(|| {
            let (height, width) = (size.get("height")?, size.get("width")?);
            height.as_u64().filter(|_| height == width)
        });
        if side != Some(expected as u64) {
            return Err(format!(
                "crop_size is {size}, expected a square of {expected} as the image tower takes"
            ));
        }
    }
    config.mean = file.image_mean.unwrap_or(OPENAI_MEAN);
    config.std = file.image_std.unwrap_or(OPENAI_STD);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn empty_parts_are_vit_b_32() {
        let config = config(r#"{"model_type": "clip"}"#, "x.json").unwrap();
        assert_eq!((config.embed_dim, config.image.size), (512, 224));
        assert_eq!((config.image.width, config.image.heads), (768, 12));
        let family = ImageFamily::Vit {
            layers: 12,
            patch: 32,
        };
        assert_eq!(config.image.family, family);
        assert_eq!((config.text.width, config.text.heads), (512, 8));
        assert_eq!(config.activation, Activation::QuickGelu);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (json, word) in [
            (r#"{"model_type": "siglip"}"#, "siglip"),
            (
                r#"{"model_type": "clip_vision_model"}"#,
                "`clip_vision_model`, an image tower without the text tower",
            ),
            (
                r#"{"model_type": "clip", "architectures": ["EVACLIPModel"]}"#,
                "EVACLIPModel, expected CLIPModel",
            ),
            (
                r#"{"model_type": "clip", "vision_config": {"num_hidden_layers": 1000000000000}}"#,
                "image layers: found 1000000000000, allowed: 1 to 512",
            ),
            (
                r#"{"model_type": "clip", "text_config": {"num_attention_heads": 0}}"#,
                "text heads: found 0",
            ),
            (r#"{}"#, "model_type"),
            (
                r#"{"model_type": "clip", "text_config": {"hidden_act": "gelu"}}"#,
                "hidden_act",
            ),
            (
                r#"{"model_type": "clip", "text_config": {"hidden_act": "relu"}}"#,
                "text_config.hidden_act",
            ),
            (
                r#"{"model_type": "clip", "vision_config": {"intermediate_size": 3000}}"#,
                "vision_config.intermediate_size",
            ),
            (
                r#"{"model_type": "clip", "vision_config": {"layer_norm_eps": 1e-6}}"#,
                "vision_config.layer_norm_eps",
            ),
            (
                r#"{"model_type": "clip", "text_config": {"eos_token_id": 7}}"#,
                "eos_token_id",
            ),
            (
                r#"{"model_type": "clip", "vision_config": {"patch_size": 15}}"#,
                "patch size 15",
            ),
        ] {
            let message = config(json, "x.json").unwrap_err().to_string();
            assert!(message.contains(word), "{json}: {message}");
        }
    }

    fn settings(json: &str) -> Value {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn settings_of_images_are_a_part_of_newer_files_only() {
        let nested = |json: &str| image_processor(json, "p.json").unwrap();
        let part = r#"{"image_processor": {"image_mean": [0.5, 0.5, 0.5]}, "processor_class": "CLIPProcessor"}"#;
        let found = nested(part).unwrap();
        assert_eq!(found, settings(r#"{"image_mean": [0.5, 0.5, 0.5]}"#));
        assert_eq!(nested(r#"{"processor_class": "CLIPProcessor"}"#), None);
        assert_eq!(nested(r#"{"image_processor": null}"#), None);
        assert!(image_processor("[]", "p.json").is_err());
    }

    #[test]
    fn preprocessing_is_taken_or_refused() {
        let clip = config(r#"{"model_type": "clip"}"#, "x.json").unwrap();
        for json in [
            r#"{"image_mean": [0.5, 0.25, 0.125], "size": 224, "crop_size": 224, "resample": 3}"#,
            r#"{"image_mean": [0.5, 0.25, 0.125], "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}"#,
        ] {
            let mut found = clip.clone();
            preprocess(&mut found, settings(json), "p.json").unwrap();
            assert_eq!(found.mean, [0.5, 0.25, 0.125]);
            assert_eq!(found.std, OPENAI_STD);
        }
        for (json, word) in [
            (r#"{"size": 336}"#, "336"),
            (
                r#"{"size": {"height": 224, "width": 224}}"#,
                "shortest edge",
            ),
            (r#"{"crop_size": {"height": 224, "width": 200}}"#, "200"),
            (r#"{"resample": 2}"#, "bicubic"),
            (r#"{"do_center_crop": false}"#, "do_center_crop"),
            (r#"{"rescale_factor": 1.0}"#, "rescale_factor"),
            (
                r#"{"image_std": [0.5, 0.0, 0.5]}"#,
                "pixel deviation: found 0",
            ),
            (
                r#"{"image_mean": [0.5, 0.5, 1e38]}"#,
                "pixel mean: found 1e38",
            ),
            (r#"{"image_std": [0.5, 0.5]}"#, "p.json"),
        ] {
            let mut found = clip.clone();
            let message = preprocess(&mut found, settings(json), "p.json").unwrap_err();
            let message = message.to_string();
            assert!(message.contains(word), "{json}: {message}");
        }
    }
}

//! `open_clip_config.json`.
//!
//! Keys with which open_clip computes something else are refused: a model is never quietly computed as another one.
//! Defaults are those of open_clip's `CLIPVisionCfg` and `CLIPTextCfg`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::{
    Activation, ClipConfig, ImageConfig, ImageFamily, OPENAI_MEAN, OPENAI_STD, TextConfig,
};
use crate::error::{ClipError, Result};

/// Keys that do not change features, whatever their values: training, and settings of parts that are switched off.
const WITHOUT_EFFECT: &[&str] = &[
    "attn_pooler_heads",
    "attn_pooler_queries",
    "cast_dtype",
    "custom_text",
    "hf_model_pretrained",
    "hf_pooler_type",
    "hf_proj_type",
    "init_logit_bias",
    "init_logit_scale",
    "output_dict",
    "output_tokens",
    "patch_dropout",
    "timm_drop",
    "timm_drop_path",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
];

#[derive(Deserialize)]
struct File {
    model_cfg: ModelPart,
    #[serde(default)]
    preprocess_cfg: PreprocessPart,
}

#[derive(Deserialize)]
struct ModelPart {
    embed_dim: usize,
    vision_cfg: VisionPart,
    text_cfg: TextPart,
    #[serde(default)]
    quick_gelu: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct VisionPart {
    #[serde(default = "default_image_size")]
    image_size: Value,
    #[serde(default = "default_vision_layers")]
    layers: Value,
    #[serde(default = "default_vision_width")]
    width: usize,
    patch_size: Option<usize>,
    head_width: Option<usize>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct TextPart {
    #[serde(default = "default_context")]
    context_length: usize,
    #[serde(default = "default_vocab")]
    vocab_size: usize,
    #[serde(default = "default_text_width")]
    width: usize,
    #[serde(default = "default_text_heads")]
    heads: usize,
    #[serde(default = "default_text_layers")]
    layers: usize,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize, Default)]
struct PreprocessPart {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    size: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn default_image_size() -> Value {
    json!(224)
}

fn default_vision_layers() -> Value {
    json!(12)
}

fn default_vision_width() -> usize {
    768
}

fn default_context() -> usize {
    77
}

fn default_vocab() -> usize {
    49408
}

fn default_text_width() -> usize {
    512
}

fn default_text_heads() -> usize {
    8
}

fn default_text_layers() -> usize {
    12
}

impl ClipConfig {
    /// Reads `open_clip_config.json`; `origin` names it in messages.
    ///
    /// # Errors
    /// Malformed JSON, missing keys, sizes that do not fit together, or a key that asks for what is not computed here.
    pub fn from_open_clip(json: &str, origin: &str) -> Result<Self> {
        let config = read(json).map_err(|reason| ClipError::Config {
            origin: origin.to_owned(),
            reason,
        })?;
        config.check(origin)?;
        Ok(config)
    }

    /// The same configuration as `open_clip_config.json`.
    pub fn to_open_clip(&self) -> String {
        let (layers, patch) = match &self.image.family {
            ImageFamily::Vit { layers, patch } => (json!(layers), json!(patch)),
            ImageFamily::Resnet { layers } => (json!(layers), Value::Null),
        };
        let pooled = self.image.family.attention_width(self.image.width);
        let value = json!({
            "model_cfg": {
                "embed_dim": self.embed_dim,
                "quick_gelu": self.activation == Activation::QuickGelu,
                "vision_cfg": {
                    "image_size": self.image.size,
                    "layers": layers,
                    "width": self.image.width,
                    "patch_size": patch,
                    "head_width": pooled / self.image.heads,
                },
                "text_cfg": {
                    "context_length": self.text.context,
                    "vocab_size": self.text.vocab,
                    "width": self.text.width,
                    "heads": self.text.heads,
                    "layers": self.text.layers,
                },
            },
            "preprocess_cfg": { "mean": self.mean, "std": self.std },
        });
        format!("{value:#}\n")
    }
}

fn read(text: &str) -> std::result::Result<ClipConfig, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let (model, preprocess) = (file.model_cfg, file.preprocess_cfg);
    let (vision, text) = (model.vision_cfg, model.text_cfg);
    refuse_others(
        "model_cfg",
        &model.rest,
        &json!({"nonscalar_logit_scale": false}),
    )?;
    let neutral = json!({
        "act_kwargs": {},
        "attentional_pool": false,
        "final_ln_after_pool": false,
        "global_average_pool": false,
        "input_patchnorm": false,
        "mlp_ratio": 4.0,
        "no_ln_pre": false,
        "norm_kwargs": {},
        "pool_type": "tok",
        "pos_embed_type": "learnable",
    });
    refuse_others("vision_cfg", &vision.rest, &neutral)?;
    let neutral = json!({
        "act_kwargs": {},
        "embed_cls": false,
        "final_ln_after_pool": false,
        "mlp_ratio": 4.0,
        "no_causal_mask": false,
        "norm_kwargs": {},
        "pad_id": 0,
        "pool_type": "argmax",
        "proj_bias": false,
        "proj_type": "linear",
        "tokenizer_kwargs": {},
    });
    refuse_others("text_cfg", &text.rest, &neutral)?;
    let neutral = json!({
        "fill_color": 0,
        "interpolation": "bicubic",
        "mode": "RGB",
        "resize_mode": "shortest",
    });
    refuse_others("preprocess_cfg", &preprocess.rest, &neutral)?;

    let size = square(&vision.image_size).ok_or_else(|| {
        format!(
            "vision_cfg.image_size is {}, expected one side or a square",
            vision.image_size
        )
    })?;
    if let Some(found) = preprocess.size
        && square(&found) != Some(size)
    {
        return Err(format!(
            "preprocess_cfg.size is {found}, and the image tower takes {size}"
        ));
    }
    let family = match &vision.layers {
        Value::Array(_) => ImageFamily::Resnet {
            layers: serde_json::from_value(vision.layers.clone()).map_err(|_| {
                format!(
                    "vision_cfg.layers is {}, expected the depths of four stages",
                    vision.layers
                )
            })?,
        },
        depth => ImageFamily::Vit {
            layers: depth
                .as_u64()
                .ok_or_else(|| format!("vision_cfg.layers is {depth}, expected a depth"))?
                as usize,
            patch: vision.patch_size.unwrap_or(16),
        },
    };
    let pooled = family.attention_width(vision.width);
    let head_width = vision.head_width.unwrap_or(64);
    if head_width == 0 || head_width > pooled {
        return Err(format!(
            "vision_cfg.head_width: found {head_width}, allowed: 1 to {pooled}, the width that attention sees"
        ));
    }
    Ok(ClipConfig {
        embed_dim: model.embed_dim,
        image: ImageConfig {
            size,
            width: vision.width,
            heads: pooled / head_width,
            family,
        },
        text: TextConfig {
            context: text.context_length,
            vocab: text.vocab_size,
            width: text.width,
            heads: text.heads,
            layers: text.layers,
        },
        activation: if model.quick_gelu {
            Activation::QuickGelu
        } else {
            Activation::Gelu
        },
        mean: preprocess.mean.unwrap_or(OPENAI_MEAN),
        std: preprocess.std.unwrap_or(OPENAI_STD),
    })
}

/// Refuses the keys in `rest` that neither are `null`, nor have the value in `neutral`, nor are without effect.
fn refuse_others(
    part: &str,
    rest: &Map<String, Value>,
    neutral: &Value,
) -> std::result::Result<(), String> {
    for (key, value) in rest {
        let expected = neutral.get(key);
        let same = expected.is_some_and(|expected| {
            expected == value || (value.is_number() && expected.as_f64() == value.as_f64())
        });
        if same || value.is_null() || WITHOUT_EFFECT.contains(&key.as_str()) {
            continue;
        }
        let hint = match expected {
            Some(expected) => format!("only {expected} is computed here"),
            None => "this is not computed here".to_owned(),
        };
        return Err(format!("{part}.{key} is {value}, and {hint}"));
    }
    Ok(())
}

/// The side of `224` or `[224, 224]`.
fn square(size: &Value) -> Option<usize> {
    let side = match size {
        Value::Array(sides) => match sides.as_slice() {
            [height, width] if height == width => height.as_u64(),
            _ => None,
        },
        side => side.as_u64(),
    };
    side.and_then(|side| usize::try_from(side).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with(pointer: &str, key: &str, value: Value) -> Result<ClipConfig> {
        let mut file = json!({
            "model_cfg": {
                "embed_dim": 512,
                "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
                "text_cfg": {"width": 512, "heads": 8, "layers": 12},
            },
            "preprocess_cfg": {},
        });
        file.pointer_mut(pointer).unwrap()[key] = value;
        ClipConfig::from_open_clip(&file.to_string(), "x.json")
    }

    #[test]
    fn what_is_written_is_read() {
        let mut config = with("/preprocess_cfg", "mean", json!([0.5, 0.5, 0.5])).unwrap();
        config.activation = Activation::QuickGelu;
        let again = ClipConfig::from_open_clip(&config.to_open_clip(), "x.json").unwrap();
        assert_eq!(again, config);
        assert_eq!(again.mean, [0.5; 3]);
        assert_eq!(again.image.heads, 12);
    }

    #[test]
    fn keys_that_change_nothing_are_read_over() {
        let plain = with("/model_cfg", "quick_gelu", json!(false)).unwrap();
        for (pointer, key, value) in [
            ("/model_cfg", "custom_text", json!(true)),
            // A constant added to all logits changes no softmax over the classes.
            ("/model_cfg", "init_logit_bias", json!(-10)),
            ("/model_cfg/vision_cfg", "mlp_ratio", json!(4)),
            ("/model_cfg/vision_cfg", "timm_model_name", Value::Null),
            ("/model_cfg/vision_cfg", "image_size", json!([224, 224])),
            ("/model_cfg/text_cfg", "pool_type", json!("argmax")),
            ("/preprocess_cfg", "interpolation", json!("bicubic")),
            ("/preprocess_cfg", "size", json!([224, 224])),
        ] {
            assert_eq!(with(pointer, key, value).unwrap(), plain, "{key}");
        }
    }

    #[test]
    fn keys_that_ask_for_another_model_are_refused_by_name() {
        for (pointer, key, value) in [
            ("/model_cfg", "multimodal_cfg", json!({})),
            (
                "/model_cfg/vision_cfg",
                "timm_model_name",
                json!("vit_base"),
            ),
            ("/model_cfg/vision_cfg", "mlp_ratio", json!(4.3637)),
            ("/model_cfg/vision_cfg", "image_size", json!([224, 448])),
            ("/model_cfg/vision_cfg", "patch_size", json!(15)),
            ("/model_cfg/vision_cfg", "head_width", json!(0)),
            ("/model_cfg/vision_cfg", "head_width", json!(769)),
            (
                "/model_cfg/vision_cfg",
                "layers",
                json!(1_000_000_000_000u64),
            ),
            ("/model_cfg/text_cfg", "layers", json!(1_000_000_000_000u64)),
            ("/preprocess_cfg", "std", json!([0.5, 0.0, 0.5])),
            ("/preprocess_cfg", "mean", json!([0.5, 1e38, 0.5])),
            ("/model_cfg/vision_cfg", "layers", json!([3, 4, 6])),
            ("/model_cfg/vision_cfg", "pool_type", json!("avg")),
            ("/model_cfg/text_cfg", "hf_model_name", json!("roberta")),
            (
                "/model_cfg/text_cfg",
                "act_kwargs",
                json!({"approximate": "tanh"}),
            ),
            ("/model_cfg/text_cfg", "a_key_of_tomorrow", json!(1)),
            ("/preprocess_cfg", "interpolation", json!("bilinear")),
            ("/preprocess_cfg", "size", json!(336)),
        ] {
            let message = with(pointer, key, value).unwrap_err().to_string();
            let word = match key {
                "std" => "deviation",
                key => key.split('_').next().unwrap(),
            };
            assert!(message.starts_with("x.json: "), "{key}: {message}");
            assert!(message.contains(word), "{key}: {message}");
        }
    }
}

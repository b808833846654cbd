//! Sizes of a CLIP model, and the list of parameters that a model of these sizes has.

mod check;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Mean of OpenAI's preprocessing, one value per colour channel, for pixels in 0..=1.
pub const OPENAI_MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
/// Standard deviation of OpenAI's preprocessing.
pub const OPENAI_STD: [f32; 3] = [0.26862954, 0.261_302_6, 0.275_777_1];

/// Activation between the two layers of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, OpenAI's models.
    QuickGelu,
    /// The exact GELU, most of LAION's models.
    Gelu,
}

impl From<Activation> for clipood_kernels::activation::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::QuickGelu => Self::QuickGelu,
            Activation::Gelu => Self::Gelu,
        }
    }
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            other => Err(format!(
                "unknown activation `{other}`, expected gelu or quick_gelu"
            )),
        }
    }
}

/// Everything that determines the shapes and the arithmetic of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// Width of the shared space, D.
    pub embed_dim: usize,
    /// Image tower.
    pub image: ImageConfig,
    /// Text tower.
    pub text: TextConfig,
    /// MLP activation of both transformers.
    pub activation: Activation,
    /// Pixel mean, for values in 0..=1.
    pub mean: [f32; 3],
    /// Pixel standard deviation.
    pub std: [f32; 3],
}

/// Sizes of the image tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Side of the square input in pixels.
    pub size: usize,
    /// Base width: of the transformer, or of the first ResNet stage.
    pub width: usize,
    /// Attention heads (of the blocks, or of the attention pooling).
    pub heads: usize,
    /// Which family, and its depth.
    pub family: ImageFamily,
}

/// The families of image towers.
///
/// A new family is a new variant here, and the compiler then names every `match` that needs an arm. By file:
///
/// - `config.rs`: positions of the feature grid (`ImageConfig::positions`), width of its attention
///   (`ImageFamily::attention_width`), and names and shapes of its tensors ([`ClipConfig::parameters`]).
/// - `config/check.rs`: which of its sizes are allowed, and which must divide.
/// - A file for the tower itself beside `vit.rs` and `resnet.rs`: `load`, `save` and `forward`, which returns the features
///   of the whole image and of its positions.
/// - `cpu_tower.rs`: the tower on CPUs, by a file of `clipood-kernels` beside its `vit.rs` and `resnet.rs`.
/// - `encoder.rs`: a variant of `ImageTower` with an arm in `load`, `cast`, `forward` and `save`.
/// - `init.rs`: the deviations of freshly drawn parameters.
/// - `device.rs`: its memory per image, for the batch size on GPUs (`Device::batch_for`).
/// - `checkpoint/infer.rs`: a tensor that only this family has, and its sizes from shapes (`FAMILIES`; a forgotten line means
///   that a file without a configuration is refused).
/// - `checkpoint/open_clip.rs`: its keys in `open_clip_config.json`, both ways; `checkpoint/hugging_face.rs` and
///   `checkpoint/names.rs` only if Hugging Face has such a model.
/// - `tests/common/mod.rs` and `tests/data/models`: a configuration and reference features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFamily {
    /// Vision transformer.
    Vit {
        /// Residual blocks.
        layers: usize,
        /// Side of a patch in pixels.
        patch: usize,
    },
    /// ModifiedResNet with attention pooling.
    Resnet {
        /// Bottleneck blocks of the four stages.
        layers: [usize; 4],
    },
}

/// Sizes of the text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Tokens of a full context, 77.
    pub context: usize,
    /// Rows of the token embedding, 49408.
    pub vocab: usize,
    /// Width of the transformer.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Residual blocks.
    pub layers: usize,
}

impl ImageFamily {
    /// Width of the tokens that attention sees, of a tower of base width `width`: the same, or 32 times that at the end of a
    /// ModifiedResNet.
    pub(crate) fn attention_width(&self, width: usize) -> usize {
        match self {
            Self::Vit { .. } => width,
            Self::Resnet { .. } => width.saturating_mul(32),
        }
    }
}

impl ImageConfig {
    /// Rows, and columns, of the feature grid: patches of a ViT, cells of the last ResNet stage (1/32 of the input).
    pub fn grid(&self) -> usize {
        match &self.family {
            ImageFamily::Vit { patch, .. } => self.size / patch,
            ImageFamily::Resnet { .. } => self.size / 32,
        }
    }

    /// Positions of the feature grid, row by row.
    pub fn positions(&self) -> usize {
        self.grid() * self.grid()
    }
}

impl ClipConfig {
    /// OpenAI state-dict names and shapes of every parameter and buffer of this model.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut list: Vec<(String, Vec<usize>)> = Vec::new();
        let image = &self.image;
        match &image.family {
            ImageFamily::Vit { layers, patch } => {
                let width = image.width;
                let tokens = image.positions() + 1;
                list.push(("visual.class_embedding".into(), vec![width]));
                list.push(("visual.positional_embedding".into(), vec![tokens, width]));
                list.push(("visual.conv1.weight".into(), vec![width, 3, *patch, *patch]));
                norm(&mut list, "visual.ln_pre", width);
                blocks(&mut list, "visual.transformer", width, *layers);
                norm(&mut list, "visual.ln_post", width);
                list.push(("visual.proj".into(), vec![width, self.embed_dim]));
            }
            ImageFamily::Resnet { layers } => resnet(&mut list, image, layers, self.embed_dim),
        }
        let text = &self.text;
        list.push((
            "token_embedding.weight".into(),
            vec![text.vocab, text.width],
        ));
        list.push((
            "positional_embedding".into(),
            vec![text.context, text.width],
        ));
        blocks(&mut list, "transformer", text.width, text.layers);
        norm(&mut list, "ln_final", text.width);
        list.push(("text_projection".into(), vec![text.width, self.embed_dim]));
        list.push(("logit_scale".into(), vec![]));
        list
    }
}

fn norm(list: &mut Vec<(String, Vec<usize>)>, prefix: &str, width: usize) {
    list.push((format!("{prefix}.weight"), vec![width]));
    list.push((format!("{prefix}.bias"), vec![width]));
}

fn linear(list: &mut Vec<(String, Vec<usize>)>, prefix: &str, input: usize, output: usize) {
    list.push((format!("{prefix}.weight"), vec![output, input]));
    list.push((format!("{prefix}.bias"), vec![output]));
}

fn blocks(list: &mut Vec<(String, Vec<usize>)>, prefix: &str, width: usize, layers: usize) {
    for i in 0..layers {
        let block = format!("{prefix}.resblocks.{i}");
        norm(list, &format!("{block}.ln_1"), width);
        list.push((
            format!("{block}.attn.in_proj_weight"),
            vec![3 * width, width],
        ));
        list.push((format!("{block}.attn.in_proj_bias"), vec![3 * width]));
        linear(list, &format!("{block}.attn.out_proj"), width, width);
        norm(list, &format!("{block}.ln_2"), width);
        linear(list, &format!("{block}.mlp.c_fc"), width, 4 * width);
        linear(list, &format!("{block}.mlp.c_proj"), 4 * width, width);
    }
}

fn batch_norm(list: &mut Vec<(String, Vec<usize>)>, prefix: &str, width: usize) {
    norm(list, prefix, width);
    list.push((format!("{prefix}.running_mean"), vec![width]));
    list.push((format!("{prefix}.running_var"), vec![width]));
}

fn resnet(
    list: &mut Vec<(String, Vec<usize>)>,
    image: &ImageConfig,
    layers: &[usize; 4],
    embed_dim: usize,
) {
    let width = image.width;
    let stem = [(3, width / 2), (width / 2, width / 2), (width / 2, width)];
    for (i, (input, output)) in stem.into_iter().enumerate() {
        let n = i + 1;
        list.push((format!("visual.conv{n}.weight"), vec![output, input, 3, 3]));
        batch_norm(list, &format!("visual.bn{n}"), output);
    }
    let mut input = width;
    for (stage, depth) in layers.iter().enumerate() {
        let planes = width << stage;
        for i in 0..*depth {
            let block = format!("visual.layer{}.{i}", stage + 1);
            let convs = [
                (1, vec![planes, input, 1, 1], planes),
                (2, vec![planes, planes, 3, 3], planes),
                (3, vec![planes * 4, planes, 1, 1], planes * 4),
            ];
            for (n, shape, out) in convs {
                list.push((format!("{block}.conv{n}.weight"), shape));
                batch_norm(list, &format!("{block}.bn{n}"), out);
            }
            if i == 0 {
                list.push((
                    format!("{block}.downsample.0.weight"),
                    vec![planes * 4, input, 1, 1],
                ));
                batch_norm(list, &format!("{block}.downsample.1"), planes * 4);
            }
            input = planes * 4;
        }
    }
    list.push((
        "visual.attnpool.positional_embedding".into(),
        vec![image.positions() + 1, input],
    ));
    for name in ["q_proj", "k_proj", "v_proj"] {
        linear(list, &format!("visual.attnpool.{name}"), input, input);
    }
    linear(list, "visual.attnpool.c_proj", input, embed_dim);
}

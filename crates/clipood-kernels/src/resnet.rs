//! OpenAI's ModifiedResNet at inference (`clip/model.py` of openai/CLIP): three stem convolutions, bottlenecks whose strides
//! are average pooling, attention pooling; local features as LoCoOp's `clip_w_local`.
//!
//! Pixels are kept with channels last, batch norms are folded into the convolutions, and biases, ReLUs and residuals are
//! part of the products. Each thread takes its own images through all layers, so that it waits for no other; with fewer
//! images than threads they share the rows of each layer. The first layers take one image at a time, whose activations
//! stay in the caches; later ones several, because there reading the weights is what costs.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::attention_pool::AttentionPool;
use crate::block::sized;
use crate::conv::{Conv, Images};
use crate::packed::Format;
use crate::share::{Share, Then, in_pool, of_batch};

pub use crate::attention_pool::PoolParameters;
pub use crate::conv::ConvSizes;

/// Most values of the input of a stage that one thread takes at once (2 MiB).
const STAGE_VALUES: usize = 1 << 19;

/// A bias-free convolution and the batch norm after it, as a checkpoint holds them.
#[derive(Debug, Clone, Copy)]
pub struct ConvParameters<'a> {
    /// Sizes of the convolution.
    pub sizes: ConvSizes,
    /// `[output, input, kernel, kernel]`.
    pub weight: &'a [f32],
    /// Factor of the norm, `[output]`.
    pub gamma: &'a [f32],
    /// Offset of the norm, `[output]`.
    pub beta: &'a [f32],
    /// Running mean, `[output]`.
    pub mean: &'a [f32],
    /// Running variance, `[output]`; epsilon is 1e-5.
    pub variance: &'a [f32],
}

/// 1x1, 3x3, 1x1 with a shortcut around them.
#[derive(Debug, Clone, Copy)]
pub struct BottleneckParameters<'a> {
    /// The three convolutions.
    pub convs: [ConvParameters<'a>; 3],
    /// The convolution in the shortcut.
    pub downsample: Option<ConvParameters<'a>>,
    /// Side of the average pools before the last convolution and in the shortcut; 1 for none.
    pub pool: usize,
}

/// The layers up to the attention pooling, in the order in which they run, and their formats.
#[derive(Debug)]
pub struct ResNetBuilder {
    side: usize,
    /// Side of the images that reach the next layer.
    reached: usize,
    format: Format,
    stem: Vec<Conv>,
    blocks: Vec<Bottleneck>,
}

/// The image tower.
#[derive(Debug)]
pub struct ResNet {
    side: usize,
    stem: Vec<Conv>,
    blocks: Vec<Bottleneck>,
    pool: AttentionPool,
    /// Scratch of threads that are done, kept because allocating it again is expensive.
    spare: Mutex<Vec<Scratch>>,
}

#[derive(Debug)]
struct Bottleneck {
    convs: [Conv; 3],
    downsample: Option<Conv>,
    pool: usize,
}

/// Activations of one thread, each of the largest layer.
#[derive(Debug, Default)]
struct Scratch {
    x: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    out: Vec<f32>,
}

/// Features of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// `[batch, dim]`.
    pub global: Vec<f32>,
    /// `[batch, positions, dim]`; empty unless asked for.
    pub local: Vec<f32>,
}

impl ConvParameters<'_> {
    /// For images of `side` pixels.
    fn fold(&self, side: usize, format: Format) -> Option<Conv> {
        let each = self.weight.len() / self.sizes.output.max(1);
        let scale: Vec<f32> = (self.gamma.iter().zip(self.variance))
            .map(|(gamma, variance)| gamma / (variance + 1e-5).sqrt())
            .collect();
        let bias: Vec<f32> = (self.beta.iter().zip(self.mean).zip(&scale))
            .map(|((beta, mean), scale)| beta - mean * scale)
            .collect();
        let mut weight = self.weight.to_vec();
        for (weight, scale) in weight.chunks_exact_mut(each.max(1)).zip(&scale) {
            weight.iter_mut().for_each(|weight| *weight *= scale);
        }
        Conv::new(self.sizes, side, &weight, &bias, format)
    }
}

impl ResNetBuilder {
    /// A tower for images of `side` pixels whose 1x1 convolutions multiply in `format`.
    pub fn new(side: usize, format: Format) -> Self {
        Self {
            side,
            reached: side,
            format,
            stem: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Adds a convolution of the stem; `None` for a format that this CPU lacks.
    ///
    /// # Panics
    /// A parameter has another size.
    pub fn stem(&mut self, conv: &ConvParameters<'_>) -> Option<()> {
        let conv = conv.fold(self.reached, self.format)?;
        self.reached = conv.side(self.reached);
        self.stem.push(conv);
        Some(())
    }

    /// Adds a bottleneck; `None` for a format that this CPU lacks.
    ///
    /// # Panics
    /// A parameter has another size.
    pub fn block(&mut self, block: &BottleneckParameters<'_>) -> Option<()> {
        let [first, second, third] = block.convs;
        let format = self.format;
        if self.blocks.is_empty() {
            // The pool at the end of the stem.
            self.reached /= 2;
        }
        let side = self.reached;
        self.reached /= block.pool.max(1);
        let downsample = match block.downsample {
            Some(conv) => Some(conv.fold(self.reached, format)?),
            None => None,
        };
        self.blocks.push(Bottleneck {
            convs: [
                first.fold(side, format)?,
                second.fold(side, format)?,
                third.fold(self.reached, format)?,
            ],
            downsample,
            pool: block.pool,
        });
        Some(())
    }

    /// The tower, with its attention pooling in float32.
    pub fn finish(self, pool: &PoolParameters<'_>) -> Option<ResNet> {
        Some(ResNet {
            side: self.side,
            stem: self.stem,
            blocks: self.blocks,
            pool: AttentionPool::new(pool)?,
            spare: Mutex::new(Vec::new()),
        })
    }
}

impl ResNet {
    /// Normalised pixels `[batch, side, side, 3]` -> features before normalisation.
    ///
    /// # Panics
    /// The pixels are not whole images.
    pub fn forward(&self, pixels: &[f32], local: bool) -> Features {
        let image = self.side * self.side * 3;
        let batch = pixels.len() / image;
        assert_eq!(batch * image, pixels.len(), "pixels of whole images");
        let share = of_batch(batch);
        let group = match share {
            Share::One => batch.div_ceil(rayon::current_num_threads()),
            Share::All => batch,
        };
        let parts: Vec<Features> = match share {
            Share::One => (pixels.par_chunks((group * image).max(1)))
                .map(|pixels| self.group(pixels, local, share))
                .collect(),
            Share::All => in_pool(|| vec![self.group(pixels, local, share)]),
        };
        let mut all = Features {
            global: Vec::with_capacity(batch * self.pool.dim()),
            local: Vec::new(),
        };
        for part in parts {
            all.global.extend(part.global);
            all.local.extend(part.local);
        }
        all
    }

    fn group(&self, pixels: &[f32], local: bool, share: Share) -> Features {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = spare().pop().unwrap_or_default();
        let x = self.layers(pixels, share, &mut scratch);
        let features = Features {
            global: self.pool.global(&x, share),
            local: match local {
                true => self.pool.local(&x, share),
                false => Vec::new(),
            },
        };
        scratch.out = x;
        spare().push(scratch);
        features
    }

    /// Everything before the attention pooling: `[batch, side, side, channels]`.
    fn layers(&self, pixels: &[f32], share: Share, scratch: &mut Scratch) -> Vec<f32> {
        let mut side = self.side;
        let mut x = std::mem::take(&mut scratch.x);
        let mut next = std::mem::take(&mut scratch.out);
        let image = 3 * side * side;
        next.clear();
        for pixels in pixels.chunks(at_once(image, pixels.len(), share)) {
            self.stem(pixels, share, scratch, &mut next);
        }
        for conv in &self.stem {
            side = conv.side(side);
        }
        side /= 2;
        std::mem::swap(&mut x, &mut next);
        let mut rest = self.blocks.as_slice();
        // A stage begins with the block that has a shortcut of its own.
        while let Some((_, after)) = rest.split_first() {
            let depth = after.iter().take_while(|b| b.downsample.is_none()).count() + 1;
            let (stage, after) = rest.split_at(depth);
            let channels = stage[0].convs[0].input();
            next.clear();
            for x in x.chunks(at_once(side * side * channels, x.len(), share)) {
                stage_of(stage, Images { values: x, side }, share, scratch, &mut next);
            }
            side /= stage[0].pool;
            std::mem::swap(&mut x, &mut next);
            rest = after;
        }
        scratch.x = next;
        x
    }

    /// Appends the stem's output, average pool included, to `out`.
    fn stem(&self, pixels: &[f32], share: Share, scratch: &mut Scratch, out: &mut Vec<f32>) {
        let mut side = self.side;
        let images = pixels.len() / (3 * side * side);
        let Scratch { a, b, .. } = scratch;
        let mut channels = 3;
        for (i, conv) in self.stem.iter().enumerate() {
            let held = images * side * side * channels;
            let values = if i == 0 { pixels } else { &a[..held] };
            let to = conv.side(side);
            let y = sized(b, images * to * to * conv.output());
            conv.relu(Images { values, side }, y, share);
            std::mem::swap(a, b);
            (side, channels) = (to, conv.output());
        }
        let start = out.len();
        let held = images * side * side * channels;
        out.resize(start + held / 4, 0.0);
        let x = Images {
            values: &a[..held],
            side,
        };
        average(x, channels, 2, &mut out[start..], share);
    }
}

/// Values of as many whole images as one thread takes at once, of `all` values.
fn at_once(image: usize, all: usize, share: Share) -> usize {
    match share {
        Share::One => (STAGE_VALUES / image.max(1)).max(1) * image.max(1),
        Share::All => all.max(1),
    }
}

/// Appends the output of a stage's bottlenecks to `out`.
fn stage_of(
    stage: &[Bottleneck],
    x: Images<'_>,
    share: Share,
    scratch: &mut Scratch,
    out: &mut Vec<f32>,
) {
    let start = out.len();
    let Some((first, others)) = stage.split_first() else {
        return;
    };
    let channels = first.convs[0].input();
    let pixels = x.values.len() / channels;
    let to = pixels / (first.pool * first.pool);
    out.resize(start + to * first.convs[2].output(), 0.0);
    let y = &mut out[start..];
    let Scratch { a, b, .. } = scratch;
    match (&first.downsample, first.pool) {
        (Some(conv), 1) => conv.pixels(x.values, y, share, Then::Nothing),
        (Some(conv), pool) => {
            let pooled = sized(a, to * channels);
            average(x, channels, pool, pooled, share);
            conv.pixels(pooled, y, share, Then::Nothing);
        }
        (None, _) => y.copy_from_slice(x.values),
    }
    first.add(x, a, b, y, share);
    let side = x.side / first.pool;
    for block in others {
        // The residual is added in place, so that the input is needed until the first convolution alone.
        let planes = block.convs[0].output();
        let narrow = sized(a, to * planes);
        block.convs[0].pixels(y, narrow, share, Then::Relu);
        block.after_first(
            Images {
                values: narrow,
                side,
            },
            b,
            y,
            share,
        );
    }
}

impl Bottleneck {
    /// `y`, which holds the shortcut, becomes `relu(y + the convolutions of x)`.
    fn add(&self, x: Images<'_>, a: &mut Vec<f32>, b: &mut Vec<f32>, y: &mut [f32], share: Share) {
        let planes = self.convs[0].output();
        let pixels = x.values.len() / self.convs[0].input();
        let narrow = sized(a, pixels * planes);
        self.convs[0].pixels(x.values, narrow, share, Then::Relu);
        if self.pool == 1 {
            let narrow = Images {
                values: narrow,
                side: x.side,
            };
            return self.after_first(narrow, b, y, share);
        }
        let wide = sized(b, pixels * planes);
        let narrow = Images {
            values: narrow,
            side: x.side,
        };
        self.convs[1].relu(narrow, wide, share);
        let pooled = sized(a, pixels * planes / (self.pool * self.pool));
        let wide = Images {
            values: wide,
            side: x.side,
        };
        average(wide, planes, self.pool, pooled, share);
        self.convs[2].pixels(pooled, y, share, Then::AddRelu);
    }

    /// The second and third convolution without a pool between them.
    fn after_first(&self, narrow: Images<'_>, b: &mut Vec<f32>, y: &mut [f32], share: Share) {
        let wide = sized(b, narrow.values.len());
        self.convs[1].relu(narrow, wide, share);
        self.convs[2].pixels(wide, y, share, Then::AddRelu);
    }
}

/// Means of squares of `pool` pixels a side; a rest at the right and at the bottom is left out, as PyTorch does.
fn average(x: Images<'_>, channels: usize, pool: usize, out: &mut [f32], share: Share) {
    let (side, to) = (x.side, x.side / pool);
    let factor = 1.0 / (pool * pool) as f32;
    share.chunks(out, to * channels, |row, out| {
        let top = row / to * side + row % to * pool;
        out.fill(0.0);
        for y in top..top + pool {
            let line = &x.values[y * side * channels..(y + 1) * side * channels];
            let squares = line.chunks_exact(pool * channels);
            for (out, square) in out.chunks_exact_mut(channels).zip(squares) {
                for pixel in square.chunks_exact(channels) {
                    for (out, value) in out.iter_mut().zip(pixel) {
                        *out += value;
                    }
                }
            }
        }
        out.iter_mut().for_each(|value| *value *= factor);
    });
}

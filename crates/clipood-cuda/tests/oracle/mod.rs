//! CLIP's text tower and the losses of prompt learning by their definitions, in float64, one dense text at a time.
// Each test uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

/// Parameters by OpenAI's names, rounded to a format as the device holds them.
pub type Tower = BTreeMap<String, Vec<f32>>;

/// Sizes of a tower.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub width: usize,
    pub heads: usize,
    pub layers: usize,
    pub context: usize,
    pub dim: usize,
    pub quick_gelu: bool,
}

/// The next of a stream of random numbers: SplitMix64 of Steele et al. 2014.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// About normal: twelve uniform numbers less six.
pub fn normal(state: &mut u64, deviation: f64) -> f32 {
    let sum: f64 = (0..12)
        .map(|_| (next(state) >> 11) as f64 / (1u64 << 53) as f64)
        .sum();
    ((sum - 6.0) * deviation) as f32
}

pub fn normals(state: &mut u64, count: usize, deviation: f64) -> Vec<f32> {
    (0..count).map(|_| normal(state, deviation)).collect()
}

/// Divides rows by their lengths.
pub fn unit_rows(values: &mut [f32], dim: usize) {
    for row in values.chunks_exact_mut(dim) {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
    }
}

/// A tower of random parameters, about as large as trained ones.
pub fn random_tower(sizes: &Sizes, vocabulary: usize, seed: u64) -> Tower {
    let (state, w) = (&mut seed.clone(), sizes.width);
    let mut tower = Tower::new();
    let mut put = |name: String, count: usize, mean: f32, deviation: f64| {
        let values = normals(state, count, deviation)
            .into_iter()
            .map(|v| v + mean)
            .collect();
        tower.insert(name, values);
    };
    put("token_embedding.weight".into(), vocabulary * w, 0.0, 0.3);
    put("positional_embedding".into(), sizes.context * w, 0.0, 0.2);
    for i in 0..sizes.layers {
        let name = |part: &str| format!("transformer.resblocks.{i}.{part}");
        let spread = 1.0 / (w as f64).sqrt();
        for norm in ["ln_1", "ln_2"] {
            put(name(&format!("{norm}.weight")), w, 1.0, 0.1);
            put(name(&format!("{norm}.bias")), w, 0.0, 0.1);
        }
        for (weight, bias, inputs, outputs) in [
            ("attn.in_proj_weight", "attn.in_proj_bias", w, 3 * w),
            ("attn.out_proj.weight", "attn.out_proj.bias", w, w),
            ("mlp.c_fc.weight", "mlp.c_fc.bias", w, 4 * w),
            ("mlp.c_proj.weight", "mlp.c_proj.bias", 4 * w, w),
        ] {
            put(name(weight), inputs * outputs, 0.0, spread);
            put(name(bias), outputs, 0.0, 0.1);
        }
    }
    put("ln_final.weight".into(), w, 1.0, 0.1);
    put("ln_final.bias".into(), w, 0.0, 0.1);
    put(
        "text_projection".into(),
        w * sizes.dim,
        0.0,
        1.0 / (w as f64).sqrt(),
    );
    tower
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Rows `x [n, inputs]` through a weight `[outputs, inputs]`.
fn linear(x: &[f64], weight: &[f64], bias: &[f64], inputs: usize) -> Vec<f64> {
    let outputs = weight.chunks_exact(inputs).zip(bias);
    x.chunks_exact(inputs)
        .flat_map(|x| {
            outputs
                .clone()
                .map(|(w, b)| b + x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>())
        })
        .collect()
}

fn norm(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let width = weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        out.extend(
            row.iter()
                .zip(weight.iter().zip(bias))
                .map(|(v, (w, b))| (v - mean) * scale * w + b),
        );
    }
    out
}

/// The error function by its series; the arguments here are small.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

pub fn activation(x: f64, quick: bool) -> f64 {
    match quick {
        true => x / (1.0 + (-1.702 * x).exp()),
        false => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
    }
}

/// A tower in float64.
pub struct Exact {
    sizes: Sizes,
    values: BTreeMap<String, Vec<f64>>,
}

impl Exact {
    pub fn new(tower: &Tower, sizes: Sizes) -> Self {
        let values = tower
            .iter()
            .map(|(name, values)| (name.clone(), wide(values)))
            .collect();
        Self { sizes, values }
    }

    fn get(&self, name: &str) -> &[f64] {
        &self.values[name]
    }

    /// The feature, before normalisation, of embedded tokens `[tokens, width]` without positions, read at the last.
    pub fn feature(&self, tokens: &[f64]) -> Vec<f64> {
        let Sizes {
            width,
            heads,
            layers,
            dim,
            quick_gelu,
            ..
        } = self.sizes;
        let mut x: Vec<f64> = tokens
            .iter()
            .zip(self.get("positional_embedding"))
            .map(|(a, b)| a + b)
            .collect();
        for i in 0..layers {
            let get = |part: &str| self.get(&format!("transformer.resblocks.{i}.{part}"));
            let normed = norm(&x, get("ln_1.weight"), get("ln_1.bias"));
            let qkv = linear(
                &normed,
                get("attn.in_proj_weight"),
                get("attn.in_proj_bias"),
                width,
            );
            let attended = attention(&qkv, width, heads);
            let out = linear(
                &attended,
                get("attn.out_proj.weight"),
                get("attn.out_proj.bias"),
                width,
            );
            x.iter_mut().zip(out).for_each(|(x, d)| *x += d);
            let normed = norm(&x, get("ln_2.weight"), get("ln_2.bias"));
            let mut hidden = linear(&normed, get("mlp.c_fc.weight"), get("mlp.c_fc.bias"), width);
            hidden
                .iter_mut()
                .for_each(|h| *h = activation(*h, quick_gelu));
            let out = linear(
                &hidden,
                get("mlp.c_proj.weight"),
                get("mlp.c_proj.bias"),
                4 * width,
            );
            x.iter_mut().zip(out).for_each(|(x, d)| *x += d);
        }
        let last = norm(
            &x[x.len() - width..],
            self.get("ln_final.weight"),
            self.get("ln_final.bias"),
        );
        let projection = self.get("text_projection");
        (0..dim)
            .map(|d| (0..width).map(|w| last[w] * projection[w * dim + d]).sum())
            .collect()
    }
}

/// Causal attention of one text, `qkv [tokens, 3 width]`.
fn attention(qkv: &[f64], width: usize, heads: usize) -> Vec<f64> {
    let (tokens, head) = (qkv.len() / (3 * width), width / heads);
    let row = |token: usize, part: usize, h: usize| {
        let at = token * 3 * width + part * width + h * head;
        &qkv[at..at + head]
    };
    let mut out = vec![0.0; tokens * width];
    for h in 0..heads {
        for query in 0..tokens {
            let dot = |key: usize| {
                row(query, 0, h)
                    .iter()
                    .zip(row(key, 1, h))
                    .map(|(a, b)| a * b)
                    .sum::<f64>()
            };
            let scores: Vec<f64> = (0..=query)
                .map(|key| dot(key) / (head as f64).sqrt())
                .collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (key, weight) in weights.iter().enumerate() {
                for (d, v) in row(key, 2, h).iter().enumerate() {
                    out[query * width + h * head + d] += weight / sum * v;
                }
            }
        }
    }
    out
}

/// Which loss, with the weight of its patch term and its K.
#[derive(Debug, Clone, Copy)]
pub enum Loss {
    Coop,
    Locoop(f64, usize),
    Sct(f64, usize),
}

/// Loss, selected patches and images classified correctly, of unit images `[images, dim]` and patches `[images, patches, dim]`
/// and text features that need no unit length.
pub fn loss(
    kind: Loss,
    texts: &[Vec<f64>],
    images: &[f32],
    patches: &[f32],
    labels: &[i32],
    scale: f64,
) -> (f64, usize, usize) {
    let dim = texts[0].len();
    let unit: Vec<Vec<f64>> = texts
        .iter()
        .map(|text| {
            let length = text.iter().map(|v| v * v).sum::<f64>().sqrt();
            text.iter().map(|v| v / length).collect()
        })
        .collect();
    let logits = |row: &[f32]| -> Vec<f64> {
        let dot = |text: &Vec<f64>| {
            text.iter()
                .zip(row)
                .map(|(a, b)| a * f64::from(*b))
                .sum::<f64>()
        };
        unit.iter().map(|text| scale * dot(text)).collect()
    };
    let softmax = |z: &[f64]| -> Vec<f64> {
        let most = z.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = z.iter().map(|z| (z - most).exp()).sum();
        z.iter().map(|z| (z - most).exp() / sum).collect()
    };
    let (mut own, mut term, mut selected, mut right) = (0.0, 0.0, 0, 0);
    let per_image = patches.len() / labels.len();
    for ((image, label), i) in images.chunks_exact(dim).zip(labels).zip(0..) {
        let label = *label as usize;
        let z = logits(image);
        let p = softmax(&z)[label];
        let ahead = z
            .iter()
            .enumerate()
            .filter(|(c, v)| **v > z[label] || (**v == z[label] && *c < label));
        right += usize::from(ahead.count() == 0);
        let (weight, top) = match kind {
            Loss::Coop => (0.0, usize::MAX),
            Loss::Locoop(_, top) => (1.0, top),
            Loss::Sct(_, top) => (p + 1e-7, top),
        };
        own -= match kind {
            Loss::Sct(..) => p.ln() * (1.000_000_1 - p),
            Loss::Coop | Loss::Locoop(..) => p.ln(),
        };
        for patch in patches[i * per_image..(i + 1) * per_image].chunks_exact(dim) {
            let z = logits(patch);
            if z.iter().filter(|v| **v > z[label]).count() >= top {
                selected += 1;
                term += weight * softmax(&z).iter().map(|p| p * (p + 1e-5).ln()).sum::<f64>();
            }
        }
    }
    let lambda = match kind {
        Loss::Coop => 0.0,
        Loss::Locoop(lambda, _) | Loss::Sct(lambda, _) => lambda,
    };
    let loss = own / labels.len() as f64 + lambda * term / (selected.max(1) as f64);
    (loss, selected, right)
}

/// `|a - b| / |b|`.
pub fn apart(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - b).powi(2))
        .sum();
    (difference / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

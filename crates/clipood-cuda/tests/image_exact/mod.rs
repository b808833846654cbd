//! CLIP's image towers by their definitions, in float64: convolutions as sums over a window of `[channels, side, side]`, batch
//! norms after them, every token through every block.

use std::collections::BTreeMap;

/// Parameters by OpenAI's names.
pub type Parameters = BTreeMap<String, Vec<f32>>;

/// Features of one image.
pub struct Exact {
    /// `[D]`.
    pub global: Vec<f64>,
    /// `[positions, D]`.
    pub local: Vec<f64>,
}

/// Random parameters, about as large as trained ones.
pub struct Random {
    state: u64,
    pub parameters: Parameters,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            parameters: Parameters::new(),
        }
    }

    /// About normal: twelve uniform numbers less six. SplitMix64 of Steele et al. 2014.
    fn normal(&mut self) -> f64 {
        (0..12)
            .map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64)
            .sum::<f64>()
            - 6.0
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 56) as u8).collect()
    }

    fn put(&mut self, name: &str, count: usize, mean: f64, deviation: f64) {
        let values = (0..count)
            .map(|_| (mean + deviation * self.normal()) as f32)
            .collect();
        self.parameters.insert(format!("visual.{name}"), values);
    }

    fn layer(&mut self, prefix: &str, outputs: usize, inputs: usize) {
        self.put(
            &format!("{prefix}weight"),
            outputs * inputs,
            0.0,
            (inputs as f64).powf(-0.5),
        );
        self.put(&format!("{prefix}bias"), outputs, 0.0, 0.1);
    }

    fn norm(&mut self, prefix: &str, width: usize) {
        self.put(&format!("{prefix}weight"), width, 1.0, 0.1);
        self.put(&format!("{prefix}bias"), width, 0.0, 0.1);
    }

    pub fn vit(&mut self, [side, patch, width, layers, dim]: [usize; 5]) {
        let patches = (side / patch) * (side / patch);
        self.put("conv1.weight", width * 3 * patch * patch, 0.0, 0.05);
        self.put("class_embedding", width, 0.0, 0.3);
        self.put("positional_embedding", (patches + 1) * width, 0.0, 0.3);
        self.norm("ln_pre.", width);
        self.norm("ln_post.", width);
        for i in 0..layers {
            let block = format!("transformer.resblocks.{i}.");
            self.norm(&format!("{block}ln_1."), width);
            self.norm(&format!("{block}ln_2."), width);
            self.layer(&format!("{block}attn.in_proj_"), 3 * width, width);
            self.layer(&format!("{block}attn.out_proj."), width, width);
            self.layer(&format!("{block}mlp.c_fc."), 4 * width, width);
            self.layer(&format!("{block}mlp.c_proj."), width, 4 * width);
        }
        self.put("proj", width * dim, 0.0, (width as f64).powf(-0.5));
    }

    fn conv(&mut self, conv: &str, norm: &str, [input, output, kernel]: [usize; 3]) {
        let inputs = input * kernel * kernel;
        self.put(
            &format!("{conv}.weight"),
            output * inputs,
            0.0,
            (2.0 / inputs as f64).sqrt(),
        );
        self.norm(&format!("{norm}."), output);
        self.put(&format!("{norm}.running_mean"), output, 0.0, 0.2);
        self.put(&format!("{norm}.running_var"), output, 1.0, 0.05);
    }

    pub fn resnet(&mut self, width: usize, layers: [usize; 4], positions: usize, dim: usize) {
        let half = width / 2;
        self.conv("conv1", "bn1", [3, half, 3]);
        self.conv("conv2", "bn2", [half, half, 3]);
        self.conv("conv3", "bn3", [half, width, 3]);
        let mut input = width;
        for (stage, depth) in layers.into_iter().enumerate() {
            let planes = width << stage;
            for i in 0..depth {
                let name = format!("layer{}.{i}", stage + 1);
                self.conv(
                    &format!("{name}.conv1"),
                    &format!("{name}.bn1"),
                    [input, planes, 1],
                );
                self.conv(
                    &format!("{name}.conv2"),
                    &format!("{name}.bn2"),
                    [planes, planes, 3],
                );
                self.conv(
                    &format!("{name}.conv3"),
                    &format!("{name}.bn3"),
                    [planes, 4 * planes, 1],
                );
                if i == 0 {
                    self.conv(
                        &format!("{name}.downsample.0"),
                        &format!("{name}.downsample.1"),
                        [input, 4 * planes, 1],
                    );
                }
                input = 4 * planes;
            }
        }
        self.put(
            "attnpool.positional_embedding",
            (positions + 1) * input,
            0.0,
            0.3,
        );
        for name in ["q_proj", "k_proj", "v_proj"] {
            self.layer(&format!("attnpool.{name}."), input, input);
        }
        self.layer("attnpool.c_proj.", dim, input);
    }
}

/// Maps `[channels, side, side]`.
struct Map {
    side: usize,
    values: Vec<f64>,
}

/// A tower in float64.
pub struct ExactTower<'a> {
    pub parameters: &'a Parameters,
    pub mean: [f32; 3],
    pub deviation: [f32; 3],
    pub heads: usize,
    pub quick_gelu: bool,
}

impl ExactTower<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        let values = self
            .parameters
            .get(&format!("visual.{name}"))
            .unwrap_or_else(|| panic!("no {name}"));
        values.iter().map(|v| f64::from(*v)).collect()
    }

    fn pixels(&self, bytes: &[u8], side: usize) -> Map {
        let value = |c: usize, place: usize| {
            let value = f64::from(bytes[3 * place + c]) / 255.0;
            (value - f64::from(self.mean[c])) / f64::from(self.deviation[c])
        };
        let values = (0..3)
            .flat_map(|c| (0..side * side).map(move |place| value(c, place)))
            .collect();
        Map { side, values }
    }

    fn linear(&self, x: &[f64], prefix: &str) -> Vec<f64> {
        let (weight, bias) = (
            self.get(&format!("{prefix}weight")),
            self.get(&format!("{prefix}bias")),
        );
        let inputs = weight.len() / bias.len();
        let row = |x: &[f64]| -> Vec<f64> {
            weight
                .chunks_exact(inputs)
                .zip(&bias)
                .map(|(w, b)| b + dot(w, x))
                .collect()
        };
        x.chunks_exact(inputs).flat_map(row).collect()
    }

    fn norm(&self, x: &[f64], prefix: &str) -> Vec<f64> {
        let (gain, bias) = (
            self.get(&format!("{prefix}weight")),
            self.get(&format!("{prefix}bias")),
        );
        let width = gain.len();
        let mut out = Vec::with_capacity(x.len());
        for row in x.chunks_exact(width) {
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / width as f64;
            let scale = 1.0 / (variance + 1e-5).sqrt();
            out.extend((0..width).map(|i| (row[i] - mean) * scale * gain[i] + bias[i]));
        }
        out
    }

    /// Attention of `query [queries, width]` over `key` and `value` `[keys, width]`.
    fn attention(&self, [query, key, value]: [&[f64]; 3], width: usize) -> Vec<f64> {
        let head = width / self.heads;
        let mut out = vec![0.0; query.len()];
        for (query, out) in query.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            for h in (0..width).step_by(head) {
                let scores = key
                    .chunks_exact(width)
                    .map(|key| dot(&query[h..h + head], &key[h..h + head]) / (head as f64).sqrt());
                let scores: Vec<f64> = scores.collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                for (score, value) in scores.iter().zip(value.chunks_exact(width)) {
                    let weight = (score - most).exp() / sum;
                    (h..h + head).for_each(|i| out[i] += weight * value[i]);
                }
            }
        }
        out
    }

    fn perceptron(&self, x: &mut [f64], block: &str) {
        let mut hidden = self.linear(
            &self.norm(x, &format!("{block}ln_2.")),
            &format!("{block}mlp.c_fc."),
        );
        hidden
            .iter_mut()
            .for_each(|h| *h = gelu(*h, self.quick_gelu));
        add(x, &self.linear(&hidden, &format!("{block}mlp.c_proj.")));
    }

    /// A vision transformer; the local features are those of LoCoOp.
    pub fn vit(&self, bytes: &[u8], [side, patch, width, layers, dim]: [usize; 5]) -> Exact {
        let grid = side / patch;
        let pixels = self.pixels(bytes, side);
        let conv1 = self.get("conv1.weight");
        let mut x = self.get("class_embedding");
        for place in 0..grid * grid {
            let (top, left) = (place / grid * patch, place % grid * patch);
            for w in conv1.chunks_exact(3 * patch * patch) {
                let at = |i: usize| {
                    let (c, y, x) = (
                        i / (patch * patch),
                        top + i / patch % patch,
                        left + i % patch,
                    );
                    pixels.values[(c * side + y) * side + x]
                };
                x.push(w.iter().enumerate().map(|(i, w)| w * at(i)).sum());
            }
        }
        add(&mut x, &self.get("positional_embedding"));
        let mut x = self.norm(&x, "ln_pre.");
        let mut local = Vec::new();
        for i in 0..layers {
            let block = format!("transformer.resblocks.{i}.");
            let packed = self.linear(
                &self.norm(&x, &format!("{block}ln_1.")),
                &format!("{block}attn.in_proj_"),
            );
            let part = |n: usize| -> Vec<f64> {
                packed
                    .chunks_exact(3 * width)
                    .flat_map(|row| row[n * width..][..width].to_vec())
                    .collect()
            };
            let (query, key, value) = (part(0), part(1), part(2));
            if i + 1 == layers {
                let mut values = x.clone();
                add(
                    &mut values,
                    &self.linear(&value, &format!("{block}attn.out_proj.")),
                );
                self.perceptron(&mut values, &block);
                local = values[width..].to_vec();
            }
            let attended = self.attention([&query, &key, &value], width);
            add(
                &mut x,
                &self.linear(&attended, &format!("{block}attn.out_proj.")),
            );
            self.perceptron(&mut x, &block);
        }
        let proj = self.get("proj");
        let project = |x: &[f64]| -> Vec<f64> {
            let row = |x: &[f64]| -> Vec<f64> {
                (0..dim)
                    .map(|d| (0..width).map(|w| x[w] * proj[w * dim + d]).sum())
                    .collect()
            };
            self.norm(x, "ln_post.")
                .chunks_exact(width)
                .flat_map(row)
                .collect()
        };
        Exact {
            global: project(&x[..width]),
            local: project(&local),
        }
    }

    /// A convolution with half of the kernel as padding, and its batch norm.
    fn conv(&self, x: &Map, conv: &str, norm: &str, stride: usize) -> Map {
        let weight = self.get(&format!("{conv}.weight"));
        let [gain, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|name| self.get(&format!("{norm}.{name}")));
        let channels = x.values.len() / (x.side * x.side);
        let area = weight.len() / gain.len() / channels;
        let kernel = area.isqrt();
        let (padding, side) = (kernel / 2, x.side.div_ceil(stride));
        let mut values = Vec::new();
        for (o, w) in weight.chunks_exact(channels * area).enumerate() {
            for place in 0..side * side {
                let mut sum = 0.0;
                for (i, w) in w.iter().enumerate() {
                    let (c, ky, kx) = (i / area, i / kernel % kernel, i % kernel);
                    let (y, left) = (place / side * stride + ky, place % side * stride + kx);
                    if (padding..x.side + padding).contains(&y)
                        && (padding..x.side + padding).contains(&left)
                    {
                        sum += w * x.values[(c * x.side + y - padding) * x.side + left - padding];
                    }
                }
                values.push((sum - mean[o]) / (variance[o] + 1e-5).sqrt() * gain[o] + bias[o]);
            }
        }
        Map { side, values }
    }

    /// A ModifiedResNet; the local features are those of LoCoOp.
    pub fn resnet(&self, bytes: &[u8], side: usize, layers: [usize; 4]) -> Exact {
        let mut x = self.pixels(bytes, side);
        for (n, stride) in [(1, 2), (2, 1), (3, 1)] {
            x = relu(self.conv(&x, &format!("conv{n}"), &format!("bn{n}"), stride));
        }
        x = pool(&x);
        for (stage, depth) in layers.into_iter().enumerate() {
            for i in 0..depth {
                let name = format!("layer{}.{i}", stage + 1);
                let conv = |x: &Map, n: usize| {
                    self.conv(x, &format!("{name}.conv{n}"), &format!("{name}.bn{n}"), 1)
                };
                let pooled = |x: Map| if i == 0 && stage > 0 { pool(&x) } else { x };
                let h = pooled(relu(conv(&relu(conv(&x, 1)), 2)));
                let mut h = conv(&h, 3);
                let shortcut = match i {
                    0 => self.conv(
                        &pooled(x),
                        &format!("{name}.downsample.0"),
                        &format!("{name}.downsample.1"),
                        1,
                    ),
                    _ => x,
                };
                add(&mut h.values, &shortcut.values);
                x = relu(h);
            }
        }
        let places = x.side * x.side;
        let width = x.values.len() / places;
        let rows: Vec<f64> = (0..places * width)
            .map(|i| x.values[i % width * places + i / width])
            .collect();
        let mut tokens: Vec<f64> = x
            .values
            .chunks_exact(places)
            .map(|map| map.iter().sum::<f64>() / places as f64)
            .collect();
        tokens.extend(&rows);
        add(&mut tokens, &self.get("attnpool.positional_embedding"));
        let [query, key, value] = [
            ("q_proj", &tokens[..width]),
            ("k_proj", &tokens),
            ("v_proj", &tokens),
        ]
        .map(|(name, x)| self.linear(x, &format!("attnpool.{name}.")));
        let attended = self.attention([&query, &key, &value], width);
        let values = self.linear(&rows, "attnpool.v_proj.");
        Exact {
            global: self.linear(&attended, "attnpool.c_proj."),
            local: self.linear(&values, "attnpool.c_proj."),
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn relu(mut x: Map) -> Map {
    x.values.iter_mut().for_each(|v| *v = v.max(0.0));
    x
}

/// Means of 2 x 2 places.
fn pool(x: &Map) -> Map {
    let side = x.side / 2;
    let mut values = Vec::new();
    for map in x.values.chunks_exact(x.side * x.side) {
        for place in 0..side * side {
            let at = 2 * (place / side) * x.side + 2 * (place % side);
            values.push((map[at] + map[at + 1] + map[at + x.side] + map[at + x.side + 1]) / 4.0);
        }
    }
    Map { side, values }
}

fn gelu(x: f64, quick: bool) -> f64 {
    if quick {
        return x / (1.0 + (-1.702 * x).exp());
    }
    // The normal distribution function by the series of its error function; beyond 6 deviations it is 0 or 1.
    if x.abs() > 6.0 {
        return x.max(0.0);
    }
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 * x * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt())
}

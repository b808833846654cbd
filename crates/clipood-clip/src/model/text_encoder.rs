//! [`TextEncoder`]: texts to features.

use std::collections::BTreeMap;

use super::Model;
#[cfg(feature = "cuda")]
use super::gpu_text::GpuText;
use crate::cpu_text::CpuText;
use crate::device::Device;
use crate::error::{ClipError, Result};
use crate::kernels::ClipBackend;
use crate::text::{TextTransformer, cut};
use crate::tokenizer::Tokenizer;

/// Texts that go through the text tower at once.
const TEXT_BATCH: usize = 128;

impl Model {
    /// The text tower on `device`, in float32 (there are too few texts for the format to matter).
    ///
    /// # Errors
    /// A parameter is not finite, or the device does not exist.
    pub fn text_encoder(&self, device: Device) -> Result<TextEncoder> {
        let tower = match device {
            Device::Cpu => TextTowers::Cpu(CpuText::new(self.weights.clone(), &self.config)?),
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => TextTowers::Cuda(Box::new(GpuText::open(self, index)?)),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(index) => return Err(crate::device::no_cuda(index)),
        };
        Ok(TextEncoder {
            tower,
            tokenizer: Tokenizer::new(),
            dim: self.config.embed_dim,
            context: self.config.text.context,
        })
    }

    pub(super) fn text_tower<B: ClipBackend>(
        &self,
        device: &B::Device,
    ) -> Result<TextTransformer<B>> {
        TextTransformer::load(&self.weights, &self.config, device)
    }
}

/// The text tower on each backend of this build.
enum TextTowers {
    Cpu(CpuText),
    #[cfg(feature = "cuda")]
    Cuda(Box<GpuText>),
}

/// The text tower with its tokenizer.
pub struct TextEncoder {
    tower: TextTowers,
    tokenizer: Tokenizer,
    dim: usize,
    context: usize,
}

impl TextEncoder {
    /// Features before normalisation, row-major `[texts, D]`.
    ///
    /// # Errors
    /// A text is longer than the context.
    pub fn encode(&self, texts: &[String]) -> Result<Vec<f32>> {
        let tokenize = |text: &String| {
            let row = self.tokenizer.tokenize(text, self.context);
            row.map_err(|e| ClipError::Text(e.to_string()))
        };
        self.encode_rows(texts, tokenize)
    }

    /// [`TextEncoder::encode`], with texts that are longer than the context cut there, as in the training of CLIP.
    ///
    /// # Errors
    /// The device failed.
    pub fn encode_cut(&self, texts: &[String]) -> Result<Vec<f32>> {
        let tokenize = |text: &String| Ok(self.tokenizer.tokenize_truncate(text, self.context));
        self.encode_rows(texts, tokenize)
    }

    /// `tokenize` makes a zero-padded row of ids.
    fn encode_rows(
        &self,
        texts: &[String],
        tokenize: impl Fn(&String) -> Result<Vec<u32>>,
    ) -> Result<Vec<f32>> {
        let rows = |texts: &[String]| -> Result<Vec<u32>> {
            let mut ids = Vec::with_capacity(texts.len() * self.context);
            for text in texts {
                ids.extend(tokenize(text)?);
            }
            Ok(ids)
        };
        match &self.tower {
            TextTowers::Cpu(tower) => {
                let mut out = Vec::with_capacity(texts.len() * self.dim);
                for batch in texts.chunks(TEXT_BATCH) {
                    let tokens = cut(&rows(batch)?, self.context)?;
                    out.extend(tower.encode(&tokens)?);
                }
                Ok(out)
            }
            #[cfg(feature = "cuda")]
            TextTowers::Cuda(tower) => tower.encode(&rows(texts)?, self.context),
        }
    }

    /// One normalised feature per class, row-major `[classes, D]`: the templates (`{}` is the name) encoded, normalised,
    /// averaged and normalised again.
    ///
    /// # Errors
    /// A filled template is longer than the context.
    pub fn classes(&self, names: &[String], templates: &[&str]) -> Result<Vec<f32>> {
        let filled = |name: &String| -> Vec<String> {
            templates.iter().map(|t| t.replace("{}", name)).collect()
        };
        let texts: Vec<Vec<String>> = names.iter().map(filled).collect();
        self.ensembles(&texts)
    }

    /// One normalised feature per class, row-major `[classes, D]`: its texts, at least one, encoded, normalised, averaged
    /// and normalised again. Classes of equal texts have equal features, to the last bit.
    ///
    /// # Errors
    /// A text is longer than the context.
    pub fn ensembles(&self, texts: &[Vec<String>]) -> Result<Vec<f32>> {
        let mut features = self.encode(&texts.concat())?;
        features.chunks_exact_mut(self.dim).for_each(unit);
        let mut rows = features.chunks_exact(self.dim);
        let mut means = Vec::with_capacity(texts.len() * self.dim);
        for class in texts {
            let mut mean = vec![0f32; self.dim];
            for row in rows.by_ref().take(class.len()) {
                for (m, v) in mean.iter_mut().zip(row) {
                    *m += v;
                }
            }
            unit(&mut mean);
            means.extend(mean);
        }
        repeat_equal(texts, self.dim, &mut means);
        Ok(means)
    }
}

/// Gives each of `texts` the feature of the first that equals it. The features `[texts, dim]` of equal texts may differ in
/// the last bits, because a product rounds by the place of a row in its batch; then another than the first class of a text
/// could be predicted.
pub(super) fn repeat_equal<T: Ord>(texts: &[T], dim: usize, features: &mut [f32]) {
    let mut first = BTreeMap::new();
    for (row, text) in texts.iter().enumerate() {
        let source = *first.entry(text).or_insert(row);
        if source != row {
            features.copy_within(source * dim..(source + 1) * dim, row * dim);
        }
    }
}

/// Divides a feature by its length.
fn unit(row: &mut [f32]) {
    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
    row.iter_mut().for_each(|v| *v /= norm);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_the_features_of_the_first() {
        let mut features = vec![1.0, 2.0, 3.0, 4.0, 1.5, 2.5, 5.0, 6.0, 1.7, 2.7];
        repeat_equal(&["a", "b", "a", "c", "a"], 2, &mut features);
        assert_eq!(features, [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 5.0, 6.0, 1.0, 2.0]);
    }
}

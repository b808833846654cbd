//! The tokens nearest to the vectors of a learned context.

use clipood_clip::model::Model;
use clipood_clip::tokenizer::Tokenizer;

use crate::error::Result;

/// For each vector of `context` (`[vectors, width]`) the `top` nearest tokens with their Euclidean distances, the nearest
/// first, as in the CoOp paper.
///
/// # Errors
/// A checkpoint without token embeddings.
pub fn nearest_tokens(
    model: &Model,
    context: &[f32],
    top: usize,
) -> Result<Vec<Vec<(String, f32)>>> {
    let (embedding, width) = model.token_embedding()?;
    let tokenizer = Tokenizer::new();
    let vectors = context.chunks_exact(width).map(|vector| {
        let squared = |row: &[f32]| -> f32 {
            let differences = row.iter().zip(vector).map(|(a, b)| (a - b) * (a - b));
            differences.sum()
        };
        let mut near: Vec<(f32, u32)> = embedding
            .chunks_exact(width)
            .map(squared)
            .zip(0u32..)
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        let named = near.iter().take(top).map(|(distance, id)| {
            let token = tokenizer.decode(&[*id]).trim().to_owned();
            (token, distance.sqrt())
        });
        named.collect()
    });
    Ok(vectors.collect())
}

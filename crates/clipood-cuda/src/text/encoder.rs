//! [`TextPlan`] and [`TextPass`]: texts to features, as many at once as fit.

use super::pack::{Capacity, Packed};
use super::plan::TextProgram;
use super::tower::TextTower;
use super::weights::{Parameters, TextSizes, WeightPlaces, parameter};
use crate::card::Card;
use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::precision::Precision;
use crate::space::{Device, Space, integer_bytes, read_floats};

/// A text encoder laid out, before a device is asked for its memory.
pub struct TextPlan {
    tower: TextTower,
    space: Space,
    program: Program,
}

/// Tokens that texts of a batch begin with in common: the start.
const PREFIX: usize = 1;

impl TextPlan {
    /// An encoder of texts of up to `longest` tokens, start and end included, `rows` tokens at once.
    ///
    /// # Errors
    /// Sizes that the kernels do not cover, or missing parameters.
    pub fn new(
        parameters: Parameters<'_>,
        (sizes, precision): (&TextSizes, Precision),
        (longest, rows): (usize, usize),
        card: &Card,
    ) -> Result<Self> {
        sizes.check()?;
        if longest > sizes.context {
            return Err(CudaError::Unsupported(format!(
                "a text of {longest} tokens, the context has {}",
                sizes.context
            )));
        }
        let group_rows = longest.max(PREFIX + 1).next_multiple_of(32);
        let rows = rows.max(group_rows + PREFIX);
        // Two neighbouring groups together exceed a group, or the second would have gone into the first.
        let groups = 2 * rows / group_rows + 3;
        let texts = rows.div_ceil(4);
        let capacity = Capacity {
            rows,
            texts,
            groups,
            group_rows,
        };
        let mut space = Space::default();
        let weights = WeightPlaces::new(&mut space, parameters, sizes, precision)?;
        let tower = TextTower::for_encoding(
            &mut space,
            &weights,
            (sizes, precision),
            (PREFIX, capacity),
            card,
        )?;
        let program = TextProgram {
            sizes,
            precision,
            prefix: PREFIX,
            group_rows,
            training: None,
        };
        let program = program.program(card)?;
        Ok(Self {
            tower,
            space,
            program,
        })
    }

    /// The kernels.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The memory and what it holds at first.
    pub fn space(&mut self) -> &mut Space {
        &mut self.space
    }
}

/// A text encoder on a device.
pub struct TextPass<D> {
    tower: TextTower,
    device: D,
}

impl<D: Device> TextPass<D> {
    /// An encoder on a device whose memory holds what the plan says.
    pub fn new(plan: TextPlan, device: D) -> Self {
        let mut tower = plan.tower;
        tower.attach(device.base());
        Self { tower, device }
    }

    /// Features before normalisation, `[texts, dim]`, of token ids, each text from the start token to its end. The embeddings
    /// are read from `parameters`.
    ///
    /// # Errors
    /// Texts that are longer than planned, do not begin with the same token, or have an id without an embedding; or the device
    /// fails.
    pub fn encode(&mut self, texts: &[&[u32]], parameters: Parameters<'_>) -> Result<Vec<f32>> {
        let width = self.tower.width;
        let table = parameters("token_embedding.weight").unwrap_or(&[]);
        let positions = parameter(
            parameters,
            "positional_embedding",
            self.tower.context() * width,
        )?;
        let mut features = Vec::with_capacity(texts.len() * self.tower.dim);
        let mut rest = texts;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(self.fitting(rest)?);
            features.extend(self.encode_batch(batch, table, positions)?);
            rest = after;
        }
        Ok(features)
    }

    /// How many of the first texts fit at once.
    fn fitting(&self, texts: &[&[u32]]) -> Result<usize> {
        let capacity = self.tower.capacity;
        let start = texts[0].first();
        let (mut rows, mut count) = (PREFIX, 0);
        for text in texts {
            if text.len() < PREFIX + 1 || text.len() > capacity.group_rows || text.first() != start
            {
                return Err(CudaError::Unsupported(format!(
                    "a text of {} tokens from {:?} on, among texts of 2 to {} from {start:?} on",
                    text.len(),
                    text.first(),
                    capacity.group_rows
                )));
            }
            rows += text.len() - PREFIX;
            if rows > capacity.rows || count == capacity.texts {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    fn encode_batch(
        &mut self,
        texts: &[&[u32]],
        table: &[f32],
        positions: &[f32],
    ) -> Result<Vec<f32>> {
        let (tower, width) = (&self.tower, self.tower.width);
        let packed = Packed::new(
            PREFIX,
            texts.iter().map(|text| text.len() - PREFIX).collect(),
        )?;
        let own = texts.iter().flat_map(|text| &text[PREFIX..]);
        let ids = texts[0][..PREFIX].iter().chain(own);
        let mut values = Vec::with_capacity(packed.rows() * width);
        for (id, position) in ids.zip(packed.positions()) {
            let at = *id as usize * width;
            let token = table.get(at..at + width).ok_or_else(|| {
                CudaError::Unsupported(format!(
                    "token {id}, the vocabulary has {}",
                    table.len() / width
                ))
            })?;
            let position = &positions[position as usize * width..];
            values.extend(token.iter().zip(position).map(|(a, b)| a + b));
        }
        let mut bytes = Vec::new();
        tower.precision.append(&mut bytes, &values);
        let padded = packed.padded(tower.capacity)?;
        let device = &mut self.device;
        device.write(tower.input(), &bytes)?;
        let [starts, first, ends] = tower.index_places();
        device.write(starts, &integer_bytes(&padded.starts))?;
        device.write(first, &integer_bytes(&padded.first))?;
        device.write(ends, &integer_bytes(&padded.ends))?;
        device.repeat(0, &mut |executor| tower.forward(executor))?;
        read_floats(device, tower.features(), texts.len() * tower.dim)
    }
}

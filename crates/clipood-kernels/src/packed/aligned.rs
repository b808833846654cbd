//! Values that start at a cache line.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Float32 values whose first lies at the start of a cache line, so that no aligned vector of them crosses two. A clone may
/// start elsewhere, which costs speed alone.
#[derive(Debug, Clone)]
pub(super) struct Aligned {
    values: Vec<f32>,
    start: usize,
}

impl Aligned {
    /// `count` zeros.
    pub fn new(count: usize) -> Self {
        let slack = LINE / size_of::<f32>();
        let mut values = vec![0.0; count + slack];
        let start = values.as_ptr().align_offset(LINE).min(slack);
        values.truncate(start + count);
        Self { values, start }
    }

    /// The values.
    pub fn values(&self) -> &[f32] {
        &self.values[self.start..]
    }

    /// The values, to be written.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..]
    }
}

//! [`Space`]: a plan of device memory with what it holds at first, and [`Device`]: an executor with such memory.

use crate::error::Result;
use crate::executor::Executor;
use crate::memory::Places;
use crate::precision::Precision;

/// Parts of one allocation, as offsets from its start, and the bytes that some of them hold at first.
#[derive(Debug, Clone, Default)]
pub struct Space {
    places: Places,
    contents: Vec<(u64, Vec<u8>)>,
}

impl Space {
    /// Bytes of the allocation.
    pub fn size(&self) -> usize {
        self.places.size()
    }

    /// Takes what parts hold at first, offset and bytes. Nothing else needs to be initialised.
    pub fn take_contents(&mut self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.contents)
    }

    /// A part for `values` values of a format.
    pub fn values(&mut self, precision: Precision, values: usize) -> u64 {
        self.places.place(values * precision.bytes())
    }

    /// A part for `values` values of 32 bits.
    pub fn words(&mut self, values: usize) -> u64 {
        self.places.place(4 * values)
    }

    /// A part that holds `values` in a format.
    pub fn holding(&mut self, precision: Precision, values: &[f32]) -> u64 {
        let mut bytes = Vec::new();
        precision.append(&mut bytes, values);
        self.hold(bytes)
    }

    /// A part that holds 32-bit integers.
    pub fn integers(&mut self, values: &[i32]) -> u64 {
        self.hold(integer_bytes(values))
    }

    fn hold(&mut self, bytes: Vec<u8>) -> u64 {
        let at = self.places.place(bytes.len());
        self.contents.push((at, bytes));
        at
    }
}

/// An executor with one allocation of memory: a GPU, or in the tests the emulation of one.
pub trait Device: Executor {
    /// Address of the allocation.
    fn base(&self) -> u64;

    /// Copies `bytes` to an address of the allocation, in the order of the executor's work.
    ///
    /// # Errors
    /// The bytes leave the allocation, or the device fails.
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()>;

    /// The `bytes` bytes at an address of the allocation, after all work so far.
    ///
    /// # Errors
    /// As [`Device::write`].
    fn read(&mut self, at: u64, bytes: usize) -> Result<Vec<u8>>;

    /// Runs a pass that always launches the same, whatever the memory holds; `slot` tells passes apart. A GPU records it and
    /// launches it at once from the third time on.
    ///
    /// # Errors
    /// Those of the pass.
    fn repeat(
        &mut self,
        slot: usize,
        pass: &mut dyn FnMut(&mut dyn Executor) -> Result<()>,
    ) -> Result<()>;
}

/// 32-bit integers as they lie in memory.
pub fn integer_bytes(values: &[i32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect()
}

/// Copies float32 values to an address.
///
/// # Errors
/// Those of [`Device::write`].
pub fn write_floats(device: &mut impl Device, at: u64, values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    device.write(at, &bytes)
}

/// `values` float32 values at an address.
///
/// # Errors
/// Those of [`Device::read`].
pub fn read_floats(device: &mut impl Device, at: u64, values: usize) -> Result<Vec<f32>> {
    Ok(Precision::F32.values(&device.read(at, 4 * values)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_contents() {
        let mut space = Space::default();
        let first = space.values(Precision::F16, 3);
        let second = space.integers(&[1, -1]);
        assert_ne!(first, second);
        assert_eq!(
            space.take_contents(),
            [(second, vec![1, 0, 0, 0, 255, 255, 255, 255])]
        );
        assert!(space.size() as u64 >= second + 8);
    }
}

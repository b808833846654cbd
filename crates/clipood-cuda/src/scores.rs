//! Scores of patches on a GPU: the largest probability of each image's patches, from products of all patches with all class
//! texts. Kernels: `kernels/scores.cu`.

use crate::compile::Program;
use crate::error::{CudaError, Result};
use crate::executor::{Argument, BLOCK, Executor, Launch, warps};
use crate::precision::Precision;
use crate::product::{Epilogue, Operands, Shape};
use crate::space::{Device, Space, read_floats, write_floats};

/// Most bytes of cosines at once.
const COSINE_BYTES: usize = 256 << 20;

/// Sizes of the patches that are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchSizes {
    /// Of an image.
    pub patches: usize,
    /// Classes.
    pub classes: usize,
    /// Values of a feature.
    pub dim: usize,
}

/// The scorer laid out, before a device is asked for its memory.
pub struct PatchPlan {
    sizes: PatchSizes,
    /// Images at once.
    images: usize,
    text: u64,
    local: u64,
    cosines: u64,
    others: u64,
    space: Space,
}

impl PatchPlan {
    /// For the texts `[classes, dim]`, which need no unit length, and up to `images` images at once.
    ///
    /// # Errors
    /// Texts of another size.
    pub fn new(sizes: PatchSizes, text: &[f32], images: usize) -> Result<Self> {
        let PatchSizes {
            patches,
            classes,
            dim,
        } = sizes;
        if text.is_empty() || patches == 0 || text.len() != classes * dim {
            return Err(CudaError::Unsupported(format!(
                "{} values of texts for {sizes:?}",
                text.len()
            )));
        }
        let images = images.clamp(1, (COSINE_BYTES / (4 * patches * classes)).max(1));
        let mut space = Space::default();
        Ok(Self {
            sizes,
            images,
            text: space.holding(Precision::F32, text),
            local: space.words(images * patches * dim),
            cosines: space.words(images * patches * classes),
            others: space.words(images * patches),
            space,
        })
    }

    /// The kernels.
    pub fn program() -> Program {
        Program {
            name: "scores",
            families: vec![
                include_str!("kernels/text/warps.cuh"),
                include_str!("kernels/scores.cu"),
            ],
            defines: vec![("ELEMENT", Precision::F32.element())],
            kernels: vec![("unit_rows", 0), ("patch_others", 0)],
        }
    }

    /// The memory and what it holds at first.
    pub fn space(&mut self) -> &mut Space {
        &mut self.space
    }
}

/// A scorer of patches on a device.
pub struct PatchScorer<D> {
    plan: PatchPlan,
    device: D,
}

impl<D: Device> PatchScorer<D> {
    /// A scorer on a device whose memory holds what the plan says.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(plan: PatchPlan, mut device: D) -> Result<Self> {
        let text = device.base() + plan.text;
        unit_rows(&mut device, text, plan.sizes.classes, plan.sizes.dim)?;
        Ok(Self { plan, device })
    }

    /// For each scale, the largest probability over patches and classes of each image, the softmax being over the classes of a
    /// patch at `scale` times the cosines. `local` is `[images, patches, dim]`, of any lengths; NaN where a feature is zero or
    /// not a number.
    ///
    /// # Errors
    /// Features that are not whole images, or the device fails.
    pub fn best(&mut self, local: &[f32], scales: &[f64]) -> Result<Vec<Vec<f64>>> {
        let PatchSizes {
            patches,
            classes,
            dim,
        } = self.plan.sizes;
        let image = patches * dim;
        if !local.len().is_multiple_of(image) {
            return Err(CudaError::Unsupported(format!(
                "{} values of images of {image} each",
                local.len()
            )));
        }
        let mut best = vec![Vec::with_capacity(local.len() / image); scales.len()];
        let base = self.device.base();
        let [text, to, cosines, others] = [
            self.plan.text,
            self.plan.local,
            self.plan.cosines,
            self.plan.others,
        ]
        .map(|at| base + at);
        for batch in local.chunks(self.plan.images * image) {
            let rows = batch.len() / dim;
            let device = &mut self.device;
            write_floats(device, to, batch)?;
            unit_rows(device, to, rows, dim)?;
            let shape = Shape {
                epilogue: Epilogue::None,
                ..Shape::linear(Precision::F32, [rows, classes, dim])
            };
            let operands = Operands {
                input: to,
                weight: text,
                bias: 0,
                residual: 0,
                output: cosines,
                scale: 1.0,
            };
            device.product(&shape, &operands)?;
            for (scale, best) in scales.iter().zip(&mut best) {
                let [from, into] = [cosines, others].map(Argument::Address);
                let numbers = [rows, classes].map(|n| Argument::I32(n as i32));
                let arguments = [
                    from,
                    into,
                    Argument::F32(*scale as f32),
                    numbers[0],
                    numbers[1],
                ];
                launch(device, "patch_others", rows, &arguments)?;
                let found = read_floats(device, others, rows)?;
                best.extend(found.chunks_exact(patches).map(best_of));
            }
        }
        Ok(best)
    }
}

/// The largest probability of the patches of an image.
fn best_of(others: &[f32]) -> f64 {
    let mut least = f64::INFINITY;
    for value in others {
        if value.is_nan() {
            return f64::NAN;
        }
        least = least.min(f64::from(*value));
    }
    1.0 / (1.0 + least)
}

fn unit_rows(device: &mut impl Device, x: u64, rows: usize, dim: usize) -> Result<()> {
    let [rows_argument, dim] = [rows, dim].map(|n| Argument::I32(n as i32));
    launch(
        device,
        "unit_rows",
        rows,
        &[Argument::Address(x), rows_argument, dim],
    )
}

fn launch(
    executor: &mut dyn Executor,
    kernel: &'static str,
    rows: usize,
    arguments: &[Argument],
) -> Result<()> {
    executor.launch(&Launch {
        kernel,
        grid: warps(rows),
        block: BLOCK,
        shared: 0,
        arguments,
    })
}

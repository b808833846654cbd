//! The losses on cosines between images or patches and the texts of the classes; formulas in `kernels/text/losses.cu`.

use crate::error::Result;
use crate::executor::{Argument, BLOCK, Executor, Launch, threads, warps};
use crate::precision::Precision;
use crate::product::{Epilogue, Matrix, Operands, Shape};
use crate::space::Space;

/// Text of the kernel file, and its kernels.
pub(super) const SOURCE: &str = include_str!("../kernels/text/losses.cu");
pub(super) const KERNELS: [&str; 7] = [
    "normalise",
    "normalise_backward",
    "loss_rows",
    "loss_images",
    "loss_total",
    "loss_gradient",
    "take_features",
];

/// Bytes of what `loss_rows` finds about a row: `Found` of the kernel file.
const FOUND: usize = 7 * 4;
/// Values before the gradient in [`LossRooms::results`]: those of `loss_total`, filled up.
pub(super) const TOTALS: usize = 8;

/// A loss and its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Which one.
    pub kind: LossKind,
    /// Weight of the patch term; unused by CoOp.
    pub lambda: f32,
    /// A patch is left out when its image's label is among so many most likely classes; unused by CoOp.
    pub top_k: usize,
}

/// The methods, which differ in their loss alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// Cross entropy.
    Coop,
    /// Cross entropy and the negative entropy of patches that do not show the class.
    Locoop,
    /// Both terms weighted by the probability of the label.
    Sct,
}

/// Sizes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LossSizes {
    pub images: usize,
    /// Of each image; 0 without a patch term.
    pub patches: usize,
    pub classes: usize,
    pub dim: usize,
}

/// Memory of the losses, as offsets; float32 throughout but for the labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct LossRooms {
    /// Unit features of images, then of patches, `[rows, dim]`.
    pub features: u64,
    /// `[images]`.
    pub labels: u64,
    /// Unit features of the texts `[classes, dim]` and reciprocals of their lengths.
    pub texts: u64,
    inverse: u64,
    /// Gradient of the texts `[classes, dim]`.
    dtexts: u64,
    /// `[rows, classes]`.
    logits: u64,
    found: u64,
    /// `[images, 2]`.
    sums: u64,
    /// Loss and counts, [`TOTALS`] values; then the gradient of the context.
    pub results: u64,
}

impl LossSizes {
    /// Rows of logits.
    pub fn rows(&self) -> usize {
        self.images * (1 + self.patches)
    }
}

impl LossRooms {
    /// Places the memory; the results have room for the gradient of `context` values.
    pub fn new(space: &mut Space, sizes: &LossSizes, context: usize) -> Self {
        let LossSizes {
            images,
            classes,
            dim,
            ..
        } = *sizes;
        let rows = sizes.rows();
        Self {
            features: space.words(rows * dim),
            labels: space.words(images),
            texts: space.words(classes * dim),
            inverse: space.words(classes),
            dtexts: space.words(classes * dim),
            logits: space.words(rows * classes),
            found: space.values(Precision::F32, rows * FOUND / 4),
            sums: space.words(2 * images),
            results: space.words(TOTALS + context),
        }
    }

    /// Adds the address of the allocation.
    pub fn attach(&mut self, base: u64) {
        for place in [
            &mut self.features,
            &mut self.labels,
            &mut self.texts,
            &mut self.inverse,
            &mut self.dtexts,
            &mut self.logits,
            &mut self.found,
            &mut self.sums,
            &mut self.results,
        ] {
            *place += base;
        }
    }
}

fn int(value: usize) -> Argument {
    Argument::I32(value as i32)
}

fn launch(
    executor: &mut dyn Executor,
    kernel: &'static str,
    grid: [u32; 3],
    arguments: &[Argument],
) -> Result<()> {
    executor.launch(&Launch {
        kernel,
        grid,
        block: BLOCK,
        shared: 0,
        arguments,
    })
}

/// `features` `[classes, dim]` of the tower divided by their lengths into `rooms.texts`.
pub(super) fn normalise(
    executor: &mut dyn Executor,
    rooms: &LossRooms,
    features: u64,
    sizes: &LossSizes,
) -> Result<()> {
    let [x, y, inverse] = [features, rooms.texts, rooms.inverse].map(Argument::Address);
    let arguments = [x, y, inverse, int(sizes.classes), int(sizes.dim)];
    launch(executor, "normalise", warps(sizes.classes), &arguments)
}

/// From unit texts and features to the loss and the gradient of the tower's features, times `loss_scale`, into `dfeatures`.
/// `scale` is the factor on cosines, `precision` that of the two products.
pub(super) fn losses(
    executor: &mut dyn Executor,
    (rooms, sizes): (&LossRooms, &LossSizes),
    loss: &Loss,
    (scale, precision): (f32, Precision),
    (dfeatures, loss_scale): (u64, f32),
) -> Result<()> {
    let LossSizes {
        images,
        patches,
        classes,
        dim,
    } = *sizes;
    let rows = sizes.rows();
    let forward = Shape {
        epilogue: Epilogue::None,
        ..Shape::linear(precision, [rows, classes, dim])
    };
    executor.product(
        &forward,
        &operands(rooms.features, rooms.texts, rooms.logits, scale),
    )?;
    let [logits, labels, found, sums, total] = [
        rooms.logits,
        rooms.labels,
        rooms.found,
        rooms.sums,
        rooms.results,
    ]
    .map(Argument::Address);
    // The row kernels divide by the number of patches, which no row then uses.
    let shape = [int(images), int(patches.max(1)), int(rows), int(classes)];
    let [i, p, r, c] = shape;
    launch(
        executor,
        "loss_rows",
        warps(rows),
        &[logits, labels, found, i, p, r, c, int(loss.top_k)],
    )?;
    launch(
        executor,
        "loss_images",
        warps(images),
        &[found, sums, i, int(patches)],
    )?;
    let lambda = Argument::F32(if patches > 0 { loss.lambda } else { 0.0 });
    let weighted = int(usize::from(loss.kind == LossKind::Sct));
    launch(
        executor,
        "loss_total",
        [1, 1, 1],
        &[found, sums, total, lambda, weighted, i],
    )?;
    let arguments = [
        logits, labels, found, sums, total, lambda, weighted, i, p, r, c,
    ];
    launch(executor, "loss_gradient", warps(rows), &arguments)?;
    // dtexts = scale * logits' features.
    let backward = Shape {
        rows: classes,
        columns: dim,
        depth: rows,
        input: Matrix {
            pitch: classes,
            transposed: true,
        },
        weight: Matrix {
            pitch: dim,
            transposed: false,
        },
        output_pitch: dim,
        ..forward
    };
    executor.product(
        &backward,
        &operands(rooms.logits, rooms.features, rooms.dtexts, scale),
    )?;
    let [texts, inverse, dtexts] =
        [rooms.texts, rooms.inverse, rooms.dtexts].map(Argument::Address);
    let (to, factor) = (Argument::Address(dfeatures), Argument::F32(loss_scale));
    let arguments = [texts, inverse, dtexts, to, factor, c, int(dim)];
    launch(executor, "normalise_backward", warps(classes), &arguments)
}

/// Rows `from` of `x` `[any, size]` into `y` `[rows, size]`.
pub(super) fn take_features(
    executor: &mut dyn Executor,
    [x, from, y]: [u64; 3],
    rows: usize,
    size: usize,
) -> Result<()> {
    let [x, from, y] = [x, from, y].map(Argument::Address);
    launch(
        executor,
        "take_features",
        threads(rows * size),
        &[x, from, y, int(rows), int(size)],
    )
}

fn operands(input: u64, weight: u64, output: u64, scale: f32) -> Operands {
    Operands {
        input,
        weight,
        bias: 0,
        residual: 0,
        output,
        scale,
    }
}

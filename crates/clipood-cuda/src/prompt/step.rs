//! [`PromptStep`]: loss and gradient of the context, step by step.

use super::loss::{self, TOTALS};
use super::plan::PromptPlan;
use crate::error::{CudaError, Result};
use crate::executor::Executor;
use crate::precision::Precision;
use crate::space::{Device, integer_bytes, read_floats, write_floats};
use crate::text::launch::{self, Embedding};

/// The passes that a device may record.
const FORWARD: usize = 0;
const BACKWARD: usize = 1;

/// The images of a step.
#[derive(Debug, Clone, Copy)]
pub enum Batch<'a> {
    /// Rows of the features on the device.
    Rows(&'a [i32]),
    /// Unit features `[images, dim]` and `[images, patches, dim]`; the latter empty without a patch term.
    Features(&'a [f32], &'a [f32]),
}

/// What a step finds.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// Loss with the context given.
    pub loss: f32,
    /// Patches in the patch term.
    pub selected: usize,
    /// Images whose label is the most likely class.
    pub right: usize,
    /// Gradient of the context, `[contexts, width]`.
    pub gradient: Vec<f32>,
}

/// A training on a device. It keeps no state of its own: the context comes with every step, so that optimizer and checkpoints are
/// the same as without a GPU.
pub struct PromptStep<D> {
    plan: PromptPlan,
    device: D,
}

impl<D: Device> PromptStep<D> {
    /// Starts a training on a device whose memory holds what the plan says.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(mut plan: PromptPlan, mut device: D) -> Result<Self> {
        let base = device.base();
        plan.tower.attach(base);
        plan.rooms.attach(base);
        let places = &plan.context;
        let fixed = embedding(base, places.fixed, places.fixed_lists, places.fixed_count);
        let context = embedding(
            base,
            places.context,
            places.context_lists,
            places.context_count,
        );
        // The rows of the context hold any finite values until the first step.
        write_floats(
            &mut device,
            base + places.context,
            &vec![0.0; places.contexts * plan.width],
        )?;
        plan.tower.embed(&mut device, &fixed)?;
        plan.tower.embed(&mut device, &context)?;
        plan.tower.prepare(&mut device)?;
        Ok(Self { plan, device })
    }

    /// Normalised text features `[classes, dim]` with a context `[contexts, width]`.
    ///
    /// # Errors
    /// A context of another size, or the device fails.
    pub fn features(&mut self, context: &[f32]) -> Result<Vec<f32>> {
        self.forward(context)?;
        let values = self.plan.sizes.classes * self.plan.sizes.dim;
        read_floats(&mut self.device, self.plan.rooms.texts, values)
    }

    /// Forward and backward pass over a batch, whose `labels` are below the number of classes.
    ///
    /// # Errors
    /// A batch or context of another size, a label or row that does not exist, or the device fails.
    pub fn run(&mut self, context: &[f32], batch: Batch<'_>, labels: &[i32]) -> Result<StepResult> {
        self.check(batch, labels)?;
        self.forward(context)?;
        // While the device works on the texts, the host brings the images.
        self.bring(batch, labels)?;
        let Self { plan, device } = self;
        device.repeat(BACKWARD, &mut |executor| backward(plan, executor))?;
        let values = TOTALS + plan.context.contexts * plan.width;
        let mut found = read_floats(device, plan.rooms.results, values)?;
        let gradient = found.split_off(TOTALS);
        Ok(StepResult {
            loss: found[0],
            selected: found[3] as usize,
            right: found[4] as usize,
            gradient,
        })
    }

    /// Whether gradients travel in float16, which they may leave.
    pub fn may_overflow(&self) -> bool {
        self.plan.loss_scale != 1.0
    }

    fn forward(&mut self, context: &[f32]) -> Result<()> {
        let Self { plan, device } = self;
        let expected = plan.context.contexts * plan.width;
        if context.len() != expected {
            return Err(mismatch("context values", expected, context.len()));
        }
        let base = device.base();
        write_floats(device, base + plan.context.context, context)?;
        let places = plan.context;
        device.repeat(FORWARD, &mut |executor| {
            let context = embedding(
                base,
                places.context,
                places.context_lists,
                places.context_count,
            );
            plan.tower.embed(executor, &context)?;
            plan.tower.forward(executor)?;
            loss::normalise(executor, &plan.rooms, plan.tower.features(), &plan.sizes)
        })
    }

    fn check(&self, batch: Batch<'_>, labels: &[i32]) -> Result<()> {
        let sizes = &self.plan.sizes;
        if labels.len() != sizes.images {
            return Err(mismatch("labels", sizes.images, labels.len()));
        }
        if let Some(label) = labels
            .iter()
            .find(|label| !(0..sizes.classes as i32).contains(label))
        {
            return Err(mismatch(
                "a label below the number of classes",
                sizes.classes,
                *label as usize,
            ));
        }
        match (batch, &self.plan.resident) {
            (Batch::Rows(rows), Some(resident)) => {
                let inside = rows
                    .iter()
                    .all(|row| (0..resident.rows as i32).contains(row));
                match rows.len() == sizes.images && inside {
                    true => Ok(()),
                    false => Err(mismatch(
                        "rows of the kept features",
                        sizes.images,
                        rows.len(),
                    )),
                }
            }
            (Batch::Rows(_), None) => Err(mismatch("features on the device", 1, 0)),
            (Batch::Features(global, local), _) => {
                let values = sizes.images * sizes.dim;
                match global.len() == values && local.len() == values * sizes.patches {
                    true => Ok(()),
                    false => Err(mismatch(
                        "feature values",
                        sizes.rows() * sizes.dim,
                        global.len() + local.len(),
                    )),
                }
            }
        }
    }

    fn bring(&mut self, batch: Batch<'_>, labels: &[i32]) -> Result<()> {
        let Self { plan, device } = self;
        let sizes = plan.sizes;
        let images = plan.rooms.features;
        let patches = images + (sizes.images * sizes.dim * Precision::F32.bytes()) as u64;
        device.write(plan.rooms.labels, &integer_bytes(labels))?;
        match (batch, plan.resident) {
            (Batch::Rows(rows), Some(resident)) => {
                let base = device.base();
                let picked = base + resident.picked;
                device.write(picked, &integer_bytes(rows))?;
                loss::take_features(
                    device,
                    [base + resident.global, picked, images],
                    sizes.images,
                    sizes.dim,
                )?;
                if sizes.patches > 0 {
                    let size = sizes.patches * sizes.dim;
                    loss::take_features(
                        device,
                        [base + resident.local, picked, patches],
                        sizes.images,
                        size,
                    )?;
                }
                Ok(())
            }
            (Batch::Features(global, local), _) => {
                write_floats(device, images, global)?;
                write_floats(device, patches, local)
            }
            (Batch::Rows(_), None) => Err(mismatch("features on the device", 1, 0)),
        }
    }
}

/// Losses, and the tower backwards.
fn backward(plan: &PromptPlan, executor: &mut dyn Executor) -> Result<()> {
    let (tower, rooms) = (&plan.tower, &plan.rooms);
    let target = (tower.feature_gradient(), plan.loss_scale);
    let products = (plan.logit_scale, plan.precision);
    loss::losses(executor, (rooms, &plan.sizes), &plan.loss, products, target)?;
    tower.backward(executor)?;
    let base = tower.base();
    let places = &plan.context;
    let gradient = rooms.results + (4 * TOTALS) as u64;
    let lists = [
        tower.input_gradient(),
        base + places.begin,
        base + places.rows_of,
        gradient,
    ];
    launch::sum_context(
        executor,
        lists,
        [places.contexts, plan.width],
        1.0 / plan.loss_scale,
    )
}

fn embedding(base: u64, table: u64, lists: [u64; 3], count: usize) -> Embedding {
    let [from, positions, to] = lists.map(|at| base + at);
    Embedding {
        table: base + table,
        from,
        positions,
        to,
        count,
    }
}

fn mismatch(what: &'static str, expected: usize, found: usize) -> CudaError {
    CudaError::Unsupported(format!("{what}: expected {expected}, found {found}"))
}

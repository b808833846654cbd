//! [`best_patches`]: scores of patches on the device that encodes images.

use crate::device::Device;
use crate::error::Result;

/// Patch features of images and the class texts that they are compared with; nothing need have unit length.
#[derive(Debug, Clone, Copy)]
pub struct PatchInputs<'a> {
    /// `[images, patches, dim]`.
    pub local: &'a [f32],
    /// Patches of an image.
    pub patches: usize,
    /// Values of a feature.
    pub dim: usize,
    /// `[classes, dim]`.
    pub text: &'a [f32],
}

/// For each of `scales`, the largest probability over patches and classes of each image, where the softmax is over the classes of
/// a patch and `scale` is the factor on cosines. `None` where another way must be taken: on the CPU, whose scores are computed
/// with all others, on GPUs without our kernels, and for features without direction, which only that way names.
///
/// # Errors
/// The GPU fails.
pub fn best_patches(
    device: Device,
    inputs: &PatchInputs<'_>,
    scales: &[f64],
) -> Result<Option<Vec<Vec<f64>>>> {
    match device {
        Device::Cpu => Ok(None),
        #[cfg(feature = "cuda")]
        Device::Cuda(index) => on_gpu(index, inputs, scales),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(index) => {
            let _ = (inputs, scales);
            Err(crate::device::no_cuda(index))
        }
    }
}

/// Images whose patches are scored at once, unless memory is short.
#[cfg(feature = "cuda")]
const IMAGES: usize = 256;

#[cfg(feature = "cuda")]
fn on_gpu(index: usize, inputs: &PatchInputs<'_>, scales: &[f64]) -> Result<Option<Vec<Vec<f64>>>> {
    use clipood_cuda::CudaError;
    use clipood_cuda::on_gpu::OnGpu;
    use clipood_cuda::scores::{PatchPlan, PatchScorer, PatchSizes};

    let gpu = match crate::device::cuda::opened(index) {
        Err(CudaError::OldGpu(_)) => return Ok(None),
        other => other?,
    };
    let sizes = PatchSizes {
        patches: inputs.patches,
        classes: inputs.text.len() / inputs.dim.max(1),
        dim: inputs.dim,
    };
    let mut images = IMAGES;
    let best = loop {
        let mut plan = PatchPlan::new(sizes, inputs.text, images)?;
        let outcome = OnGpu::new(&gpu, &PatchPlan::program(), plan.space())
            .and_then(|device| PatchScorer::new(plan, device))
            .and_then(|mut scorer| scorer.best(inputs.local, scales));
        match outcome {
            Err(problem) if problem.is_out_of_memory() && images > 1 => images /= 2,
            other => break other?,
        }
    };
    let complete = best.iter().flatten().all(|value| value.is_finite());
    Ok(complete.then_some(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_leaves_patches_to_the_other_scores() -> Result<()> {
        let inputs = PatchInputs {
            local: &[1.0, 0.0],
            patches: 1,
            dim: 2,
            text: &[0.0, 1.0],
        };
        assert_eq!(best_patches(Device::Cpu, &inputs, &[1.0])?, None);
        Ok(())
    }
}

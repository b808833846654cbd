//! The vision transformer with blocks that multiply in bf16, on CPUs with instructions for it.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::Tensor;

use crate::image_features::ImageFeatures;
use crate::kernels::{BlockPass, PackedBlock};
use crate::vit::{TowerBlock, VisionTransformer};

/// A [`VisionTransformer`] whose blocks keep their weights in bf16, packed once and shared by clones. Everything except the
/// blocks' affine maps is float32: patch embedding, norms, attention, residuals, projection.
#[derive(Debug, Clone)]
pub(crate) struct PackedVit {
    /// The tower without its blocks.
    tower: VisionTransformer<Flex>,
    blocks: Arc<[PackedBlock]>,
}

impl TowerBlock<Flex> for PackedBlock {
    fn all(&self, x: Tensor<Flex, 3>) -> Tensor<Flex, 3> {
        self.run(x, BlockPass::All)
    }

    fn first(&self, x: Tensor<Flex, 3>) -> Tensor<Flex, 2> {
        let class_token = vec![0; x.dims()[0]];
        self.run(x, BlockPass::At(&class_token))
    }

    fn values(&self, x: Tensor<Flex, 3>) -> Tensor<Flex, 3> {
        self.run(x, BlockPass::Values)
    }
}

impl PackedVit {
    /// `None` on a CPU that does not multiply bf16.
    pub fn new(mut tower: VisionTransformer<Flex>) -> Option<Self> {
        // One at a time, so that only one block is in memory in both formats.
        let blocks: Option<Vec<PackedBlock>> = (tower.take_blocks().into_iter())
            .map(|block| PackedBlock::new(&block.parameters()?))
            .collect();
        Some(Self {
            tower,
            blocks: blocks?.into(),
        })
    }

    /// As [`VisionTransformer::forward`].
    pub fn forward(&self, pixels: Tensor<Flex, 4>, local: bool) -> ImageFeatures<Flex> {
        self.tower.forward_through(&self.blocks, pixels, local)
    }
}

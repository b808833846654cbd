//! Trains the demo CLIP on the unbounded stream of drawn pictures and captions.
//!
//! `train-demo-clip --out data/demo/model` resumes from its last checkpoint after an interruption.

use std::path::PathBuf;

use clap::Parser;
use clipood_demo::train::{TrainOptions, train};

/// Train the demo CLIP (symmetric contrastive loss, AdamW, cosine schedule).
#[derive(Parser)]
struct Args {
    /// Folder of the finished model (`open_clip_config.json`, `open_clip_model.safetensors`, `loss.csv`).
    #[arg(long, default_value = "data/demo/model")]
    out: PathBuf,
    /// Folder of the checkpoint.
    #[arg(long, default_value = "runs/train-demo-clip")]
    work: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 2400)]
    steps: usize,
    /// Batch size: pictures per step.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Side of the pictures in pixels, a multiple of 32.
    #[arg(long, default_value_t = 96)]
    size: usize,
    /// Width of the ModifiedResNet.
    #[arg(long, default_value_t = 24)]
    width: usize,
    /// Transformer blocks of the text tower.
    #[arg(long, default_value_t = 4)]
    text_layers: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = 2e-3)]
    lr: f64,
    /// Seed of the parameters and of the stream.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 100)]
    checkpoint_every: usize,
    /// Stop after this many steps of this call, leaving a checkpoint.
    #[arg(long)]
    pause_after: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    train(&TrainOptions {
        out: args.out,
        work: args.work,
        steps: args.steps,
        batch: args.batch,
        size: args.size,
        width: args.width,
        text_layers: args.text_layers,
        lr: args.lr,
        seed: args.seed,
        checkpoint_every: args.checkpoint_every.max(1),
        pause_after: args.pause_after,
    })
}

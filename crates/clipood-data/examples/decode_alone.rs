//! Seconds to read, hash, decode and resize all images below some folders on all cores, without anything else:
//! `decode_alone SIDE FOLDER...`.
//!
//! SIDE is that of the model's square input in pixels. `benches/engine.py` compares extraction with it.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use clipood_data::{DecodeLimits, FoundImage, decode, eval_view, find_images};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let side: u32 = arguments
        .next()
        .ok_or("usage: decode_alone SIDE FOLDER...")?
        .parse()?;
    let mut images = Vec::new();
    for folder in arguments {
        images.extend(find_images(Path::new(&folder))?.0);
    }
    let start = Instant::now();
    images.par_iter().try_for_each(|image: &FoundImage| {
        let bytes = std::fs::read(&image.path).map_err(|e| e.to_string())?;
        // Extraction checks each file against the plan's BLAKE3.
        black_box(blake3::hash(&bytes));
        let decoded = decode(&bytes, &DecodeLimits::default()).map_err(|e| e.to_string())?;
        black_box(eval_view(&decoded, side));
        Ok::<(), String>(())
    })?;
    println!("{}", start.elapsed().as_secs_f64());
    Ok(())
}

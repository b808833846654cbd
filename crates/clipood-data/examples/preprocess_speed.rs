//! Times decoding and preprocessing of image files on one thread: `preprocess_speed ITERATIONS FILE...`.
//!
//! `benches/peers/preprocess.py` does the same with Pillow. Of each file the smallest time of all iterations counts.

use std::hint::black_box;
use std::time::Instant;

use clipood_data::{DecodeLimits, decode, eval_view, normalise};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let iterations: usize = arguments
        .next()
        .ok_or("usage: preprocess_speed ITERATIONS FILE...")?
        .parse()?;
    let (mean, std) = ([0.481, 0.458, 0.408], [0.269, 0.261, 0.276]);
    println!(
        "{:>10} {:>10} {:>10} {:>10}  file",
        "decode ms", "resize ms", "float ms", "total ms"
    );
    let (mut sum, mut files) = (0.0, 0);
    for path in arguments {
        let bytes = std::fs::read(&path)?;
        let mut best = [f64::INFINITY; 3];
        for _ in 0..iterations {
            let start = Instant::now();
            let image = decode(black_box(&bytes), &DecodeLimits::default())?;
            let decoded = Instant::now();
            let view = eval_view(&image, 224);
            let resized = Instant::now();
            black_box(normalise(&view, mean, std));
            let end = Instant::now();
            for (best, time) in
                best.iter_mut()
                    .zip([decoded - start, resized - decoded, end - resized])
            {
                *best = best.min(time.as_secs_f64() * 1e3);
            }
        }
        let total: f64 = best.iter().sum();
        println!(
            "{:10.3} {:10.3} {:10.3} {total:10.3}  {path}",
            best[0], best[1], best[2]
        );
        sum += total;
        files += 1;
    }
    println!("mean {:.3} ms per image", sum / f64::from(files.max(1)));
    Ok(())
}

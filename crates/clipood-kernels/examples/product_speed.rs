//! GFLOP/s of the products of a ViT-B: `cargo run --release -p clipood-kernels --example product_speed`.
use std::time::Instant;
use clipood_kernels::matrix::{Map, Matrix};
use clipood_kernels::packed::{Format, Packed};

fn main() {
    let shapes = [(768, 2304), (768, 768), (768, 3072), (3072, 768)];
    for (input, output) in shapes {
        let copies = (96_000_000 / (input * output * 4)).max(2);
        let maps: Vec<Packed> = (0..copies).map(|i| {
            let w: Vec<f32> = (0..input * output).map(|k| ((k + i) % 13) as f32 * 0.01).collect();
            Packed::new(Matrix::new(&w, input, output, output), &vec![0.0; output], Format::F32).unwrap()
        }).collect();
        let x: Vec<f32> = (0..197 * input).map(|k| (k % 17) as f32 * 0.1).collect();
        let mut line = format!("{input:5} x {output:5}:");
        for (name, rows, cols) in [("99 rows", 99, output), ("192 rows", 192, output), ("197 rows", 197, output), ("197 rows, half", 197, output / 2)] {
            let mut out = vec![0.0; rows * cols];
            let mut out2 = vec![0.0; rows * cols];
            let mut best1 = f64::MAX; let mut best2 = f64::MAX;
            for _ in 0..5 {
                let t = Instant::now();
                for m in &maps { m.apply(&x[..rows * input], 0, cols, &mut out, false); }
                best1 = best1.min(t.elapsed().as_secs_f64());
                let t = Instant::now();
                for m in &maps { rayon::join(|| m.apply(&x[..rows * input], 0, cols, &mut out, false), || m.apply(&x[..rows * input], output - cols, cols, &mut out2, false)); }
                best2 = best2.min(t.elapsed().as_secs_f64());
            }
            let f = 2.0 * (rows * input * cols * copies) as f64 / 1e9;
            line += &format!("  {name}: {:.1} / {:.1}", f / best1, 2.0 * f / best2);
        }
        println!("{line}");
    }
}

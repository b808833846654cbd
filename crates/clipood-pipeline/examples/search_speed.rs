//! Time of exact searches over features in a raw float32 file, for `make bench-search`.
//!
//! `search_speed ROWS QUERIES DIM K ROUNDS`: both files hold rows of DIM values. Prints one JSON object: the seconds to build
//! the index, to save it, to map it again, the median seconds per query, and the rows found.

use std::path::Path;
use std::time::Instant;

use clipood_pipeline::search::SearchIndex;

fn floats(path: &str) -> Result<Vec<f32>, std::io::Error> {
    let bytes = std::fs::read(path)?;
    let words = bytes.as_chunks::<4>().0.iter();
    Ok(words.map(|word| f32::from_le_bytes(*word)).collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [rows, queries, dim, k, rounds] = &words[..] else {
        return Err("expected ROWS QUERIES DIM K ROUNDS".into());
    };
    let (dim, k, rounds): (usize, usize, usize) = (dim.parse()?, k.parse()?, rounds.parse()?);
    let (values, queries) = (floats(rows)?, floats(queries)?);
    let names = (0..values.len() / dim).map(|row| row.to_string()).collect();

    let start = Instant::now();
    let built = SearchIndex::new(dim, names, values)?;
    let build = start.elapsed().as_secs_f64();
    let kept = format!("{rows}.index");
    let start = Instant::now();
    built.save(Path::new(&kept), "bench")?;
    let save = start.elapsed().as_secs_f64();
    drop(built);
    let start = Instant::now();
    let index = SearchIndex::open(Path::new(&kept), "bench")?.ok_or("the index is gone")?;
    let map = start.elapsed().as_secs_f64();

    let mut seconds = Vec::new();
    let mut found = Vec::new();
    // The first round reads the file into memory and is not counted.
    for round in 0..=rounds {
        found.clear();
        for query in queries.chunks_exact(dim) {
            let start = Instant::now();
            let hits = index.nearest(query, k, |_| true)?;
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
            found.push(hits.iter().map(|hit| hit.row).collect::<Vec<_>>());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    println!(
        "{}",
        serde_json::json!({ "build": build, "save": save, "map": map, "query": median, "found": found })
    );
    Ok(())
}

//! Captions a second on one core: `cargo run --release -p clipood-clip --example tokenizer_speed [COUNT]`.
//!
//! Three kinds of captions, each made in advance: plain English, accented (which takes the full cleaning), and broken
//! encodings (which also takes the mending).

use std::time::Instant;

use clipood_clip::tokenizer::{CONTEXT_LENGTH, Tokenizer};

const OPENINGS: [&str; 6] = [
    "a photo of a",
    "A close-up of one",
    "an old painting of the",
    "two people beside a",
    "itap of my",
    "There's a",
];
const SUBJECTS: [&str; 8] = [
    "tabby cat",
    "Golden Retriever",
    "great white shark",
    "jack-o'-lantern",
    "black-and-gold garden spider",
    "ptarmigan",
    "vintage typewriter",
    "hornbeam leaf, 1923",
];
const PLACES: [&str; 5] = [
    "in the snow.",
    "on a wooden table",
    "near the harbour of Lisbon!",
    "at dawn, f/2.8",
    "under bright lights",
];
const ACCENTED: [&str; 3] = ["at the café", "près de l’été", "über den Dächern 🐈"];
const BROKEN: [&str; 3] = ["at the cafÃ©", "prÃ¨s de lâ€™Ã©tÃ©", "Ã¼ber den DÃ¤chern"];

fn captions(count: usize, endings: &[&str]) -> Vec<String> {
    (0..count)
        .map(|i| {
            // Different strides, so that the parts meet in every combination.
            let (opening, subject) = (OPENINGS[i % 6], SUBJECTS[i / 6 % 8]);
            format!(
                "{opening} {subject} {} {}",
                endings[i / 48 % endings.len()],
                i % 9973
            )
        })
        .collect()
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(1_000_000);
    let start = Instant::now();
    let tokenizer = Tokenizer::new();
    println!(
        "building the tokenizer: {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    for (kind, endings, count) in [
        ("plain", &PLACES[..], count),
        ("accented", &ACCENTED, count / 10),
        ("broken", &BROKEN, count / 10),
    ] {
        let captions = captions(count, endings);
        let start = Instant::now();
        let mut tokens = 0;
        for caption in &captions {
            let ids = tokenizer.tokenize_truncate(caption, CONTEXT_LENGTH);
            tokens += ids.iter().filter(|&&id| id != 0).count();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{kind}: {count} captions, {tokens} tokens in {seconds:.2} s: {:.0} captions/s",
            count as f64 / seconds
        );
    }
}

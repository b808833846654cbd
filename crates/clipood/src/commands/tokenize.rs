//! `clipood tokenize`: texts to the token ids that CLIP's text tower takes.

use std::io::{BufRead, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clipood_clip::tokenizer::{CONTEXT_LENGTH, Tokenizer};

use super::written;

/// Bytes buffered before they are written to standard output.
const BUFFER: usize = 1 << 20;

/// Options of `clipood tokenize`.
#[derive(clap::Args)]
pub struct Args {
    /// Read each input line as a JSON string, so that a text may contain line breaks.
    #[arg(long)]
    json: bool,
}

/// Turns every line of standard input into a JSON array of ids on standard output.
pub fn run(args: Args) -> Result<ExitCode> {
    let tokenizer = Tokenizer::new();
    let mut input = std::io::stdin().lock();
    let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
    let mut line = String::new();
    for number in 1u64.. {
        line.clear();
        let place = || format!("standard input, line {number}");
        if input.read_line(&mut line).with_context(place)? == 0 {
            break;
        }
        let plain = line.strip_suffix('\n').unwrap_or(&line);
        let plain = plain.strip_suffix('\r').unwrap_or(plain);
        let ids = if args.json {
            let text: String = serde_json::from_str(plain)
                .with_context(|| format!("{}: expected a JSON string", place()))?;
            tokenizer.tokenize_truncate(&text, CONTEXT_LENGTH)
        } else {
            tokenizer.tokenize_truncate(plain, CONTEXT_LENGTH)
        };
        let result = serde_json::to_writer(&mut out, &ids)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"));
        if !written(result)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    written(out.flush())?;
    Ok(ExitCode::SUCCESS)
}

//! `clipood tokenize`: texts to the token ids that CLIP's text tower takes.

use std::io::{BufRead, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clipood_clip::tokenizer::{CONTEXT_LENGTH, Tokenizer};
use clipood_core::CoreError;
use clipood_core::text_file::decode_text;

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

/// The text of a line, with its line end but without a byte order mark at the head of the first.
fn line_of(bytes: Vec<u8>, number: u64) -> Result<String> {
    match String::from_utf8(bytes) {
        // A NUL in the first line is a letter of UTF-16.
        Ok(text) if number > 1 || !text.contains('\0') => Ok(match number {
            1 => text.trim_start_matches('\u{feff}').to_owned(),
            _ => text,
        }),
        Ok(text) => decode(text.into_bytes()),
        Err(error) => decode(error.into_bytes()),
    }
}

/// What [`decode_text`] finds, without a place: that is the line.
fn decode(bytes: Vec<u8>) -> Result<String> {
    decode_text(bytes, "").map_err(|error| match error {
        CoreError::Syntax { message, .. } => anyhow!(message),
        other => other.into(),
    })
}

/// Turns every line of standard input into a JSON array of ids on standard output.
pub fn run(args: Args) -> Result<ExitCode> {
    let tokenizer = Tokenizer::new();
    let mut input = std::io::stdin().lock();
    let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
    for number in 1u64.. {
        let mut bytes = Vec::new();
        let place = || format!("standard input, line {number}");
        if input.read_until(b'\n', &mut bytes).with_context(place)? == 0 {
            break;
        }
        let line = line_of(bytes, number).with_context(place)?;
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

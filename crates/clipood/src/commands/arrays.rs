//! Writing arrays to files, for several commands.

use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clipood_clip::safetensors_file::{NamedArray, to_bytes};
use clipood_core::shown;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

/// Longest text or array file that is read as a whole, in bytes.
pub const LONGEST_FILE: u64 = 8 << 30;

/// The ending of a file's name in lower case, without the dot; empty if there is none.
pub fn extension(path: &Path) -> String {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.unwrap_or_default().to_ascii_lowercase()
}

/// Fails if an output file is a folder, or its own folder is missing, so that the mistake is found before the work is done.
///
/// # Errors
/// In words, with the path.
pub fn check_output(out: &Path) -> Result<()> {
    if out.is_dir() {
        bail!(
            "cannot write {}: it is a folder, expected a file",
            shown(out)
        );
    }
    match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            bail!("cannot write {}: no folder {}", shown(out), shown(folder))
        }
        _ => Ok(()),
    }
}

/// Writes a safetensors file with this metadata.
pub fn write_safetensors(
    path: &Path,
    arrays: &[NamedArray],
    metadata: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let bytes = to_bytes(arrays, metadata).with_context(what)?;
    std::fs::write(path, bytes).with_context(what)
}

/// Writes a Parquet file. It is built in memory first, so that a batch that fails leaves no partial file.
pub fn write_parquet(
    path: &Path,
    schema: &SchemaRef,
    batches: impl IntoIterator<Item = Result<RecordBatch>>,
) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    // Features and scores hardly ever repeat, so dictionaries would only cost time.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).with_context(what)?;
    for batch in batches {
        writer.write(&batch?).with_context(what)?;
    }
    writer.close().with_context(what)?;
    std::fs::write(path, bytes).with_context(what)
}

//! The lists of FGVC-Aircraft, which CoOp reads: `images_variant_train.txt` with the number of an image and the name of its variant
//! on each line, likewise `..._val.txt` and `..._test.txt`, and `variants.txt` with the variants in the order of their labels.

use std::collections::HashMap;
use std::path::Path;

use clipood_core::text_file::{TextError, lines, read_text};

use super::SplitImage;
use crate::record::Split;

/// Start of the names of the three lists.
const LISTS: &str = "images_variant_";
/// Name of the list of variants beside them.
const VARIANTS: &str = "variants.txt";

/// Whether a file is one of the three lists.
pub(super) fn is_list(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(LISTS) && name.ends_with(".txt"))
}

/// The images of the three lists in the folder of one of them.
pub(super) fn images(path: &Path) -> Result<Vec<SplitImage>, String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let read = |name: &str| {
        let told = |error: TextError| match error {
            TextError::File { path, source } => format!("cannot read {path}: {source}"),
            other => other.to_string(),
        };
        read_text(&folder.join(name)).map_err(told)
    };
    let variants = read(VARIANTS)?;
    let labels: HashMap<&str, u32> = lines(&variants)
        .into_iter()
        .map(str::trim)
        .zip(0..)
        .collect();
    let mut images = Vec::new();
    for split in [Split::Train, Split::Val, Split::Test] {
        let name = format!("{LISTS}{}.txt", split.name());
        let list = read(&name)?;
        for (line, text) in lines(&list).into_iter().enumerate() {
            let wrong = |problem: &str| format!("{name}, line {}: {problem}", line + 1);
            let (number, variant) = text
                .split_once(' ')
                .ok_or_else(|| wrong("expected the number of an image and its variant"))?;
            let variant = variant.trim();
            let label = labels.get(variant).copied();
            images.push(SplitImage {
                path: format!("{number}.jpg"),
                split,
                label: label.ok_or_else(|| wrong(&format!("`{variant}` is not in {VARIANTS}")))?,
                class_name: variant.to_string(),
            });
        }
    }
    Ok(images)
}

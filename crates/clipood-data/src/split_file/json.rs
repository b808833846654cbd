//! CoOp's `split_zhou_*.json`: the lists `train`, `val` and `test` of path, label and class name.

use serde::{Deserialize, Serialize};

use super::{SplitFile, SplitImage, with_slashes};
use crate::record::Split;

/// Path, label, class name.
type Row<'a> = (std::borrow::Cow<'a, str>, u32, std::borrow::Cow<'a, str>);

/// The file. Keys of other programs are passed over.
#[derive(Deserialize, Serialize)]
struct Lists<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default, borrow)]
    train: Vec<Row<'a>>,
    #[serde(default, borrow)]
    val: Vec<Row<'a>>,
    #[serde(default, borrow)]
    test: Vec<Row<'a>>,
}

/// The images, and the hash that the file states.
pub(super) fn images(bytes: &[u8]) -> Result<(Vec<SplitImage>, Option<String>), String> {
    let lists: Lists<'_> = serde_json::from_slice(bytes).map_err(|error| {
        format!("{error}; expected the lists train, val and test of [path, label, class name]")
    })?;
    let mut images = Vec::new();
    for (split, rows) in [
        (Split::Train, lists.train),
        (Split::Val, lists.val),
        (Split::Test, lists.test),
    ] {
        images.extend(
            rows.into_iter()
                .map(|(path, label, class_name)| SplitImage {
                    path: with_slashes(&path),
                    split,
                    label,
                    class_name: class_name.into_owned(),
                }),
        );
    }
    Ok((images, lists.hash))
}

/// The file of a split, one image per line.
pub(super) fn text(split: &SplitFile) -> String {
    let part = |part: Split| {
        let rows: Vec<String> = split
            .part(part)
            .map(|image| {
                let row = serde_json::json!([image.path, image.label, image.class_name]);
                format!("  {row}")
            })
            .collect();
        match rows.is_empty() {
            true => "[]".to_string(),
            false => format!("[\n{}\n ]", rows.join(",\n")),
        }
    };
    format!(
        "{{\n \"hash\": \"{}\",\n \"train\": {},\n \"val\": {},\n \"test\": {}\n}}\n",
        split.hash(),
        part(Split::Train),
        part(Split::Val),
        part(Split::Test)
    )
}

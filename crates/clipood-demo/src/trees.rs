//! The ImageFolder trees of the demo benchmark, drawn on first use.

use std::path::{Path, PathBuf};

use clipood_core::SplitMix64;
use rayon::prelude::*;

use crate::error::DemoError;
use crate::objects::{ID_CLASSES, NEAR_CLASSES, OTHER_CLASSES};
use crate::paint::{BENCHMARK, Picture, between};
use crate::scenes::{GLYPHS, SCENES, TEXTURES, glyph, scene, texture};
use crate::stream::draw_one;

/// Training images per class.
const TRAIN_IMAGES: usize = 32;
/// Test images per class.
const TEST_IMAGES: usize = 50;
/// Seed of the benchmark's pictures. The training stream uses other labels, so the two never share random numbers.
const SEED: u64 = 20_26;
/// Increased whenever a picture changes, so that trees drawn by an older version are drawn again.
const VERSION: &str = "demo world 2\n";
const STAMP: &str = "VERSION";

/// One file of the trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPicture {
    /// Path below the root, with forward slashes.
    pub path: String,
    tree: Tree,
    kind: usize,
    index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    Id,
    Near,
    Validation,
    Glyphs,
    Scenes,
    Textures,
}

/// Every file of the trees: `id/train`, `id/test`, and one tree for each out-of-distribution set. One of these, `validation`,
/// is for choosing hyperparameters: its objects are in no other tree.
pub fn planned_pictures() -> Vec<PlannedPicture> {
    let mut all = Vec::new();
    let mut add = |tree, folder: String, kind, first: usize, count: usize| {
        for i in first..first + count {
            // Every third file is a JPEG, so that both decoders are exercised.
            let ending = if i % 3 == 2 { "jpg" } else { "png" };
            all.push(PlannedPicture {
                path: format!("{folder}/{i:04}.{ending}"),
                tree,
                kind,
                index: i as u64,
            });
        }
    };
    for (kind, class) in ID_CLASSES.iter().enumerate() {
        add(Tree::Id, format!("id/train/{class}"), kind, 0, TRAIN_IMAGES);
        add(
            Tree::Id,
            format!("id/test/{class}"),
            kind,
            1000,
            TEST_IMAGES,
        );
    }
    for (kind, name) in NEAR_CLASSES.iter().enumerate() {
        add(Tree::Near, format!("near/{name}"), kind, 0, 20);
    }
    for (kind, name) in OTHER_CLASSES.iter().enumerate() {
        let folder = format!("validation/{name}");
        add(Tree::Validation, folder, kind, 0, 10);
    }
    for (kind, (name, _)) in GLYPHS.iter().enumerate() {
        add(Tree::Glyphs, format!("glyphs/{name}"), kind, 0, 10);
    }
    for (kind, name) in SCENES.iter().enumerate() {
        add(Tree::Scenes, format!("scenes/{name}"), kind, 0, 25);
    }
    for (kind, name) in TEXTURES.iter().enumerate() {
        add(Tree::Textures, format!("textures/{name}"), kind, 0, 25);
    }
    all
}

/// The random number generator of one picture; its labels are not those of the training stream.
fn generator(planned: &PlannedPicture) -> SplitMix64 {
    let label = match planned.tree {
        Tree::Id => "benchmark id",
        Tree::Near => "benchmark near",
        Tree::Validation => "benchmark validation",
        Tree::Glyphs => "benchmark glyphs",
        Tree::Scenes => "benchmark scenes",
        Tree::Textures => "benchmark textures",
    };
    let key = planned.kind as u64 * 1_000_000 + planned.index;
    SplitMix64::keyed(SEED, label, key)
}

/// Draws one file of the trees: sides of 80 to 320 pixels, aspect ratio between 3:4 and 4:3.
///
/// # Errors
/// [`DemoError::Size`], which does not occur for the result of [`planned_pictures`].
pub fn draw_planned(planned: &PlannedPicture) -> Result<Picture, DemoError> {
    let mut rng = generator(planned);
    let rng = &mut rng;
    let short = between(rng, 80.0, 240.0);
    let long = short * between(rng, 1.0, 4.0 / 3.0);
    let (width, height) = if rng.below(2) == 0 {
        (short as u32, long as u32)
    } else {
        (long as u32, short as u32)
    };
    let object = |rng, name| draw_one(rng, name, (width, height), &BENCHMARK, 1.0);
    let canvas = match planned.tree {
        Tree::Id => object(rng, ID_CLASSES[planned.kind])?.canvas,
        Tree::Near => object(rng, NEAR_CLASSES[planned.kind])?.canvas,
        Tree::Validation => object(rng, OTHER_CLASSES[planned.kind])?.canvas,
        Tree::Glyphs => glyph(rng, planned.kind, width, height)?.canvas,
        Tree::Scenes => scene(rng, SCENES[planned.kind], width, height)?.canvas,
        Tree::Textures => texture(rng, TEXTURES[planned.kind], width, height)?.canvas,
    };
    Ok(canvas.finish())
}

/// Draws the trees under `root` unless they exist in this version. They are drawn in a sibling folder that is renamed at the
/// end, so interrupted work is never mistaken for complete trees. Returns whether anything was drawn.
///
/// # Errors
/// [`DemoError::File`] for a folder or file that cannot be written, or if `root` exists and was not drawn by this program;
/// [`DemoError::Encode`].
pub fn ensure_dataset(root: &Path) -> Result<bool, DemoError> {
    let fail = |path: &Path, action: &'static str| {
        let path = path.display().to_string();
        move |source| DemoError::File {
            path,
            action,
            source,
        }
    };
    let stale = match std::fs::read_to_string(root.join(STAMP)) {
        Ok(found) if found == VERSION => return Ok(false),
        // Trees of another version: may be replaced.
        Ok(found) if found.starts_with("demo world ") => true,
        _ if root.exists() => {
            return Err(DemoError::File {
                path: root.display().to_string(),
                action: "exists but was not drawn by this program; move it away",
                source: std::io::ErrorKind::AlreadyExists.into(),
            });
        }
        _ => false,
    };
    let fresh = beside(root, "drawing");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(fail(&fresh, "cannot remove a leftover"))?;
    }
    planned_pictures()
        .par_iter()
        .try_for_each(|planned| write_picture(&fresh, planned))?;
    let stamp = fresh.join(STAMP);
    std::fs::write(&stamp, VERSION).map_err(fail(&stamp, "cannot write"))?;
    let old = beside(root, "old");
    if stale {
        // Moved, not removed in place: an interrupted removal could leave pictures without a version file.
        std::fs::rename(root, &old).map_err(fail(root, "cannot move the old pictures away"))?;
    }
    let placed = std::fs::rename(&fresh, root);
    if stale {
        std::fs::remove_dir_all(&old).map_err(fail(&old, "cannot remove the old pictures"))?;
    }
    match placed {
        Ok(()) => Ok(true),
        // Another process finished first; its pictures are identical.
        Err(_) if root.join(STAMP).exists() => {
            std::fs::remove_dir_all(&fresh).map_err(fail(&fresh, "cannot remove"))?;
            Ok(false)
        }
        Err(source) => Err(fail(root, "cannot put the pictures in place")(source)),
    }
}

/// A sibling of `root` that only this process uses.
fn beside(root: &Path, what: &str) -> PathBuf {
    let mut path = root.as_os_str().to_owned();
    path.push(format!(".{what}-{}", std::process::id()));
    PathBuf::from(path)
}

fn write_picture(root: &Path, planned: &PlannedPicture) -> Result<(), DemoError> {
    let path = root.join(&planned.path);
    let file = |action| {
        let path = path.display().to_string();
        move |source| DemoError::File {
            path,
            action,
            source,
        }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(file("cannot create its folder"))?;
    }
    let picture = draw_planned(planned)?;
    let bytes = encode(&picture, planned).map_err(|reason| DemoError::Encode {
        path: path.display().to_string(),
        reason,
    })?;
    std::fs::write(&path, bytes).map_err(file("cannot write"))
}

fn encode(picture: &Picture, planned: &PlannedPicture) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    if planned.path.ends_with(".jpg") {
        let encoder = jpeg_encoder::Encoder::new(&mut bytes, 92);
        encoder
            .encode(
                &picture.pixels,
                picture.width as u16,
                picture.height as u16,
                jpeg_encoder::ColorType::Rgb,
            )
            .map_err(|e| e.to_string())?;
    } else {
        let mut encoder = png::Encoder::new(&mut bytes, picture.width, picture.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
        writer
            .write_image_data(&picture.pixels)
            .map_err(|e| e.to_string())?;
        writer.finish().map_err(|e| e.to_string())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::stream::generator as stream_generator;

    #[test]
    fn pictures_of_the_trees_share_no_random_numbers_with_each_other_or_the_stream() {
        let planned = planned_pictures();
        let mut starts: HashSet<u64> = planned.iter().map(|p| generator(p).next_u64()).collect();
        assert_eq!(starts.len(), planned.len());
        // The stream with the seed of the trees, and with the seeds that training uses.
        for seed in [SEED, 0, 1, 2] {
            for index in 0..100_000 {
                let start = stream_generator(seed, index).next_u64();
                assert!(starts.insert(start), "stream {seed}, picture {index}");
            }
        }
    }
}

//! Which files are images by their names.

use std::ffi::OsStr;
use std::path::Path;

/// Extensions of image files, compared without regard to case: torchvision's `IMG_EXTENSIONS`.
pub const EXTENSIONS: [&str; 9] = [
    "jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp",
];

/// Whether a file is named as an image.
pub fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| {
        EXTENSIONS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(extension))
    })
}

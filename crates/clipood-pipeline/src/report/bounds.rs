//! The largest numbers of things on a page, so that the page of a large run stays readable and its making stays within bounds:
//! whatever the number of images and prompt sets, a page has a few megabytes. What is left out is said on the page.

/// Mistakes kept per dataset.
pub const MISTAKES: usize = 12;
/// Mistakes shown of all OOD sets together, and of the ID set.
pub const SHOWN_MISTAKES: usize = 12;
/// Width and height of a thumbnail in pixels.
pub const THUMBNAIL: u32 = 96;
/// Images of a contact sheet.
pub const SHEET: usize = 400;
/// OOD sets with a panel or a line of their own.
pub const OOD_SETS: usize = 12;
/// Bins of a histogram.
pub const BINS: usize = 60;
/// Points of a curve.
pub const CURVE_POINTS: usize = 200;
/// Classes with bars.
pub const CLASSES: usize = 30;
/// Classes in the matrix of confusion.
pub const CONFUSED: usize = 20;
/// Methods that are compared with each other.
pub const COMPARED: usize = 10;
/// Images of one pair of sets up to which methods are compared with each other.
pub const COMPARED_IMAGES: usize = 1_000_000;
/// Points of the t-SNE map.
pub const MAPPED: usize = 1_000;
/// Parts of the features of a dataset that are read for the map.
pub const MAPPED_PARTS: usize = 4;
/// Prompt sets with a training curve.
pub const TRAININGS: usize = 12;
/// Vectors of a context whose nearest words are listed.
pub const VECTORS: usize = 32;
/// Rows of a table on the page; the files hold all.
pub const ROWS: usize = 600;
/// Files in the account of the quarantine.
pub const QUARANTINED: usize = 50;
/// Methods trained on patches whose regions are drawn.
pub const PATCH_METHODS: usize = 3;
/// Mistakes of each kind whose regions are drawn for a method.
pub const PATCH_IMAGES: usize = 2;
/// Pictures on a page of regions; the files and lines hold all.
pub const REGION_PICTURES: usize = 400;
/// Fewest columns of a picture of regions on a page, in pixels.
pub const REGION_SIDE: usize = 224;

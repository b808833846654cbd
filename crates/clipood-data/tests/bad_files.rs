//! Files that cannot be decoded: each is an error of the right kind, and never a panic or a huge allocation.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use clipood_data::{DecodeError, DecodeLimits, RgbImage, decode};
use proptest::prelude::*;

/// Records the largest allocation, to see what a header alone can make a decoder allocate.
struct Recording;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Recording {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of the same function.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of the same function.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of the same function.
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of the same function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Recording = Recording;

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn try_decode(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    decode(bytes, &DecodeLimits::default())
}

fn kind(bytes: &[u8]) -> &'static str {
    try_decode(bytes).map_or_else(|e| e.kind(), |_| "decoded")
}

/// One small file of each format.
const SMALL: [&str; 13] = [
    "modes/png_rgb16.png",
    "modes/png_palette2_alpha.png",
    "modes/gif_offset_transparent.gif",
    "modes/gif_animated.gif",
    "modes/bmp_palette.bmp",
    "modes/tiff_tiff_lzw.tiff",
    "modes/tiff_grey16.tiff",
    "modes/tiff_tiff_adobe_deflate.tiff",
    "modes/webp_lossy.webp",
    "modes/webp_rgba_lossless.webp",
    "modes/pnm_rgb.ppm",
    "modes/jpeg_rgb.jpg",
    "modes/jpeg_restart.jpg",
];

#[test]
fn the_reference_sets_bad_files_are_refused() {
    assert_eq!(kind(&read("preprocess/empty.png")), "empty");
    assert_eq!(kind(&read("preprocess/text.png")), "unknown-format");
    assert_eq!(kind(&read("preprocess/truncated.jpg")), "truncated");
    let error = try_decode(&read("preprocess/truncated.jpg")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "JPEG file is truncated: no end marker in 4000 bytes"
    );
}

#[test]
fn a_file_cut_in_half_is_truncated() {
    for name in SMALL {
        let whole = read(name);
        let found = kind(&whole[..whole.len() / 2]);
        // The WebP decoder does not distinguish the two.
        let expected = if name.ends_with(".webp") {
            "corrupt"
        } else {
            "truncated"
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_jpeg_without_its_last_two_bytes_is_truncated_as_pillow_says() {
    let whole = read("preprocess/jpeg_420_400x300.jpg");
    assert_eq!(kind(&whole), "decoded");
    assert_eq!(kind(&whole[..whole.len() - 2]), "truncated");
    let mut longer = whole.clone();
    longer.extend(b"bytes after the end");
    assert_eq!(kind(&longer), "decoded");
}

/// Headers of a few bytes that promise billions of pixels, and some that promise none.
#[test]
fn sizes_are_checked_before_pixels_are_allocated() {
    let mut png = read("modes/png_rgb16.png");
    let mut tiff = read("modes/tiff_grey.tiff");
    let mut bmp = read("modes/bmp_rgba.bmp");
    let mut gif = read("modes/gif_plain.gif");
    let mut jpeg = read("modes/jpeg_rgb.jpg");
    let mut webp = read("modes/webp_lossy.webp");
    set_png(&mut png, 1 << 30, 1 << 30);
    set_tiff(&mut tiff, 1 << 20, 1 << 20);
    // The largest size that the decoder accepts in a header.
    bmp[18..26].copy_from_slice(&[0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0]);
    gif[6..10].copy_from_slice(&[0xFF; 4]);
    set_jpeg(&mut jpeg, 0xFFFF, 0xFFFF);
    // 14 bits each, the largest size of the format.
    let frame = webp
        .windows(3)
        .position(|w| w == [0x9D, 0x01, 0x2A])
        .unwrap();
    webp[frame + 3..frame + 7].copy_from_slice(&[0xFF, 0x3F, 0xFF, 0x3F]);
    let pnm = b"P6 1000000 1000000 255 ".to_vec();
    let files = [
        ("png", png),
        ("tiff", tiff),
        ("bmp", bmp),
        ("gif", gif),
        ("jpeg", jpeg),
        ("webp", webp),
        ("pnm", pnm),
    ];
    for (name, bytes) in files {
        LARGEST.store(0, Ordering::Relaxed);
        assert_eq!(kind(&bytes), "too-large", "{name}");
        let largest = LARGEST.load(Ordering::Relaxed);
        // This leaves room for tables and buffers, including those of tests that run at the same time.
        assert!(largest < 32 << 20, "{name}: {largest} bytes at once");
    }
}

/// Within the limit on pixels, but far more of them than the bytes can hold.
#[test]
fn a_jpeg_that_is_too_short_for_its_size_is_refused_before_pixels_are_allocated() {
    let mut jpeg = read("modes/jpeg_rgb.jpg");
    set_jpeg(&mut jpeg, 13_000, 13_000);
    let length = jpeg.len();
    LARGEST.store(0, Ordering::Relaxed);
    let error = try_decode(&jpeg).unwrap_err();
    assert_eq!(error.kind(), "truncated");
    assert_eq!(
        error.to_string(),
        format!("JPEG file is truncated: {length} bytes cannot hold 13000 x 13000 pixels")
    );
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < 32 << 20, "{largest} bytes at once");
}

#[test]
fn a_jpeg_of_too_many_scans_is_refused() {
    let whole = read("modes/jpeg_rgb.jpg");
    let scan = whole.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap();
    let (head, scan) = (&whole[..scan], &whole[scan..whole.len() - 2]);
    let file = |scans| [head, &scan.repeat(scans), &[0xFF, 0xD9]].concat();
    let error = try_decode(&file(501)).unwrap_err();
    assert_eq!(error.kind(), "unsupported");
    assert!(error.to_string().contains("501 scans"), "{error}");
    assert!(!format!("{:?}", try_decode(&file(2))).contains("scans of"));
}

/// 3 MiB of zeros in a few KiB, as a text and as a colour profile: neither is decompressed.
#[test]
fn texts_and_profiles_of_a_png_are_not_decompressed() {
    let text = read("rare/png_text_bomb.png");
    let profile = read("rare/png_profile_bomb.png");
    let plain = read("rare/png_rgb.png");
    for bytes in [plain, text, profile] {
        assert_eq!(kind(&bytes), "decoded");
    }
}

#[test]
fn a_side_of_zero_is_no_image() {
    let mut png = read("modes/png_rgb16.png");
    set_png(&mut png, 0, 5);
    let mut jpeg = read("modes/jpeg_rgb.jpg");
    set_jpeg(&mut jpeg, 5, 0);
    // A canvas of 0 x 0, a palette of two colours, a frame of 0 x 0.
    let mut gif = b"GIF89a\0\0\0\0\x80\0\0abcdef,".to_vec();
    gif.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0x4C, 1, 0, 0x3B]);
    for (name, bytes) in [("png", png), ("jpeg", jpeg), ("gif", gif)] {
        assert_eq!(kind(&bytes), "no-pixels", "{name}");
    }
}

#[test]
fn the_limit_is_the_callers() {
    let bytes = read("modes/png_rgb16.png");
    let limit = |max_pixels| decode(&bytes, &DecodeLimits { max_pixels });
    assert!(limit(23 * 17).is_ok());
    let error = limit(23 * 17 - 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "image has 23 x 17 pixels, at most 390 are allowed"
    );
}

fn set_png(file: &mut [u8], width: u32, height: u32) {
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = file[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            (c >> 1) ^ (0xEDB8_8320 * (c & 1))
        })
    });
    file[29..33].copy_from_slice(&(!crc).to_be_bytes());
}

fn set_jpeg(file: &mut [u8], width: u16, height: u16) {
    let frame = file
        .windows(4)
        .position(|w| w == [0xFF, 0xC0, 0, 17])
        .unwrap();
    file[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    file[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
}

/// Sets width, height and the rows of a strip (tags 256, 257 and 278) of a little-endian file.
fn set_tiff(file: &mut [u8], width: u32, height: u32) {
    let directory = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
    let count = u16::from_le_bytes([file[directory], file[directory + 1]]) as usize;
    for entry in file[directory + 2..].chunks_exact_mut(12).take(count) {
        let value = match u16::from_le_bytes([entry[0], entry[1]]) {
            256 => width,
            257 | 278 => height,
            _ => continue,
        };
        // Type 4: unsigned 32-bit integers.
        entry[2..4].copy_from_slice(&[4, 0]);
        entry[8..12].copy_from_slice(&value.to_le_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4000)
    })]

    /// Whatever happens to the bytes, the result is an image with pixels for its size, or an error.
    #[test]
    fn mutated_files_never_panic(
        name in prop::sample::select(&SMALL[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = read(name);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        let limits = DecodeLimits { max_pixels: 1 << 20 };
        if let Ok(image) = decode(&bytes, &limits) {
            let (width, height) = (image.width as usize, image.height as usize);
            prop_assert!(width * height <= 1 << 20);
            prop_assert_eq!(image.pixels.len(), width * height * 3);
        }
    }
}

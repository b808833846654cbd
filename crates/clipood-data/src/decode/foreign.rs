//! Files that are no image of a supported format, named in words by their first bytes.

/// Bytes at the start of a file that the text of a web page or a pointer may begin within.
const TEXT: usize = 1024;
/// Length of a file's start that is looked through for the brands of ISO media.
const BRANDS: usize = 256;

/// What a file is, and what to do with it.
pub type Foreign = (&'static str, &'static str);

const CONVERT: &str = "this format is not read, convert it to PNG or JPEG";
const NOT_AN_IMAGE: &str = "expected an image";

/// First bytes, the kind of the file and the advice.
const MAGIC: &[(&[u8], &str, &str)] = &[
    (
        b"\x00\x00\x00\x0CJXL \x0D\x0A\x87\x0A",
        "a JPEG XL image",
        CONVERT,
    ),
    (b"\xFF\x0A", "a JPEG XL image", CONVERT),
    (
        b"\x00\x00\x00\x0CjP  \x0D\x0A\x87\x0A",
        "a JPEG 2000 image",
        CONVERT,
    ),
    (b"\xFF\x4F\xFF\x51", "a JPEG 2000 image", CONVERT),
    (b"II\xBC\x01", "a JPEG XR image", CONVERT),
    (b"8BPS", "a Photoshop image (PSD)", CONVERT),
    (b"gimp xcf", "a GIMP image (XCF)", CONVERT),
    (b"FUJIFILMCCD-RAW", "a raw camera image (RAF)", CONVERT),
    (b"IIRO", "a raw camera image (ORF)", CONVERT),
    (b"IIRS", "a raw camera image (ORF)", CONVERT),
    (b"MMOR", "a raw camera image (ORF)", CONVERT),
    (b"IIU\x00", "a raw camera image (RW2)", CONVERT),
    (b"\x00MRM", "a raw camera image (MRW)", CONVERT),
    (b"FOVb", "a raw camera image (X3F)", CONVERT),
    (b"\x76\x2F\x31\x01", "an OpenEXR image", CONVERT),
    (b"#?RADIANCE", "a Radiance HDR image", CONVERT),
    (b"#?RGBE", "a Radiance HDR image", CONVERT),
    (b"DDS ", "a DirectDraw surface (DDS)", CONVERT),
    (b"qoif", "a QOI image", CONVERT),
    (b"farbfeld", "a farbfeld image", CONVERT),
    (b"BPG\xFB", "a BPG image", CONVERT),
    (b"icns", "an Apple icon (ICNS)", CONVERT),
    (b"\x00\x00\x01\x00", "a Windows icon (ICO)", CONVERT),
    (b"\x00\x00\x02\x00", "a Windows cursor (CUR)", CONVERT),
    (b"SIMPLE  =", "a FITS image", CONVERT),
    (b"%PDF-", "a PDF document", CONVERT),
    (b"%!PS", "a PostScript document", CONVERT),
    (b"\xC5\xD0\xD3\xC6", "a PostScript document", CONVERT),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"PK\x05\x06", "a ZIP archive", "unpack it"),
    (b"\x1F\x8B", "gzip data", "unpack it"),
    (b"BZh", "bzip2 data", "unpack it"),
    (b"\xFD7zXZ\x00", "xz data", "unpack it"),
    (b"\x28\xB5\x2F\xFD", "Zstandard data", "unpack it"),
    (b"7z\xBC\xAF\x27\x1C", "a 7z archive", "unpack it"),
    (b"Rar!\x1A\x07", "a RAR archive", "unpack it"),
    (b"\x93NUMPY", "a NumPy array", NOT_AN_IMAGE),
    (b"\x89HDF\x0D\x0A\x1A\x0A", "an HDF5 file", NOT_AN_IMAGE),
    (b"PAR1", "a Parquet table", NOT_AN_IMAGE),
    (
        b"\x1A\x45\xDF\xA3",
        "a Matroska or WebM video",
        NOT_AN_IMAGE,
    ),
    (b"OggS", "an Ogg file", NOT_AN_IMAGE),
    (b"ID3", "an MP3 file", NOT_AN_IMAGE),
    (b"\x7FELF", "a program", NOT_AN_IMAGE),
    (b"MZ", "a program", NOT_AN_IMAGE),
];

/// Names the kind of a file by its first bytes; `None` for an unknown one.
pub fn name(bytes: &[u8]) -> Option<Foreign> {
    if let Some(found) = iso_media(bytes)
        .or_else(|| riff(bytes))
        .or_else(|| text(bytes))
    {
        return Some(found);
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Some((
            "zeros only, as a copy or download that broke off leaves them",
            "copy it again",
        ));
    }
    let found = MAGIC.iter().find(|(magic, ..)| bytes.starts_with(magic));
    found.map(|(_, what, advice)| (*what, *advice))
}

/// Names a raw camera image that begins as a TIFF file does.
pub fn tiff_of_a_camera(bytes: &[u8]) -> Option<Foreign> {
    let is_cr2 = bytes.starts_with(b"II*\0") && bytes.get(8..10) == Some(b"CR");
    is_cr2.then_some(("a raw camera image (CR2)", CONVERT))
}

/// ISO base media: a box `ftyp` with the main brand and compatible ones.
fn iso_media(bytes: &[u8]) -> Option<Foreign> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let length = u32::from_be_bytes(bytes.first_chunk::<4>().copied()?);
    let end = bytes.len().min(BRANDS).min(length as usize);
    let mut brands = bytes.get(8..end).unwrap_or_default().chunks_exact(4);
    let main = brands.next()?;
    // The second word is a version.
    let all: Vec<&[u8]> = std::iter::once(main).chain(brands.skip(1)).collect();
    let has = |wanted: &[&[u8]]| all.iter().any(|brand| wanted.contains(brand));
    Some(if has(&[b"avif", b"avis"]) {
        ("an AVIF image", CONVERT)
    } else if has(&[
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs",
    ]) {
        ("a HEIC image", CONVERT)
    } else if main == b"crx " {
        ("a raw camera image (CR3)", CONVERT)
    } else if has(&[b"mif1", b"msf1", b"jpeg", b"j2ki"]) {
        ("a HEIF image", CONVERT)
    } else {
        ("a video (MP4, MOV or the like)", NOT_AN_IMAGE)
    })
}

/// RIFF files that are no WebP.
fn riff(bytes: &[u8]) -> Option<Foreign> {
    if !bytes.starts_with(b"RIFF") {
        return None;
    }
    match bytes.get(8..12)? {
        b"AVI " => Some(("an AVI video", NOT_AN_IMAGE)),
        b"WAVE" => Some(("a WAVE recording", NOT_AN_IMAGE)),
        _ => None,
    }
}

/// Web pages, drawings, answers of servers and pointers to files that are stored elsewhere.
fn text(bytes: &[u8]) -> Option<Foreign> {
    let start = &bytes[..bytes.len().min(TEXT)];
    let start = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    let start = start.trim_ascii_start().to_ascii_lowercase();
    let holds = |what: &[u8]| start.windows(what.len()).any(|window| window == what);
    let page = "a web page, not the image that was to be downloaded";
    if start.starts_with(b"version https://git-lfs.github.com/") {
        return Some((
            "a Git LFS pointer instead of the file",
            "fetch the file with `git lfs pull`",
        ));
    }
    if start.starts_with(b"/annex/objects/") || start.starts_with(b"../.git/annex/") {
        return Some((
            "a git-annex pointer instead of the file",
            "fetch the file with `git annex get`",
        ));
    }
    if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") {
        return Some((page, "download it again"));
    }
    if start.starts_with(b"<") {
        return Some(if holds(b"<svg") {
            ("an SVG drawing", CONVERT)
        } else if holds(b"<html") {
            (page, "download it again")
        } else if start.starts_with(b"<?xml") {
            (
                "an XML document, such as the error of a server",
                "download it again",
            )
        } else {
            return None;
        });
    }
    let is_json = start.starts_with(b"{") && start[1..].trim_ascii_start().starts_with(b"\"");
    is_json.then_some((
        "a JSON document, such as the error of a server",
        "download it again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{DecodeLimits, decode};

    fn message(bytes: &[u8]) -> String {
        let error = decode(bytes, &DecodeLimits::default()).unwrap_err();
        assert_eq!(error.kind(), "unknown-format", "{error}");
        error.to_string()
    }

    #[test]
    fn known_formats_are_named_with_what_to_do() {
        for (bytes, expected) in [
            (
                &b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf"[..],
                "found an AVIF image; this format is not read, convert it to PNG or JPEG",
            ),
            (
                b"\0\0\0\x1Cftypmif1\0\0\0\0mif1avif....",
                "found an AVIF image;",
            ),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "found a HEIC image;"),
            (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "found a HEIF image;"),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "(CR3)"),
            (b"\0\0\0\x14ftypmp42\0\0\0\0isom", "found a video"),
            (b"\xFF\x0Aabcdef", "found a JPEG XL image;"),
            (b"\0\0\0\x0CJXL \r\n\x87\n....", "found a JPEG XL image;"),
            (b"\0\0\0\x0CjP  \r\n\x87\n....", "found a JPEG 2000 image;"),
            (b"\xFF\x4F\xFF\x51\0\0", "found a JPEG 2000 image;"),
            (b"8BPS\0\x01", "PSD"),
            (b"%PDF-1.7", "found a PDF document;"),
            (b"<svg xmlns=\"a\"/>", "found an SVG drawing;"),
            (
                b"<?xml version=\"1.0\"?>\n<!-- x -->\n<svg/>",
                "found an SVG drawing;",
            ),
            (
                b"\xEF\xBB\xBF \n<!DOCTYPE HTML><title>404",
                "found a web page",
            ),
            (
                b"<?xml version=\"1.0\"?><Error><Code>AccessDenied",
                "an XML document",
            ),
            (b"{\"error\": \"quota\"}", "a JSON document"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 5\n",
                "fetch the file with `git lfs pull`",
            ),
            (b"/annex/objects/MD5E-s1--a.jpg\n", "git-annex"),
            (&[0; 64], "found zeros only"),
            (b"PK\x03\x04..", "found a ZIP archive; unpack it"),
            (b"RIFF\x10\0\0\0WAVEfmt ", "found a WAVE recording"),
        ] {
            let text = message(bytes);
            assert!(text.contains(expected), "{}: {text}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_unknown_keeps_its_first_bytes() {
        for bytes in [
            &b"hello, world"[..],
            b"<hello>",
            b"{",
            b"ftyp",
            b"\0\0\0\x20ftyp",
        ] {
            let text = message(bytes);
            assert!(text.contains("the first bytes are \""), "{text}");
        }
        assert!(tiff_of_a_camera(b"II*\0\x10\0\0\0CR\x02\0").is_some());
        assert!(tiff_of_a_camera(b"II*\0\x10\0\0\0").is_none());
    }
}

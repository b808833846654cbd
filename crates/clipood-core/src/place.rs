//! Places of files: a path of this machine, or a URL of an object store.
//!
//! Both are held in a [`Path`], so that whatever joins, relocates or prints places treats them alike. The part of a URL behind
//! its bucket or container is the key as the store has it, with nothing escaped; that of an HTTP URL is escaped as usual.

use std::path::{Path, PathBuf};

/// Schemes of the URLs that images may have: S3, Azure Blob Storage, Google Cloud Storage, HTTP.
pub const SCHEMES: [&str; 9] = [
    "s3", "s3a", "az", "azure", "abfs", "abfss", "gs", "http", "https",
];

/// Whether a place is a URL, of whatever scheme but `file`.
///
/// ```
/// use std::path::Path;
/// use clipood_core::is_url;
///
/// assert!(is_url(Path::new("s3://bucket/birds")));
/// assert!(!is_url(Path::new("/data/birds")) && !is_url(Path::new("odd:/folder")));
/// ```
pub fn is_url(place: &Path) -> bool {
    let text = place.as_os_str().as_encoded_bytes();
    let scheme = text
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
        .count();
    scheme > 1 && text[scheme..].starts_with(b"://") && &text[..scheme] != b"file"
}

/// `below` from `base`; `below` itself if it is absolute or a URL.
pub fn join(base: &Path, below: &Path) -> PathBuf {
    match is_url(below) {
        true => below.to_path_buf(),
        false => base.join(below),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_joined_and_relocated_as_a_path_is() {
        let root = join(Path::new("data"), Path::new("s3://bucket/a b%20c"));
        assert_eq!(root, Path::new("s3://bucket/a b%20c"));
        let file = join(&root, Path::new("x/1.png"));
        assert_eq!(file.to_str(), Some("s3://bucket/a b%20c/x/1.png"));
        assert_eq!(file.strip_prefix(&root).unwrap(), Path::new("x/1.png"));
        let below = join(Path::new("gs://bucket/data"), Path::new("birds"));
        assert_eq!(below.to_str(), Some("gs://bucket/data/birds"));
        for path in ["/a/b", "a", "file:///a", "://a", "C:/a", "a b://c"] {
            assert!(!is_url(Path::new(path)), "{path}");
        }
        assert!(is_url(Path::new("ftp://host/a")));
    }
}

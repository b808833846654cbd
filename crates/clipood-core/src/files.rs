//! Opening files that a user named or a folder contains.
//!
//! Only regular files are opened: a FIFO or a terminal would be waited for without end, and a device such as `/dev/zero`
//! has no end. Links are followed, so a link to a device is a device.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file for reading.
///
/// # Errors
/// As [`File::open`], and [`io::ErrorKind::InvalidInput`] for anything else than a regular file, with what it is.
pub fn open_file(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?.file_type();
    if !found.is_file() {
        let kind = kind_of(found);
        let problem = format!("found {kind}, expected a regular file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    File::open(path)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open_file`], and [`io::ErrorKind::FileTooLarge`] for a longer file; never more than `limit` bytes are held.
pub fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_file(path)?;
    let expected = file.metadata()?.len();
    let too_large = || {
        let problem = format!("found more than {limit} bytes, allowed: at most {limit}");
        io::Error::new(io::ErrorKind::FileTooLarge, problem)
    };
    if expected > limit {
        return Err(too_large());
    }
    // A file may grow while it is read, and those of /proc state no size.
    let mut bytes = Vec::with_capacity(expected as usize);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

/// What a file that is not regular is, in words.
pub fn kind_of(found: FileType) -> &'static str {
    if found.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_fifo() {
            return "a FIFO";
        }
        if found.is_socket() {
            return "a socket";
        }
        if found.is_char_device() || found.is_block_device() {
            return "a device";
        }
    }
    "no file"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "abc").unwrap();
        assert_eq!(read_file(&file, 3).unwrap(), b"abc");
        let long = read_file(&file, 2).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::FileTooLarge);
        let error = open_file(folder.path()).unwrap_err().to_string();
        assert_eq!(error, "found a folder, expected a regular file");
        assert_eq!(
            open_file(&folder.path().join("g")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_device_is_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("endless");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let error = read_file(&link, 10).unwrap_err().to_string();
        assert_eq!(error, "found a device, expected a regular file");
    }
}

//! Where the bytes of an image lie, and reading them.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clipood_core::files::{open_file, read_file};
use clipood_core::{is_url, join};

use crate::byte_file::ByteFile;
use crate::open_files::OpenFiles;
use crate::remote::Object;
use crate::table::read_row;
use crate::uri::{path_of, uri_of};

/// Largest file, or part of one, that is read as an image: 1 GiB. A sparse file may claim any size.
pub const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// Pauses before the second attempt to read and the later ones.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1600),
];

/// Where the encoded bytes of one image lie. Whatever comes after the plan reads images through this type and knows no
/// layout.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// Path of the file, or of the archive that holds the image, on the machine that listed the dataset; as text (see
    /// [`uri_of`]), because it is stored in tables.
    pub uri: String,
    /// The part of the file.
    pub at: At,
}

/// The part of a file that an image occupies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum At {
    /// The whole file.
    Whole,
    /// The bytes `start..end`, counted from the start of the file: a member of an archive.
    Bytes(Range<u64>),
    /// The bytes in a row of a Parquet file.
    Row {
        /// Path of the column that holds them, such as `image.bytes`.
        column: String,
        /// Number of the row in the file, from 0.
        row: u64,
    },
    /// Pixels without a header, one plane per channel: red, green, blue, each row by row. They are read as a PPM file.
    Planes {
        /// Offset of the first byte.
        start: u64,
        /// Width and height.
        size: PlaneSize,
    },
}

/// Size of an image that is stored as planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlaneSize {
    /// Pixels of a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl PlaneSize {
    /// The bytes of an image that starts at `start`.
    fn range(self, start: u64) -> Range<u64> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        start..start.saturating_add(3 * pixels)
    }

    /// A PPM file of the pixels in three `planes`. So whatever decodes, hashes or compares images knows no pixels without a
    /// header.
    fn portable(self, planes: &[u8]) -> Vec<u8> {
        let pixels = planes.len() / 3;
        let mut file = format!("P6\n{} {}\n255\n", self.width, self.height).into_bytes();
        file.reserve(planes.len());
        for pixel in 0..pixels {
            let channels = planes[pixel..].iter().step_by(pixels.max(1)).take(3);
            file.extend(channels);
        }
        file
    }
}

impl Source {
    /// A file that holds one image and nothing else.
    pub fn whole(uri: impl Into<String>) -> Source {
        Source {
            uri: uri.into(),
            at: At::Whole,
        }
    }

    /// A file that was found on this machine.
    pub fn found(path: &Path) -> Source {
        Source::whole(uri_of(path))
    }
}

/// The file of a source on this machine; `None` if it lies in an object store.
pub(crate) fn path_here(source: &Source) -> Option<PathBuf> {
    let path = path_of(&source.uri);
    (!is_url(&path)).then_some(path)
}

impl std::fmt::Display for Source {
    /// The path, and behind it the part of the file that is not all of it; control characters are escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", clipood_core::stored(&path_of(&self.uri)))?;
        match &self.at {
            At::Whole => Ok(()),
            At::Bytes(range) => write!(f, ", bytes {}..{}", range.start, range.end),
            At::Row { row, .. } => write!(f, ", row {row}"),
            At::Planes { start, .. } => write!(f, ", byte {start}"),
        }
    }
}

/// Turns the recorded path of a dataset's file into its path on this machine, which need not be the one that planned.
///
/// The default has no roots at all and leaves every path as it is, which is right for sources that were listed here.
///
/// ```
/// use std::path::Path;
/// use clipood_data::Roots;
///
/// let roots = Roots {
///     data: "/mnt/data".into(),
///     dataset: "birds".into(),
///     recorded: "/home/planner/data/birds".into(),
/// };
/// let here = roots.path("/home/planner/data/birds/test/robin/1.jpg");
/// assert_eq!(here, Path::new("/mnt/data/birds/test/robin/1.jpg"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    /// Folder on this machine that relative roots of datasets start from.
    pub data: PathBuf,
    /// Root of the dataset as in its manifest: relative to `data`, or absolute.
    pub dataset: PathBuf,
    /// Root of the dataset on the machine that planned; recorded paths begin with it.
    pub recorded: PathBuf,
}

impl Roots {
    /// The file on this machine. A path that does not begin with the recorded root is returned unchanged.
    pub fn path(&self, uri: &str) -> PathBuf {
        let path = path_of(uri);
        match path.strip_prefix(&self.recorded) {
            Ok(below) => join(&self.data, &self.dataset).join(below),
            Err(_) => path,
        }
    }
}

/// Reads the encoded bytes of an image. An error that may be transient, such as those of a network drive, is retried three
/// times, after 0.1, 0.4 and 1.6 seconds.
///
/// # Errors
/// The error of the last attempt. Without a retry: a file that does not exist or may not be read
/// ([`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`] and the like), a link that leads nowhere or in a circle,
/// anything but a regular file, which is not opened, a range of bytes or a row that the file does not have
/// ([`ErrorKind::InvalidInput`]), more than [`MAX_IMAGE_BYTES`] ([`ErrorKind::FileTooLarge`]).
pub fn read(source: &Source, roots: &Roots) -> Result<Vec<u8>> {
    let path = roots.path(&source.uri);
    if is_url(&path) {
        // Stores retry by themselves.
        return read_remote(&path, &source.at);
    }
    let read = || match &source.at {
        At::Whole => read_file(&path, MAX_IMAGE_BYTES),
        At::Bytes(range) => read_range(&path, range),
        At::Row { column, row } => read_row(&path, column, *row),
        At::Planes { start, size } => Ok(size.portable(&read_range(&path, &size.range(*start))?)),
    };
    retry(std::thread::sleep, || {
        read().map_err(|error| name_broken_link(&path, error))
    })
}

/// The error of a link that leads nowhere or in a circle, in words; any other error as it is.
fn name_broken_link(path: &Path, error: Error) -> Error {
    // Only these two errors say that following links has failed; the second has no kind of its own in this Rust.
    let is_loop = || {
        let text = error.to_string();
        error.raw_os_error().is_some() && text.contains("symbolic links")
    };
    let problem = match error.kind() {
        ErrorKind::NotFound => "a link that leads nowhere",
        _ if is_loop() => "links that lead in a circle",
        _ => return error,
    };
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            Error::new(ErrorKind::NotFound, format!("found {problem}"))
        }
        _ => error,
    }
}

fn read_remote(url: &Path, at: &At) -> Result<Vec<u8>> {
    static FILES: OpenFiles<ByteFile> = OpenFiles::new();
    let range = |range: Range<u64>| {
        check_length(range.end.saturating_sub(range.start))?;
        FILES.get(url, || ByteFile::open(url))?.read_at(range)
    };
    match at {
        At::Whole => Ok(Object::of(url)?.read(MAX_IMAGE_BYTES)?.to_vec()),
        At::Bytes(bytes) => Ok(range(bytes.clone())?.to_vec()),
        At::Row { column, row } => read_row(url, column, *row),
        At::Planes { start, size } => Ok(size.portable(&range(size.range(*start))?)),
    }
}

fn check_length(bytes: u64) -> Result<()> {
    match bytes > MAX_IMAGE_BYTES {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("found {bytes} bytes, allowed: at most {MAX_IMAGE_BYTES}"),
        )),
    }
}

fn read_range(path: &Path, range: &Range<u64>) -> Result<Vec<u8>> {
    let mut file = open_file(path)?;
    let length = file.metadata()?.len();
    // Checked against the file before anything is allocated for the range.
    if range.start > range.end || range.end > length {
        let (start, end) = (range.start, range.end);
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("bytes {start}..{end} are not in the file, which is {length} bytes long"),
        ));
    }
    let count = range.end - range.start;
    check_length(count)?;
    let count = usize::try_from(count).map_err(|_| ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; count];
    file.seek(SeekFrom::Start(range.start))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Calls `attempt` until it succeeds, fails for good, or has been called once more than there are pauses.
fn retry<T>(sleep: impl Fn(Duration), mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in PAUSES {
        match attempt() {
            Err(error) if may_pass(&error) => sleep(pause),
            outcome => return outcome,
        }
    }
    attempt()
}

/// Whether another attempt may succeed: a path that leads nowhere stays so, while a network drive, a disk or a full table
/// of open files may recover.
fn may_pass(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename
            | ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn roots(data: &str, dataset: &str, recorded: &str) -> Roots {
        Roots {
            data: data.into(),
            dataset: dataset.into(),
            recorded: recorded.into(),
        }
    }

    #[test]
    fn recorded_paths_are_relocated_below_the_root_of_the_dataset() {
        let there = "/planner/data/birds/test/a/1.png";
        for (roots, expected) in [
            (
                roots("/data", "birds", "/planner/data/birds"),
                "/data/birds/test/a/1.png",
            ),
            (
                roots("/data", "birds", "/planner/data/birds/"),
                "/data/birds/test/a/1.png",
            ),
            // An absolute root of the manifest needs no data folder.
            (
                roots("/data", "/disk/birds", "/planner/data/birds"),
                "/disk/birds/test/a/1.png",
            ),
            // A folder whose name only begins like the root is another folder.
            (roots("/data", "birds", "/planner/data/bird"), there),
            (roots("/data", "birds", "/elsewhere"), there),
            (roots("/data", "birds", ""), there),
            (Roots::default(), there),
        ] {
            assert_eq!(roots.path(there), Path::new(expected), "{roots:?}");
        }
        let relative = "data/birds/test/a/1.png";
        let same = roots("data", "birds", "data/birds");
        assert_eq!(same.path(relative), Path::new(relative));
        assert_eq!(Roots::default().path(relative), Path::new(relative));
        let moved = roots("/mnt", "birds", "data/birds");
        assert_eq!(moved.path(relative), Path::new("/mnt/birds/test/a/1.png"));
        // A part that recorded no root has paths below the root of the dataset.
        let unrecorded = roots("/mnt", "birds", "");
        assert_eq!(unrecorded.path("a/1.png"), Path::new("/mnt/birds/a/1.png"));
    }

    #[test]
    fn a_source_is_the_whole_file_or_some_bytes_of_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("set")).unwrap();
        std::fs::write(folder.path().join("set/file"), b"0123456789").unwrap();
        let roots = Roots {
            data: folder.path().into(),
            dataset: "set".into(),
            recorded: "/recorded".into(),
        };
        let bytes = |at| {
            let uri = "/recorded/file".to_string();
            read(&Source { uri, at }, &roots)
        };
        assert_eq!(bytes(At::Whole).unwrap(), b"0123456789");
        assert_eq!(bytes(At::Bytes(0..10)).unwrap(), b"0123456789");
        assert_eq!(bytes(At::Bytes(3..5)).unwrap(), b"34");
        assert_eq!(bytes(At::Bytes(9..10)).unwrap(), b"9");
        assert_eq!(bytes(At::Bytes(10..10)).unwrap(), b"");
        for (range, shown) in [
            (8..11, "8..11"),
            (11..11, "11..11"),
            (0..u64::MAX, "0..18446744073709551615"),
            (Range { start: 5, end: 3 }, "5..3"),
        ] {
            let error = bytes(At::Bytes(range)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(
                error.to_string(),
                format!("bytes {shown} are not in the file, which is 10 bytes long")
            );
        }
    }

    #[test]
    fn planes_are_read_as_a_portable_pixmap() {
        let folder = tempfile::tempdir().unwrap();
        // A label, then 2 x 1 pixels: red plane, green plane, blue plane.
        std::fs::write(folder.path().join("batch.bin"), b"\x07rRgGbB").unwrap();
        let size = PlaneSize {
            width: 2,
            height: 1,
        };
        let uri = folder.path().join("batch.bin").display().to_string();
        let at = At::Planes { start: 1, size };
        let file = read(
            &Source {
                uri: uri.clone(),
                at,
            },
            &Roots::default(),
        )
        .unwrap();
        assert_eq!(file, b"P6\n2 1\n255\nrgbRGB");
        let at = At::Planes { start: 2, size };
        let cut = read(&Source { uri, at }, &Roots::default()).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_missing_file_keeps_its_kind_of_error() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("gone").display().to_string();
        for at in [At::Whole, At::Bytes(0..1)] {
            let uri = uri.clone();
            let error = read(&Source { uri, at }, &Roots::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }

    /// Pauses that were slept, and the outcome, if the first `failures` attempts fail with `kind`.
    fn attempts(kind: ErrorKind, failures: usize) -> (Vec<Duration>, Result<usize>) {
        let pauses = RefCell::new(Vec::new());
        let mut count = 0;
        let outcome = retry(
            |pause| pauses.borrow_mut().push(pause),
            || {
                count += 1;
                match count <= failures {
                    true => Err(Error::new(kind, format!("attempt {count}"))),
                    false => Ok(count),
                }
            },
        );
        (pauses.into_inner(), outcome)
    }

    #[test]
    fn transient_errors_are_retried_and_the_others_are_not() {
        for kind in [
            ErrorKind::Other,
            ErrorKind::TimedOut,
            ErrorKind::StaleNetworkFileHandle,
            ErrorKind::UnexpectedEof,
        ] {
            for failures in 0..=3 {
                let (pauses, outcome) = attempts(kind, failures);
                assert_eq!(pauses, PAUSES[..failures], "{kind}");
                assert_eq!(outcome.unwrap(), failures + 1, "{kind}");
            }
            let (pauses, outcome) = attempts(kind, 4);
            assert_eq!(pauses, PAUSES, "{kind}");
            assert_eq!(outcome.unwrap_err().to_string(), "attempt 4", "{kind}");
        }
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::PermissionDenied,
            ErrorKind::IsADirectory,
            ErrorKind::NotADirectory,
            ErrorKind::InvalidInput,
            ErrorKind::InvalidFilename,
        ] {
            let (pauses, outcome) = attempts(kind, 1);
            assert_eq!(pauses, [], "{kind}");
            assert_eq!(outcome.unwrap_err().kind(), kind);
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_named_and_not_waited_for() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("/dev/zero", at("zero.png")).unwrap();
        symlink("b.png", at("a.png")).unwrap();
        symlink("a.png", at("b.png")).unwrap();
        symlink("gone", at("broken.png")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket.png")).unwrap();
        let huge = std::fs::File::create(at("huge.png")).unwrap();
        huge.set_len(MAX_IMAGE_BYTES + 1).unwrap();
        for (name, expected) in [
            ("zero.png", "found a device, expected a regular file"),
            ("socket.png", "found a socket, expected a regular file"),
            ("a.png", "found links that lead in a circle"),
            ("broken.png", "found a link that leads nowhere"),
            ("huge.png", "found more than 1073741824 bytes"),
        ] {
            // A retry would take two seconds for each.
            let attempts = RefCell::new(0);
            let error = retry(
                |_| *attempts.borrow_mut() += 1,
                || {
                    read_file(&at(name), MAX_IMAGE_BYTES)
                        .map_err(|error| name_broken_link(&at(name), error))
                },
            );
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{name}: {error}");
            assert_eq!(attempts.into_inner(), 0, "{name}");
            let whole = read(&Source::found(&at(name)), &Roots::default()).unwrap_err();
            assert_eq!(whole.to_string(), error);
        }
        let odd = folder
            .path()
            .join(std::ffi::OsStr::from_bytes(b"b\xFF.png"));
        std::fs::write(&odd, "pixels").unwrap();
        let roots = Roots {
            data: folder.path().into(),
            dataset: "".into(),
            recorded: "/planner".into(),
        };
        let source = Source::found(Path::new(std::ffi::OsStr::from_bytes(
            b"/planner/b\xFF.png",
        )));
        assert_eq!(source.uri, "file:///planner/b%FF.png");
        assert_eq!(read(&source, &roots).unwrap(), b"pixels");
    }
}

//! Where the bytes of an image lie, and reading them.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::DataError;

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
    /// Path of the file, or of the archive that holds the image, on the machine that listed the dataset.
    ///
    /// Text, because it is stored in tables: a path that is not UTF-8 is refused when the dataset is listed.
    pub uri: String,
    /// The part of the file.
    pub at: At,
}

/// The part of a file that an image occupies.
// A row of a Parquet file will be a variant of its own, added together with the first layout that needs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum At {
    /// The whole file.
    Whole,
    /// The bytes `start..end`, counted from the start of the file: a member of an archive.
    Bytes(Range<u64>),
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
    ///
    /// # Errors
    /// [`DataError::NotUtf8`].
    pub(crate) fn found(path: PathBuf) -> std::result::Result<Source, DataError> {
        match path.into_os_string().into_string() {
            Ok(uri) => Ok(Source::whole(uri)),
            Err(path) => Err(DataError::NotUtf8 { path: path.into() }),
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
        match Path::new(uri).strip_prefix(&self.recorded) {
            Ok(below) => self.data.join(&self.dataset).join(below),
            Err(_) => PathBuf::from(uri),
        }
    }
}

/// Reads the encoded bytes of an image. An error that may be transient, such as those of a network drive, is retried three
/// times, after 0.1, 0.4 and 1.6 seconds.
///
/// # Errors
/// The error of the last attempt. Without a retry: a file that does not exist, may not be read, or is a folder
/// ([`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`], [`ErrorKind::IsADirectory`] and the like), and a range of
/// bytes that the file does not have ([`ErrorKind::InvalidInput`]).
pub fn read(source: &Source, roots: &Roots) -> Result<Vec<u8>> {
    let path = roots.path(&source.uri);
    retry(std::thread::sleep, || match &source.at {
        At::Whole => std::fs::read(&path),
        At::Bytes(range) => read_range(&path, range),
    })
}

fn read_range(path: &Path, range: &Range<u64>) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // Checked against the file before anything is allocated for the range.
    if range.start > range.end || range.end > length {
        let (start, end) = (range.start, range.end);
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("bytes {start}..{end} are not in the file, which is {length} bytes long"),
        ));
    }
    let count = usize::try_from(range.end - range.start).map_err(|_| ErrorKind::OutOfMemory)?;
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
    fn a_path_that_is_not_utf8_makes_no_source() {
        use std::os::unix::ffi::OsStringExt;
        let path = PathBuf::from(std::ffi::OsString::from_vec(b"/data/\xE9/1.png".to_vec()));
        let error = Source::found(path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the name of /data/\u{FFFD}/1.png is not UTF-8"
        );
        let source = Source::found("/data/é/1.png".into()).unwrap();
        assert_eq!(source, Source::whole("/data/é/1.png"));
    }
}

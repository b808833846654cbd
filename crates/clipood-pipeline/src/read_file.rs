//! Reading a file of a dataset, which may lie on a network drive.

use std::io::{Error, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// Pauses before the second reading and the later ones.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1600),
];

/// Reads a whole file, again after a pause where that may help.
///
/// # Errors
/// A file that is not there or not for us, at once; what else the last reading said.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    for pause in PAUSES {
        match std::fs::read(path) {
            Err(error) if may_pass(&error) => std::thread::sleep(pause),
            read => return read,
        }
    }
    std::fs::read(path)
}

/// A name that leads nowhere stays so; a network drive, a disk or a table of open files that is full may recover.
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

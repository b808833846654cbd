//! Files that are read in pieces, wherever they lie.

use std::fs::File;
use std::io::{BufReader, Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clipood_core::files::open_file;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

/// Bytes that a sequential reader asks for at once.
const BUFFER: usize = 1 << 20;

/// An open file. Cheap to clone; every read names its range, so that threads do not disturb each other.
#[derive(Clone)]
pub(crate) struct ByteFile {
    file: Arc<File>,
    length: u64,
}

impl ByteFile {
    /// Opens a regular file.
    ///
    /// # Errors
    /// As [`open_file`].
    pub fn open(path: &Path) -> Result<ByteFile> {
        let file = open_file(path)?;
        let length = file.metadata()?.len();
        let file = Arc::new(file);
        Ok(ByteFile { file, length })
    }

    /// The bytes `start..start + length`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a range that the file does not have.
    pub fn read_at(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            let problem = format!(
                "bytes {start}..{} are not in the file, which is {} bytes long",
                start.saturating_add(length as u64),
                self.length
            );
            return Err(Error::new(ErrorKind::InvalidInput, problem));
        }
        let mut bytes = vec![0; length];
        read_exact_at(&self.file, &mut bytes, start)?;
        Ok(Bytes::from(bytes))
    }

    /// A reader from `start` on.
    pub fn reader(&self, start: u64) -> BufReader<Cursor> {
        let cursor = Cursor {
            file: self.clone(),
            position: start,
        };
        BufReader::with_capacity(BUFFER, cursor)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], start: u64) -> Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(not(unix))]
fn read_exact_at(file: &File, bytes: &mut [u8], start: u64) -> Result<()> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytes)
}

/// A position in a [`ByteFile`].
pub(crate) struct Cursor {
    file: ByteFile,
    position: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = self.file.length.saturating_sub(self.position);
        let count = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        buffer[..count].copy_from_slice(&self.file.read_at(self.position, count)?);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.file.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl Length for ByteFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for ByteFile {
    type T = BufReader<Cursor>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.reader(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.read_at(start, length)
            .map_err(|error| ParquetError::External(Box::new(error)))
    }
}

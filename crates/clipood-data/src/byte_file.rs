//! Files that are read in pieces, wherever they lie.

use std::fs::File;
use std::io::{BufReader, Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use clipood_core::files::open_file;
use clipood_core::is_url;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use crate::blocks::Blocks;
use crate::remote::Object;

/// Bytes that a sequential reader of a local file asks for at once.
const BUFFER: usize = 1 << 16;

/// An open file. Cheap to clone; every read names its range, so that threads do not disturb each other.
#[derive(Clone)]
pub(crate) struct ByteFile {
    bytes: Held,
    length: u64,
}

#[derive(Clone)]
enum Held {
    Local(Arc<File>),
    Remote(Arc<Blocks>),
}

impl ByteFile {
    /// Opens a regular file, or an object behind a URL.
    ///
    /// # Errors
    /// As [`open_file`]; errors of the object's store.
    pub fn open(path: &Path) -> Result<ByteFile> {
        if is_url(path) {
            let blocks = Blocks::of(Object::of(path)?)?;
            let length = blocks.length();
            let bytes = Held::Remote(Arc::new(blocks));
            return Ok(ByteFile { bytes, length });
        }
        let file = open_file(path)?;
        let length = file.metadata()?.len();
        let bytes = Held::Local(Arc::new(file));
        Ok(ByteFile { bytes, length })
    }

    /// Its length in bytes when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes of a range.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a range that the file does not have.
    pub fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        // Checked against the file before anything is allocated for the range.
        if range.start > range.end || range.end > self.length {
            let Range { start, end } = range;
            let problem = format!(
                "bytes {start}..{end} are not in the file, which is {} bytes long",
                self.length
            );
            return Err(Error::new(ErrorKind::InvalidInput, problem));
        }
        let length = range.end - range.start;
        let length = usize::try_from(length).map_err(|_| ErrorKind::OutOfMemory)?;
        match &self.bytes {
            Held::Local(file) => {
                let mut bytes = BytesMut::zeroed(length);
                read_exact_at(file, &mut bytes, range.start)?;
                Ok(bytes.freeze())
            }
            Held::Remote(blocks) => blocks.read(range),
        }
    }

    /// A reader from the start on, for small pieces with gaps between them.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            file: self.clone(),
            position: 0,
        }
    }

    /// A reader from `start` on that reads ahead.
    pub fn reader(&self, start: u64) -> BufReader<Cursor> {
        let mut cursor = self.cursor();
        cursor.position = start;
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
        let count = left.min(buffer.len() as u64);
        if count == 0 {
            return Ok(0);
        }
        let bytes = self.file.read_at(self.position..self.position + count)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.position += count;
        Ok(bytes.len())
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
        Ok(self.reader(start.min(self.length)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.saturating_add(length as u64);
        self.read_at(start..end)
            .map_err(|error| ParquetError::External(Box::new(error)))
    }
}

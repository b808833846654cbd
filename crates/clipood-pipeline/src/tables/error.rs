//! Errors of tables.

use parquet::errors::ParquetError;

/// An error of a table. `file` is the name given to the reader, or the kind of table for a writer.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A column that is missing, has another type or unexpected nulls, or a value that does not fit its type.
    #[error("{file}: column `{column}`: expected {expected}, found {found}")]
    Column {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A value of the file's metadata that is missing or does not fit the table.
    #[error("{file}: metadata `{key}`: expected {expected}, found {found}")]
    Metadata {
        /// The file.
        file: String,
        /// The metadata key.
        key: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Bytes that are not a complete Parquet file.
    #[error("{file}: not a readable Parquet file")]
    Unreadable {
        /// The file.
        file: String,
        /// The decoder's explanation.
        source: ParquetError,
    },
    /// A table that cannot be encoded.
    #[error("{file}: cannot write the table")]
    Unwritable {
        /// The kind of table.
        file: String,
        /// The encoder's explanation.
        source: ParquetError,
    },
}

/// Result of this module.
pub(super) type Result<T> = std::result::Result<T, TableError>;

impl TableError {
    /// A [`TableError::Column`].
    pub(super) fn column(
        file: &str,
        column: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Column {
            file: file.to_owned(),
            column: column.to_owned(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A [`TableError::Metadata`].
    pub(super) fn metadata(
        file: &str,
        key: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Metadata {
            file: file.to_owned(),
            key: key.to_owned(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A [`TableError::Unreadable`].
    pub(super) fn unreadable(file: &str, source: impl Into<ParquetError>) -> Self {
        Self::Unreadable {
            file: file.to_owned(),
            source: source.into(),
        }
    }

    /// A [`TableError::Unwritable`].
    pub(super) fn unwritable(file: &str, source: impl Into<ParquetError>) -> Self {
        Self::Unwritable {
            file: file.to_owned(),
            source: source.into(),
        }
    }
}

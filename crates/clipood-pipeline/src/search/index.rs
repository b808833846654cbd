//! [`SearchIndex`]: unit rows with their names, in memory or mapped from a file.

use std::io;
use std::ops::Range;
use std::path::Path;

use clipood_core::files::open_file;
use clipood_core::shown;
use clipood_kernels::retrieval::{Hit, Rows, quantize};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::NamedTempFile;

use crate::error::{PipelineError, Result};

/// Version of the file, in its metadata.
const FORMAT: &str = "clipood-search-1";
/// Key of the format.
const FORMAT_KEY: &str = "format";
/// Key of the digest of what the rows were read from.
const SOURCE_KEY: &str = "source";
/// Names of the arrays.
const FEATURES: &str = "features";
const CODES: &str = "codes";
const SCALES: &str = "scales";
const RESIDUALS: &str = "residuals";
const NAMES: &str = "names";

/// Rows of unit length with names, which [`SearchIndex::nearest`] compares with queries.
#[derive(Debug)]
pub struct SearchIndex {
    dim: usize,
    names: Vec<String>,
    arrays: Arrays,
}

/// The arrays of [`Rows`].
#[derive(Debug)]
enum Arrays {
    /// Made in this process.
    Held {
        exact: Vec<f32>,
        codes: Vec<i8>,
        scales: Vec<f32>,
        residuals: Vec<f32>,
    },
    /// In a file; the ranges are places of bytes, aligned to the type of each array.
    Mapped {
        map: Mmap,
        exact: Range<usize>,
        codes: Range<usize>,
        scales: Range<usize>,
        residuals: Range<usize>,
    },
}

impl SearchIndex {
    /// An index of features `[names, dim]`, which need not be normalised.
    ///
    /// # Errors
    /// [`PipelineError::Usage`] for a number of values that does not fit the names, and for a feature whose length is
    /// zero or not finite, by its name.
    pub fn new(dim: usize, names: Vec<String>, mut values: Vec<f32>) -> Result<Self> {
        if dim == 0 || values.len() != names.len() * dim {
            return Err(PipelineError::Usage(format!(
                "{} values are not {} features of width {dim}",
                values.len(),
                names.len()
            )));
        }
        let mut codes = vec![0i8; values.len()];
        let made: Vec<Option<(f32, f32)>> = values
            .par_chunks_exact_mut(dim)
            .zip(codes.par_chunks_exact_mut(dim))
            .map(|(row, codes)| {
                let square: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
                let norm = square.sqrt();
                if !(norm > 0.0 && norm.is_finite()) {
                    return None;
                }
                row.iter_mut()
                    .for_each(|v| *v = (f64::from(*v) / norm) as f32);
                Some(quantize(row, codes))
            })
            .collect();
        if let Some(bad) = made.iter().position(Option::is_none) {
            return Err(PipelineError::Usage(format!(
                "the features of {} have no direction: their length is zero or not finite",
                names[bad]
            )));
        }
        let (scales, residuals) = made.into_iter().flatten().unzip();
        let arrays = Arrays::Held {
            exact: values,
            codes,
            scales,
            residuals,
        };
        Ok(Self { dim, names, arrays })
    }

    /// Width of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Names of the rows.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A row, of length 1.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.rows().exact[row * self.dim..][..self.dim]
    }

    /// The `k` rows nearest to a query among those that `keep` accepts, the nearest first. The query need not be
    /// normalised.
    ///
    /// # Errors
    /// [`PipelineError::Usage`] for a query of another width, or without direction.
    pub fn nearest(
        &self,
        query: &[f32],
        k: usize,
        keep: impl Fn(usize) -> bool + Sync,
    ) -> Result<Vec<Hit>> {
        if query.len() != self.dim {
            return Err(PipelineError::Usage(format!(
                "the query has width {}, the features have {}: they are of another model",
                query.len(),
                self.dim
            )));
        }
        let norm = query
            .iter()
            .map(|v| f64::from(*v) * f64::from(*v))
            .sum::<f64>()
            .sqrt();
        if !(norm > 0.0 && norm.is_finite()) {
            let text =
                "the features of the query have no direction: their length is zero or not finite";
            return Err(PipelineError::Usage(text.to_owned()));
        }
        let query: Vec<f32> = query
            .iter()
            .map(|v| (f64::from(*v) / norm) as f32)
            .collect();
        Ok(self.rows().nearest(&query, k, keep))
    }

    fn rows(&self) -> Rows<'_> {
        match &self.arrays {
            Arrays::Held {
                exact,
                codes,
                scales,
                residuals,
            } => Rows {
                dim: self.dim,
                exact,
                codes,
                scales,
                residuals,
            },
            Arrays::Mapped {
                map,
                exact,
                codes,
                scales,
                residuals,
            } => Rows {
                dim: self.dim,
                // Lengths and alignment were checked when the file was opened.
                exact: bytemuck::cast_slice(&map[exact.clone()]),
                codes: bytemuck::cast_slice(&map[codes.clone()]),
                scales: bytemuck::cast_slice(&map[scales.clone()]),
                residuals: bytemuck::cast_slice(&map[residuals.clone()]),
            },
        }
    }

    /// Writes the index to a safetensors file, completely or not at all: `features` float32 and `codes` int8 `[rows, dim]`,
    /// `scales` and `residuals` float32 `[rows]`, `names` as lines of UTF-8. `source` tells what it was made from.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path, source: &str) -> Result<()> {
        let rows = self.rows();
        let (n, dim) = (self.names.len(), self.dim);
        let names = self.names.join("\n").into_bytes();
        let tensors = [
            (FEATURES, Dtype::F32, vec![n, dim], bytes_of(rows.exact)),
            (CODES, Dtype::I8, vec![n, dim], bytes_of(rows.codes)),
            (SCALES, Dtype::F32, vec![n], bytes_of(rows.scales)),
            (RESIDUALS, Dtype::F32, vec![n], bytes_of(rows.residuals)),
            (NAMES, Dtype::U8, vec![names.len()], &names[..]),
        ];
        let cannot = |source: io::Error| PipelineError::File {
            path: shown(path).to_string(),
            action: "cannot write",
            source,
        };
        let mut views = Vec::with_capacity(tensors.len());
        for (name, dtype, shape, bytes) in tensors {
            let view = TensorView::new(dtype, shape, bytes);
            views.push((name, view.map_err(|error| cannot(io::Error::other(error)))?));
        }
        let metadata = [(FORMAT_KEY, FORMAT), (SOURCE_KEY, source)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Renamed when it is whole: a process that has mapped an earlier file keeps that one.
        let staged = NamedTempFile::new_in(folder).map_err(cannot)?;
        safetensors::serialize_to_file(views, Some(metadata.into()), staged.path())
            .map_err(|error| cannot(io::Error::other(error)))?;
        staged.persist(path).map_err(|error| cannot(error.error))?;
        Ok(())
    }

    /// Maps the index in a file. `None` if there is no such file, or if it was made from something else than `source`.
    ///
    /// # Errors
    /// A file that cannot be read; [`PipelineError::Usage`] for one that is no index.
    pub fn open(path: &Path, source: &str) -> Result<Option<Self>> {
        let file = match open_file(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(PipelineError::File {
                    path: shown(path).to_string(),
                    action: "cannot read",
                    source,
                });
            }
        };
        // SAFETY: an index is never written in place (see `save`), so that the bytes do not change while they are mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| PipelineError::File {
            path: shown(path).to_string(),
            action: "cannot map",
            source,
        })?;
        let no_index = |reason: &str| {
            PipelineError::Usage(format!(
                "{} is no index of `clipood search` ({reason}): name another file",
                shown(path)
            ))
        };
        let (_, header) =
            SafeTensors::read_metadata(&map).map_err(|error| no_index(&error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if metadata.get(FORMAT_KEY).map(String::as_str) != Some(FORMAT) {
            return Err(no_index("its metadata has no such format"));
        }
        if metadata.get(SOURCE_KEY).map(String::as_str) != Some(source) {
            return Ok(None);
        }
        let tensors =
            SafeTensors::deserialize(&map).map_err(|error| no_index(&error.to_string()))?;
        let range = |name: &str, dtype: Dtype, shape: &[usize]| -> Result<Range<usize>> {
            let found = tensors
                .tensor(name)
                .map_err(|error| no_index(&error.to_string()))?;
            let bytes = found.data();
            let start = bytes.as_ptr().addr() - map.as_ptr().addr();
            let aligned = start.is_multiple_of(dtype.bitsize() / 8);
            if found.dtype() != dtype || found.shape() != shape || !aligned {
                return Err(no_index(&format!("array `{name}` is not as it is written")));
            }
            Ok(start..start + bytes.len())
        };
        let shape_of = |name: &str| {
            let found = tensors
                .tensor(name)
                .map_err(|error| no_index(&error.to_string()))?;
            Ok::<_, PipelineError>(found.shape().to_vec())
        };
        let [n, dim] = shape_of(FEATURES)?[..] else {
            return Err(no_index("its features are no matrix"));
        };
        let text = range(NAMES, Dtype::U8, &shape_of(NAMES)?)?;
        let names: Vec<String> = match std::str::from_utf8(&map[text]) {
            Ok(text) if n > 0 => text.split('\n').map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        if dim == 0 || names.len() != n {
            return Err(no_index("its names do not fit its features"));
        }
        let arrays = Arrays::Mapped {
            exact: range(FEATURES, Dtype::F32, &[n, dim])?,
            codes: range(CODES, Dtype::I8, &[n, dim])?,
            scales: range(SCALES, Dtype::F32, &[n])?,
            residuals: range(RESIDUALS, Dtype::F32, &[n])?,
            map,
        };
        Ok(Some(Self { dim, names, arrays }))
    }
}

/// The bytes of numbers, as they lie in memory.
fn bytes_of<T: bytemuck::NoUninit>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SearchIndex {
        let names = ["a/1.png", "a/2.png", "b/1.png"]
            .map(str::to_owned)
            .to_vec();
        let values = vec![2.0, 0.0, 0.0, 3.0, 3.0, 0.0, 0.0, 0.1, 0.1];
        SearchIndex::new(3, names, values).unwrap()
    }

    #[test]
    fn a_saved_index_finds_what_the_one_in_memory_finds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.safetensors");
        assert!(SearchIndex::open(&path, "s").unwrap().is_none());
        let held = index();
        held.save(&path, "s").unwrap();
        let mapped = SearchIndex::open(&path, "s").unwrap().unwrap();
        assert_eq!(mapped.names(), held.names());
        for query in [[1.0, 0.5, 0.0], [0.0, 0.0, -4.0], [0.3, 0.3, 0.3]] {
            let expected = held.nearest(&query, 2, |_| true).unwrap();
            assert_eq!(mapped.nearest(&query, 2, |_| true).unwrap(), expected);
        }
        assert!(SearchIndex::open(&path, "another").unwrap().is_none());
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        for bytes in [&b""[..], b"{}", &[0; 64]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(SearchIndex::open(&path, "s").is_err());
        }
        let held = index();
        held.save(&path, "s").unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let error = SearchIndex::open(&path, "s").unwrap_err().to_string();
        assert!(error.contains("is no index"), "{error}");
    }

    #[test]
    fn features_and_queries_without_direction_are_refused() {
        let names = vec!["dark.png".to_owned()];
        let error = SearchIndex::new(2, names, vec![0.0, 0.0]).unwrap_err();
        assert!(error.to_string().contains("dark.png"), "{error}");
        let index = index();
        assert!(index.nearest(&[0.0; 3], 1, |_| true).is_err());
        assert!(index.nearest(&[f32::NAN, 0.0, 1.0], 1, |_| true).is_err());
        let error = index
            .nearest(&[1.0, 0.0], 1, |_| true)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("width 2") && error.contains("have 3"),
            "{error}"
        );
    }
}

//! Streams: detectors that learn from the test images that they score.
//!
//! Such a detector sees a mixture of in-distribution and out-of-distribution images in an order of arrival, in batches, and
//! keeps a memory of them. Its score of an image depends on the other images, on their order and on the batch size, so
//! figures of it are those of one stream: [`stream_order`] draws an order from a seed, and several orders tell how much the
//! order matters. The memory is empty at the start of each stream ([`Stream::start`]), one for each pair of data sets.
//!
//! Scores depend on nothing else: not on the number of threads, because rows are multiplied one batch at a time in chunks of
//! a fixed size.

use crate::bank::Bank;
use crate::error::OodError;
use crate::fitted::check_classes;
use crate::info::DetectorInfo;
use crate::matrix::Matrix;
use crate::parameters::Values;
use crate::spec::DetectorSpec;
use clipood_core::SplitMix64;
use rayon::prelude::*;
use std::fmt::Debug;

/// Rows that are multiplied together; the chunks of a batch run in parallel.
const CHUNK: usize = 32;

/// Features that a stream starts with. Raw; rows are divided by their lengths inside.
#[derive(Debug, Clone, Copy)]
pub struct StreamInputs<'a> {
    /// Text features of the classes, `[classes, dim]`.
    pub text: Matrix<'a>,
    /// Text features of negative labels or of all words, `[words, dim]`.
    pub negative_text: Option<Matrix<'a>>,
    /// Features of noise images, `[n, dim]`.
    pub noise: Option<Matrix<'a>>,
}

/// One kind of detector of streams; a value holds the parameters of one specification.
pub(crate) trait StreamDetector: Copy + Debug + PartialEq {
    /// The entry in listings, with `needs.stream`.
    const INFO: &'static DetectorInfo;

    /// Fewest classes that give a score with meaning.
    const MIN_CLASSES: usize;

    /// Reads the parameters of `INFO`, given or by default; an error says what is allowed and what was found.
    fn read(values: &Values<'_>) -> Result<Self, String>;

    /// The parameters as text, in the order of `INFO`; [`StreamDetector::read`] must give the same value back.
    fn write(&self) -> Vec<String>;

    /// Images of a batch, at least 1.
    fn batch(&self) -> usize;

    /// The memory at the start of a stream.
    ///
    /// # Errors
    /// Errors of [`StreamData`]'s arrays.
    fn start(&self, data: &StreamData<'_>) -> Result<Box<dyn Memory>, OodError>;
}

/// What a detector has learned from the images of a stream so far.
pub(crate) trait Memory: Send {
    /// Scores the images of a batch, unit rows `[n, dim]`, and learns from them; one score per row, higher =
    /// in-distribution.
    fn score(&mut self, images: &[f32]) -> Vec<f32>;
}

/// A [`StreamDetector`] of any kind.
pub(crate) trait AnyStream {
    fn batch(&self) -> usize;
    fn start(&self, data: &StreamData<'_>) -> Result<Box<dyn Memory>, OodError>;
}

impl<D: StreamDetector> AnyStream for D {
    fn batch(&self) -> usize {
        StreamDetector::batch(self)
    }

    fn start(&self, data: &StreamData<'_>) -> Result<Box<dyn Memory>, OodError> {
        StreamDetector::start(self, data)
    }
}

/// Inputs of a stream together with the name of the detector that reads them, for errors.
pub(crate) struct StreamData<'a> {
    name: &'a str,
    inputs: &'a StreamInputs<'a>,
}

impl StreamData<'_> {
    pub(crate) fn dim(&self) -> usize {
        self.inputs.text.cols()
    }

    pub(crate) fn classes(&self) -> usize {
        self.inputs.text.rows()
    }

    pub(crate) fn problem(&self, problem: String) -> OodError {
        OodError::Detector {
            detector: self.name.to_owned(),
            problem,
        }
    }

    /// Unit class texts, `[classes, dim]`.
    pub(crate) fn text(&self) -> Result<Vec<f32>, OodError> {
        self.inputs.text.normalized()
    }

    /// Unit negative texts, `[words, dim]`, at least 1.
    pub(crate) fn negatives(&self) -> Result<Vec<f32>, OodError> {
        self.given(self.inputs.negative_text, "negative_text")
    }

    /// Unit features of noise images, `[n, dim]`, at least 1.
    pub(crate) fn noise(&self) -> Result<Vec<f32>, OodError> {
        self.given(self.inputs.noise, "noise")
    }

    fn given(
        &self,
        matrix: Option<Matrix<'_>>,
        missing: &'static str,
    ) -> Result<Vec<f32>, OodError> {
        let matrix = matrix.ok_or_else(|| OodError::Missing {
            detector: self.name.to_owned(),
            missing,
        })?;
        matrix.expect_cols(self.dim(), self.inputs.text.name())?;
        if matrix.rows() == 0 {
            return Err(self.problem(format!("{} has no row, needs at least 1", matrix.name())));
        }
        matrix.normalized()
    }
}

/// A stream of test images under one detector.
pub struct Stream {
    memory: Box<dyn Memory>,
    name: String,
    batch: usize,
    text: (String, usize),
}

impl Stream {
    /// Starts a stream with an empty memory.
    ///
    /// # Errors
    /// [`OodError::Missing`] for an array that the kind needs, [`OodError::Mismatch`] and [`OodError::ZeroRow`] for arrays
    /// that do not fit, [`OodError::Detector`] for a kind that scores images one by one and where the arrays cannot carry
    /// the detector.
    pub fn start(spec: &DetectorSpec, inputs: &StreamInputs<'_>) -> Result<Self, OodError> {
        let name = spec.name();
        check_classes(spec, &inputs.text)?;
        let data = StreamData {
            name: &name,
            inputs,
        };
        let Some(detector) = spec.kind().stream() else {
            return Err(data.problem("scores images one by one, not a stream of images".to_owned()));
        };
        Ok(Self {
            memory: detector.start(&data)?,
            batch: detector.batch(),
            text: (inputs.text.name().to_owned(), inputs.text.cols()),
            name,
        })
    }

    /// Number of images of a full batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Scores the next batch, raw features `[n, dim]`, n at most [`Stream::batch_size`]; the memory learns from it. One
    /// score per image, higher = in-distribution.
    ///
    /// # Errors
    /// [`OodError::Mismatch`] for another width or too many images, [`OodError::ZeroRow`].
    pub fn score(&mut self, images: &Matrix<'_>) -> Result<Vec<f32>, OodError> {
        images.expect_cols(self.text.1, &self.text.0)?;
        if images.rows() > self.batch {
            return Err(OodError::Mismatch {
                name: format!("a batch of {}", self.name),
                what: "images",
                expected: format!("at most {}", self.batch),
                found: images.rows(),
            });
        }
        Ok(self.memory.score(&images.normalized()?))
    }
}

/// The order of arrival of `images` images that a seed draws: rows, each once.
pub fn stream_order(seed: u64, images: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..images as u32).collect();
    SplitMix64::keyed(seed, "stream order", 0).shuffle(&mut order);
    order
}

/// Scores the rows of `images` `[n, dim]`, in-distribution and out-of-distribution ones together, in the order of
/// `order`; returns one score per row, in the order of the rows. `each` is called after every batch with its number of
/// images, and an error of it ends the stream.
///
/// # Errors
/// As [`Stream::score`]; a row of `order` that does not exist; errors of `each`.
pub fn score_stream<E: From<OodError>>(
    stream: &mut Stream,
    images: &Matrix<'_>,
    order: &[u32],
    mut each: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<f32>, E> {
    let dim = images.cols();
    let mut scores = vec![0.0; images.rows()];
    let mut rows = Vec::with_capacity(stream.batch.min(images.rows()) * dim);
    for batch in order.chunks(stream.batch) {
        rows.clear();
        for &row in batch {
            let start = row as usize * dim;
            let Some(row) = images.data().get(start..start + dim) else {
                return Err(E::from(OodError::Mismatch {
                    name: "order of the stream".to_owned(),
                    what: "rows",
                    expected: format!("rows below {}", images.rows()),
                    found: row as usize,
                }));
            };
            rows.extend_from_slice(row);
        }
        let matrix = Matrix::new(images.name(), &rows, batch.len(), dim)?;
        for (&row, score) in batch.iter().zip(stream.score(&matrix)?) {
            scores[row as usize] = score;
        }
        each(batch.len())?;
    }
    Ok(scores)
}

/// Products of `rows` with every row of `bank`, `[rows, bank rows]`, in parallel.
pub(crate) fn products(bank: &Bank, rows: &[f32], out: &mut Vec<f32>) {
    let (dim, width) = (bank.dim(), bank.rows());
    out.resize(rows.len() / dim * width, 0.0);
    rows.par_chunks(CHUNK * dim)
        .zip(out.par_chunks_mut(CHUNK * width))
        .for_each(|(rows, out)| crate::linalg::product(rows, bank.data(), dim, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_every_row_once_and_depends_on_the_seed() {
        let order = stream_order(3, 100);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<u32>>());
        assert_eq!(order, stream_order(3, 100));
        assert_ne!(order, stream_order(4, 100));
        assert!(stream_order(0, 0).is_empty());
    }

    #[test]
    fn kinds_are_not_mixed_up_and_arrays_must_fit() {
        let text = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let text = Matrix::new("text", &text, 2, 3).unwrap();
        let inputs = StreamInputs {
            text,
            negative_text: None,
            noise: None,
        };
        let start = |spec: &str| Stream::start(&spec.parse().unwrap(), &inputs).map(|_| ());
        assert!(start("mcm").unwrap_err().to_string().contains("one by one"));
        for spec in ["adaneg", "tanl"] {
            let error = start(spec).unwrap_err().to_string();
            assert!(error.contains("needs negative_text"), "{error}");
        }
        let mut stream = Stream::start(&"oodd:batch=2".parse().unwrap(), &inputs).unwrap();
        let images = [0.5; 9];
        let images = Matrix::new("images", &images, 3, 3).unwrap();
        assert!(stream.score(&images).is_err());
        let scores: Result<_, OodError> =
            score_stream(&mut stream, &images, &[2, 0, 1], |_| Ok(()));
        assert_eq!(scores.unwrap().len(), 3);
        let scores: Result<_, OodError> = score_stream(&mut stream, &images, &[3], |_| Ok(()));
        assert!(scores.is_err());
        let narrow = Matrix::new("narrow", &[1.0, 2.0], 1, 2).unwrap();
        assert!(stream.score(&narrow).is_err());
    }
}

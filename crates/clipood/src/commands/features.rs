//! Reading feature arrays and labels from files of other programs: `.npy`, `FILE.npz:ARRAY`, `FILE.safetensors:TENSOR`,
//! `FILE.parquet:COLUMN`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{
    Array as _, ArrayRef, AsArray, BooleanArray, GenericListArray, OffsetSizeTrait,
};
use arrow::compute::{cast, concat, filter};
use arrow::datatypes::{DataType, Float32Type, Int64Type};
use clipood_core::files::{open_file, read_file};
use clipood_ood::{LocalFeatures, Matrix};
use clipood_pipeline::feature_checks::Variation;
use half::{bf16, f16};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::arrays::{LONGEST_FILE, extension};
use super::npy::{Npy, Numbers};
use super::npz;

/// A feature array, row-major.
#[derive(Debug)]
pub struct Array {
    /// Its role: `text`, `id`, ...
    pub name: &'static str,
    /// `[rows, features]`, or `[images, patches, features]`.
    pub shape: Vec<usize>,
    /// Converted to float32 from the file's type.
    pub values: Vec<f32>,
}

impl Array {
    /// As rows of features.
    pub fn matrix(&self) -> Result<Matrix<'_>> {
        match self.shape[..] {
            [rows, dim] => Ok(Matrix::new(self.name, &self.values, rows, dim)?),
            _ => Err(self.misshapen("[rows, features]")),
        }
    }

    /// Warns on standard error about features that do not vary over the rows.
    pub fn warn_if_flat(&self) {
        let mut variation = Variation::default();
        variation.add(&self.values, self.shape.last().copied().unwrap_or(0));
        if let Some(problem) = variation.problem() {
            clipood_pipeline::tell(&format!("warning: array `{}`: {problem}", self.name));
        }
    }

    /// As patches of images.
    pub fn local(&self) -> Result<LocalFeatures<'_>> {
        let [images, patches, dim] = self.shape[..] else {
            return Err(self.misshapen("[images, patches, features]"));
        };
        let (name, values) = (self.name, &self.values);
        Ok(LocalFeatures::new(name, values, images, patches, dim)?)
    }

    fn misshapen(&self, expected: &str) -> anyhow::Error {
        let (name, shape) = (self.name, &self.shape);
        anyhow!("array `{name}` has shape {shape:?}, expected {expected}")
    }
}

/// A file, and the array in it.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    array: Option<String>,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (path, array) = match text.rsplit_once(':') {
            Some((path, array)) if known(path) => (path, Some(array.to_owned())),
            _ => (text, None),
        };
        if !known(path) {
            return Err(
                "expected FILE.npy, FILE.npz:ARRAY, FILE.safetensors:TENSOR or FILE.parquet:COLUMN"
                    .to_owned(),
            );
        }
        Ok(Self {
            path: PathBuf::from(path),
            array,
        })
    }
}

fn known(path: &str) -> bool {
    ["npy", "npz", "safetensors", "parquet"].contains(&extension(path.as_ref()).as_str())
}

impl Source {
    fn describe(&self) -> String {
        match &self.array {
            Some(array) => format!("{}:{array}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }

    /// The features for the role `name`. From a table with a column `kind`, as `clipood encode` writes it, only the rows of the
    /// matching kind are taken.
    pub fn features(&self, name: &'static str, dim: Option<usize>) -> Result<Array> {
        let kind = if name.ends_with("text") {
            "text"
        } else {
            "image"
        };
        let (mut shape, numbers) = self.read(kind).with_context(|| self.describe())?;
        let values = match numbers {
            Numbers::Floats(values) => values,
            Numbers::Integers(_) => bail!("{}: holds integers, expected floats", self.describe()),
        };
        // Patches stored flattened, one value per row.
        if let (true, [rows, wide], Some(dim)) = (name.ends_with("local"), &shape[..], dim)
            && dim > 0
            && wide % dim == 0
        {
            shape = vec![*rows, wide / dim, dim];
        }
        let array = Array {
            name,
            shape,
            values,
        };
        array.warn_if_flat();
        Ok(array)
    }

    /// Class numbers.
    pub fn labels(&self, name: &'static str) -> Result<Vec<u32>> {
        let (shape, numbers) = self.read("image").with_context(|| self.describe())?;
        match numbers {
            Numbers::Integers(values) if shape.len() == 1 => class_numbers(name, values),
            Numbers::Integers(_) => {
                bail!("{}: has shape {shape:?}, expected [rows]", self.describe())
            }
            Numbers::Floats(_) => {
                bail!("{}: holds floats, expected class numbers", self.describe())
            }
        }
    }

    fn read(&self, kind: &str) -> Result<(Vec<usize>, Numbers)> {
        match extension(&self.path).as_str() {
            "npy" => array(&read_file(&self.path, LONGEST_FILE)?),
            "npz" => {
                let bytes = read_file(&self.path, LONGEST_FILE)?;
                array(&npz::member(
                    &bytes,
                    self.array.as_deref(),
                    "FILE.npz:ARRAY",
                )?)
            }
            "safetensors" => {
                let bytes = read_file(&self.path, LONGEST_FILE)?;
                let tensors = SafeTensors::deserialize(&bytes)?;
                let mut names = tensors.names();
                names.sort_unstable();
                let name = match (&self.array, &names[..]) {
                    (Some(name), _) => name.as_str(),
                    (None, [only]) => only,
                    (None, several) => {
                        bail!("say which array after a colon: {}", several.join(", "))
                    }
                };
                let tensor = tensors
                    .tensor(name)
                    .map_err(|_| anyhow!("no array `{name}` (arrays: {})", names.join(", ")))?;
                Ok((tensor.shape().to_vec(), numbers(&tensor)?))
            }
            // The decoder panics on some corrupt files; that becomes an ordinary error.
            _ => catch_unwind(AssertUnwindSafe(|| self.column(kind)))
                .unwrap_or_else(|_| Err(anyhow!("the Parquet file is corrupt"))),
        }
    }

    /// A column of lists of floats, or of integers.
    fn column(&self, kind: &str) -> Result<(Vec<usize>, Numbers)> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(open_file(&self.path)?)?;
        let schema = builder.schema().clone();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let name = self.array.as_deref().unwrap_or("global");
        let Some(at) = names.iter().position(|other| *other == name) else {
            bail!("no column `{name}` (columns: {})", names.join(", "));
        };
        let kinds = names.iter().position(|other| *other == "kind");
        let mut parts: Vec<ArrayRef> = Vec::new();
        for batch in builder.build()? {
            let batch = batch?;
            let column = batch.column(at).clone();
            parts.push(match kinds {
                None => column,
                Some(kinds) => {
                    let kinds = cast(batch.column(kinds), &DataType::Utf8)?;
                    let wanted: BooleanArray = kinds
                        .as_string::<i32>()
                        .iter()
                        .map(|k| Some(k == Some(kind)))
                        .collect();
                    filter(&column, &wanted)?
                }
            });
        }
        if parts.iter().map(|part| part.len()).sum::<usize>() == 0 {
            match kinds {
                None => bail!("column `{name}` has no row"),
                Some(_) => bail!("column `{name}` has no row whose `kind` is `{kind}`"),
            }
        }
        let parts: Vec<&dyn arrow::array::Array> = parts.iter().map(|p| p.as_ref()).collect();
        let mut values = concat(&parts)?;
        let mut shape = vec![values.len()];
        loop {
            if values.null_count() > 0 {
                bail!("column `{name}` has nulls");
            }
            let (width, inner) = match values.data_type() {
                DataType::FixedSizeList(_, width) => (
                    *width as usize,
                    values.as_fixed_size_list().values().clone(),
                ),
                DataType::List(_) => equal_lists(name, values.as_list::<i32>())?,
                DataType::LargeList(_) => equal_lists(name, values.as_list::<i64>())?,
                DataType::FixedSizeBinary(bytes) => {
                    let halves = values.as_fixed_size_binary().value_data();
                    let pairs = halves.as_chunks::<2>().0.iter();
                    shape.push(*bytes as usize / 2);
                    let floats = pairs.map(|b| f16::from_le_bytes(*b).to_f32()).collect();
                    return Ok((shape, Numbers::Floats(floats)));
                }
                kind if kind.is_floating() => {
                    let floats = cast(&values, &DataType::Float32)?;
                    let floats = floats.as_primitive::<Float32Type>().values().to_vec();
                    return Ok((shape, Numbers::Floats(floats)));
                }
                kind if kind.is_integer() => {
                    let wide = cast(&values, &DataType::Int64)?;
                    // Values that do not fit become null.
                    if wide.null_count() > 0 {
                        bail!("column `{name}` holds an integer above {}", i64::MAX);
                    }
                    let wide = wide.as_primitive::<Int64Type>().values().to_vec();
                    return Ok((shape, Numbers::Integers(wide)));
                }
                other => bail!(
                    "column `{name}` is of type {other}, expected lists of floats or integers"
                ),
            };
            shape.push(width);
            values = inner;
        }
    }
}

/// Shape and values of a `.npy` file.
fn array(bytes: &[u8]) -> Result<(Vec<usize>, Numbers)> {
    let array = Npy::parse(bytes)?;
    let numbers = array.numbers()?;
    Ok((array.shape, numbers))
}

/// The common length of all lists, and their concatenated values.
fn equal_lists<O: OffsetSizeTrait>(
    name: &str,
    lists: &GenericListArray<O>,
) -> Result<(usize, ArrayRef)> {
    let length = |row: usize| lists.value_length(row).as_usize();
    let width = if lists.is_empty() { 0 } else { length(0) };
    if let Some(row) = (0..lists.len()).find(|&row| length(row) != width) {
        let found = length(row);
        bail!("column `{name}`, row {row}: expected {width} values, found {found}");
    }
    let first = lists.value_offsets()[0].as_usize();
    let values = lists.values().slice(first, width * lists.len());
    Ok((width, values))
}

/// The values of a tensor of floats or integers.
pub fn numbers(tensor: &TensorView<'_>) -> Result<Numbers> {
    let data = tensor.data();
    let pairs = || data.as_chunks::<2>().0.iter();
    let words = || data.as_chunks::<4>().0.iter();
    let longs = || data.as_chunks::<8>().0.iter();
    Ok(match tensor.dtype() {
        Dtype::F32 => Numbers::Floats(words().map(|b| f32::from_le_bytes(*b)).collect()),
        Dtype::F64 => Numbers::Floats(longs().map(|b| f64::from_le_bytes(*b) as f32).collect()),
        Dtype::F16 => Numbers::Floats(pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        Dtype::BF16 => Numbers::Floats(pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        Dtype::I64 => Numbers::Integers(longs().map(|b| i64::from_le_bytes(*b)).collect()),
        Dtype::I32 => {
            Numbers::Integers(words().map(|b| i64::from(i32::from_le_bytes(*b))).collect())
        }
        other => bail!("is of type {other:?}, expected F64, F32, F16, BF16, I64 or I32"),
    })
}

/// Integers as class numbers.
pub fn class_numbers(name: &str, values: Vec<i64>) -> Result<Vec<u32>> {
    let labels = (0usize..).zip(values).map(|(row, label)| {
        u32::try_from(label).map_err(|_| {
            anyhow!("array `{name}`, row {row}: {label} is no class number, expected 0 or more")
        })
    });
    labels.collect()
}

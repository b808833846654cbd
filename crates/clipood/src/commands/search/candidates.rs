//! What `clipood search` looks among: a store, a folder of images, a file of features, or a class list.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use clipood_clip::model::{Devices, Model};
use clipood_core::files::open_file;
use clipood_core::{nearest, shown, stored};
use clipood_pipeline::search::{SearchIndex, StoredFeatures};
use clipood_pipeline::{Engine, PipelineError, Store, encode_files};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::arrays::extension;
use super::super::class_list::read_class_list;
use super::super::features::Source;
use super::super::images::{named_images, none_readable, report_unreadable};
use super::super::models::ModelArgs;
use super::sources::Names;

/// Options that say where to look.
#[derive(clap::Args)]
pub struct Candidates {
    /// Where to look: a store that a run has filled (a path or URL), a folder of images, or a file of `clipood encode`.
    #[arg(long, value_name = "PATH", required_unless_present = "classes")]
    features: Option<String>,
    /// Class names separated by commas, or a file with one per line, to look in instead: texts find the nearest classes.
    #[arg(long, value_name = "NAMES|FILE", conflicts_with = "features")]
    classes: Option<PathBuf>,
    /// Which features of a store with several: the start of a fingerprint, as `--features` lists them.
    #[arg(
        long,
        value_name = "HEX",
        default_value = "",
        hide_default_value = true
    )]
    fingerprint: String,
    /// Only images of this dataset; may be given several times.
    #[arg(long = "dataset", value_name = "NAME")]
    datasets: Vec<String>,
    /// Only images of this split: train, val or test.
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,
    /// A file that keeps the rows ready to search: made on the first call, mapped by later ones while the features are the
    /// same.
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
}

/// The kinds of `--features`.
enum Place {
    Store(Store),
    Folder(PathBuf),
    File(PathBuf),
}

impl Candidates {
    /// The model, and the candidates as rows to search.
    ///
    /// # Errors
    /// Features that cannot be found or read, or are not of the model.
    pub fn open(&self, model: &ModelArgs, devices: &Devices) -> Result<(Model, SearchIndex)> {
        let Some(features) = &self.features else {
            return self.of_classes(model, devices);
        };
        match place_of(features)? {
            Place::Store(store) => {
                let given = match model.name_or("") {
                    "" => None,
                    _ => Some(model.open()?),
                };
                let hash = given.as_ref().map(|model| model.hash.as_str());
                let stored = StoredFeatures::open(&store, &self.fingerprint, hash)?;
                let model = match given {
                    Some(model) => model,
                    None => model.open_or(&stored.model)?,
                };
                if model.hash != stored.model_hash {
                    return Err(PipelineError::Usage(format!(
                        "the features are of the weights {}, the model {} has {} now: name the model that made them with --model",
                        stored.model_hash, stored.model, model.hash
                    ))
                    .into());
                }
                let index = self.kept(&stored.digest(), || Ok(stored.index()?))?;
                Ok((model, index))
            }
            Place::Folder(folder) => {
                let model = model.open_or("demo")?;
                let files: Vec<PathBuf> = named_images(&[folder])?
                    .into_iter()
                    .map(|image| image.path)
                    .collect();
                let digest = digest_of(&model, &files)?;
                let index = self.kept(&digest, || encode(&model, devices, &files))?;
                Ok((model, index))
            }
            Place::File(path) => {
                let model = model.open_or("demo")?;
                let bytes = blake3_of(&path)?;
                let index = self.kept(&bytes, || of_file(&path))?;
                if index.dim() != model.config.embed_dim {
                    return Err(PipelineError::Usage(format!(
                        "{features} has features of width {}, the model has {}: name the model that made them with --model",
                        index.dim(),
                        model.config.embed_dim
                    ))
                    .into());
                }
                Ok((model, index))
            }
        }
    }

    /// What the names of the candidates are, and where they were searched, for people.
    ///
    /// # Errors
    /// As [`Candidates::open`].
    pub fn names(&self) -> Result<(Names, String)> {
        let Some(features) = &self.features else {
            return Ok((Names::None, "class names".to_owned()));
        };
        let place = shown(features);
        Ok(match place_of(features)? {
            Place::Store(_) => (Names::Keys, format!("the store {place}")),
            Place::Folder(_) => (Names::Paths, format!("the folder {place}")),
            Place::File(path) => (names_in(&path)?, format!("the file {place}")),
        })
    }

    fn of_classes(&self, model: &ModelArgs, devices: &Devices) -> Result<(Model, SearchIndex)> {
        let Some(path) = &self.classes else {
            bail!("give --features or --classes");
        };
        let model = model.open_or("demo")?;
        let names = read_class_list(path)?.names;
        let texts: Vec<Vec<String>> = names
            .iter()
            .map(|name| vec![format!("a photo of a {name}.")])
            .collect();
        let features = model
            .text_encoder(devices.first())?
            .ensembles(&texts)
            .with_context(|| format!("cannot encode the classes {}", shown(path)))?;
        let index = SearchIndex::new(model.config.embed_dim, names, features)?;
        Ok((model, index))
    }

    /// The index in `--index` if it was made from the same features; otherwise that of `make`, which is kept there.
    fn kept(
        &self,
        digest: &str,
        make: impl FnOnce() -> Result<SearchIndex>,
    ) -> Result<SearchIndex> {
        let Some(path) = &self.index else {
            return make();
        };
        if let Some(index) = SearchIndex::open(path, digest)? {
            return Ok(index);
        }
        let index = make()?;
        index.save(path, digest)?;
        Ok(index)
    }

    /// Which rows `--dataset` and `--split` accept.
    ///
    /// # Errors
    /// A dataset or split of which there is no image.
    pub fn filter(&self, index: &SearchIndex) -> Result<Vec<bool>> {
        let part = |name: &str, place: usize| name.split('/').nth(place).map(str::to_owned);
        let check = |option: &str, wanted: &str, place: usize| -> Result<()> {
            let found: BTreeSet<String> = index
                .names()
                .iter()
                .filter_map(|name| part(name, place))
                .collect();
            if found.contains(wanted) {
                return Ok(());
            }
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            let hint = match nearest(wanted, found.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", found[..found.len().min(20)].join(", ")),
            };
            let problem = format!("--{option} {wanted}: no image has it; {hint}");
            Err(PipelineError::Usage(problem).into())
        };
        for dataset in &self.datasets {
            check("dataset", dataset, 0)?;
        }
        if let Some(split) = &self.split {
            check("split", split, 1)?;
        }
        let accepts = |name: &String| {
            let mut parts = name.split('/');
            let (dataset, split) = (parts.next(), parts.next());
            let dataset = dataset.unwrap_or_default();
            (self.datasets.is_empty() || self.datasets.iter().any(|wanted| wanted == dataset))
                && self
                    .split
                    .as_deref()
                    .is_none_or(|wanted| split == Some(wanted))
        };
        Ok(index.names().iter().map(accepts).collect())
    }
}

fn place_of(features: &str) -> Result<Place> {
    if features.contains("://") {
        return Ok(Place::Store(
            Store::open(features).map_err(PipelineError::from)?,
        ));
    }
    let path = PathBuf::from(features);
    if path.is_dir() {
        // A store has folders of features with commit records; a folder of images may have a folder of that name, too.
        let folders = std::fs::read_dir(path.join("features"))
            .into_iter()
            .flatten();
        let is_store = folders
            .flatten()
            .any(|folder| folder.path().join("_commits").is_dir());
        return Ok(match is_store {
            true => Place::Store(Store::open(features).map_err(PipelineError::from)?),
            false => Place::Folder(path),
        });
    }
    if path.is_file()
        || features
            .rsplit_once(':')
            .is_some_and(|(file, _)| Path::new(file).is_file())
    {
        return Ok(Place::File(path));
    }
    let problem = format!("--features {}: no such store, folder or file", shown(&path));
    Err(PipelineError::Usage(problem).into())
}

/// The features of the images that can be read.
fn encode(model: &Model, devices: &Devices, files: &[PathBuf]) -> Result<SearchIndex> {
    let engine = Engine::for_files(model, devices).spread(files.len());
    let (mut names, mut values) = (Vec::new(), Vec::new());
    encode_files(&engine, files, |image, outcome| {
        match outcome {
            Ok(encoded) => {
                names.push(stored(&files[image]));
                values.extend(encoded.global);
            }
            Err(reason) => report_unreadable(&files[image], &reason),
        }
        Ok(())
    })?;
    if names.is_empty() {
        return Err(none_readable(files.len()));
    }
    Ok(SearchIndex::new(model.config.embed_dim, names, values)?)
}

/// A digest of the weights and of the names, sizes and times of the files.
fn digest_of(model: &Model, files: &[PathBuf]) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(model.hash.as_bytes());
    for file in files {
        hasher.update(file.as_os_str().as_encoded_bytes());
        let Ok(found) = std::fs::metadata(file) else {
            continue;
        };
        hasher.update(&found.len().to_le_bytes());
        let changed = found
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        hasher.update(&changed.unwrap_or_default().as_nanos().to_le_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The path before `:ARRAY`.
fn file_of(path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.rsplit_once(':')) {
        Some((file, _)) if !path.is_file() => PathBuf::from(file),
        _ => path.to_owned(),
    }
}

fn blake3_of(path: &Path) -> Result<String> {
    let file = file_of(path);
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_os_str().as_encoded_bytes());
    let opened = open_file(&file).with_context(|| format!("cannot read {}", shown(&file)))?;
    hasher
        .update_reader(opened)
        .with_context(|| format!("cannot read {}", shown(&file)))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The images of a file of features. Rows without a name are called by their number.
fn of_file(path: &Path) -> Result<SearchIndex> {
    let file = file_of(path);
    let text = stored(path);
    // `clipood encode` calls the images' array so.
    let given = match extension(&file).as_str() {
        "safetensors" if file == path => format!("{text}:image_global"),
        _ => text,
    };
    let source: Source = given.parse().map_err(|problem| {
        PipelineError::Usage(format!("--features {}: {problem}", shown(path)))
    })?;
    let array = source.features("image", None)?;
    let [rows, dim] = array.shape[..] else {
        bail!(
            "{}: has shape {:?}, expected [images, features]",
            shown(path),
            array.shape
        );
    };
    let names = match extension(&file).as_str() {
        "parquet" => table_names(&file)?,
        "safetensors" => tensor_names(&file, array_of(&given))?,
        _ => None,
    };
    let names = match names {
        Some(names) if names.len() == rows => names,
        _ => (0..rows).map(|row| format!("row {row}")).collect(),
    };
    Ok(SearchIndex::new(dim, names, array.values)?)
}

/// What the names in a file of features are.
fn names_in(path: &Path) -> Result<Names> {
    let file = file_of(path);
    Ok(match extension(&file).as_str() {
        "parquet" => {
            let builder = ParquetRecordBatchReaderBuilder::try_new(open_file(&file)?)?;
            match name_column(builder.schema()) {
                Some(PATHS) => Names::Paths,
                Some(_) => Names::Keys,
                None => Names::None,
            }
        }
        "safetensors" if tensor_names(&file, array_of(&stored(path)))?.is_some() => Names::Paths,
        _ => Names::None,
    })
}

/// Column with the paths of images.
const PATHS: &str = "source";

/// The column that names the rows of a table: [`PATHS`], or `image_key`.
fn name_column(schema: &Schema) -> Option<&'static str> {
    let mut columns = [PATHS, "image_key"].into_iter();
    columns.find(|name| schema.index_of(name).is_ok())
}

/// The names in the [`name_column`] of the rows whose `kind`, if there is one, is `image`.
fn table_names(path: &Path) -> Result<Option<Vec<String>>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(open_file(path)?)?;
    let Some(column) = name_column(builder.schema()) else {
        return Ok(None);
    };
    let mask = ProjectionMask::columns(builder.parquet_schema(), [column, "kind"]);
    let mut names = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let texts = |name: &str| -> Result<Option<Vec<Option<String>>>> {
            let Some(values) = batch.column_by_name(name) else {
                return Ok(None);
            };
            let values = cast(values, &DataType::Utf8)?;
            let texts = values.as_string::<i32>().iter();
            Ok(Some(texts.map(|text| text.map(str::to_owned)).collect()))
        };
        let kinds = texts("kind")?;
        for (row, name) in texts(column)?.into_iter().flatten().enumerate() {
            let kind = kinds.as_ref().and_then(|kinds| kinds[row].as_deref());
            if kind.is_none_or(|kind| kind == "image") {
                names.push(name.unwrap_or_else(|| format!("row {row}")));
            }
        }
    }
    Ok(Some(names))
}

/// The name behind the last colon; `image_global` without one.
fn array_of(given: &str) -> &str {
    match given.rsplit_once(':') {
        Some((file, array)) if extension(Path::new(file)) == "safetensors" => array,
        _ => "image_global",
    }
}

/// Most bytes of a safetensors header, as the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// The list `images` in the metadata, which names the rows of every array but that of the texts.
fn tensor_names(path: &Path, array: &str) -> Result<Option<Vec<String>>> {
    if array == "text" {
        return Ok(None);
    }
    // The header alone: the arrays behind it may fill the memory.
    let mut file = open_file(path)?;
    let read = |error| anyhow!("{}: {error}", shown(path));
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(read)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        bail!(
            "{}: its header is {length} bytes long, expected at most {LONGEST_HEADER}",
            shown(path)
        );
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(read)?;
    let header: serde_json::Value =
        serde_json::from_slice(&header).with_context(|| shown(path).to_string())?;
    let list = header["__metadata__"]["images"].as_str();
    Ok(list.and_then(|list| serde_json::from_str(list).ok()))
}

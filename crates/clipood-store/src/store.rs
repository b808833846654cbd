//! A blocking interface to any object store.

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::runtime::Handle;

use crate::error::{Error, Result, operation};
use crate::http::options;
use crate::local;
use crate::retry::RetryPolicy;
use crate::runtime::runtime;

/// Objects read concurrently by [`Store::get_many`].
const READS_IN_FLIGHT: usize = 32;

/// How often the creation of an object that vanishes is repeated before [`Error::Unstable`].
const CREATE_ROUNDS: u32 = 8;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectInfo {
    /// Path relative to the store that was listed.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

/// The outcome of [`Store::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The object was created by this call.
    New,
    /// An object with exactly these bytes exists. If they contain a nonce, this call wrote it: the store executed the write,
    /// its reply was lost, and the retry found the object.
    Identical,
    /// Another object exists; its bytes.
    Existed(Bytes),
}

/// A container of objects with relative paths: a directory, a bucket with a prefix, or memory.
///
/// Cheap to clone, and usable from many threads. Every call blocks until the store has answered; calls from inside an
/// asynchronous runtime are rejected. Transient failures are retried according to the [`RetryPolicy`].
///
/// Paths are relative, separated by `/`, and not decoded: spaces, `%`, `#` and any Unicode stand for themselves. `.`, `..` and
/// empty segments are errors. On local disk a last segment of the form `name#7` is rejected, because such names are used to
/// stage unfinished writes.
///
/// On local disk every write is staged beside its target, flushed to disk, and then linked or renamed into place, and the
/// directory is flushed as well: an object that is visible after a power failure is complete.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    /// The directory of a local store: `prefix` as a file path.
    directory: Option<PathBuf>,
    /// Prefix of paths in messages: the directory, or scheme, bucket and prefix.
    location: String,
    pub(crate) retry: RetryPolicy,
}

impl Store {
    /// Opens a directory path or a URL: `file://`, `memory://`, `s3://`, `az://` or `gs://`.
    ///
    /// Nothing is read or created: a missing directory is an empty store and appears with its first object. Remote stores
    /// take their options from the environment under object_store's names (`AWS_REGION`, `AZURE_STORAGE_ACCOUNT_NAME`...).
    ///
    /// # Errors
    /// [`Error::Location`] for an empty or non-UTF-8 path, an unknown scheme, or missing options.
    pub fn open(url_or_path: &str) -> Result<Self> {
        let bad = |reason: String| Error::Location {
            location: url_or_path.to_owned(),
            reason,
        };
        if url_or_path.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        if !url_or_path.contains("://") {
            return Self::at_directory(std::path::Path::new(url_or_path), url_or_path);
        }
        let url = url::Url::parse(url_or_path).map_err(|error| bad(error.to_string()))?;
        if matches!(url.scheme(), "http" | "https") {
            let reason = "an HTTP server has no safe way to write; images can be read from one";
            return Err(bad(reason.to_owned()));
        }
        if url.scheme() == "file" {
            let path = url
                .to_file_path()
                .map_err(|()| bad("a file URL needs an absolute path and no host".to_owned()))?;
            return Self::at_directory(&path, url_or_path);
        }
        let (objects, prefix) = object_store::parse_url_opts(&url, options())
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self::remote(Arc::from(objects), prefix, url_or_path))
    }

    pub(crate) fn remote(objects: Arc<dyn ObjectStore>, prefix: Path, location: &str) -> Self {
        Self {
            objects,
            prefix,
            directory: None,
            location: location.trim_end_matches('/').to_owned(),
            // The clients of remote stores already retry each request up to ten times.
            retry: RetryPolicy {
                attempts: 2,
                ..RetryPolicy::default()
            },
        }
    }

    fn at_directory(path: &std::path::Path, given: &str) -> Result<Self> {
        let bad = |reason: String| Error::Location {
            location: given.to_owned(),
            reason,
        };
        let directory = local::absolute(path).map_err(|error| bad(error.to_string()))?;
        let prefix =
            Path::from_absolute_path(&directory).map_err(|error| bad(error.to_string()))?;
        let objects = object_store::local::LocalFileSystem::new().with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            prefix,
            location: directory.display().to_string(),
            directory: Some(directory),
            retry: RetryPolicy::default(),
        })
    }

    /// A new, empty store in memory.
    pub fn memory() -> Self {
        Self::from_object_store(Arc::new(object_store::memory::InMemory::new()), "memory:")
    }

    /// A store over any implementation of object_store's trait; `location` prefixes the paths in messages.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, location: &str) -> Self {
        Self {
            objects,
            prefix: Path::ROOT,
            directory: None,
            location: location.to_owned(),
            retry: RetryPolicy::default(),
        }
    }

    /// The same store with another retry policy.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The part of the store under `prefix` (`""` for the whole store).
    ///
    /// # Errors
    /// [`Error::InvalidPath`].
    pub fn child(&self, prefix: &str) -> Result<Self> {
        Ok(Self {
            prefix: self.key(prefix)?,
            location: self.display(prefix),
            directory: self.local_path(prefix),
            ..self.clone()
        })
    }

    /// The full path of `path`, for messages.
    pub fn display(&self, path: &str) -> String {
        match path {
            "" => self.location.clone(),
            _ => format!("{}/{path}", self.location),
        }
    }

    /// The file of `path` on local disk; `None` for other stores.
    pub fn local_path(&self, path: &str) -> Option<PathBuf> {
        let mut found = self.directory.clone()?;
        found.extend(path.split('/').filter(|segment| !segment.is_empty()));
        Some(found)
    }

    /// The bytes of the object, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] and the store's errors.
    pub fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let key = self.object_key(path)?;
        self.block_on(self.read(path, &key))?
    }

    /// The bytes of many objects in the order of `paths`, read concurrently; `None` for those that do not exist.
    ///
    /// # Errors
    /// The first error in the order of `paths`, as of [`Store::get`].
    pub fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Bytes>>> {
        let keys = paths
            .iter()
            .map(|path| self.object_key(path))
            .collect::<Result<Vec<_>>>()?;
        let reads = paths
            .iter()
            .zip(&keys)
            .map(|(path, key)| self.read(path, key));
        self.block_on(
            futures_util::stream::iter(reads)
                .buffered(READS_IN_FLIGHT)
                .try_collect(),
        )?
    }

    /// Bytes `range.start..range.end` of the object, or `None` if there is no object.
    ///
    /// # Errors
    /// [`Error::Range`] if the range is reversed or reaches past the end, [`Error::InvalidPath`], the store's errors.
    pub fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let key = self.object_key(path)?;
        let Some(size) = self.size(path)? else {
            return Ok(None);
        };
        if range.start > range.end || range.end > size {
            return Err(Error::Range {
                path: self.display(path),
                start: range.start,
                end: range.end,
                size,
            });
        }
        // Stores reject empty ranges.
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let read = self
            .retry
            .run(|| self.objects.get_range(&key, range.clone()));
        self.found("read", path, self.block_on(read)?)
    }

    /// The object's size in bytes, or `None` if there is none.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] and the store's errors.
    pub fn size(&self, path: &str) -> Result<Option<u64>> {
        let key = self.object_key(path)?;
        let head = self.block_on(self.retry.run(|| self.objects.head(&key)))?;
        Ok(self.found("look up", path, head)?.map(|meta| meta.size))
    }

    /// Whether there is an object at `path`.
    ///
    /// # Errors
    /// As of [`Store::size`].
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.size(path)?.is_some())
    }

    /// Every object under `prefix` (`""` for all), at any depth, sorted by path.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] and the store's errors.
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let key = self.key(prefix)?;
        let listed: Vec<object_store::ObjectMeta> = self
            .block_on(
                self.retry
                    .run(|| self.objects.list(Some(&key)).try_collect()),
            )?
            .map_err(|(error, attempts)| {
                operation("list", self.display(prefix), attempts, error)
            })?;
        let skip = match self.prefix.as_ref().len() {
            0 => 0,
            length => length + 1,
        };
        let mut objects: Vec<_> = listed
            .into_iter()
            // object_store hides its staging files, except those of objects whose own name contains a `#`.
            .filter(|meta| {
                let name = meta.location.filename().unwrap_or_default();
                self.directory.is_none() || !local::is_staging_name(name)
            })
            .filter_map(|meta| {
                Some(ObjectInfo {
                    path: meta.location.as_ref().get(skip..)?.to_owned(),
                    size: meta.size,
                })
            })
            .collect();
        objects.sort_unstable();
        Ok(objects)
    }

    /// The names of the objects directly under `prefix`, in no particular order.
    ///
    /// Suitable for directories of a million records: on local disk it reads only the directory, no metadata of files.
    ///
    /// # Errors
    /// As of [`Store::list`].
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        self.key(prefix)?;
        if let Some(directory) = self.local_path(prefix) {
            return local::file_names(&directory)
                .map_err(|error| self.local_error("list", prefix, error));
        }
        let depth = match prefix {
            "" => 0,
            _ => prefix.trim_end_matches('/').len() + 1,
        };
        let mut names = self.list(prefix)?;
        names.retain(|object| !object.path[depth..].contains('/'));
        Ok(names
            .into_iter()
            .map(|mut object| object.path.split_off(depth))
            .collect())
    }

    /// Writes the object if there is none at `path`; never changes an existing one.
    ///
    /// The write is one atomic request. If the name is taken, the existing object is read back, because a retry after a lost
    /// reply also fails with "already exists".
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::OutOfSpace`], [`Error::Denied`], [`Error::Unstable`], the store's errors.
    pub fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        for _ in 0..CREATE_ROUNDS {
            match self.put_with(path, &bytes, PutMode::Create)? {
                Ok(()) => return Ok(Created::New),
                Err(AlreadyThere) => match self.get(path)? {
                    Some(found) if found == bytes => return Ok(Created::Identical),
                    Some(found) => return Ok(Created::Existed(found)),
                    None => {}
                },
            }
        }
        Err(Error::Unstable {
            path: self.display(path),
        })
    }

    /// Writes the object, replacing an existing one. For derived files such as reports, never for parts or records.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::OutOfSpace`], [`Error::Denied`], the store's errors.
    pub fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        match self.put_with(path, &bytes, PutMode::Overwrite)? {
            Ok(()) => Ok(()),
            // No store answers an overwrite like this; if one did, nothing was written.
            Err(AlreadyThere) => Err(Error::Unstable {
                path: self.display(path),
            }),
        }
    }

    /// Removes the object; it is not an error if there is none.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::Denied`], the store's errors.
    pub fn delete(&self, path: &str) -> Result<()> {
        let key = self.object_key(path)?;
        let deleted = self.block_on(self.retry.run(|| self.objects.delete(&key)))?;
        self.found("delete", path, deleted).map(|_| ())
    }

    /// Removes the staging files of killed writers beside finished objects under `prefix`, and returns the removed paths.
    ///
    /// A local write of `name` is staged as `name#1`, `name#2`..., and a killed writer leaves that file behind. It is removed
    /// only if `name` itself exists. This is safe beside running writers without any clock or lock, provided that objects
    /// under `prefix` are only ever [created](Store::create), not overwritten: the link that would publish a staging file
    /// fails because the name exists, so a staging file can no longer become visible, whether it was removed or reused. A
    /// staging file whose object does not exist yet may belong to a running writer; it is kept until its unit is done.
    /// Other stores have no staging files: nothing is done.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], [`Error::Denied`], other errors of the file system.
    pub(crate) fn sweep_staging(&self, prefix: &str) -> Result<Vec<String>> {
        self.key(prefix)?;
        let Some(directory) = self.local_path(prefix) else {
            return Ok(Vec::new());
        };
        let swept =
            local::sweep(&directory).map_err(|error| self.local_error("sweep", prefix, error))?;
        Ok(swept
            .into_iter()
            .map(|path| match prefix.trim_matches('/') {
                "" => path,
                prefix => format!("{prefix}/{path}"),
            })
            .collect())
    }

    fn put_with(
        &self,
        path: &str,
        bytes: &Bytes,
        mode: PutMode,
    ) -> Result<Result<(), AlreadyThere>> {
        let key = self.object_key(path)?;
        let put = self.retry.run(|| {
            let payload = PutPayload::from_bytes(bytes.clone());
            self.objects
                .put_opts(&key, payload, PutOptions::from(mode.clone()))
        });
        match self.block_on(put)? {
            Ok(_) => Ok(Ok(())),
            Err((object_store::Error::AlreadyExists { .. }, _)) => Ok(Err(AlreadyThere)),
            Err((error, attempts)) => Err(operation("write", self.display(path), attempts, error)),
        }
    }

    async fn read(&self, path: &str, key: &Path) -> Result<Option<Bytes>> {
        let read = self
            .retry
            .run(|| async { self.objects.get(key).await?.bytes().await });
        self.found("read", path, read.await)
    }

    pub(crate) fn found<T>(
        &self,
        action: &'static str,
        path: &str,
        answer: Result<T, (object_store::Error, u32)>,
    ) -> Result<Option<T>> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err((object_store::Error::NotFound { .. }, _)) => Ok(None),
            Err((error, attempts)) => Err(operation(action, self.display(path), attempts, error)),
        }
    }

    fn local_error(&self, action: &'static str, path: &str, error: std::io::Error) -> Error {
        let source = Box::new(error);
        let error = object_store::Error::Generic {
            store: "LocalFileSystem",
            source,
        };
        operation(action, self.display(path), 1, error)
    }

    /// The full key of an object; on local disk the names of staging files are rejected.
    pub(crate) fn object_key(&self, path: &str) -> Result<Path> {
        let key = self.key(path)?;
        let name = key.filename().unwrap_or_default();
        if self.directory.is_some() && local::is_staging_name(name) {
            return Err(Error::InvalidPath {
                path: path.to_owned(),
                reason: "on local disk, names that end in # and digits stage unfinished writes"
                    .to_owned(),
            });
        }
        Ok(key)
    }

    /// The full key of an object or a prefix.
    pub(crate) fn key(&self, path: &str) -> Result<Path> {
        let relative = Path::parse(path).map_err(|error| Error::InvalidPath {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Path::from_iter(self.prefix.parts().chain(relative.parts())))
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T> {
        if Handle::try_current().is_ok() {
            return Err(Error::InsideRuntime);
        }
        Ok(runtime()?.block_on(future))
    }
}

/// The name was taken; nothing was written.
struct AlreadyThere;

//! Objects behind a URL: S3, Azure Blob Storage, Google Cloud Storage, HTTP.
//!
//! The key of an object in a cloud stands behind the bucket as it is, with nothing escaped: `s3://bucket/a b%20c.png` is
//! the object `a b%20c.png`. The path of an HTTP URL is escaped as usual. Credentials are those of `clipood-store`.

use std::collections::{BTreeMap, HashMap};
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use clipood_store::{Error as StoreError, Facts, Store};

use crate::folder::{Entry, Kind};

/// Files of one folder from which on their facts are listed instead of looked up one by one.
const LISTED: usize = 16;

/// An object with the store that holds it.
#[derive(Clone)]
pub(crate) struct Object {
    store: Store,
    key: String,
}

impl Object {
    /// The object of a URL. Nothing is read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a URL that cannot be read, or missing options of its store.
    pub fn of(url: &Path) -> Result<Object> {
        let text = url
            .to_str()
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a URL that is not UTF-8"))?;
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if matches!(scheme, "http" | "https") {
            let url = url::Url::parse(text)
                .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
            let key = percent_decoded(url.path().trim_matches('/'))?;
            let mut server = url.clone();
            server.set_path("/");
            let store = opened(server.as_str(), || Store::open_http(&server))?;
            return Ok(Object { store, key });
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let bucket = format!("{scheme}://{bucket}");
        let store = opened(&bucket, || Store::open(&bucket))?;
        let key = key.trim_end_matches('/').to_string();
        Ok(Object { store, key })
    }

    /// All bytes of the object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::FileTooLarge`] for more than `limit` bytes, errors of the store.
    pub fn read(&self, limit: u64) -> Result<Bytes> {
        let bytes = self.store.get_at_most(&self.key, limit).map_err(io_error)?;
        bytes.ok_or_else(|| self.missing())
    }

    /// Size and identity of the object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], errors of the store.
    pub fn facts(&self) -> Result<Facts> {
        let facts = self
            .store
            .facts(std::slice::from_ref(&self.key))
            .map_err(io_error)?;
        facts
            .into_iter()
            .next()
            .flatten()
            .ok_or_else(|| self.missing())
    }

    /// Ranges of the object, which must still have this tag.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a range that it does not have or an object that has changed,
    /// [`ErrorKind::NotFound`], errors of the store.
    pub fn ranges(&self, ranges: &[Range<u64>], tag: Option<&str>) -> Result<Vec<Bytes>> {
        let read = self.store.get_ranges(&self.key, ranges, tag);
        read.map_err(io_error)?.ok_or_else(|| self.missing())
    }

    fn missing(&self) -> Error {
        let place = self.store.display(&self.key);
        Error::new(ErrorKind::NotFound, format!("{place} does not exist"))
    }

    fn is_http(&self) -> bool {
        self.store.display("").starts_with("http")
    }
}

/// The store of a bucket or server, opened once.
fn opened(
    place: &str,
    open: impl FnOnce() -> std::result::Result<Store, StoreError>,
) -> Result<Store> {
    static STORES: OnceLock<Mutex<HashMap<String, Store>>> = OnceLock::new();
    let stores = STORES.get_or_init(Mutex::default);
    let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = stores.get(place) {
        return Ok(store.clone());
    }
    let store = open().map_err(io_error)?;
    // Signed URLs have a query of their own each.
    if stores.len() >= 1024 {
        stores.clear();
    }
    stores.insert(place.to_string(), store.clone());
    Ok(store)
}

/// What lies directly in the folder of a URL, sorted by name; nothing if there is no such folder.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for an HTTP URL, errors of the store.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let object = Object::of(folder)?;
    if object.is_http() {
        let problem = "an HTTP server does not list its files; layouts that name theirs can be read there: imglist, table, \
                       parquet and webdataset, with the names in `splits` or `files`, without `*`";
        return Err(Error::new(ErrorKind::Unsupported, problem));
    }
    let found = object.store.folder(&object.key).map_err(io_error)?;
    let entry = |(name, kind): (String, Kind)| Entry {
        path: folder.join(name),
        kind,
    };
    let folders = found.folders.into_iter().map(|name| (name, Kind::Folder));
    let objects = found.objects.into_iter().map(|name| (name, Kind::File));
    let mut entries: Vec<Entry> = folders.chain(objects).map(entry).collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The facts of some objects, in their order; `None` for one that does not exist. Those of many objects of one folder are
/// listed, the others are looked up, several at a time.
///
/// # Errors
/// A URL that cannot be read, errors of a store.
pub fn facts_of(urls: &[PathBuf]) -> Result<Vec<Option<Facts>>> {
    let objects = urls.iter().map(|url| Object::of(url));
    let objects = objects.collect::<Result<Vec<_>>>()?;
    let mut folders: BTreeMap<(String, &str), Vec<usize>> = BTreeMap::new();
    for (place, object) in objects.iter().enumerate() {
        let parent = object.key.rsplit_once('/').map_or("", |(parent, _)| parent);
        let folder = (object.store.display(""), parent);
        folders.entry(folder).or_default().push(place);
    }
    let mut facts = vec![None; urls.len()];
    for ((_, parent), places) in folders {
        let Some(first) = places.first().map(|place| &objects[*place]) else {
            continue;
        };
        let mut keys: Vec<String> = places.iter().map(|p| objects[*p].key.clone()).collect();
        if places.len() < LISTED || first.is_http() {
            let found = first.store.facts(&keys).map_err(io_error)?;
            for (place, found) in places.into_iter().zip(found) {
                facts[place] = found;
            }
            continue;
        }
        keys.sort_unstable();
        let (low, high) = (&keys[0], &keys[keys.len() - 1]);
        let listed = first
            .store
            .facts_between(parent, low, high)
            .map_err(io_error)?;
        let mut listed: HashMap<String, Facts> = listed.into_iter().collect();
        for place in places {
            facts[place] = listed.remove(&objects[place].key);
        }
    }
    Ok(facts)
}

fn percent_decoded(path: &str) -> Result<String> {
    let decoded: Vec<u8> = crate::uri::percent_decoded(path);
    String::from_utf8(decoded).map_err(|error| Error::new(ErrorKind::InvalidInput, error))
}

/// An error of a store, which has retried what may pass.
fn io_error(error: StoreError) -> Error {
    let kind = match &error {
        StoreError::Location { .. }
        | StoreError::InvalidPath { .. }
        | StoreError::Range { .. }
        | StoreError::Changed { .. } => ErrorKind::InvalidInput,
        StoreError::TooLarge { .. } => ErrorKind::FileTooLarge,
        StoreError::Denied { .. } => ErrorKind::PermissionDenied,
        _ => ErrorKind::Other,
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    Error::new(kind, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_store_and_a_key() {
        let of = |url: &str| Object::of(Path::new(url)).unwrap();
        let http = of("http://127.0.0.1:1/data/a%20b.png?sig=x%2Fy");
        assert_eq!(http.key, "data/a b.png");
        assert_eq!(http.store.display(""), "http://127.0.0.1:1");
        assert!(http.is_http());
        assert_eq!(of("s3://bucket/a b%20c.png").key, "a b%20c.png");
        assert_eq!(of("s3://bucket/").key, "");
        assert!(Object::of(Path::new("odd://m/a")).is_err());
        let error = entries(Path::new("http://127.0.0.1:1/data")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

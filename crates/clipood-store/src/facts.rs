//! Reading datasets that other programs have written: listings one level deep, facts about objects, and ranges of them.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};

use crate::error::{Error, Result, operation};
use crate::store::Store;

/// Requests of one call that are in flight at the same time.
const IN_FLIGHT: usize = 32;

/// What identifies the content of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Size in bytes.
    pub size: u64,
    /// Changes with the content: the first bytes of a hash of the entity tag, or the time of the last modification where the
    /// store has no tags.
    pub stamp: u64,
    /// The entity tag.
    pub tag: Option<String>,
}

/// What lies directly below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Names of the folders, sorted.
    pub folders: Vec<String>,
    /// Names of the objects, sorted.
    pub objects: Vec<String>,
}

impl Facts {
    fn of(meta: &ObjectMeta) -> Facts {
        let stamp = match &meta.e_tag {
            Some(tag) => {
                let mut first = [0; 8];
                first.copy_from_slice(&blake3::hash(tag.as_bytes()).as_bytes()[..8]);
                u64::from_le_bytes(first)
            }
            None => meta.last_modified.timestamp_millis().unsigned_abs(),
        };
        Facts {
            size: meta.size,
            stamp,
            tag: meta.e_tag.clone(),
        }
    }
}

impl Store {
    /// The folders and objects directly below `prefix`, page by page as the store lists them.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] and the store's errors.
    pub fn folder(&self, prefix: &str) -> Result<Folder> {
        let key = self.key(prefix)?;
        let listed = self
            .retry
            .run(|| self.objects.list_with_delimiter(Some(&key)));
        let listed = self.block_on(listed)?.map_err(|(error, attempts)| {
            operation("list", self.display(prefix), attempts, error)
        })?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        let mut folder = Folder {
            folders: listed.common_prefixes.iter().filter_map(name).collect(),
            // Some tools mark a folder by an empty object of its name.
            objects: (listed.objects.iter())
                .filter(|meta| meta.location != key)
                .filter_map(|meta| name(&meta.location))
                .collect(),
        };
        folder.folders.sort_unstable();
        folder.objects.sort_unstable();
        Ok(folder)
    }

    /// The facts of many objects in the order of `paths`, looked up concurrently; `None` for those that do not exist.
    ///
    /// # Errors
    /// The first error in the order of `paths`: [`Error::InvalidPath`] and the store's errors.
    pub fn facts(&self, paths: &[String]) -> Result<Vec<Option<Facts>>> {
        let keys = paths.iter().map(|path| self.object_key(path));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let heads = paths.iter().zip(&keys).map(|(path, key)| async move {
            let head = self.retry.run(|| self.objects.head(key)).await;
            Ok(self
                .found("look up", path, head)?
                .map(|meta| Facts::of(&meta)))
        });
        self.block_on(
            futures_util::stream::iter(heads)
                .buffered(IN_FLIGHT)
                .try_collect(),
        )?
    }

    /// The facts of the objects below `prefix` whose paths are from `first` to `last`, both included, with their paths.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] and the store's errors.
    pub fn facts_between(
        &self,
        prefix: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<(String, Facts)>> {
        let (key, first, last) = (self.key(prefix)?, self.key(first)?, self.key(last)?);
        // The listing starts behind its offset, so that is a path just before the first.
        let mut before = first.as_ref().to_owned();
        before.pop();
        let before = Path::parse(before.trim_end_matches('/')).unwrap_or_default();
        let listed = self.retry.run(|| async {
            let all = self.objects.list_with_offset(Some(&key), &before);
            let wanted = all
                .try_take_while(|meta| std::future::ready(Ok(meta.location <= last)))
                .try_filter(|meta| std::future::ready(meta.location >= first));
            wanted.try_collect::<Vec<ObjectMeta>>().await
        });
        let listed = self.block_on(listed)?.map_err(|(error, attempts)| {
            operation("list", self.display(prefix), attempts, error)
        })?;
        let skip = match self.prefix.as_ref().len() {
            0 => 0,
            length => length + 1,
        };
        let below = |meta: &ObjectMeta| Some(meta.location.as_ref().get(skip..)?.to_owned());
        let facts = listed.iter();
        Ok(facts
            .filter_map(|meta| Some((below(meta)?, Facts::of(meta))))
            .collect())
    }

    /// The bytes of an object, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for an object of more than `limit` bytes, of which nothing is read, [`Error::InvalidPath`], the
    /// store's errors.
    pub fn get_at_most(&self, path: &str, limit: u64) -> Result<Option<Bytes>> {
        let key = self.object_key(path)?;
        let read = self.retry.run(|| async {
            let found = self.objects.get(&key).await?;
            match found.meta.size {
                size if size > limit => Ok(Err(size)),
                _ => Ok(Ok(found.bytes().await?)),
            }
        });
        match self.found("read", path, self.block_on(read)?)? {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(size)) => Err(Error::TooLarge {
                path: self.display(path),
                size,
                limit,
            }),
        }
    }

    /// Ranges of one object, read concurrently; `None` if there is no object. With a `tag`, the object must still have it.
    ///
    /// # Errors
    /// [`Error::Range`] if a range is empty or reaches past the end, [`Error::Changed`] if the object has another tag,
    /// [`Error::InvalidPath`], the store's errors.
    pub fn get_ranges(
        &self,
        path: &str,
        ranges: &[Range<u64>],
        tag: Option<&str>,
    ) -> Result<Option<Vec<Bytes>>> {
        let key = self.object_key(path)?;
        let read = |range: &Range<u64>| {
            let range = range.clone();
            let key = &key;
            async move {
                let options = || GetOptions {
                    range: Some(GetRange::Bounded(range.clone())),
                    if_match: tag.map(str::to_owned),
                    ..GetOptions::default()
                };
                let read = self.retry.run(|| async {
                    let found = self.objects.get_opts(key, options()).await?;
                    let size = found.meta.size;
                    Ok((found.bytes().await?, size))
                });
                let read = match read.await {
                    Err((object_store::Error::Precondition { .. }, _)) => {
                        let path = self.display(path);
                        return Err(Error::Changed { path });
                    }
                    read => self.found("read", path, read)?,
                };
                let Some((bytes, size)) = read else {
                    return Ok(None);
                };
                match bytes.len() as u64 == range.end.saturating_sub(range.start) {
                    true => Ok(Some(bytes)),
                    false => Err(Error::Range {
                        path: self.display(path),
                        start: range.start,
                        end: range.end,
                        size,
                    }),
                }
            }
        };
        let reads = futures_util::stream::iter(ranges.iter().map(read));
        let all: Vec<Option<Bytes>> = self.block_on(reads.buffered(IN_FLIGHT).try_collect())??;
        Ok(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let store = Store::memory();
        for path in ["a/1", "a/2", "a/b/3", "a/c/4", "a-b/5", "d"] {
            let bytes = Bytes::from(format!("content of {path}"));
            let _: crate::Created = store.create(path, bytes).unwrap();
        }
        store
    }

    #[test]
    fn a_folder_is_listed_one_level_deep() {
        let store = store();
        let folder = store.folder("a").unwrap();
        assert_eq!(folder.folders, ["b", "c"]);
        assert_eq!(folder.objects, ["1", "2"]);
        assert_eq!(store.folder("").unwrap().folders, ["a", "a-b"]);
        assert_eq!(store.folder("absent").unwrap(), Folder::default());
    }

    #[test]
    fn facts_are_those_of_the_listing() {
        let store = store();
        let paths = ["a/1", "absent", "a/b/3"].map(String::from);
        let facts = store.facts(&paths).unwrap();
        assert_eq!(facts[0].as_ref().unwrap().size, 14);
        assert_eq!(facts[1], None);
        let listed = store.facts_between("a", "a/1", "a/b/3").unwrap();
        let listed_paths: Vec<&str> = listed.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(listed_paths, ["a/1", "a/2", "a/b/3"]);
        assert_eq!(Some(&listed[0].1), facts[0].as_ref());
        assert_eq!(Some(&listed[2].1), facts[2].as_ref());
        store.put("a/1", Bytes::from("content of a/X")).unwrap();
        let changed = store.facts(&paths[..1]).unwrap();
        assert_ne!(changed[0], facts[0]);
    }

    #[test]
    fn ranges_are_those_of_the_object_that_was_meant() {
        let store = store();
        let tag = store.facts(&["d".to_string()]).unwrap()[0]
            .clone()
            .unwrap()
            .tag;
        let tag = tag.as_deref();
        let read = store
            .get_ranges("d", &[0..7, 11..12], tag)
            .unwrap()
            .unwrap();
        assert_eq!(read, ["content", "d"]);
        assert_eq!(
            store.get_ranges("absent", &[0..1, 1..2], None).unwrap(),
            None
        );
        let error = store.get_ranges("d", &[0..7, 0..20], None).unwrap_err();
        assert!(matches!(error, Error::Range { size: 12, .. }), "{error}");
        assert_eq!(store.get_at_most("d", 12).unwrap().unwrap(), "content of d");
        let error = store.get_at_most("d", 11).unwrap_err();
        assert!(matches!(error, Error::TooLarge { size: 12, .. }), "{error}");
        store.put("d", Bytes::from("content of D")).unwrap();
        let error = store.get_ranges("d", &[0..7, 11..12], tag).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
    }
}

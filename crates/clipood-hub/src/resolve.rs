//! From a name to a folder with its files.

use std::fs::{self, OpenOptions};
use std::io::{self as stdio, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::cache::{Cache, is_commit, is_hex, make_parent};
use crate::client::{Client, FileInfo};
use crate::error::{HubError, Result, io};
use crate::files;
use crate::name::Name;
use crate::options::HubOptions;

/// Bytes read at once.
const CHUNK: usize = 1 << 18;

/// A checkpoint in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Holds configuration and weights.
    pub folder: PathBuf,
    /// The commit of the repository that they are of, 40 hexadecimal digits.
    pub commit: String,
    /// Names of the files in `folder` that make the checkpoint.
    pub files: Vec<String>,
}

/// What is being fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// File of the repository.
    pub file: &'a str,
    /// Bytes that are there, those of an earlier attempt included.
    pub done: u64,
    /// Bytes of the whole file, where the hub says so.
    pub total: Option<u64>,
}

/// The files of a name, from the cache or fetched into it; `progress` is called for every piece that arrives.
///
/// # Errors
/// Offline without a copy in the cache (the error says which file goes where), a repository that is missing, private or no
/// CLIP checkpoint, a server that fails several times, content that does not match its hash, a cache that cannot be written.
pub fn resolve(
    name: &Name,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Snapshot> {
    let cache = Cache::new(&options.cache, name);
    if options.offline {
        return cached(name, &cache, "HF_HUB_OFFLINE is set");
    }
    let client = Client::new(options);
    let url = format!(
        "{}/api/models/{}/revision/{}",
        options.endpoint,
        name.repository,
        name.revision.replace('/', "%2F")
    );
    let text = match client.text(&url) {
        Ok(text) => text,
        // Nobody answers: what the cache has is all there is.
        Err(HubError::Http { problem, .. }) => {
            let why = format!("{} cannot be reached: {problem}", options.endpoint);
            return cached(name, &cache, &why);
        }
        Err(error) => return Err(error),
    };
    let listing: Listing = serde_json::from_str(&text).map_err(|e| HubError::Http {
        url: url.clone(),
        problem: format!("is no description of a repository: {e}"),
    })?;
    let commit = listing.sha;
    if !is_commit(&commit) {
        let problem = format!("describes the commit {commit:?}");
        return Err(HubError::Http { url, problem });
    }
    cache.remember(&name.revision, &commit)?;
    let all: Vec<String> = listing.siblings.into_iter().map(|s| s.rfilename).collect();
    let mut files = files::choose(name, &all)?;
    let mut next = 0;
    while let Some(file) = files.get(next).cloned() {
        fetch(&client, &cache, options, name, &commit, &file, progress)?;
        if files::is_index(&file) {
            files.extend(read_shards(&cache.snapshot(&commit).join(&file))?);
        }
        next += 1;
    }
    Ok(Snapshot {
        folder: cache.snapshot(&commit),
        commit,
        files,
    })
}

/// `api/models/{repository}/revision/{revision}`.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The checkpoint as the cache has it.
fn cached(name: &Name, cache: &Cache, why: &str) -> Result<Snapshot> {
    let not_cached = |commit: &str, files: &str| HubError::NotCached {
        name: name.to_string(),
        why: why.to_owned(),
        files: files.to_owned(),
        place: cache.snapshot(commit),
    };
    let usual = "config.json with model.safetensors, or open_clip_config.json with open_clip_model.safetensors";
    let Some(commit) = cache.commit_of(&name.revision) else {
        return Err(not_cached("COMMIT", usual));
    };
    let all = cache.files(&commit);
    let mut files = files::choose(name, &all).map_err(|_| not_cached(&commit, usual))?;
    if let Some(index) = files.iter().find(|file| files::is_index(file)).cloned() {
        for shard in read_shards(&cache.snapshot(&commit).join(index))? {
            if !all.contains(&shard) {
                return Err(not_cached(&commit, &shard));
            }
            files.push(shard);
        }
    }
    Ok(Snapshot {
        folder: cache.snapshot(&commit),
        commit,
        files,
    })
}

fn read_shards(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(io("read", path))?;
    files::shards(&text).map_err(|problem| HubError::Io {
        action: "read",
        path: path.to_path_buf(),
        source: stdio::Error::new(stdio::ErrorKind::InvalidData, problem),
    })
}

/// Puts one file of a commit into the cache.
fn fetch(
    client: &Client<'_>,
    cache: &Cache,
    options: &HubOptions,
    name: &Name,
    commit: &str,
    file: &str,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<()> {
    if cache.snapshot(commit).join(file).exists() {
        return Ok(());
    }
    let url = format!(
        "{}/{}/resolve/{commit}/{file}",
        options.endpoint, name.repository
    );
    let info = client.file_info(&url)?;
    if info.etag.is_empty() || !is_hex(&info.etag) {
        return Err(HubError::Http {
            url,
            problem: format!("has the ETag {:?}, which is no hash", info.etag),
        });
    }
    let _held = cache.lock(&info.etag)?;
    let blob = cache.blob(&info.etag);
    if !blob.exists() {
        let incomplete = cache.incomplete(&info.etag);
        download(client, options, &url, file, &info, &incomplete, progress)?;
        if let Err(error) = check(&url, &info.etag, &incomplete) {
            fs::remove_file(&incomplete).map_err(io("remove", &incomplete))?;
            return Err(error);
        }
        fs::rename(&incomplete, &blob).map_err(io("write", &blob))?;
    }
    cache.link(commit, file, &info.etag)
}

/// Brings `path` to the file's whole content, from what it holds on.
fn download(
    client: &Client<'_>,
    options: &HubOptions,
    url: &str,
    file: &str,
    info: &FileInfo,
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<()> {
    make_parent(path)?;
    let mut in_vain = 0;
    loop {
        let mut out = OpenOptions::new();
        let mut out = out
            .create(true)
            .append(true)
            .open(path)
            .map_err(io("open", path))?;
        let held = out.metadata().map_err(io("read", path))?.len();
        if info.size.is_some_and(|size| held == size) {
            return Ok(());
        }
        let usable = info.size.is_none_or(|size| held < size);
        let answer = if usable {
            client.content(url, held)?
        } else {
            None
        };
        let Some((from, answer)) = answer else {
            // More than there is: another file.
            out.set_len(0).map_err(io("write", path))?;
            in_vain += 1;
            if in_vain >= options.attempts.max(1) {
                let problem = "the server refuses every range".to_owned();
                return Err(HubError::Http {
                    url: url.to_owned(),
                    problem,
                });
            }
            continue;
        };
        if from == 0 {
            out.set_len(0).map_err(io("write", path))?;
        }
        let mut done = from;
        let mut body = answer.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        let broken = loop {
            match body.read(&mut chunk) {
                Ok(0) => break None,
                Ok(n) => {
                    out.write_all(&chunk[..n]).map_err(io("write", path))?;
                    done += n as u64;
                    progress(Progress {
                        file,
                        done,
                        total: info.size,
                    });
                }
                Err(error) => break Some(error.to_string()),
            }
        };
        out.sync_all().map_err(io("write", path))?;
        let complete = match info.size {
            Some(size) => done == size,
            None => broken.is_none(),
        };
        if complete {
            return Ok(());
        }
        in_vain = if done > held { 0 } else { in_vain + 1 };
        if in_vain >= options.attempts.max(1) {
            let expected = info
                .size
                .map_or("the whole file".to_owned(), |s| format!("{s} bytes"));
            let why = broken.unwrap_or_else(|| "the answer ended early".to_owned());
            return Err(HubError::Http {
                url: url.to_owned(),
                problem: format!("expected {expected}, found {done}: {why}"),
            });
        }
        client.pause(in_vain.max(1), None);
    }
}

/// Compares a file with the hash that is its ETag: sha256 for large files, git's sha1 of the blob for small ones. Other
/// ETags say nothing about the content.
fn check(url: &str, etag: &str, path: &Path) -> Result<()> {
    let (hash, found) = match etag.len() {
        64 => ("sha256", hash_of::<Sha256>(path, b"")?),
        40 => {
            let size = fs::metadata(path).map_err(io("read", path))?.len();
            let head = format!("blob {size}\0");
            ("git blob sha1", hash_of::<Sha1>(path, head.as_bytes())?)
        }
        _ => return Ok(()),
    };
    if found.eq_ignore_ascii_case(etag) {
        return Ok(());
    }
    Err(HubError::Corrupt {
        url: url.to_owned(),
        hash,
        expected: etag.to_owned(),
        found,
    })
}

/// In hexadecimal digits, `head` before the file's content.
fn hash_of<D: Digest>(path: &Path, head: &[u8]) -> Result<String> {
    let mut file = fs::File::open(path).map_err(io("read", path))?;
    let mut hash = D::new();
    hash.update(head);
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = file.read(&mut chunk).map_err(io("read", path))?;
        if n == 0 {
            let digest = hash.finalize();
            return Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&chunk[..n]);
    }
}

//! Resolution of a name to a folder with its files.

use std::fs::{self, OpenOptions};
use std::io::{self as stdio, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::cache::{Cache, is_commit, is_hex, make_parent};
use crate::client::{Client, Content, FileInfo};
use crate::error::{HubError, Result, io};
use crate::event::{Event, Listener, Progress};
use crate::files;
use crate::name::Name;
use crate::options::HubOptions;

/// Size of the read buffer in bytes.
const CHUNK: usize = 1 << 18;

/// A checkpoint in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Folder of configuration and weights.
    pub folder: PathBuf,
    /// Their commit in the repository, 40 hexadecimal digits.
    pub commit: String,
    /// Names of the files in `folder` that form the checkpoint.
    pub files: Vec<String>,
}

/// Returns the files of a name from the cache, after downloading those that are missing. `listener` is called for every
/// received piece and before every pause, and stops the download by answering `false`.
///
/// # Errors
/// [`HubError::NotCached`] without a copy in the cache while offline (the message contains the files and their place);
/// [`HubError::NotFound`], [`HubError::Unauthorized`] or [`HubError::NoCheckpoint`] for a repository that is missing, private
/// or not a CLIP checkpoint; [`HubError::Http`] for a server that fails repeatedly or exceeds a limit of the
/// options; [`HubError::Stopped`] when `listener` said so; [`HubError::Corrupt`] for content that does
/// not match its hash; [`HubError::Io`] for a cache that cannot be written.
pub fn resolve(
    name: &Name,
    options: &HubOptions,
    listener: &mut dyn FnMut(Event<'_>) -> bool,
) -> Result<Snapshot> {
    let cache = Cache::new(&options.cache, name);
    if options.offline {
        return cached(name, &cache, "HF_HUB_OFFLINE is set", true);
    }
    let client = Client::new(options);
    let (commit, all) = match listing(&client, name, &cache, listener) {
        Ok(found) => found,
        // The hub cannot be reached: use the copy in the cache, if there is one.
        Err(HubError::Http { problem, .. }) => {
            let why = format!("{} cannot be reached: {problem}", options.endpoint);
            let found = cached(name, &cache, &why, false)?;
            tell_cached(name, &why, &found.commit, listener)?;
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let mut files = files::choose(name, &all)?;
    let fetcher = Fetcher {
        client,
        cache: &cache,
        options,
        name,
        commit: &commit,
    };
    let mut next = 0;
    while let Some(file) = files.get(next).cloned() {
        fetcher.fetch(&file, listener)?;
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

/// The commit of the revision of a name, which is remembered, and the files of the repository there.
///
/// # Errors
/// [`HubError::Http`] if the hub cannot be reached; a repository or revision that does not exist.
pub(crate) fn listing(
    client: &Client<'_>,
    name: &Name,
    cache: &Cache,
    listener: Listener<'_>,
) -> Result<(String, Vec<String>)> {
    let url = name.description(client.endpoint());
    let text = client.text(&url, listener)?;
    let listing: Listing = serde_json::from_str(&text).map_err(|e| {
        let start: String = text.chars().take(40).collect();
        HubError::Http {
            url: url.clone(),
            problem: format!("is not a description of a repository, it starts with {start:?}: {e}"),
        }
    })?;
    let commit = listing.sha;
    if !is_commit(&commit) {
        let problem = format!("describes the commit {commit:?}");
        return Err(HubError::Http { url, problem });
    }
    cache.remember(&name.revision, &commit)?;
    let files = listing.siblings.into_iter().map(|s| s.rfilename);
    Ok((commit, files.collect()))
}

/// Says that the copy in the cache is used, and why.
pub(crate) fn tell_cached(
    name: &Name,
    why: &str,
    commit: &str,
    listener: Listener<'_>,
) -> Result<()> {
    let name = name.titled();
    let note = format!("{why}; {name} is taken from the cache, commit {commit}");
    match listener(Event::Note(&note)) {
        true => Ok(()),
        false => Err(HubError::Stopped),
    }
}

/// Response of `api/models/{repository}/revision/{revision}`.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The checkpoint in the cache.
fn cached(name: &Name, cache: &Cache, why: &str, offline: bool) -> Result<Snapshot> {
    let not_cached = |commit: &str, files: &str| HubError::NotCached {
        name: name.titled(),
        why: why.to_owned(),
        files: files.to_owned(),
        place: cache.snapshot(commit),
        offline,
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

/// Downloads the files of one commit into the cache.
pub(crate) struct Fetcher<'a> {
    pub client: Client<'a>,
    pub cache: &'a Cache,
    pub options: &'a HubOptions,
    pub name: &'a Name,
    pub commit: &'a str,
}

/// A file of the repository.
struct RemoteFile<'a> {
    name: &'a str,
    url: String,
    info: FileInfo,
}

impl Fetcher<'_> {
    /// Adds one file to the snapshot of the commit unless it is there.
    pub fn fetch(&self, file: &str, listener: Listener<'_>) -> Result<()> {
        let (cache, commit) = (self.cache, self.commit);
        if cache.snapshot(commit).join(file).exists() {
            return Ok(());
        }
        let url = self.name.file(&self.options.endpoint, commit, file);
        let info = self.client.file_info(&url, listener)?;
        if info.etag.is_empty() || !is_hex(&info.etag) {
            return Err(HubError::Http {
                url,
                problem: format!("has the ETag {:?}, expected a hash", info.etag),
            });
        }
        let remote = RemoteFile {
            name: file,
            url,
            info,
        };
        let etag = &remote.info.etag;
        let _held = cache.lock(etag)?;
        let blob = cache.blob(etag);
        if !blob.exists() {
            let incomplete = cache.incomplete(etag);
            self.download(&remote, &incomplete, listener)?;
            if let Err(error) = check(&remote.url, etag, &incomplete) {
                fs::remove_file(&incomplete).map_err(io("remove", &incomplete))?;
                return Err(error);
            }
            fs::rename(&incomplete, &blob).map_err(io("write", &blob))?;
        }
        cache.link(commit, file, etag)
    }

    /// Completes the file at `path`, starting from the bytes it already has, up to the size that the hub states.
    fn download(&self, remote: &RemoteFile<'_>, path: &Path, listener: Listener<'_>) -> Result<()> {
        make_parent(path)?;
        let RemoteFile { url, info, .. } = remote;
        let attempts = self.options.attempts.max(1);
        let http = |problem: String| HubError::Http {
            url: url.clone(),
            problem,
        };
        let mut failed = 0;
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
                self.client.content(url, held, listener)?
            } else {
                None
            };
            let Some(content) = answer else {
                // Bytes of another file, or a server that sends another range than was asked for: start over.
                out.set_len(0).map_err(io("write", path))?;
                failed += 1;
                if failed >= attempts {
                    let problem = "the server rejects every range, or sends another one";
                    return Err(http(problem.to_owned()));
                }
                continue;
            };
            if let (Some(expected), Some(found)) = (info.size, content.size)
                && expected != found
            {
                return Err(http(format!(
                    "the server sends a file of {found} bytes, the hub states {expected}"
                )));
            }
            if content.from == 0 {
                out.set_len(0).map_err(io("write", path))?;
            }
            let size = info.size.or(content.size);
            let from = content.from;
            let received = self.receive(remote, size, content, (&mut out, path), listener);
            out.sync_all().map_err(io("write", path))?;
            let (done, broken) = received?;
            let complete = match size {
                Some(size) => done == size,
                None => broken.is_none(),
            };
            if complete {
                return Ok(());
            }
            let why = broken.unwrap_or_else(|| Broken {
                problem: "the answer ended early".to_owned(),
                counts: false,
            });
            failed = match done > held && from == held && !why.counts {
                true => 0,
                false => failed + 1,
            };
            if failed >= attempts {
                let expected = size.map_or("the whole file".to_owned(), |s| format!("{s} bytes"));
                let problem = why.problem;
                return Err(http(format!(
                    "expected {expected}, found {done}: {problem}"
                )));
            }
            self.client
                .pause(url, failed.max(1), (&why.problem, None), listener)?;
        }
    }

    /// Appends a body to a file, no further than `size`. Returns the bytes the file has then, and what broke the body off.
    fn receive(
        &self,
        remote: &RemoteFile<'_>,
        size: Option<u64>,
        content: Content,
        (out, path): (&mut fs::File, &Path),
        listener: Listener<'_>,
    ) -> Result<(u64, Option<Broken>)> {
        let Content { from, mut body, .. } = content;
        let limit = size.unwrap_or(self.options.unstated_limit);
        let mut done = from;
        let mut chunk = vec![0; CHUNK];
        loop {
            // Never asks for more than the file has: what a server sends beyond it is not read.
            let wanted = limit.saturating_sub(done).min(CHUNK as u64) as usize;
            if wanted == 0 {
                if size.is_some() {
                    return Ok((done, None));
                }
                let url = remote.url.clone();
                let problem = format!(
                    "the hub states no size, and the file is larger than {limit} bytes (CLIPOOD_HUB_MAX_BYTES)"
                );
                return Err(HubError::Http { url, problem });
            }
            match body.read(&mut chunk[..wanted]) {
                Ok(0) => return Ok((done, None)),
                Ok(n) => {
                    out.write_all(&chunk[..n]).map_err(io("write", path))?;
                    done += n as u64;
                    let progress = Progress {
                        file: remote.name,
                        done,
                        total: size,
                    };
                    if !listener(Event::Received(progress)) {
                        return Err(HubError::Stopped);
                    }
                }
                Err(error) => {
                    let counts = error.kind() == stdio::ErrorKind::TimedOut;
                    let problem = error.to_string();
                    return Ok((done, Some(Broken { problem, counts })));
                }
            }
        }
    }
}

/// Why a body ended before its end.
struct Broken {
    problem: String,
    /// Whether this is a failed attempt although bytes were received: a server that sends some bytes and then stalls, again
    /// and again.
    counts: bool,
}

/// Compares a file with the hash in its ETag: SHA-256 for large files, the SHA-1 of the git blob for small ones. ETags of
/// another length are not checked.
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

/// The hash of `head` followed by the content of the file, in hexadecimal digits.
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

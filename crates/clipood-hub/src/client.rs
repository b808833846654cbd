//! HTTP requests. Redirects are followed here, not by the HTTP library, so that the token is sent to the hub only; transient
//! failures are retried.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::error::{HubError, Result};
use crate::options::HubOptions;

/// Longest chain of redirects.
const REDIRECTS: usize = 8;
/// Longest answer of the API of the hub in bytes; a longer one is cut and then fails to parse.
const API_BYTES: u64 = 32 << 20;

/// A connection to one hub.
pub(crate) struct Client<'a> {
    agent: Agent,
    options: &'a HubOptions,
}

/// The failure of an attempt.
enum Failure {
    /// Worth another attempt, after the pause requested by the server, if any.
    Transient(String, Option<Duration>),
    Final(HubError),
}

/// What the hub states about a file.
#[derive(Debug)]
pub(crate) struct FileInfo {
    /// Hash of the content: SHA-256 of a large file, the git blob hash of a small one.
    pub etag: String,
    /// Size in bytes, if stated.
    pub size: Option<u64>,
}

impl<'a> Client<'a> {
    pub fn new(options: &'a HubOptions) -> Self {
        let config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("clipood/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .build();
        Self {
            agent: config.new_agent(),
            options,
        }
    }

    /// The body of an API response.
    pub fn text(&self, url: &str) -> Result<String> {
        self.attempts(url, || {
            let answer = self.get(url, None)?;
            let mut text = String::new();
            let mut body = answer.into_body().into_reader().take(API_BYTES);
            body.read_to_string(&mut text)
                .map_err(|e| Failure::Transient(e.to_string(), None))?;
            Ok(text)
        })
    }

    /// Hash and size of a file. The hub states them on its own host, before any redirect to the content.
    pub fn file_info(&self, url: &str) -> Result<FileInfo> {
        self.attempts(url, || {
            let mut at = url.to_owned();
            for _ in 0..REDIRECTS {
                let answer = self.send(&at, true, None)?;
                let headers = answer.headers();
                let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
                let redirected = answer.status().is_redirection();
                if let Some(etag) = etag
                    && (answer.status().is_success() || redirected)
                {
                    let linked = header(headers, "x-linked-size");
                    let own = || header(headers, "content-length").filter(|_| !redirected);
                    return Ok(FileInfo {
                        etag: etag.trim_start_matches("W/").trim_matches('"').to_owned(),
                        size: linked.or_else(own).and_then(|text| text.parse().ok()),
                    });
                }
                match redirect(&at, &answer) {
                    Some(next) => at = next,
                    None => {
                        self.check(&at, &answer)?;
                        let problem = "has no ETag, so its content could not be checked".to_owned();
                        return Err(Failure::Final(http(&at, problem)));
                    }
                }
            }
            Err(Failure::Final(http(
                url,
                "redirects without end".to_owned(),
            )))
        })
    }

    /// The content of a file from byte `from`, and the byte at which it actually starts: 0 if the server does not support
    /// ranges. `None` if the range does not exist.
    pub fn content(&self, url: &str, from: u64) -> Result<Option<(u64, Response<Body>)>> {
        self.attempts(url, || {
            let answer = self.get(url, (from > 0).then_some(from))?;
            match answer.status() {
                StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
                StatusCode::PARTIAL_CONTENT => Ok(Some((from, answer))),
                _ => Ok(Some((0, answer))),
            }
        })
    }

    /// Repeats `attempt` while it fails with a transient failure, up to the number of attempts in the options.
    fn attempts<T>(
        &self,
        url: &str,
        mut attempt: impl FnMut() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut made = 0;
        loop {
            made += 1;
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(problem, wait)) => {
                    if made >= self.options.attempts.max(1) {
                        return Err(http(url, format!("{problem} ({made} attempts)")));
                    }
                    self.pause(made, wait);
                }
            }
        }
    }

    /// Waits after failed attempt number `made`: as long as the server `asked`, or with exponential backoff, at most a minute.
    pub fn pause(&self, made: u32, asked: Option<Duration>) {
        let own = self.options.pause * 2u32.saturating_pow(made.min(10) - 1);
        std::thread::sleep(asked.unwrap_or(own).min(Duration::from_secs(60)));
    }

    /// The response after all redirects, a success or 416.
    fn get(&self, url: &str, from: Option<u64>) -> std::result::Result<Response<Body>, Failure> {
        let mut at = url.to_owned();
        for _ in 0..REDIRECTS {
            let answer = self.send(&at, false, from)?;
            match redirect(&at, &answer) {
                Some(next) => at = next,
                None => {
                    if answer.status() != StatusCode::RANGE_NOT_SATISFIABLE {
                        self.check(&at, &answer)?;
                    }
                    return Ok(answer);
                }
            }
        }
        Err(Failure::Final(http(
            url,
            "redirects without end".to_owned(),
        )))
    }

    fn send(
        &self,
        url: &str,
        head: bool,
        from: Option<u64>,
    ) -> std::result::Result<Response<Body>, Failure> {
        let request = if head {
            self.agent.head(url)
        } else {
            self.agent.get(url)
        };
        // Compressed content would match neither its hash nor its ranges.
        let mut request = request.header("Accept-Encoding", "identity");
        let hub = origin(&self.options.endpoint);
        if let Some(token) = &self.options.token
            && hub.is_some()
            && origin(url) == hub
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Failure::Final(http(url, error.to_string()))
            }
            error => Failure::Transient(error.to_string(), None),
        })
    }

    fn check(&self, url: &str, answer: &Response<Body>) -> std::result::Result<(), Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let url = url.to_owned();
        let code = header(answer.headers(), "x-error-code").unwrap_or_default();
        let not_found = |what| {
            let url = url.clone();
            Failure::Final(HubError::NotFound { url, what })
        };
        Err(match status.as_u16() {
            _ if code == "RevisionNotFound" => not_found("revision"),
            _ if code == "EntryNotFound" => not_found("file"),
            404 if code == "RepoNotFound" => not_found("repository"),
            404 => not_found("repository, revision or file"),
            status @ (401 | 403) => Failure::Final(HubError::Unauthorized { url, status }),
            status @ (408 | 429 | 500..=599) => {
                let wait = header(answer.headers(), "retry-after");
                let wait = wait.and_then(|text| text.trim().parse().ok());
                Failure::Transient(
                    format!("the server answers {status}"),
                    wait.map(Duration::from_secs),
                )
            }
            status => Failure::Final(http(&url, format!("the server answers {status}"))),
        })
    }
}

fn http(url: &str, problem: String) -> HubError {
    HubError::Http {
        url: url.to_owned(),
        problem,
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Scheme, and host with port, of a URL: the token is sent only to the origin of the hub.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme()?.to_string(), uri.authority()?.to_string()))
}

/// The absolute target of a redirect.
fn redirect(from: &str, answer: &Response<Body>) -> Option<String> {
    if !answer.status().is_redirection() {
        return None;
    }
    let to = header(answer.headers(), "location")?;
    if to.contains("://") {
        return Some(to);
    }
    let (scheme, authority) = origin(from)?;
    let slash = if to.starts_with('/') { "" } else { "/" };
    Some(format!("{scheme}://{authority}{slash}{to}"))
}

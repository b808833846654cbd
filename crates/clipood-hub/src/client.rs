//! HTTP requests. Redirects are followed here, not by the HTTP library, so that the token is sent to the hub only; transient
//! failures are retried.

use std::io::Read;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::error::{HubError, Result};
use crate::event::{Event, Listener};
use crate::limits::{Clock, LimitedReader};
use crate::options::HubOptions;

/// Longest chain of redirects.
const REDIRECTS: usize = 8;
/// Longest answer of the API of the hub in bytes; a longer one is cut and then fails to parse.
const API_BYTES: u64 = 32 << 20;

/// A connection to one hub.
pub(crate) struct Client<'a> {
    agent: Agent,
    options: &'a HubOptions,
    clock: Clock,
}

/// The failure of an attempt.
enum Failure {
    /// Worth another attempt, after the pause requested by the server, if any.
    Transient(String, Option<Duration>),
    Final(HubError),
}

/// The content of a file, from some byte on.
pub(crate) struct Content {
    /// The byte at which it starts: the requested one, or 0 if the server does not support ranges.
    pub from: u64,
    /// Size of the whole file that this answer states, if it does.
    pub size: Option<u64>,
    /// The bytes, at no less than the minimum rate.
    pub body: LimitedReader<ureq::BodyReader<'static>>,
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
        let clock = Clock::start(options);
        let timeout = Some(
            options
                .timeout
                .min(options.deadline.unwrap_or(Duration::MAX)),
        );
        let config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("clipood/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_send_request(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .build();
        Self {
            agent: config.new_agent(),
            options,
            clock,
        }
    }

    /// URL of the hub.
    pub fn endpoint(&self) -> &str {
        &self.options.endpoint
    }

    /// The body of an API response.
    pub fn text(&self, url: &str, listener: Listener<'_>) -> Result<String> {
        self.attempts(url, listener, || {
            let answer = self.get(url, None)?;
            let mut text = String::new();
            let body = self.clock.limit(answer.into_body().into_reader());
            let mut body = body.take(API_BYTES);
            body.read_to_string(&mut text)
                .map_err(|e| Failure::Transient(e.to_string(), None))?;
            Ok(text)
        })
    }

    /// Hash and size of a file. The hub states them on its own host, before any redirect to the content.
    pub fn file_info(&self, url: &str, listener: Listener<'_>) -> Result<FileInfo> {
        self.attempts(url, listener, || {
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

    /// The content of a file from byte `from`, or from 0 if the server does not support ranges. `None` if the range does not
    /// exist, or if the server sends another one: the bytes that are there cannot be completed.
    pub fn content(&self, url: &str, from: u64, listener: Listener<'_>) -> Result<Option<Content>> {
        self.attempts(url, listener, || {
            let answer = self.get(url, (from > 0).then_some(from))?;
            let headers = answer.headers();
            let length =
                header(headers, "content-length").and_then(|text| text.trim().parse().ok());
            let (start, size) = match answer.status() {
                StatusCode::RANGE_NOT_SATISFIABLE => return Ok(None),
                StatusCode::PARTIAL_CONTENT => {
                    match header(headers, "content-range").and_then(|text| content_range(&text)) {
                        Some((start, size)) if start == from => (from, size),
                        _ => return Ok(None),
                    }
                }
                _ => (0, length),
            };
            Ok(Some(Content {
                from: start,
                size,
                body: self.clock.limit(answer.into_body().into_reader()),
            }))
        })
    }

    /// Repeats `attempt` while it fails with a transient failure, up to the number of attempts in the options.
    fn attempts<T>(
        &self,
        url: &str,
        listener: Listener<'_>,
        mut attempt: impl FnMut() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut made = 0;
        loop {
            made += 1;
            self.clock.check(url)?;
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(problem, wait)) => {
                    self.clock.check(url)?;
                    if made >= self.options.attempts.max(1) {
                        return Err(http(url, format!("{problem} ({made} attempts)")));
                    }
                    self.pause(url, made, (&problem, wait), listener)?;
                }
            }
        }
    }

    /// Waits after failed attempt number `made`: as long as the server asked, or with exponential backoff. `failure` says what
    /// failed, and how long the server asks to wait, if it does.
    pub fn pause(
        &self,
        url: &str,
        made: u32,
        failure: (&str, Option<Duration>),
        listener: Listener<'_>,
    ) -> Result<()> {
        let (problem, asked) = failure;
        let longest = self.options.longest_wait;
        if let Some(asked) = asked
            && asked > longest
        {
            let problem = format!(
                "{problem} and asks to wait {} s, more than the limit of {} s; try again later, or set CLIPOOD_HUB_MAX_WAIT",
                asked.as_secs(),
                longest.as_secs()
            );
            return Err(http(url, problem));
        }
        let own = self.options.pause * 2u32.saturating_pow(made.min(10) - 1);
        let pause = asked.unwrap_or(own).min(longest).min(self.clock.left());
        // A second and more is worth a word.
        if pause >= Duration::from_secs(1) {
            let note = format!("{url}: {problem}; trying again in {} s", pause.as_secs());
            if !listener(Event::Note(&note)) {
                return Err(HubError::Stopped);
            }
        }
        std::thread::sleep(pause);
        self.clock.check(url)
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
                let wait = wait.and_then(|text| retry_after(&text, SystemTime::now()));
                Failure::Transient(format!("the server answers {status}"), wait)
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

/// The first byte and the size of the whole, if stated, of `Content-Range: bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, size.trim().parse().ok()))
}

/// How long `Retry-After` asks to wait: seconds, or the time of a date (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(date.timestamp().try_into().ok()?);
    Some(until.duration_since(now).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_dates_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 0-9/*"), Some((0, None)));
        for wrong in ["", "5-9/10", "bytes */10", "bytes -9/10", "items 5-9/10"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |text| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        // Over already.
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-3"), None);
    }
}

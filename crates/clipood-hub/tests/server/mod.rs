//! A small hub on this machine: the listing and small files on one port, large files behind a redirect on another.

// Each of the suites that share this file uses a part of it.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Files of at least this many bytes lie on the other port, under their sha256.
const LARGE: usize = 100;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

pub fn git_sha1(content: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    hex(&hash.finalize())
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are really sent.
    sent: usize,
    manner: Manner,
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Manner {
    /// As it should be.
    #[default]
    Plain,
    /// Header lines without end.
    EndlessHeaders,
    /// Nothing, and the connection stays open.
    Silent,
    /// The body comes byte by byte, with this pause between them.
    Slow(Duration),
    /// No length is stated, and the body is repeated until the client goes.
    EndlessBody,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::of(status, Vec::new())
    }

    fn of(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            sent: body.len(),
            manner: Manner::Plain,
            body,
        }
    }

    /// An answer with a body.
    pub fn text(text: &str) -> Self {
        Self::of(200, text.as_bytes().to_vec())
    }

    /// The same answer, sent in another manner.
    pub fn sent(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    /// The same answer with another value of a header.
    pub fn instead(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.with(name, value)
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// Turns a good answer into a bad one.
type Change = Box<dyn Fn(&Request, Reply) -> Reply + Send>;

#[derive(Default)]
struct Behaviour {
    next: VecDeque<Reply>,
    cut: Option<usize>,
    without_ranges: bool,
    corrupt: bool,
    /// What becomes of the answers with content.
    change: Option<Change>,
    requests: Vec<Request>,
    other_requests: Vec<Request>,
}

pub struct Hub {
    port: u16,
    other: u16,
    state: Arc<Mutex<Behaviour>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Before the names of files that are on the branch `refs/convert/parquet` of a dataset only.
pub const CONVERTED: &str = "converted!";

/// The files of a revision in a request for a listing; `None` for another request, or a branch that does not exist.
fn listed<'a>(path: &str, commit: &str, files: &'a [(String, Vec<u8>)]) -> Option<Vec<&'a str>> {
    let of_branch = |converted: bool| {
        let names = files.iter().map(|(name, _)| name.as_str());
        let names = names.filter(|name| name.starts_with(CONVERTED) == converted);
        names
            .map(|name| name.trim_start_matches(CONVERTED))
            .collect::<Vec<_>>()
    };
    if path == "/api/models/org/tiny/revision/main" {
        return Some(of_branch(false));
    }
    // Every name is that of the one dataset.
    let (name, revision) = path
        .strip_prefix("/api/datasets/")?
        .split_once("/revision/")?;
    if name.split('/').count() != 2 {
        return None;
    }
    match revision {
        "main" => Some(of_branch(false)),
        "refs%2Fconvert%2Fparquet" => Some(of_branch(true)).filter(|names| !names.is_empty()),
        other if other == commit => Some([of_branch(false), of_branch(true)].concat()),
        _ => None,
    }
}

/// The file of a request, by its name in the repository.
fn asked<'a>(path: &'a str, commit: &str) -> Option<&'a str> {
    if let Some(rest) = path.strip_prefix("/datasets/") {
        let (name, file) = rest.split_once(&format!("/resolve/{commit}/"))?;
        return (name.split('/').count() == 2).then_some(file);
    }
    path.strip_prefix(&format!("/org/tiny/resolve/{commit}/"))
}

impl Hub {
    /// The model `org/tiny`, or any dataset, with these files.
    pub fn new(commit: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let files: Arc<Vec<(String, Vec<u8>)>> = Arc::new(
            files
                .iter()
                .map(|(n, c)| ((*n).to_owned(), c.clone()))
                .collect(),
        );
        let state = Arc::new(Mutex::new(Behaviour::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let content = {
            let (files, state) = (files.clone(), state.clone());
            move |request: &Request| {
                let mut state = state.lock().unwrap();
                state.other_requests.push(request.clone());
                let found = files
                    .iter()
                    .find(|(_, c)| request.path == format!("/cdn/{}", sha256(c)));
                let mut body = found.unwrap().1.clone();
                if state.corrupt {
                    body[7] ^= 1;
                }
                let total = body.len();
                let from = request.header("range").filter(|_| !state.without_ranges);
                let from = from.map(|r| {
                    r.trim_start_matches("bytes=")
                        .trim_end_matches('-')
                        .parse::<usize>()
                        .unwrap()
                });
                let mut reply = match from {
                    Some(from) if from >= total => Reply::status(416),
                    Some(from) => Reply::of(206, body.split_off(from)).with(
                        "Content-Range",
                        format!("bytes {from}-{}/{total}", total - 1),
                    ),
                    None => Reply::of(200, body),
                };
                reply.sent = reply.sent.min(state.cut.unwrap_or(usize::MAX));
                match &state.change {
                    Some(change) => change(request, reply),
                    None => reply,
                }
            }
        };
        let (other, other_thread) = serve(stop.clone(), content);
        let hub = {
            let (commit, state) = (commit.to_owned(), state.clone());
            move |request: &Request| {
                let mut state = state.lock().unwrap();
                state.requests.push(request.clone());
                if let Some(reply) = state.next.pop_front() {
                    return reply;
                }
                if let Some(names) = listed(&request.path, &commit, &files) {
                    let names: Vec<String> = names
                        .iter()
                        .map(|n| format!("{{\"rfilename\": \"{n}\"}}"))
                        .collect();
                    let text = format!(
                        "{{\"sha\": \"{commit}\", \"siblings\": [{}]}}",
                        names.join(", ")
                    );
                    return Reply::of(200, text.into_bytes());
                }
                let file = asked(&request.path, &commit);
                let named = |file: &str| {
                    let mut all = files.iter();
                    all.find(|(n, _)| n.trim_start_matches(CONVERTED) == file)
                };
                let Some((_, content)) = file.and_then(named) else {
                    return Reply::status(404);
                };
                if content.len() < LARGE {
                    return Reply::of(200, content.clone())
                        .with("ETag", format!("\"{}\"", git_sha1(content)));
                }
                let hash = sha256(content);
                Reply::status(302)
                    .with("Location", format!("http://127.0.0.1:{other}/cdn/{hash}"))
                    .with("X-Repo-Commit", &commit)
                    .with("X-Linked-Etag", format!("\"{hash}\""))
                    .with("X-Linked-Size", content.len())
            }
        };
        let (port, thread) = serve(stop.clone(), hub);
        Self {
            port,
            other,
            state,
            stop,
            threads: vec![other_thread, thread],
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn answer_next(&self, reply: Reply) {
        self.state.lock().unwrap().next.push_back(reply);
    }

    pub fn cut_content(&self, bytes: usize) {
        self.state.lock().unwrap().cut = Some(bytes);
    }

    /// Changes every answer with content.
    pub fn change_content(&self, change: impl Fn(&Request, Reply) -> Reply + Send + 'static) {
        self.state.lock().unwrap().change = Some(Box::new(change));
    }

    pub fn without_ranges(&self) {
        self.state.lock().unwrap().without_ranges = true;
    }

    pub fn corrupt_content(&self) {
        self.state.lock().unwrap().corrupt = true;
    }

    /// Requests to the hub itself.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Requests to where large files lie.
    pub fn other_requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().other_requests.clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for port in [self.port, self.other] {
            // Wakes the thread that waits for a connection.
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn serve(
    stop: Arc<AtomicBool>,
    answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    let thread = std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let answer = answer.clone();
            // Not joined: a client keeps its connections open for longer than a test lasts.
            std::thread::spawn(move || talk(stream.unwrap(), &*answer));
        }
    });
    (port, thread)
}

fn talk(stream: TcpStream, answer: &impl Fn(&Request) -> Reply) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let request = Request {
        method,
        path,
        headers,
    };
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if reply.manner != Manner::EndlessBody {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    // Who is asked may have gone.
    match reply.manner {
        Manner::Silent => {
            let _ = stream.read(&mut [0; 1]);
            return;
        }
        Manner::EndlessHeaders => {
            while stream.write_all(head.as_bytes()).is_ok() {
                head = "X-More: more\r\n".to_owned();
                std::thread::sleep(Duration::from_millis(1));
            }
            return;
        }
        _ => {
            head += "\r\n";
            let _ = stream.write_all(head.as_bytes());
        }
    }
    if request.method != "HEAD" {
        match reply.manner {
            Manner::Slow(pause) => {
                for byte in &reply.body {
                    if stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(pause);
                }
            }
            Manner::EndlessBody => while stream.write_all(&reply.body).is_ok() {},
            _ => {
                let _ = stream.write_all(&reply.body[..reply.sent]);
            }
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 1]);
}

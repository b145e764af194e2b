//! A hub in a thread: the list of files, redirects of large files to another host, hashes, ranges, and misbehaviour on
//! demand. Every request is written down.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
    /// Whether it came to the host that stores large files.
    pub(crate) at_storage: bool,
}

/// What the hub has and how it behaves.
#[derive(Default)]
pub(crate) struct State {
    /// Files by name; those with the extension safetensors are stored on the other host.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Revisions and their commits.
    pub(crate) revisions: BTreeMap<String, String>,
    /// Answer everything at the hub with this status.
    pub(crate) refuse: Option<u16>,
    /// For the next requests to the storage: close the connection after so many bytes of the body.
    pub(crate) cuts: Vec<usize>,
    /// Answer so many of the further requests to the storage with 503.
    pub(crate) unavailable: usize,
    /// Answers with a small file to be damaged from now on.
    pub(crate) corrupt_small: usize,
    /// Flip a byte in so many of the next bodies of the storage.
    pub(crate) corrupt: usize,
    /// The storage sends everything, whatever range is asked for.
    pub(crate) ignores_ranges: bool,
    /// The hub does not know HEAD.
    pub(crate) no_head: bool,
    pub(crate) requests: Vec<Request>,
}

/// Two listening hosts (one address, two ports, which are two origins) over one state.
#[derive(Clone)]
pub(crate) struct FakeHub {
    state: Arc<Mutex<State>>,
    pub(crate) endpoint: String,
}

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl FakeHub {
    pub(crate) fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let revisions = BTreeMap::from([("main".to_owned(), COMMIT.to_owned())]);
        let state = Arc::new(Mutex::new(State { files, revisions, ..State::default() }));
        let [hub, storage] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let endpoint = format!("http://{}", hub.local_addr().unwrap());
        let storage_url = format!("http://{}", storage.local_addr().unwrap());
        for (listener, at_storage) in [(hub, false), (storage, true)] {
            let (state, storage_url) = (state.clone(), storage_url.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, storage_url) = (state.clone(), storage_url.clone());
                    // A client that hangs up ends its own thread only.
                    std::thread::spawn(move || answer(stream, &state, at_storage, &storage_url));
                }
            });
        }
        Self { state, endpoint }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The requests so far, which are forgotten.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }
}

fn answer(
    stream: TcpStream,
    state: &Mutex<State>,
    at_storage: bool,
    storage_url: &str,
) -> std::io::Result<()> {
    let Some(request) = read_request(&stream, at_storage)? else { return Ok(()) };
    let mut state = state.lock().unwrap();
    state.requests.push(request.clone());
    if at_storage {
        return storage(stream, &mut state, &request);
    }
    let path = request.path.clone();
    if let Some(status) = state.refuse {
        return respond(stream, status, &[("X-Error-Code", "GatedRepo".to_owned())], b"no", &request);
    }
    if let Some(revision) = path.strip_prefix("/api/models/org/tiny/revision/") {
        let Some(commit) = state.revisions.get(&revision.replace("%2F", "/")) else {
            return respond(stream, 404, &[("X-Error-Code", "RevisionNotFound".to_owned())], b"", &request);
        };
        let siblings: Vec<_> =
            state.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": commit, "siblings": siblings }).to_string();
        return respond(stream, 200, &[], body.as_bytes(), &request);
    }
    if state.no_head && request.method == "HEAD" {
        return respond(stream, 405, &[], b"", &request);
    }
    if let Some(rest) = path.strip_prefix("/org/old-name/") {
        let headers =
            [("Location", format!("/org/tiny/{rest}")), ("ETag", "\"of-this-redirect\"".to_owned())];
        return respond(stream, 307, &headers, b"moved", &request);
    }
    if let Some(rest) = path.strip_prefix("/api/models/org/old-name/") {
        return respond(
            stream,
            307,
            &[("Location", format!("/api/models/org/tiny/{rest}"))],
            b"moved",
            &request,
        );
    }
    let file = path.strip_prefix("/org/tiny/resolve/").and_then(|rest| rest.split_once('/'));
    let Some((commit, name)) = file else { return respond(stream, 404, &[], b"", &request) };
    let Some(bytes) = state.files.get(&name.replace("%20", " ")) else {
        return respond(stream, 404, &[], b"", &request);
    };
    let commit = ("X-Repo-Commit", state.revisions.get(commit).cloned().unwrap_or(commit.to_owned()));
    if name.ends_with(".safetensors") {
        let headers = [
            commit,
            ("X-Linked-Etag", format!("\"{}\"", sha256(bytes))),
            ("X-Linked-Size", bytes.len().to_string()),
            ("ETag", "\"of-this-redirect\"".to_owned()),
            ("Location", format!("{storage_url}/{name}?signature=1")),
        ];
        return respond(stream, 302, &headers, b"", &request);
    }
    let etag = ("ETag", format!("W/\"{}\"", git_hash(bytes)));
    let mut bytes = bytes.clone();
    if request.method != "HEAD" && state.corrupt_small > 0 {
        state.corrupt_small -= 1;
        bytes[0] ^= 1;
    }
    respond(stream, 200, &[commit, etag], &bytes, &request)
}

/// The host of the large files.
fn storage(mut stream: TcpStream, state: &mut State, request: &Request) -> std::io::Result<()> {
    if state.cuts.is_empty() && state.unavailable > 0 {
        state.unavailable -= 1;
        return respond(stream, 503, &[], b"", request);
    }
    let name = request.path.trim_start_matches('/').split('?').next().unwrap().replace("%20", " ");
    let mut bytes = state.files[&name].clone();
    if state.corrupt > 0 {
        state.corrupt -= 1;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    let start = request.range.as_ref().filter(|_| !state.ignores_ranges);
    let start: Option<usize> =
        start.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let body = &bytes[start.unwrap_or(0)..];
    let status = if start.is_some() { "206 Partial Content" } else { "200 OK" };
    let range =
        start.map(|start| format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len()));
    let headers = [
        format!(
            "HTTP/1.1 {status}\r\nETag: \"of-the-storage\"\r\nAccept-Ranges: bytes\r\nConnection: close\r\n"
        ),
        range.unwrap_or_default(),
        format!("Content-Length: {}\r\n\r\n", body.len()),
    ]
    .concat();
    stream.write_all(headers.as_bytes())?;
    let end = if state.cuts.is_empty() { body.len() } else { state.cuts.remove(0).min(body.len()) };
    stream.write_all(&body[..end])
}

fn read_request(stream: &TcpStream, at_storage: bool) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap(),
        path: words.next().unwrap(),
        range: None,
        token: None,
        at_storage,
    };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "authorization" => request.token = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(request))
}

fn respond(
    mut stream: TcpStream,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
    request: &Request,
) -> std::io::Result<()> {
    let length = ("Content-Length", body.len().to_string());
    let fields = headers.iter().chain([&length]).map(|(name, value)| format!("{name}: {value}\r\n"));
    let fields = fields.collect::<Vec<_>>().concat();
    stream.write_all(format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n{fields}\r\n").as_bytes())?;
    if request.method == "HEAD" { Ok(()) } else { stream.write_all(body) }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// As `git hash-object` prints it.
pub(crate) fn git_hash(bytes: &[u8]) -> String {
    let header = format!("blob {}\0", bytes.len());
    hex(&Sha1::digest([header.as_bytes(), bytes].concat()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

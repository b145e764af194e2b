//! A server that needs no model: it computes by sleeping, one thing at a time, and caches prefixes.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// A word is two tokens, a template ten.
const TOKENS_PER_WORD: usize = 2;
const OVERHEAD: usize = 10;
const MODEL: &str = "stand-in";

/// How it behaves.
#[derive(Clone, Copy)]
pub(crate) struct Behaviour {
    /// Asked for, if any.
    pub(crate) key: Option<&'static str>,
    /// Of three streams one is refused and one is cut.
    pub(crate) fails: bool,
    /// Streams begin and never bring anything.
    pub(crate) hangs: bool,
    /// Connections of whole answers stay, and are closed when the next request has come.
    pub(crate) leaves: bool,
    pub(crate) prefill_per_word: Duration,
    pub(crate) step: Duration,
}

pub(crate) const GOOD: Behaviour = Behaviour {
    key: None,
    fails: false,
    hangs: false,
    leaves: false,
    prefill_per_word: Duration::from_micros(20),
    step: Duration::from_millis(1),
};

pub(crate) struct StandIn {
    pub(crate) url: String,
    state: Arc<State>,
}

struct State {
    behaviour: Behaviour,
    /// Held while computing.
    device: Mutex<()>,
    seen: Mutex<Vec<Vec<String>>>,
    streams: AtomicUsize,
    left: AtomicUsize,
}

impl StandIn {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1/", listener.local_addr().expect("an address"));
        let (device, seen) = (Mutex::default(), Mutex::default());
        let (streams, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let state = Arc::new(State { behaviour, device, seen, streams, left });
        let shared = state.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let state = shared.clone();
                // A client that went away is not the server's failure.
                thread::spawn(move || drop(state.serve(&connection.expect("a connection"))));
            }
        });
        Self { url, state }
    }

    /// Streams it was asked for, warm-up included.
    pub(crate) fn streams(&self) -> usize {
        self.state.streams.load(Ordering::SeqCst)
    }

    /// Requests that it read and did not answer.
    pub(crate) fn left(&self) -> usize {
        self.state.left.load(Ordering::SeqCst)
    }
}

impl State {
    fn serve(&self, connection: &TcpStream) -> std::io::Result<()> {
        let (head, body) = read(connection)?;
        let is_stream = body["stream"] == true;
        self.answer(connection, &head, &body)?;
        if self.behaviour.leaves && !is_stream {
            read(connection)?;
            self.left.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn answer(&self, mut connection: &TcpStream, head: &str, body: &Value) -> std::io::Result<()> {
        let response = |status: &str, body: &Value| {
            let (body, connection) =
                (body.to_string(), if self.behaviour.leaves { "keep-alive" } else { "close" });
            let length = body.len();
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: {connection}\r\n\r\n{body}")
        };
        let authorized =
            self.behaviour.key.is_none_or(|key| head.contains(&format!("authorization: bearer {key}")));
        if !authorized {
            return connection.write_all(response("401 Unauthorized", &error("no such key")).as_bytes());
        }
        if head.starts_with("get /v1/models ") {
            return connection.write_all(response("200 OK", &json!({"data": [{"id": MODEL}]})).as_bytes());
        }
        let words = words(body);
        let cached = self.prefill(words.clone());
        let tokens = |words: usize| words * TOKENS_PER_WORD;
        let limit = body["max_tokens"].as_u64().expect("a number");
        let usage = json!({
            "prompt_tokens": tokens(words.len()) + OVERHEAD, "completion_tokens": limit,
            "prompt_tokens_details": {"cached_tokens": tokens(cached)},
        });
        if body["stream"] == false {
            return connection.write_all(response("200 OK", &json!({"usage": usage})).as_bytes());
        }
        let index = self.streams.fetch_add(1, Ordering::SeqCst);
        if self.behaviour.fails && index % 3 == 1 {
            return connection.write_all(response("429 Too Many Requests", &error("busy")).as_bytes());
        }
        self.stream(connection, limit, &usage, self.behaviour.fails && index % 3 == 2)
    }

    fn stream(
        &self,
        mut connection: &TcpStream,
        limit: u64,
        usage: &Value,
        cut: bool,
    ) -> std::io::Result<()> {
        write!(
            connection,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )?;
        if self.behaviour.hangs {
            thread::sleep(Duration::from_mins(1));
        }
        for index in 0..limit {
            if index > 0 {
                thread::sleep(self.behaviour.step);
            }
            drop(self.device.lock().expect("not poisoned"));
            write!(
                connection,
                "data: {}\n\n",
                json!({"choices": [{"delta": {"content": format!("{index} ")}}]})
            )?;
        }
        if cut {
            return Ok(());
        }
        write!(connection, "data: {}\n\ndata: [DONE]\n\n", json!({"choices": [], "usage": usage}))
    }

    /// Computes what was not seen before; returns how many words were.
    fn prefill(&self, words: Vec<String>) -> usize {
        let mut seen = self.seen.lock().expect("not poisoned");
        let common = |other: &Vec<String>| other.iter().zip(&words).take_while(|(a, b)| a == b).count();
        let cached = seen.iter().map(common).max().unwrap_or(0);
        let rest = u32::try_from(words.len() - cached).expect("short");
        seen.push(words);
        drop(seen);
        let _computing = self.device.lock().expect("not poisoned");
        thread::sleep(self.behaviour.prefill_per_word * rest);
        cached
    }
}

/// The request's head in lower case, and its body.
fn read(connection: &TcpStream) -> std::io::Result<(String, Value)> {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    reader.read_exact(&mut body)?;
    Ok((head, serde_json::from_slice(&body).unwrap_or_default()))
}

fn words(body: &Value) -> Vec<String> {
    let contents = body["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| message["content"].as_str().expect("a text"));
    contents.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

fn error(message: &str) -> Value {
    json!({"error": {"message": message}})
}

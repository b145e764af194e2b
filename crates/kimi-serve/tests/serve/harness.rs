//! The real binary, as a command that ends and as a server on a free port.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::NamedTempFile;

/// The binary with `arguments`, and nothing from the environment that it would obey.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kimi-serve"));
    command.args(arguments).env_remove("KIMI_MODEL").env_remove("KIMI_API_KEYS");
    command
}

/// Runs it to its end.
pub(crate) fn kimi_serve(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary starts")
}

/// Runs a command that must fail, and returns its one line on standard error.
pub(crate) fn failure(arguments: &[&str]) -> String {
    let output = kimi_serve(arguments);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((lines.len(), stderr.contains("panicked")), (1, false), "{stderr}");
    lines[0].to_owned()
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A running server, ended with the test.
pub(crate) struct Server {
    pub(crate) process: Child,
    /// Ends in `/v1`.
    pub(crate) url: String,
    log: NamedTempFile,
}

impl Server {
    /// A server that is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(&[], arguments)
    }

    /// As [`Self::start`], with more variables in its environment.
    pub(crate) fn start_in(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let log = NamedTempFile::new().expect("a temporary file");
        let mut process = command(&[&["serve", "--port", "0"], arguments].concat())
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log.reopen().expect("the same file"))
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let line = lines.next().expect("a line").expect("UTF-8");
        let url = line.strip_prefix("ready: ").expect("the ready line").to_owned();
        Self { process, url, log }
    }

    /// Asks `path`, which is below `/v1`.
    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        reqwest::Client::new().post(format!("{}{path}", self.url)).json(body)
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metric_if_any(name).await.expect("the metric")
    }

    /// The same; `None` while there is nothing to tell.
    pub(crate) async fn metric_if_any(&self, name: &str) -> Option<f64> {
        let url = self.url.replace("/v1", "/metrics");
        let text = reqwest::get(url).await.expect("an answer").text().await.expect("all of it");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.map(|value| value.parse().expect("a number"))
    }

    /// Ends it with SIGKILL and returns what it logged.
    pub(crate) fn kill(mut self) -> String {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        fs::read_to_string(self.log.path()).expect("UTF-8")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `body` with the keys of `more`.
pub(crate) fn with(mut body: Value, more: &Value) -> Value {
    let keys = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(keys);
    body
}

//! A closed loop: so many clients, each of which waits for its answer before it asks again.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::timeout_at;

use crate::{
    client::{Answer, Client},
    workload::Workload,
};

/// One measurement.
pub(crate) struct Level {
    pub(crate) concurrency: usize,
    pub(crate) requests: usize,
    /// Index of the first request in the workload.
    pub(crate) first_request: usize,
    pub(crate) time_limit: Duration,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) answers: Vec<Answer>,
    /// Why requests failed.
    pub(crate) errors: Vec<String>,
    /// Requests that ran when the time was up, or never started.
    pub(crate) unfinished: usize,
    pub(crate) elapsed: Duration,
}

impl Level {
    pub(crate) async fn run(&self, client: &Client, workload: &Workload) -> Outcome {
        let start = Instant::now();
        let next = AtomicUsize::new(0);
        let clients =
            (0..self.concurrency).map(|_| self.client(client, workload, &next, start + self.time_limit));
        let mut total = Outcome::default();
        for outcome in join_all(clients).await {
            total.answers.extend(outcome.answers);
            total.errors.extend(outcome.errors);
        }
        total.unfinished = self.requests - total.answers.len() - total.errors.len();
        total.elapsed = start.elapsed();
        total
    }

    /// Takes the next request until there is none or the time is up.
    async fn client(
        &self,
        client: &Client,
        workload: &Workload,
        next: &AtomicUsize,
        deadline: Instant,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= self.requests {
                return outcome;
            }
            let body = workload.request(self.first_request + index);
            match timeout_at(deadline.into(), client.stream(&body)).await {
                Ok(Ok(answer)) => outcome.answers.push(answer),
                Ok(Err(error)) => outcome.errors.push(format!("{error:#}")),
                Err(_) => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;
    use crate::report::Report;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        ": a comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"h\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"i\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n",
        "data: [DONE]\n\n",
    );

    /// Reads one request to its last byte and answers `status` and `body`, a few bytes at a time.
    fn answer(mut connection: TcpStream, status: &str, body: &str) {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = connection.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            if rest.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break;
            }
        }
        write!(
            connection,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        )
        .unwrap();
        for piece in body.as_bytes().chunks(37) {
            connection.write_all(piece).unwrap();
            connection.flush().unwrap();
        }
    }

    /// Answers every third request with an error and cuts every third stream before its end.
    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (index, connection) in listener.incoming().enumerate() {
                match index % 3 {
                    0 => answer(connection.unwrap(), "200 OK", STREAM),
                    1 => answer(connection.unwrap(), "429 Too Many Requests", "{\"error\":\"busy\"}"),
                    _ => answer(connection.unwrap(), "200 OK", STREAM.split("data: [DONE]").next().unwrap()),
                }
            }
        });
        format!("http://{address}/v1/")
    }

    #[tokio::test]
    async fn answers_errors_and_cut_streams_are_told_apart() {
        let url = server();
        let client = Client::new(&url, Some("key")).unwrap();
        let workload =
            Workload { model: "m".into(), prompt_words: 20, max_tokens: 4, temperature: 0.0, seed: 1 };
        let level =
            Level { concurrency: 2, requests: 9, first_request: 0, time_limit: Duration::from_secs(20) };
        let outcome = level.run(&client, &workload).await;
        assert_eq!((outcome.answers.len(), outcome.errors.len(), outcome.unfinished), (3, 6, 0));
        let mut errors = outcome.errors.clone();
        errors.sort();
        errors.dedup();
        assert_eq!(
            errors,
            ["429 Too Many Requests: {\"error\":\"busy\"}", "the stream was cut: it ended without [DONE]"]
        );
        for answer in &outcome.answers {
            assert_eq!((answer.prompt_tokens, answer.completion_tokens, answer.gaps.len()), (9, 3, 1));
        }
        let mut report = Report::new(&url, &workload);
        report.add(2, &outcome);
        assert!(report.has_errors());
        let level = &serde_json::to_value(&report).unwrap()["levels"][0];
        assert_eq!((level["completion_tokens"].as_u64(), level["errors"].as_u64()), (Some(9), Some(6)));
        assert!(report.table().contains("429 Too Many Requests"));
    }

    #[tokio::test]
    async fn the_time_limit_ends_a_server_that_never_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let workload =
            Workload { model: "m".into(), prompt_words: 5, max_tokens: 4, temperature: 0.0, seed: 1 };
        let level =
            Level { concurrency: 2, requests: 5, first_request: 0, time_limit: Duration::from_millis(50) };
        let outcome = level.run(&client, &workload).await;
        assert_eq!((outcome.answers.len(), outcome.errors.len(), outcome.unfinished), (0, 0, 5));
    }
}

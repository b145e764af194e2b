//! Images and videos behind URLs, from a host of this machine that speaks TLS. In these tests, this machine is not private.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kimi_http::{RemoteMedia, is_public};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::harness::{Server, Setup, extended, hello, hello_with, saying};
use crate::media::{asking, image, video};

const PHOTO: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/photo.jpg");
const CLIP: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/reordered.mp4");

/// Of nine photos.
const MAX_BYTES: u64 = 20_000;

/// A host named `localhost`.
struct Host {
    rules: RemoteMedia,
    /// Paths in the order they were asked for; `closed` when a client was gone before the answer.
    log: Arc<Mutex<Vec<String>>>,
}

impl Host {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let rules = RemoteMedia {
            may_connect: |address: IpAddr| address.is_loopback(),
            roots: Arc::new(roots),
            port: listener.local_addr().unwrap().port(),
            max_bytes: MAX_BYTES,
            ..vec!["localhost".parse().unwrap()].into()
        };
        let shared = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, log) = (tls.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        answer(stream, &log).await;
                    }
                });
            }
        });
        Self { rules, log }
    }

    /// A server that may fetch from this host.
    async fn seen_by(&self, change: impl FnOnce(&mut RemoteMedia)) -> Server {
        let mut setup = Setup::seeing(saying("</think>ok<|im_end|>"));
        let mut rules = self.rules.clone();
        change(&mut rules);
        setup.config.remote_media = Some(rules);
        setup.serve().await
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    async fn wait_for(&self, line: &str) {
        let logged = async {
            while !self.log().iter().any(|logged| logged == line) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), logged).await.expect(line);
    }
}

/// Answers one request; its path says how.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, log: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
    let path = head.split(' ').nth(1).unwrap();
    log.lock().unwrap().push(path.to_owned());
    let whole = |kind: &str, body: &[u8]| {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let bytes = match path {
        path if path.starts_with("/photo") => whole("image/jpeg", PHOTO),
        "/clip?a=b" => whole("video/mp4", CLIP),
        "/mislabelled.html" => whole("text/html", PHOTO),
        "/page.png" => whole("image/png", b"<!doctype html>"),
        "/empty" => whole("image/png", b""),
        "/unmeasured" => [b"HTTP/1.1 200 OK\r\n\r\n", PHOTO].concat(),
        "/moved" => b"HTTP/1.1 302 Found\r\nlocation: /photo/moved\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/missing" => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/cut" => whole("image/jpeg", PHOTO)[..PHOTO.len() / 2].to_vec(),
        "/nonsense" => b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec(),
        "/huge" => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX_BYTES + 1).into_bytes(),
        "/endless" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[0; 1000]).await.is_ok() {}
            return;
        }
        "/dripping" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n").await;
            while stream.write_all(&[0]).await.is_ok() && stream.flush().await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
            return;
        }
        _ => {
            assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)), "nothing more is asked");
            log.lock().unwrap().push("closed".to_owned());
            return;
        }
    };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

async fn refusal(server: &Server, part: &Value) -> String {
    let (status, answer) = server.chat(&asking(std::slice::from_ref(part))).await;
    assert_eq!(status, 400, "{part}: {answer}");
    answer["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn media_behind_urls_are_like_those_in_the_request() {
    let host = Host::start().await;
    let server = host.seen_by(|_| ()).await;
    let (photo, clip) = ("https://localhost/photo", "https://localhost/clip?a=b");
    let inline = |kind: &str, bytes: &[u8]| format!("data:{kind};base64,{}", STANDARD.encode(bytes));
    let here = asking(&[
        image(&inline("image/jpeg", PHOTO)),
        video(&inline("video/mp4", CLIP)),
        image(&inline("", PHOTO)),
    ]);
    let there = asking(&[image(photo), video(clip), image(photo)]);
    let (_, expected) = server.chat(&here).await;
    let (status, answer) = server.chat(&there).await;
    assert_eq!((status, &answer["usage"]), (200, &expected["usage"]), "{answer}");
    assert_eq!(host.log().len(), 2, "each URL is fetched once: {:?}", host.log());
    let (_, estimate) = server.post_json("/v1/tokenizers/estimate-token-count", &there).await;
    assert_eq!(estimate["data"]["total_tokens"], answer["usage"]["prompt_tokens"]);

    for (server, described) in [(&server, true), (&Setup::seeing(saying("")).serve().await, false)] {
        let (_, document) = server.get_json("/openapi.json").await;
        let schema = &document["components"]["schemas"]["MediaUrl"];
        for url in [json!(photo), json!({"url": photo})] {
            assert_eq!(jsonschema::is_valid(schema, &url), described, "{url}");
        }
    }

    let (_, one) = server.chat(&asking(&[image(photo)])).await;
    let block = json!({"type": "image", "source": {"type": "url", "url": photo}});
    let messages = json!({"max_tokens": 9, "messages": [{"role": "user", "content": [block]}]});
    let (_, message) = server.post_json("/v1/messages", &extended(hello(), messages)).await;
    assert_eq!(message["usage"]["input_tokens"], one["usage"]["prompt_tokens"], "{message}");
    let input = json!([{"role": "user", "content": [{"type": "input_image", "image_url": photo}]}]);
    let (_, response) = server.post_json("/v1/responses", &hello_with(json!({"input": input}))).await;
    assert_eq!(response["usage"]["input_tokens"], one["usage"]["prompt_tokens"], "{response}");
}

#[tokio::test]
async fn what_a_host_gives_is_judged_by_its_bytes() {
    let host = Host::start().await;
    let server = host.seen_by(|_| ()).await;
    for path in ["unmeasured", "mislabelled.html"] {
        let (status, answer) = server.chat(&asking(&[image(&format!("https://localhost/{path}"))])).await;
        assert_eq!(status, 200, "{answer}");
    }
    for (part, phrase) in [
        (image("https://localhost/page.png"), "failed to decode image: the data is no PNG"),
        (image("https://localhost/empty"), "failed to decode image: the data is no PNG"),
        (video("https://localhost/photo"), "failed to decode video: "),
        (image("https://localhost/moved"), "unsupported image url: its host redirects"),
        (image("https://localhost/missing"), "unsupported image url: its host answered with the status 404"),
        (image("https://localhost/cut"), "unsupported image url: the answer of its host broke off"),
        (video("https://localhost/nonsense"), "unsupported video url: the answer of its host broke off"),
        (
            image("https://localhost/huge"),
            "unsupported image url: what is fetched for one request may have at most 20000",
        ),
        (
            image("https://localhost/endless"),
            "unsupported image url: what is fetched for one request may have at most 20000",
        ),
        (image("http://localhost/photo"), "unsupported image url: only https://"),
        (image("https://localhost:8443/photo"), "unsupported image url: it must not name a port"),
        (
            image("https://example.com/photo"),
            "unsupported image url: this server does not fetch from its host",
        ),
        (image("https://127.0.0.1/photo"), "unsupported image url: this server does not fetch from its host"),
        (image("file:///photo"), "unsupported image url: send the image as data:"),
    ] {
        let message = refusal(&server, &part).await;
        assert!(message.starts_with(&format!("Invalid request: {phrase}")), "{phrase}: {message}");
    }
    assert!(!host.log().contains(&"/photo/moved".to_owned()), "redirects are not followed");

    let different = |count| -> Vec<Value> {
        (0..count).map(|n| image(&format!("https://localhost/photo?{n}"))).collect()
    };
    assert_eq!(server.chat(&asking(&different(9))).await.0, 200);
    for (count, phrase) in [(10, "at most 20000 bytes together"), (65, "at most 64 different ones")] {
        let (status, answer) = server.chat(&asking(&different(count))).await;
        assert_eq!(status, 400);
        assert!(answer["error"]["message"].as_str().unwrap().ends_with(phrase), "{answer}");
    }
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_not_connected_to() {
    let host = Host::start().await;
    let server = host.seen_by(|rules| rules.may_connect = is_public).await;
    let message = refusal(&server, &image("https://localhost/photo")).await;
    assert!(message.ends_with("its host has no address that may be connected to"), "{message}");

    let server = host.seen_by(|rules| rules.roots = Arc::new(RootCertStore::empty())).await;
    let message = refusal(&server, &image("https://localhost/photo")).await;
    assert!(message.ends_with("offers no secure connection that can be trusted"), "{message}");
    assert_eq!(host.log(), [""; 0], "nothing was asked");
}

#[tokio::test]
async fn slow_hosts_are_given_up() {
    let host = Host::start().await;
    let server = host.seen_by(|rules| rules.within = Duration::from_millis(300)).await;
    for path in ["silent", "dripping"] {
        let message = refusal(&server, &image(&format!("https://localhost/{path}"))).await;
        assert_eq!(message, "Invalid request: unsupported image url: fetching took longer than 0.3 s");
    }
}

#[tokio::test]
async fn fetching_ends_with_its_client_and_holds_up_nobody() {
    let host = Host::start().await;
    let server = host.seen_by(|_| ()).await;
    let waiting = tokio::spawn(server.post(&asking(&[image("https://localhost/silent")])).send());
    host.wait_for("/silent").await;
    assert_eq!(server.chat(&hello()).await.0, 200);
    assert_eq!(server.chat(&asking(&[image("https://localhost/photo")])).await.0, 200);
    assert!(!host.log().contains(&"closed".to_owned()));
    waiting.abort();
    host.wait_for("closed").await;
}

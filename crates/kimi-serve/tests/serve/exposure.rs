//! Who may reach a server: nobody but this machine, unless there are keys or somebody says so.

use std::fs;

use serde_json::json;

use crate::harness::{Server, failure, kimi_serve};

#[test]
fn a_public_address_without_keys_is_refused_before_anything_listens() {
    let public = ["0.0.0.0", "::", "[::]", "::ffff:0.0.0.0", "::ffff:192.168.0.1", "192.168.0.1", "fe80::1"];
    for host in public {
        let bare = failure(&["--fake", "hash", "--port", "0", "--host", host]);
        let said = failure(&["serve", "--fake", "hash", "--port", "0", "--host", host]);
        assert_eq!(bare, said);
        assert!(said.contains("--api-key-file") && said.contains("--insecure"), "{host}: {said}");
    }
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(keys.path(), "# none yet\n\n").unwrap();
    let keys = keys.path().to_str().unwrap();
    assert!(failure(&["serve", "--host", "::", "--api-key-file", keys]).contains("no API key"));
}

/// Who looks a name up believes whoever answers; where it leads may change between two looks.
#[test]
fn names_are_not_looked_up() {
    for host in
        ["example.com", "localhost.example.com", "[::]:8000", "127.0.0.1:8000", "http://127.0.0.1", ""]
    {
        let output = kimi_serve(&["serve", "--fake", "hash", "--port", "0", "--host", host]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("--host") && stderr.contains("--port"), "{stderr}");
    }
}

#[test]
fn media_are_fetched_from_names_and_not_when_offline() {
    let offline = ["--offline", "--allow-media-domain", "images.example.com", "--fake", "hash"];
    let error = failure(&offline);
    assert!(error.contains("--allow-media-domain fetches") && error.contains("leave one out"), "{error}");
    for pattern in ["*.example.com", "https://example.com", "10.0.0.1"] {
        let output = kimi_serve(&["--allow-media-domain", pattern]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("expected the name of one host"), "{stderr}");
    }
}

#[tokio::test]
async fn a_public_address_is_served_with_keys_or_when_the_operator_insists() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(keys.path(), "sk-one # mine\n").unwrap();
    let body =
        json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
    let status = async |server: &Server, key: &str| {
        let request = server.post("/chat/completions", &body).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    let public = ["--fake", "hash", "--host", "0.0.0.0"];
    let insecure = Server::start(&[&public[..], &["--insecure"]].concat());
    assert!(insecure.url.starts_with("http://0.0.0.0:"), "{}", insecure.url);
    assert_eq!(status(&insecure, "anything").await, 200);

    let guarded = Server::start(&[&public[..], &["--api-key-file", keys.path().to_str().unwrap()]].concat());
    assert_eq!((status(&guarded, "sk-one").await, status(&guarded, "sk-two").await), (200, 401));

    let home = Server::start(&["--fake", "hash", "--host", "localhost"]);
    assert!(home.url.starts_with("http://127.0.0.1:"), "{}", home.url);
    assert_eq!(status(&home, "anything").await, 200);
}

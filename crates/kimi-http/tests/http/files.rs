//! Uploads: who may see them, what they may be, how much of them there may be, and that they go away.

use std::time::Duration;

use kimi_http::{ApiKeys, FileLimits};
use serde_json::{Value, json};

use crate::harness::{Server, Setup, read, saying};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n rest of an image";
const MP4: &[u8] = b"\0\0\0\x18ftypisom rest of a video";

pub(crate) fn setup(limits: FileLimits) -> Setup {
    let mut setup = Setup::new(saying("ok"));
    setup.config.files = limits;
    setup
}

/// A form with these fields; a field with a file name is a file.
fn form(fields: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file_name, content) in fields {
        let file_name = file_name.map_or(String::new(), |file_name| format!("; filename=\"{file_name}\""));
        let head = format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    body
}

async fn send(server: &Server, key: &str, body: Vec<u8>) -> (u16, Value) {
    let request = server.client.post(format!("{}/v1/files", server.url)).bearer_auth(key);
    let request = request.header("content-type", "multipart/form-data; boundary=XX").body(body);
    read(request.send().await.unwrap()).await
}

/// Uploads a file in somebody's name.
pub(crate) async fn send_file(server: &Server, key: &str, purpose: &str, content: &[u8]) -> (u16, Value) {
    send(server, key, form(&[("purpose", None, purpose.as_bytes()), ("file", Some("a"), content)])).await
}

async fn upload(server: &Server, purpose: &str, name: &str, content: &[u8]) -> (u16, Value) {
    send(server, "k", form(&[("purpose", None, purpose.as_bytes()), ("file", Some(name), content)])).await
}

#[tokio::test]
async fn a_file_from_upload_to_deletion() {
    let server = setup(FileLimits::DEFAULT).serve().await;
    // The file may come before its purpose.
    let body = form(&[("file", Some("../../etc/pass wd.png"), PNG), ("purpose", None, b"image")]);
    let (status, file) = send(&server, "k", body).await;
    assert_eq!(status, 200, "{file}");
    let id = file["id"].as_str().unwrap();
    assert!(id.starts_with("file-") && id.len() == 37, "{id}");
    assert!(file["created_at"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(
        file,
        json!({"id": id, "object": "file", "bytes": PNG.len(), "created_at": file["created_at"],
            "filename": "pass wd.png", "purpose": "image", "status": "ready", "status_details": ""})
    );
    let (_, second) = upload(&server, "video", "a.mp4", MP4).await;
    assert_eq!(second["purpose"], "video");
    let path = format!("/v1/files/{id}");
    assert_eq!(server.get_json(&path).await, (200, file.clone()));
    assert_eq!(server.get_json("/v1/files").await, (200, json!({"object": "list", "data": [file, second]})));

    let content = server.get(&format!("{path}/content")).await;
    for (header, value) in [
        ("content-type", "image/png"),
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(content.headers()[header], value);
    }
    assert_eq!(content.bytes().await.unwrap(), PNG);

    let delete =
        async || read(server.client.delete(format!("{}{path}", server.url)).send().await.unwrap()).await;
    assert_eq!(delete().await, (200, json!({"id": id, "object": "file", "deleted": true})));
    let gone = json!({"error": {"message": format!("Not found the file {id} or Permission denied"),
        "type": "resource_not_found_error"}});
    assert_eq!(delete().await, (404, gone.clone()));
    assert_eq!(server.get_json(&path).await, (404, gone.clone()));
    assert_eq!(server.get_json(&format!("{path}/content")).await, (404, gone));
    assert_eq!(server.get_json("/v1/files/..%2F..%2Fetc%2Fpasswd").await.0, 404);
}

#[tokio::test]
async fn a_file_belongs_to_its_key() {
    let mut setup = setup(FileLimits { files: 1, ..FileLimits::DEFAULT });
    setup.config.api_keys = ApiKeys::new(["alice".to_owned(), "bob".to_owned()]);
    let server = setup.serve().await;
    let body = form(&[("purpose", None, b"image"), ("file", Some("a.png"), PNG)]);
    let (_, file) = send(&server, "alice", body.clone()).await;
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let ask = async |method: reqwest::Method, path: &str, key: &str| {
        let request = server.client.request(method, format!("{}{path}", server.url)).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    for (method, path) in
        [("GET", path.clone()), ("GET", format!("{path}/content")), ("DELETE", path.clone())]
    {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(ask(method, &path, "bob").await, 404, "{path}");
    }
    assert_eq!(ask(reqwest::Method::GET, &path, "nobody").await, 401);
    assert_eq!(ask(reqwest::Method::GET, &path, "alice").await, 200);
    let (status, full) = send(&server, "alice", body.clone()).await;
    assert_eq!(status, 400);
    assert_eq!(full["error"]["message"], "Invalid request: at most 1 files can be kept; delete some first");
    assert_eq!(send(&server, "bob", body).await.0, 200, "one key's files take no room from another's");
}

#[tokio::test]
async fn what_is_refused() {
    let limits = FileLimits { file_bytes: 2_000_000, total_bytes: 2_000_100, ..FileLimits::DEFAULT };
    let server = setup(limits).serve().await;
    let purpose = "Invalid purpose: only 'image' and 'video' accepted";
    let large = [PNG, &vec![7; 2_000_000]].concat();
    let long = "x".repeat(1000);
    let image = "Invalid request: invalid image: the file is no PNG, JPEG, WebP, GIF or BMP image";
    for (given, content, message) in [
        ("file-extract", PNG, purpose),
        ("batch", PNG, purpose),
        ("", PNG, purpose),
        (&long, PNG, purpose),
        ("image", b"".as_slice(), "File size is zero, please confirm and re-upload the file"),
        (
            "image",
            &large,
            "File size is too large, max file size is 2MB, please confirm and re-upload the file",
        ),
        ("image", MP4, image),
        ("image", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", image),
        (
            "video",
            PNG,
            "Invalid request: invalid video: the file is no MP4 or MOV video and no animated GIF or WebP. To convert: \
             ffmpeg -i in -c:v libx264 -pix_fmt yuv420p out.mp4",
        ),
    ] {
        let (status, answer) = upload(&server, given, "a", content).await;
        assert_eq!((status, &answer["error"]["message"]), (400, &json!(message)), "{given}");
    }
    assert_eq!(server.get_json("/v1/files").await.1["data"], json!([]), "nothing of it is kept");

    for (body, message) in [
        (form(&[("file", Some("a"), PNG)]), "Invalid request: the form has no field 'purpose'"),
        (form(&[("purpose", None, b"image")]), "Invalid request: the form has no field 'file'"),
        (b"no form".to_vec(), "Invalid request: the form could not be read; it must be multipart/form-data"),
    ] {
        let (status, answer) = send(&server, "k", body).await;
        assert_eq!((status, &answer["error"]["message"]), (400, &json!(message)));
    }
    let (status, answer) = server.post_json("/v1/files", &json!({"purpose": "image"})).await;
    assert_eq!(status, 400);
    assert_eq!(
        answer["error"]["message"],
        "Invalid request: the body must be a form, multipart/form-data, with the fields file and purpose"
    );

    let half = [PNG, &vec![7; 1_500_000]].concat();
    assert_eq!(upload(&server, "image", "a", &half).await.0, 200);
    let (status, answer) = upload(&server, "image", "b", &half).await;
    assert_eq!(status, 400);
    let message = format!(
        "Invalid request: at most 2000100 bytes of files can be kept, of which {} are used; delete some first",
        half.len()
    );
    assert_eq!(answer["error"]["message"], message);
}

#[tokio::test]
async fn files_expire() {
    let limits = FileLimits { keep_for: Duration::from_millis(200), ..FileLimits::DEFAULT };
    let server = setup(limits).serve().await;
    let (_, file) = upload(&server, "image", "a.png", PNG).await;
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.get_json(&path).await.0, 404);
    assert_eq!(server.get_json("/v1/files").await.1["data"], json!([]));
}

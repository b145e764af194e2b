//! Images and videos over HTTP: every way in, what they cost, and what is refused.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kimi_http::ApiKeys;
use serde_json::{Value, json};

use crate::files::{send_file, setup as setup_files};
use crate::harness::{Server, Setup, hello_with, saying, tokens};

const PIXEL: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/one_pixel.png");
const PHOTO: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/photo.jpg");
const WIDE: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/wide.png");
const MOVING: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/moving.gif");
const CLIP: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/reordered.mp4");
const MPEG4: &[u8] = include_bytes!("../../../kimi-chat/tests/data/media/mpeg4.mp4");

fn url(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}

pub(crate) fn image(url: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": url}})
}

pub(crate) fn video(url: &str) -> Value {
    json!({"type": "video_url", "video_url": {"url": url}})
}

pub(crate) fn asking(parts: &[Value]) -> Value {
    hello_with(json!({"messages": [{"role": "user", "content": parts}]}))
}

async fn seeing() -> Server {
    Setup::seeing(saying("</think>ok<|im_end|>")).serve().await
}

async fn refusal(server: &Server, parts: &[Value]) -> String {
    let (status, answer) = server.chat(&asking(parts)).await;
    assert_eq!(status, 400, "{answer}");
    answer["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn placeholders_are_in_the_prompt_and_in_the_usage() {
    let server = seeing().await;
    let (_, models) = server.get_json("/v1/models").await;
    assert_eq!(models["data"][0]["supports_image_in"], true);
    assert_eq!(models["data"][0]["supports_video_in"], true);

    // The type that a URL claims does not count, nor does the case of its scheme.
    let parts = [
        image(&url("image/png", PHOTO)),
        json!({"type": "text", "text": "?"}),
        json!({"type": "image_url", "image_url": url("", PIXEL).replace("data", "DATA")}),
        video(&url("video/mp4", CLIP)),
    ];
    let shown = |kind: &str, count: usize| {
        format!("<|media_begin|>{kind}<|media_content|>{}<|media_end|>", "<|media_pad|>".repeat(count))
    };
    let prompt = format!(
        "<|im_user|>user<|im_middle|>{}\n?{}\n00:00:00.000{}00:00:02.333{}\n<|im_end|>\
         <|im_assistant|>assistant<|im_middle|><think>",
        shown("image", 2),
        shown("image", 1),
        shown("video", 6),
        shown("video", 6),
    );
    let body = asking(&parts);
    let (_, tokenized) = server.post_json("/tokenize", &json!({"messages": body["messages"]})).await;
    assert_eq!(tokenized["tokens"], json!(tokens(&prompt)));
    let count = tokenized["count"].clone();
    let (status, answer) = server.chat(&body).await;
    assert_eq!((status, &answer["usage"]["prompt_tokens"]), (200, &count), "{answer}");
    let (_, estimate) = server.post_json("/v1/tokenizers/estimate-token-count", &body).await;
    assert_eq!(estimate["data"]["total_tokens"], count);
}

#[tokio::test]
async fn decoding_that_takes_too_long_is_given_up() {
    let mut setup = Setup::seeing(saying("</think>ok<|im_end|>"));
    setup.config.limits.decode_within = Duration::ZERO;
    let server = setup.serve().await;
    // Far more than a timer's millisecond.
    let clips = vec![video(&url("video/mp4", CLIP)); 64];
    // More often than there are decoders: each gives its place back.
    for _ in 0..6 {
        let message = refusal(&server, &clips).await;
        assert!(message.contains("took too long"), "{message}");
    }
}

#[tokio::test]
async fn every_dialect_takes_images_also_from_tools() {
    let server = seeing().await;
    let photo = STANDARD.encode(PHOTO);
    let block =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": photo}});
    let body = hello_with(json!({"max_tokens": 9, "messages": [
        {"role": "user", "content": [block, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [block]}]},
    ]}));
    let (status, message) = server.post_json("/v1/messages", &body).await;
    assert_eq!(status, 200, "{message}");
    let (_, count) = server.post_json("/v1/messages/count_tokens", &body).await;
    assert_eq!(message["usage"]["input_tokens"], count["input_tokens"]);
    let photo = url("image/jpeg", PHOTO);
    let call = json!({"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}});
    let chat = hello_with(json!({"max_tokens": 9, "messages": [
        {"role": "user", "content": [image(&photo), {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t", "content": [image(&photo)]},
    ]}));
    let (_, chat) = server.chat(&chat).await;
    assert_eq!(chat["usage"]["prompt_tokens"], count["input_tokens"], "the same conversation in other words");

    let input =
        json!([{"role": "user", "content": [{"type": "input_image", "image_url": photo, "detail": "auto"}]}]);
    let (status, response) = server.post_json("/v1/responses", &hello_with(json!({"input": input}))).await;
    assert_eq!(status, 200, "{response}");
    let (_, chat) = server.chat(&asking(&[image(&photo)])).await;
    assert_eq!(response["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn uploads_are_seen_by_their_owner_alone() {
    let mut setup = setup_files(kimi_http::FileLimits::DEFAULT);
    setup.config.api_keys = ApiKeys::new(["alice".to_owned(), "bob".to_owned()]);
    setup.vision = true;
    let server = setup.serve().await;
    let (_, photo) = send_file(&server, "alice", "image", PHOTO).await;
    let (_, clip) = send_file(&server, "alice", "video", CLIP).await;
    let id = |file: &Value| format!("ms://{}", file["id"].as_str().unwrap());
    let body = asking(&[image(&id(&photo)), video(&id(&clip))]);
    let ask = async |key: &str| {
        crate::harness::read(server.post(&body).bearer_auth(key).send().await.unwrap()).await
    };
    let (status, seen) = ask("alice").await;
    assert_eq!(status, 200, "{seen}");
    let inline = asking(&[image(&url("image/jpeg", PHOTO)), video(&url("video/mp4", CLIP))]);
    let inline = server.post(&inline).bearer_auth("alice").send().await.unwrap();
    assert_eq!(crate::harness::read(inline).await.1["usage"], seen["usage"]);
    let (status, refused) = ask("bob").await;
    assert_eq!(status, 400);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("Invalid request: unsupported image url: not found the file"), "{message}");
}

#[tokio::test]
async fn what_clients_look_for_is_in_the_refusals() {
    let server = seeing().await;
    let convert = "ffmpeg -i in -c:v libx264 -pix_fmt yuv420p out.mp4";
    let cut = url("image/jpeg", &PHOTO[..PHOTO.len() / 2]);
    let mut bomb = PIXEL.to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    for (part, phrase) in [
        (
            image("https://example.com/a.png"),
            "unsupported image url: this server does not fetch remote images",
        ),
        (image("file:///etc/passwd"), "unsupported image url: send the image as data:"),
        (image("/etc/passwd"), "unsupported image url"),
        (image(""), "unsupported image url"),
        (image("ms://../../etc/passwd"), "unsupported image url: not found the file"),
        (image("data:image/png;base64"), "failed to decode image: the data URL has no comma"),
        (image("data:image/png;base64,%%%"), "failed to decode image: the data URL is not valid base64"),
        (image("data:image/png;base64,"), "failed to decode image: the data is no PNG"),
        (image(&url("image/svg+xml", b"<svg/>")), "failed to decode image: the data is no PNG"),
        (image(&url("image/png", &PIXEL[..30])), "failed to decode image: the PNG data is damaged"),
        (image(&cut), "failed to decode image: the JPEG data is damaged"),
        (image(&url("image/png", &bomb)), "image: "),
        (
            video("http://example.com/a.mp4"),
            "unsupported video url: this server does not fetch remote videos",
        ),
        (video(&url("video/mp4", MPEG4)), convert),
        (video(&url("video/webm", b"\x1aE\xdf\xa3")), convert),
        (video(&url("video/mp4", &CLIP[..CLIP.len() / 2])), "failed to decode video: the data is damaged"),
    ] {
        let message = refusal(&server, std::slice::from_ref(&part)).await;
        assert!(message.starts_with("Invalid request: ") && message.contains(phrase), "{phrase}: {message}");
    }
    // 1 × 1 and 1 × N pixels are small images like others.
    assert_eq!(
        server.chat(&asking(&[image(&url("image/png", PIXEL)), video(&url("", MOVING))])).await.0,
        200
    );
    assert_eq!(server.chat(&asking(&[image(&url("image/png", WIDE))])).await.0, 200);
    // 1,024 tokens each: the fourth is one too many for a context of 4,096.
    let (status, answer) = server.chat(&asking(&vec![image(&url("image/png", WIDE)); 4])).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
}

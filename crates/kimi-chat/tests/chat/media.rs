//! Images and videos against what Pillow, numpy and ffmpeg make of them; `scripts/golden/media.py` wrote the data.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kimi_chat::{Clip, MediaBudget, MediaError, PreparedMedia, encode, prepare_image, prepare_video};
use kimi_tokens::{ContentHash, Medium, PATCH_BYTES, PatchGrid};
use serde_json::{Value, json};

use crate::support::real;
use crate::template::{DEFAULT, conversation};

const PLENTY: usize = 1 << 18;

fn budget(tokens: usize) -> MediaBudget {
    MediaBudget::new(tokens, Arc::default())
}

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/media");
    std::fs::read(folder.join(name)).expect("a file of the repository")
}

fn video(name: &str) -> Result<Vec<Clip>, MediaError> {
    prepare_video(&file(name), &mut budget(PLENTY)).map(|video| match video {
        PreparedMedia::Video(clips) => clips.to_vec(),
        PreparedMedia::Image(_) => panic!("{name} became an image"),
    })
}

/// Grid and hash as the reference writes them.
fn named(medium: &Medium) -> Value {
    let PatchGrid { frames, height, width } = medium.grid;
    let hash = medium.hash.0.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("memory takes every write");
        text
    });
    json!({"grid": [frames, height, width], "hash": hash})
}

#[test]
fn pixels_are_the_references_in_every_lossless_format() {
    let goldens: serde_json::Map<String, Value> = serde_json::from_slice(&file("golden.json")).expect("JSON");
    let mut compared = 0;
    for (name, golden) in &goldens {
        if golden.is_array() {
            let clips = video(name).expect(name);
            let ours: Vec<Value> = clips
                .iter()
                .map(|clip| {
                    let mut named = named(&clip.medium);
                    named["start"] = json!(clip.start);
                    named
                })
                .collect();
            assert_eq!(&json!(ours), golden, "{name}");
        } else {
            let medium = prepare_image(&file(name), &mut budget(PLENTY)).expect(name);
            assert_eq!(&named(&medium), golden, "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 15);
}

#[test]
fn a_jpeg_is_the_references_up_to_rounding_and_is_not_turned() {
    let medium = prepare_image(&file("photo.jpg"), &mut budget(PLENTY)).expect("decodes");
    assert_eq!(medium.grid, PatchGrid { frames: 1, height: 2, width: 4 });
    let reference = file("photo.patches");
    assert_eq!(medium.pixels.len(), reference.len());
    let distances =
        medium.pixels.iter().zip(&reference).map(|(ours, theirs)| u32::from(ours.abs_diff(*theirs)));
    let (most, all) = (distances.clone().max(), distances.sum::<u32>());
    assert!(most <= Some(12) && all < reference.len() as u32, "{most:?}, {all} in all");
}

/// The mean of the green samples of each frame's last patch in the first row: the grey that the video was made with.
fn greys(clip: &Clip) -> Vec<u8> {
    let frame = clip.medium.grid.height * clip.medium.grid.width * PATCH_BYTES;
    let last = 3 * PATCH_BYTES;
    let mean = |pixels: &[u8]| pixels.iter().map(|&pixel| u32::from(pixel)).sum::<u32>() / 196;
    clip.medium.pixels.chunks(frame).map(|frame| mean(&frame[last + 196..][..196]) as u8).collect()
}

#[test]
fn frames_of_h264_come_in_the_order_in_which_they_are_shown() {
    // 36 frames, 12 a second, of grey 20, 26, 32, …: six of them are seen, at 0, 7, 14, 21, 28, 35.
    let clips = video("reordered.mp4").expect("decodes");
    let frames: Vec<usize> = clips.iter().map(|clip| clip.medium.grid.frames).collect();
    assert_eq!(frames, [4, 2]);
    assert_eq!(clips.iter().map(|clip| clip.start).collect::<Vec<_>>(), [0.0, 28.0 / 12.0]);
    let greys: Vec<u8> = clips.iter().flat_map(greys).collect();
    for (grey, frame) in greys.iter().zip([0, 7, 14, 21, 28, 35_u8]) {
        assert!(grey.abs_diff(20 + 6 * frame) <= 2, "{greys:?}");
    }
    let [clip] = video("baseline.mov").expect("decodes").try_into().expect("one clip");
    assert_eq!((clip.medium.grid, clip.start), (PatchGrid { frames: 2, height: 4, width: 6 }, 0.0));
}

#[test]
fn what_cannot_be_taken_is_refused_with_the_way_out() {
    let image = |bytes: &[u8]| prepare_image(bytes, &mut budget(PLENTY)).expect_err("refused").to_string();
    let clip = |bytes: &[u8]| prepare_video(bytes, &mut budget(PLENTY)).expect_err("refused").to_string();
    assert!(image(b"").starts_with("failed to decode image: "));
    assert!(image(b"<svg/>").starts_with("failed to decode image: the data is no PNG"));
    assert!(image(&file("reordered.mp4")).starts_with("failed to decode image: the data is no PNG"));
    let convert = "ffmpeg -i in -c:v libx264 -pix_fmt yuv420p out.mp4";
    for (bytes, what) in [
        (file("mpeg4.mp4"), "the video track is not H.264"),
        (file("alpha.png"), "the data is no MP4, MOV"),
        (file("lossless.webp"), "the data is a WebP image that does not move"),
        (b"\x1aE\xdf\xa3 webm".to_vec(), "the data is no MP4, MOV"),
    ] {
        let refusal = clip(&bytes);
        assert!(refusal.starts_with(&format!("failed to decode video: {what}")), "{refusal}");
        assert!(refusal.ends_with(convert), "{refusal}");
    }

    let photo = file("photo.jpg");
    assert!(image(&photo[..photo.len() - 2]).starts_with("failed to decode image: the JPEG data is damaged"));

    // A header that promises 50,000 × 50,000 pixels: refused before anything is decoded.
    let mut bomb = file("alpha.png");
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    assert!(prepare_image(&bomb, &mut budget(PLENTY)).is_err());
    let mut bomb = file("rgb.bmp");
    bomb[18..26].copy_from_slice(&[0x00, 0x20, 0, 0, 0x00, 0x20, 0, 0]);
    assert!(image(&bomb).starts_with("invalid image: 8192 × 8192 pixels"), "{}", image(&bomb));

    // Two clips of six tokens each: refused at the first frame.
    let tokens = |tokens, limit| MediaError::TooManyTokens { tokens, limit };
    assert_eq!(prepare_video(&file("reordered.mp4"), &mut budget(11)), Err(tokens(12, 11)));
    let mut small = budget(3);
    prepare_image(&file("photo.jpg"), &mut small).expect("two tokens fit");
    assert_eq!(prepare_image(&file("photo.jpg"), &mut small), Err(tokens(4, 3)));

    let stopped = MediaBudget::new(PLENTY, Arc::new(AtomicBool::new(true)));
    assert_eq!(prepare_video(&file("reordered.mp4"), &mut { stopped }), Err(MediaError::Stopped));
}

/// Every file, cut off everywhere and with one byte changed everywhere: an error or a picture, never a panic.
#[test]
fn damaged_files_never_panic() {
    for name in ["alpha.png", "photo.jpg", "lossless.webp", "first_of_two.gif", "moving.gif", "rgb.bmp"] {
        let whole = file(name);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            for bytes in [&whole[..at], &changed] {
                let _ = prepare_image(bytes, &mut budget(PLENTY));
            }
        }
    }
    for name in ["reordered.mp4", "baseline.mov", "moving.gif"] {
        let whole = file(name);
        for at in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            for bytes in [&whole[..at], &changed] {
                let _ = prepare_video(bytes, &mut budget(PLENTY));
            }
        }
    }
}

/// What the fuzzer found: a PNG whose palette ends inside of a colour, on which its decoder panics when built with checks.
#[test]
fn a_palette_that_ends_inside_of_a_colour_is_refused() {
    let refused = prepare_image(&file("short_palette.png"), &mut budget(PLENTY));
    assert!(matches!(refused, Err(MediaError::BrokenImage { .. })), "{refused:?}");
}

fn medium(height: usize, width: usize) -> Arc<Medium> {
    let grid = PatchGrid { frames: 1, height, width };
    let pixels = vec![0; grid.patches() * PATCH_BYTES];
    Arc::new(Medium { grid, pixels, hash: ContentHash([height as u8; 32]) })
}

#[test]
fn prompts_have_a_placeholder_for_each_vector_and_say_where() {
    let (vocabulary, markers) = real();
    let image = json!({"type": "image_url", "image_url": "data:,"});
    let clip = json!({"type": "video_url", "video_url": "data:,"});
    let call = json!([{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]);
    let messages = json!([
        {"role": "user", "content": [image, {"type": "text", "text": "What?"}, clip]},
        {"role": "assistant", "content": "Wait.", "tool_calls": call},
        {"role": "tool", "tool_call_id": "c", "content": [image]},
    ]);
    let (small, wide) = (medium(2, 4), medium(4, 6));
    let clips =
        [(0.0, &small), (3661.0459, &wide)].map(|(start, medium)| Clip { start, medium: Arc::clone(medium) });
    let media = [
        PreparedMedia::Image(Arc::clone(&wide)),
        PreparedMedia::Video(clips.into()),
        PreparedMedia::Image(Arc::clone(&small)),
    ];
    let conversation = conversation(&messages, &json!([]), DEFAULT);
    assert_eq!(conversation.media().count(), 3);
    let prompt = encode(&conversation, &media, vocabulary, markers).expect("encodes");
    let shown = |kind: &str, tokens: usize| {
        let pads = "<|media_pad|>".repeat(tokens);
        format!("<|media_begin|>{kind}<|media_content|>{pads}<|media_end|>")
    };
    let text = format!(
        "<|im_user|>user<|im_middle|>{}\nWhat?00:00:00.000{}01:01:01.045{}\n<|im_end|>",
        shown("image", 6),
        shown("video", 2),
        shown("video", 6),
    );
    let expected = vocabulary.encode_with_specials(&text);
    assert_eq!(prompt.tokens[..expected.len()], expected);
    let pad = markers.media.expect("Kimi's markers").pad;
    let sizes: Vec<usize> = prompt.media.iter().map(|medium| medium.positions.len()).collect();
    assert_eq!(sizes, [6, 2, 6, 2]);
    for medium in &prompt.media {
        assert_eq!(medium.positions.len(), medium.medium.grid.tokens());
        assert!(prompt.tokens[medium.positions.clone()].iter().all(|&token| token == pad));
    }
    assert_eq!(prompt.tokens.iter().filter(|&&token| token == pad).count(), 16);
}

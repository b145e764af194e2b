//! Any bytes as an image or a video: the first byte chooses, the rest is the file. It is refused, or what comes out of it fits
//! together and into the budget.
#![no_main]

use std::sync::Arc;

use kimi_chat::{MediaBudget, PreparedMedia, prepare_image, prepare_video};
use kimi_tokens::{Medium, PATCH_BYTES};
use libfuzzer_sys::fuzz_target;

/// Of all media of an input.
const MAX_TOKENS: usize = 4096;

fuzz_target!(init: kimi_fuzz::let_decoders_panic(), |data: &[u8]| {
    let [kind, file @ ..] = data else { return };
    let mut budget = MediaBudget::new(MAX_TOKENS, Arc::default());
    let prepared = match kind % 2 {
        0 => prepare_image(file, &mut budget).map(PreparedMedia::Image),
        _ => prepare_video(file, &mut budget),
    };
    let media: Vec<Arc<Medium>> = match prepared {
        Err(refusal) => return assert!(!refusal.to_string().is_empty()),
        Ok(PreparedMedia::Image(medium)) => vec![medium],
        Ok(PreparedMedia::Video(clips)) => clips.iter().map(|clip| Arc::clone(&clip.medium)).collect(),
    };
    assert!(!media.is_empty());
    assert!(media.iter().map(|medium| medium.grid.tokens()).sum::<usize>() <= MAX_TOKENS);
    for medium in media {
        let grid = medium.grid;
        assert!((1..=4).contains(&grid.frames) && grid.height % 2 == 0 && grid.width % 2 == 0, "{grid:?}");
        assert_eq!(medium.pixels.len(), grid.patches() * PATCH_BYTES, "{grid:?}");
    }
});

//! Which images and clips a prompt may carry. What passes here, the model can compute.

use kimi_tokens::{EncodedPrompt, Medium, PATCH_BYTES, PatchGrid, PromptMedium};

/// Frames that are looked at together.
const MAX_FRAMES: usize = 4;
/// The longest side of a frame, in patches.
const MAX_SIDE: usize = 512;

/// Checks a prompt's media against themselves and the prompt; `takes_media` says whether the model has eyes.
///
/// # Errors
/// What is wrong, for the caller.
pub(crate) fn check(prompt: &EncodedPrompt, takes_media: bool) -> Result<(), &'static str> {
    if !prompt.media.is_empty() && !takes_media {
        return Err("this model takes no images and no video");
    }
    let mut next = 0;
    for PromptMedium { positions, medium } in &prompt.media {
        if positions.start < next || positions.end > prompt.tokens.len() {
            return Err("images are not in the order of their places in the prompt, or outside of it");
        }
        if positions.len() != medium.grid.tokens() {
            return Err("an image has more or fewer places in the prompt than its size asks for");
        }
        check_medium(medium)?;
        next = positions.end;
    }
    Ok(())
}

fn check_medium(medium: &Medium) -> Result<(), &'static str> {
    let PatchGrid { frames, height, width } = medium.grid;
    let is_side = |side: usize| (2..=MAX_SIDE).contains(&side) && side.is_multiple_of(2);
    if !(1..=MAX_FRAMES).contains(&frames) || !is_side(height) || !is_side(width) {
        return Err(
            "an image has no frames, too many, or sides that are not even numbers of patches from 2 to 512",
        );
    }
    if medium.pixels.len() != medium.grid.patches() * PATCH_BYTES {
        return Err("an image has more or fewer pixels than its size asks for");
    }
    Ok(())
}

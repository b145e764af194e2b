//! Prompts with images and clips through engine, runner and the tiny vision tower.

use std::sync::Arc;

use kimi_engine::{CacheScope, GenerateRequest, SampledToken, Sampling, TokenEvent};
use kimi_k2::{Batch, CacheDtype, FeatureRows, KvPool, SequenceSpan};
use kimi_tokens::{ContentHash, EncodedPrompt, Medium, PATCH_BYTES, PatchGrid, PromptMedium, TokenId};

use super::{
    BLOCK_SIZE, assert_company_changes_nothing, assert_drafts_change_no_bit, assert_no_close_race, collect,
    collect_cached, engine, engine_with, ids, model, prompt, repetitive, request,
};

/// The tiny checkpoint's `<|media_pad|>`.
const PLACEHOLDER: TokenId = 1_813;
/// 15 positions.
const IMAGE: PatchGrid = PatchGrid { frames: 1, height: 6, width: 10 };
/// 6 positions.
const CLIP: PatchGrid = PatchGrid { frames: 4, height: 6, width: 4 };

fn medium(grid: PatchGrid, seed: u8) -> Arc<Medium> {
    let pixel = |index: usize| ((index * 2_654_435_761 + usize::from(seed) * 40_503) >> 7) as u8;
    let pixels = (0..grid.patches() * PATCH_BYTES).map(pixel).collect();
    let mut hash = [seed; 32];
    hash[0] = grid.frames as u8;
    Arc::new(Medium { grid, pixels, hash: ContentHash(hash) })
}

/// `text` with media before the tokens at the given places.
fn with_media(text: &[TokenId], media: &[(usize, Arc<Medium>)]) -> EncodedPrompt {
    let mut prompt = EncodedPrompt::default();
    let mut rest = text;
    for (place, medium) in media {
        let (before, after) = rest.split_at(place - (text.len() - rest.len()));
        prompt.tokens.extend(before);
        let start = prompt.tokens.len();
        prompt.tokens.extend(vec![PLACEHOLDER; medium.grid.tokens()]);
        prompt.media.push(PromptMedium { positions: start..prompt.tokens.len(), medium: medium.clone() });
        rest = after;
    }
    prompt.tokens.extend(rest);
    prompt
}

fn greedy(prompt: EncodedPrompt) -> GenerateRequest {
    GenerateRequest { prompt, ..request(0, Sampling::greedy()) }
}

/// 62 positions: more than a step, which ends inside of the image.
fn long_prompt(image: u8) -> EncodedPrompt {
    with_media(&prompt(10)[..41], &[(4, medium(CLIP, 9)), (23, medium(IMAGE, image))])
}

/// The log softmax at every position of the prompt and what follows it, all in one batch.
fn computed_whole(prompt: &EncodedPrompt, answer: &[SampledToken]) -> Vec<Vec<f64>> {
    let model = model();
    let token_ids: Vec<_> = prompt.tokens.iter().copied().chain(ids(answer)).collect();
    let mut kv = KvPool::new(model.config(), 1, token_ids.len(), CacheDtype::F32).unwrap();
    let features = prompt.media.iter().map(|PromptMedium { positions, medium }| FeatureRows {
        rows: positions.clone(),
        features: model.encode_medium(medium).unwrap(),
        first: 0,
    });
    let batch = Batch {
        spans: vec![SequenceSpan { rows: 0..token_ids.len(), start: 0, block_table: [0].into() }],
        sample_rows: (0..token_ids.len() as u32).collect(),
        features: features.collect(),
        token_ids,
    };
    let logits = model.forward(&batch, &mut kv).unwrap().to_vec2::<f32>().unwrap();
    let log_softmax = |row: Vec<f32>| {
        let normalizer = row.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        row.into_iter().map(|logit| f64::from(logit) - normalizer).collect()
    };
    logits.into_iter().map(log_softmax).collect()
}

fn assert_near(found: f32, expected: f64, what: &str) {
    assert!((f64::from(found) - expected).abs() < 2e-4, "{what}: {found} instead of {expected}");
}

#[test]
fn a_prompt_in_chunks_says_what_it_says_whole_and_is_scored_so() {
    let (engine, _thread) = engine();
    let prompt = long_prompt(1);
    assert!(prompt.tokens.len() > 40 && prompt.media[1].positions.contains(&40), "cut inside of the image");
    let mut asked = greedy(prompt.clone());
    asked.prompt_logprobs = Some(1);
    let mut stream = engine.generate(asked).unwrap();
    let (mut scores, mut answer) = (Vec::new(), Vec::new());
    loop {
        match stream.blocking_next().unwrap() {
            TokenEvent::Prompt(some) => scores.extend(some),
            TokenEvent::Token(token) => answer.push(token),
            TokenEvent::Finished(_) => break,
            TokenEvent::Failed(failure) => panic!("{failure}"),
        }
    }
    let whole = computed_whole(&prompt, &answer);
    for (position, score) in scores.iter().enumerate() {
        let next = prompt.tokens[position + 1] as usize;
        assert_near(score.token, whole[position][next], &format!("position {position} of the prompt"));
    }
    for (index, token) in answer.iter().enumerate() {
        let expected = &whole[prompt.tokens.len() - 1 + index];
        assert_near(token.logprobs.as_ref().unwrap().token, expected[token.id as usize], "answer");
    }
}

#[test]
fn a_cached_image_is_the_computed_one_and_another_is_not_found() {
    let (engine, _thread) = engine();
    let scoped = |prompt: EncodedPrompt| {
        let cache_scope = Some(CacheScope([7; 32]));
        collect_cached(engine.generate(GenerateRequest { cache_scope, ..greedy(prompt) }).unwrap())
    };
    let (first, cached) = scoped(long_prompt(1));
    assert_eq!(cached, 0);
    let (again, cached) = scoped(long_prompt(1));
    assert_eq!(cached, (long_prompt(1).tokens.len() - 1) / BLOCK_SIZE * BLOCK_SIZE);
    let logprob = |token: &SampledToken| token.logprobs.as_ref().unwrap().token;
    assert_eq!(ids(&again), ids(&first));
    for (a, b) in first.iter().zip(&again) {
        assert!((logprob(a) - logprob(b)).abs() < 2e-4, "{a:?} or {b:?}");
    }
    let (other, cached) = scoped(long_prompt(2));
    assert_eq!(
        cached,
        long_prompt(2).media[1].positions.start / BLOCK_SIZE * BLOCK_SIZE,
        "the clip is the same"
    );
    assert_ne!(logprob(&other[0]).to_bits(), logprob(&first[0]).to_bits(), "another image is seen");
    assert_eq!(ids(&other), ids(&collect(engine.generate(greedy(long_prompt(2))).unwrap())));
}

/// Streams with and without images, two of which see the same one, say together and preempted what each says alone.
#[test]
fn streams_with_images_say_the_same_together_and_alone() {
    let texts = assert_company_changes_nothing(|stream| {
        let image = medium(IMAGE, (stream / 4) as u8);
        let text = prompt(stream.min(10));
        match stream % 3 {
            0 => request(stream, Sampling::greedy()),
            1 => greedy(with_media(&text, &[(2, image)])),
            _ => greedy(with_media(&text, &[(1, medium(CLIP, stream as u8)), (3, image)])),
        }
    });
    assert_no_close_race(&texts);
}

/// Every rank looks at what is seen, and all ranks together say what one says alone, to their rounding.
#[test]
fn ranks_see_the_same() {
    let answers = [1, 2, 3].map(|ranks| {
        let (engine, _thread) = engine_with(None, ranks);
        let streams: Vec<_> =
            (0..5).map(|image| engine.generate(greedy(long_prompt(image))).unwrap()).collect();
        streams.into_iter().map(collect).collect::<Vec<_>>()
    });
    assert_no_close_race(&answers[0]);
    let logprob = |token: &SampledToken| token.logprobs.as_ref().unwrap().token;
    for shared in &answers[1..] {
        for (alone, shared) in answers[0].iter().zip(shared) {
            assert_eq!(ids(shared), ids(alone));
            for (a, b) in alone.iter().zip(shared) {
                assert!((logprob(a) - logprob(b)).abs() < 2e-4, "{a:?} or {b:?}");
            }
        }
    }
}

/// Drafts look for what was said before among the prompt's tokens, placeholders included, of which an image has many.
#[test]
fn drafts_change_no_bit_where_images_are_seen() {
    assert_drafts_change_no_bit(|stream| {
        let media = [(1, medium(CLIP, 9)), (3, medium(IMAGE, stream as u8))];
        let prompt = with_media(&prompt(stream % 11), &media);
        GenerateRequest { prompt, ..request(0, repetitive(stream)) }
    });
}

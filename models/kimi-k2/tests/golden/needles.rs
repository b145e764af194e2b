//! A conversation of 4,000 tokens in both forms of attention, against what transformers computes. kimi-runner asks the engine
//! for longer ones.

use kimi_k2::{AttentionForm, CacheDtype};
use serde_json::Value;

use super::harness::{load, logits_in_chunks, models};

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The log softmax of `logits` at these tokens.
fn log_probabilities<'a>(logits: &[f32], tokens: impl Iterator<Item = &'a u64>) -> Vec<f64> {
    let normalizer = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
    tokens.map(|&token| f64::from(logits[token as usize]) - normalizer).collect()
}

#[test]
fn the_first_token_after_a_long_conversation() {
    let text = std::fs::read(models().join("golden/kimi-nano-needles.json")).unwrap();
    let golden: Value = serde_json::from_slice(&text).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let is_wanted = |case: &&Value| case["depth"] == 0.5 && case["tokens"].as_u64() < Some(4500);
    let case = cases.iter().rfind(is_wanted).unwrap();
    let haystack = ids(&golden["haystack"]);
    let [before, until] = ["before", "until"].map(|key| case[key].as_u64().unwrap() as usize);
    let (needle, question) = (ids(&case["needle"]), ids(&case["question"]));
    let prompt = [&haystack[..before], &needle, &haystack[before..until], &question].concat();
    assert!(prompt.len() > 3500);
    let expected: Vec<(u64, f64)> = serde_json::from_value(case["top"][0].clone()).unwrap();
    for form in [AttentionForm::Expanded, AttentionForm::Absorbed] {
        let model = load(&models().join("kimi-nano"), form);
        let logits = logits_in_chunks(&model, &prompt, 1000, CacheDtype::F32);
        let last = logits.get(prompt.len() - 1).unwrap().to_vec1::<f32>().unwrap();
        let found = log_probabilities(&last, expected.iter().map(|(token, _)| token));
        for (found, (token, expected)) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < 5e-3,
                "{form:?}: token {token}: {found} instead of {expected}"
            );
        }
    }
}

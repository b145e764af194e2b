//! What is asked: prompts that are reproducible, of a known size, and never share a beginning.

use serde_json::{Value, json};

/// Common words, one token each in most vocabularies.
const WORDS: [&str; 32] = [
    "time", "house", "water", "light", "story", "number", "world", "field", "music", "paper", "river",
    "table", "winter", "letter", "morning", "garden", "city", "road", "bread", "stone", "window", "color",
    "market", "island", "forest", "animal", "summer", "village", "engine", "mountain", "question", "answer",
];

/// The requests of a run, one for each index.
pub(crate) struct Workload {
    pub(crate) model: String,
    pub(crate) prompt_words: usize,
    pub(crate) max_tokens: usize,
    pub(crate) temperature: f32,
    pub(crate) seed: u64,
}

impl Workload {
    /// The body of request `index`.
    pub(crate) fn request(&self, index: usize) -> Value {
        json!({
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt(index)}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed.wrapping_add(index as u64) >> 1,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    }

    /// The index comes first, so that no two prompts share more than the template's opening.
    fn prompt(&self, index: usize) -> String {
        let mut state = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index as u64);
        let mut words = vec![format!("{index}.")];
        words.extend((1..self.prompt_words).map(|_| {
            state = mix(state);
            WORDS[(state >> 59) as usize].to_owned()
        }));
        words.join(" ")
    }
}

/// One step of `SplitMix64` (Steele, Lea, Flood 2014).
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

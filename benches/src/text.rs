//! Prompts of a wanted number of tokens, without knowing the server's vocabulary.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Uniform};
use serde::{Deserialize, Serialize};

/// Common words, one token each in large vocabularies.
const WORDS: [&str; 32] = [
    "time", "house", "water", "light", "story", "number", "world", "field", "music", "paper", "river",
    "table", "winter", "letter", "morning", "garden", "city", "road", "bread", "stone", "window", "color",
    "market", "island", "forest", "animal", "summer", "village", "engine", "mountain", "question", "answer",
];

/// What the server makes of our words; measured once by two small requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tokens {
    /// Tokens that one word costs.
    pub(crate) per_word: f64,
    /// Tokens that the conversation's template adds to one message.
    pub(crate) overhead: f64,
}

impl Tokens {
    /// One token a word, for a server that does not count.
    pub(crate) const UNKNOWN: Self = Self { per_word: 1.0, overhead: 0.0 };

    /// The line through two measured prompts, each given as words and tokens.
    pub(crate) fn measured(short: (usize, u64), long: (usize, u64)) -> Self {
        let per_word = (long.1 as f64 - short.1 as f64) / (long.0 as f64 - short.0 as f64);
        if per_word <= 0.0 {
            return Self::UNKNOWN;
        }
        Self { per_word, overhead: (short.1 as f64 - per_word * short.0 as f64).max(0.0) }
    }

    /// Words of a text that adds about `tokens` to a conversation.
    pub(crate) fn words(&self, tokens: usize) -> usize {
        ((tokens as f64 / self.per_word).round() as usize).max(1)
    }

    /// Words of a message that makes a prompt of about `tokens`, the template's share included.
    pub(crate) fn words_of_prompt(&self, tokens: usize) -> usize {
        self.words((tokens as f64 - self.overhead).max(1.0) as usize)
    }
}

/// The random stream `index` of a seed: reproducible, and independent of all others.
pub(crate) fn stream(seed: u64, index: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(index);
    random
}

/// So many words, joined by spaces.
pub(crate) fn words(random: &mut ChaCha8Rng, count: usize) -> String {
    let Ok(pick) = Uniform::new(0, WORDS.len()) else { return String::new() };
    let words: Vec<&str> = (0..count).map(|_| WORDS[pick.sample(random)]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_has_the_wanted_tokens_once_the_server_was_measured() {
        let server = |words: usize| (words as f64).mul_add(1.5, 20.0) as u64;
        let tokens = Tokens::measured((64, server(64)), (320, server(320)));
        assert_eq!(tokens, Tokens { per_word: 1.5, overhead: 20.0 });
        assert_eq!(server(tokens.words_of_prompt(1001)), 1001);
        assert_eq!(tokens.words(300), 200);
        assert_eq!(Tokens::measured((64, 5), (320, 5)), Tokens::UNKNOWN);
    }

    #[test]
    fn streams_of_one_seed_are_reproducible_and_differ() {
        let text = |index| words(&mut stream(7, index), 50);
        assert_eq!(text(3), text(3));
        assert_ne!(text(3), text(4));
        assert_eq!(text(3).split(' ').count(), 50);
    }
}

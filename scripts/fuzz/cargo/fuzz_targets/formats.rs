//! Any format a client might ask for. The first byte chooses the kind, the second how many tokens an answer may have, the
//! rest is the format. What is refused is refused in time and in one line; what is taken can always be followed.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use kimi_chat::OutputStart;
use kimi_engine::GuideSource as _;
use kimi_fuzz::{VOCABULARY, markers};
use kimi_guide::{AnswerFormat, AnswerPlan, CallRule, Grammar, Guides};
use kimi_tokens::TokenId;
use libfuzzer_sys::fuzz_target;

static GUIDES: LazyLock<Guides> = LazyLock::new(|| Guides::new(Arc::clone(&VOCABULARY), markers()));

/// Compiling is given up after ten seconds; the rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(20);

fuzz_target!(|data: &[u8]| {
    let [kind, length, rest @ ..] = data else { return };
    let Some(format) = std::str::from_utf8(rest).ok().and_then(|text| format(*kind, text)) else { return };
    let started = Instant::now();
    let compiled = GUIDES.compile(&format);
    assert!(started.elapsed() < IN_TIME, "{format:?} took {:?}", started.elapsed());
    match compiled {
        Ok(grammar) => follow(grammar, usize::from(*length % 32) + 1, rest),
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty() && !told.contains('\n'), "{told:?}");
        }
    }
});

fn format(kind: u8, text: &str) -> Option<AnswerFormat> {
    Some(match kind % 8 {
        0..4 => AnswerFormat::JsonSchema { schema: serde_json::from_str(text).ok()?, strict: false },
        4 => AnswerFormat::JsonSchema { schema: serde_json::from_str(text).ok()?, strict: true },
        5 => AnswerFormat::Regex(text.to_owned()),
        6 => AnswerFormat::Grammar(text.to_owned()),
        _ => AnswerFormat::Choice(text.lines().map(str::to_owned).collect()),
    })
}

/// Writes an answer whose tokens the format's own bytes choose. A grammar may become too complex on the way, which ends
/// the request; it may never leave no token at all.
fn follow(grammar: Arc<Grammar>, max_tokens: usize, taste: &[u8]) {
    let plan = AnswerPlan {
        start: OutputStart::Content,
        thinking_budget: None,
        content: Some(grammar),
        calls: CallRule::Free,
        tools: Vec::new(),
        one_call: false,
        first_call: 0,
    };
    let mut guide = GUIDES.guide(plan).expect("a guide").start();
    for left in (1..=max_tokens).rev() {
        let mut row = vec![0.0; VOCABULARY.len()];
        if guide.restrict(&mut row, left).is_err() {
            return;
        }
        let allowed: Vec<usize> = (0..row.len()).filter(|&id| row[id].is_finite()).collect();
        assert!(!allowed.is_empty(), "no token is allowed with {left} left");
        let wish = taste.get(left % taste.len().max(1)).copied().unwrap_or_default();
        let chosen = allowed[usize::from(wish) * 31 % allowed.len()] as TokenId;
        match guide.accept(chosen, left) {
            Ok(used) if markers().stop_tokens().contains(&used) => return,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

//! kimi-nano's vocabulary, an adversary in the place of a model, and the parser that reads what it wrote.

use std::sync::{Arc, LazyLock};

use kimi_chat::{
    Markers, OutputEvent, OutputParser, OutputStart, ParsedOutcome, ParserOptions, StopStrings, Vocabulary,
};
use kimi_engine::GuideSource as _;
use kimi_guide::{AnswerFormat, AnswerPlan, CallRule, GuidedAnswer, Guides, ToolRule};
use kimi_tokens::TokenId;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

pub(crate) static VOCABULARY: LazyLock<Arc<Vocabulary>> = LazyLock::new(|| {
    let model = include_bytes!("../../../../models/kimi-nano/tiktoken.model");
    let config = include_bytes!("../../../../models/kimi-nano/tokenizer_config.json");
    Arc::new(Vocabulary::from_tiktoken(model, config).expect("kimi-nano's vocabulary"))
});

pub(crate) static GUIDES: LazyLock<Guides> =
    LazyLock::new(|| Guides::new(Arc::clone(&VOCABULARY), markers()));

pub(crate) fn markers() -> Markers {
    Markers::resolve(&VOCABULARY).expect("all markers")
}

pub(crate) fn schema(schema: Value) -> AnswerFormat {
    AnswerFormat::JsonSchema { schema, strict: false }
}

/// A plan that asks for nothing.
pub(crate) fn plan(start: OutputStart) -> AnswerPlan {
    AnswerPlan {
        start,
        thinking_budget: None,
        content: None,
        calls: CallRule::Free,
        tools: Vec::new(),
        one_call: false,
        first_call: 0,
    }
}

pub(crate) fn content(format: &AnswerFormat) -> AnswerPlan {
    AnswerPlan { content: Some(GUIDES.compile(format).expect("a format")), ..plan(OutputStart::Content) }
}

pub(crate) fn tool(name: &str, arguments: Value) -> ToolRule {
    ToolRule { name: name.into(), arguments: GUIDES.compile(&schema(arguments)).expect("a schema") }
}

/// How an adversary chooses among what is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taste {
    /// Every token is equally likely: strings and numbers hardly ever end by themselves.
    Any,
    /// Quotes, brackets and markers are more likely, so that many texts end.
    Endings,
}

/// What came of an answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) reasoning: String,
    pub(crate) content: String,
    /// Name, id, arguments, whether it was finished.
    pub(crate) calls: Vec<(String, String, String, bool)>,
    pub(crate) outcome: ParsedOutcome,
    /// The message was ended, not cut at its last token.
    pub(crate) ended: bool,
    pub(crate) cut: bool,
}

/// Lets an adversary write an answer of at most `max_tokens`.
pub(crate) fn write(plan: AnswerPlan, taste: Taste, seed: u64, max_tokens: usize) -> Answer {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let liking: Vec<f32> = (0..VOCABULARY.len() as TokenId).map(|id| liking(id, taste)).collect();
    follow(plan, max_tokens, |row| {
        for (logit, liking) in row.iter_mut().zip(&liking) {
            *logit = liking + random.random::<f32>();
        }
    })
}

/// Writes an answer with a model that fills in the logits.
pub(crate) fn follow(plan: AnswerPlan, max_tokens: usize, mut model: impl FnMut(&mut [f32])) -> Answer {
    let start = plan.start;
    let guided: GuidedAnswer = GUIDES.guide(plan).expect("a guide");
    let mut guide = guided.start();
    let mut row = vec![0.0; VOCABULARY.len()];
    let mut tokens = Vec::new();
    let mut ended = false;
    while tokens.len() < max_tokens && !ended {
        let left = max_tokens - tokens.len();
        model(&mut row);
        guide.restrict(&mut row, left).expect("a way on");
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("tokens");
        assert!(row[best].is_finite(), "a guide leaves a way on");
        let token = guide.accept(best as TokenId, left).expect("accepted");
        tokens.push(token);
        ended = markers().stop_tokens().contains(&token);
    }
    let mut answer = read(start, &tokens);
    answer.ended = ended;
    answer.cut = guided.cut().is_set();
    answer
}

fn liking(id: TokenId, taste: Taste) -> f32 {
    let bytes = VOCABULARY.bytes(id);
    match taste {
        Taste::Endings if VOCABULARY.is_special(id) => 0.6,
        Taste::Endings if bytes.iter().any(|byte| b"\"}]".contains(byte)) => 0.5,
        Taste::Endings if bytes.iter().all(u8::is_ascii_alphanumeric) => 0.1,
        Taste::Any | Taste::Endings => 0.0,
    }
}

fn read(start: OutputStart, tokens: &[TokenId]) -> Answer {
    let options =
        ParserOptions { start, stop_strings: StopStrings::default(), first_tool_index: 0, tools: Vec::new() };
    let mut parser = OutputParser::new(Arc::clone(&VOCABULARY), markers(), options);
    let mut events = Vec::new();
    for &token in tokens {
        parser.push(token, &mut events);
    }
    let outcome = parser.finish(&mut events);
    let mut answer = Answer { tokens: tokens.to_vec(), outcome, ..Answer::default() };
    for event in events {
        match event {
            OutputEvent::Reasoning(text) => answer.reasoning.push_str(&text),
            OutputEvent::Content(text) => answer.content.push_str(&text),
            OutputEvent::ToolCallStarted { id, name, .. } => {
                answer.calls.push((name, id, String::new(), false));
            }
            OutputEvent::ToolArguments { index, json } => answer.calls[index].2.push_str(&json),
            OutputEvent::ToolCallFinished { index } => answer.calls[index].3 = true,
            OutputEvent::StopStringHit { .. } => {}
        }
    }
    answer
}

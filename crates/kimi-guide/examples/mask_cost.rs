//! What masking a token costs at the size of Kimi's vocabulary.
//!
//! `cargo run --release -p kimi-guide --example mask_cost [tiktoken.model tokenizer_config.json]`. Without files a
//! vocabulary of the same size is made up from kimi-nano's pieces, two and three together.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kimi_chat::{Markers, OutputStart, Vocabulary};
use kimi_engine::GuideSource as _;
use kimi_guide::{AnswerFormat, AnswerPlan, CallRule, Guides};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const TOKENS: usize = 600;

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let vocabulary = match files.as_slice() {
        [model, config] => Vocabulary::from_tiktoken(&std::fs::read(model)?, &std::fs::read(config)?)?,
        _ => made_up()?,
    };
    let vocabulary = Arc::new(vocabulary);
    let markers = Markers::resolve(&vocabulary)?;
    let guides = Guides::new(Arc::clone(&vocabulary), markers);
    let started = Instant::now();
    guides.compile(&AnswerFormat::JsonObject)?;
    report(&format!("{} tokens prepared in {:.0?}", vocabulary.len(), started.elapsed()));
    report(
        "format            compile  start    median   90 %     99 %     worst    mean of restrict + accept",
    );
    for (name, format) in formats() {
        let started = Instant::now();
        let grammar = guides.compile(&format)?;
        let compile = started.elapsed();
        let plan = AnswerPlan {
            start: OutputStart::Content,
            thinking_budget: None,
            content: Some(grammar),
            calls: CallRule::Free,
            tools: Vec::new(),
            one_call: false,
            first_call: 0,
        };
        let guided = guides.guide(plan)?;
        let (start, mut times) = run(&guided, vocabulary.len(), markers);
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        report(&format!(
            "{name:<17} {compile:<8.1?} {start:<8.1?} {:<8.1?} {:<8.1?} {:<8.1?} {:<8.1?} {mean:.1?}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
        ));
    }
    Ok(())
}

/// Times of each token of answers by a model that likes to end strings.
fn run(guided: &kimi_guide::GuidedAnswer, size: usize, markers: Markers) -> (Duration, Vec<Duration>) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let noise: Vec<f32> = (0..size).map(|_| random.random()).collect();
    let mut times = Vec::new();
    let started = Instant::now();
    let mut guide = guided.start();
    let start = started.elapsed();
    let mut row = vec![0.0; size];
    let mut left = 100_000;
    while times.len() < TOKENS {
        let turn = random.random_range(0..size);
        row[..size - turn].copy_from_slice(&noise[turn..]);
        row[size - turn..].copy_from_slice(&noise[..turn]);
        row[usize::from(b'"')] += 0.5;
        let masking = Instant::now();
        guide.restrict(&mut row, left).expect("a mask");
        let mut time = masking.elapsed();
        let best = (0..size).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("tokens") as u32;
        let accepting = Instant::now();
        guide.accept(best, left).expect("accepted");
        time += accepting.elapsed();
        times.push(time);
        left -= 1;
        if markers.stop_tokens().contains(&best) {
            guide = guided.start();
        }
    }
    (start, times)
}

fn formats() -> Vec<(&'static str, AnswerFormat)> {
    let schema = |schema| AnswerFormat::JsonSchema { schema, strict: false };
    let words: Vec<String> = (0..500).map(|index| format!("choice number {index}")).collect();
    vec![
        ("json_object", AnswerFormat::JsonObject),
        (
            "flat schema",
            schema(
                json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["name", "age", "tags"],
                "additionalProperties": false}),
            ),
        ),
        (
            "open schema",
            schema(json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})),
        ),
        (
            "recursive schema",
            schema(
                json!({"$defs": {"t": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 40},
                "children": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "required": ["name", "children"],
                "additionalProperties": false}}, "$ref": "#/$defs/t"}),
            ),
        ),
        (
            "patterns",
            schema(json!({"type": "array", "items": {"type": "object", "properties": {
                "id": {"type": "string", "format": "uuid"}, "at": {"type": "string", "format": "date-time"},
                "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}}, "required": ["id", "at", "code"],
                "additionalProperties": false}})),
        ),
        ("regex", AnswerFormat::Regex("([a-z]+ ){5,50}[0-9]{4}".into())),
        ("choice", AnswerFormat::Choice(words)),
    ]
}

/// 163,584 ordinary tokens: all bytes, kimi-nano's pieces, and these joined.
fn made_up() -> Result<Vocabulary, Box<dyn Error>> {
    use base64::Engine as _;
    const RANKS: usize = 163_584;
    let base64 = base64::engine::general_purpose::STANDARD;
    let model = include_str!("../../../models/kimi-nano/tiktoken.model");
    let config = include_str!("../../../models/kimi-nano/tokenizer_config.json");
    let mut pieces = Vec::new();
    for line in model.lines() {
        pieces.push(base64.decode(line.split(' ').next().unwrap_or_default())?);
    }
    let shift = RANKS - pieces.len();
    let mut words = pieces.clone();
    let mut known: std::collections::HashSet<Vec<u8>> = words.iter().cloned().collect();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    while words.len() < RANKS {
        let count = random.random_range(2..4);
        let word =
            (0..count).flat_map(|_| pieces[random.random_range(0..pieces.len())].clone()).collect::<Vec<_>>();
        if known.insert(word.clone()) {
            words.push(word);
        }
    }
    let lines = words.iter().enumerate().map(|(rank, word)| format!("{} {rank}\n", base64.encode(word)));
    let mut config: serde_json::Value = serde_json::from_str(config)?;
    let tokens = config["added_tokens_decoder"].as_object().cloned().unwrap_or_default();
    let moved = tokens.into_iter().map(|(id, token)| {
        let id: usize = id.parse().expect("an id");
        ((id + shift).to_string(), token)
    });
    config["added_tokens_decoder"] = serde_json::Value::Object(moved.collect());
    Ok(Vocabulary::from_tiktoken(lines.collect::<String>().as_bytes(), config.to_string().as_bytes())?)
}

#[expect(clippy::print_stdout, reason = "a report for people")]
fn report(line: &str) {
    println!("{line}");
}

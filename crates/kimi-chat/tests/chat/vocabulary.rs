//! The vocabulary against tiktoken's goldens and against a slow BPE written from the definition.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fancy_regex::Regex;
use kimi_chat::{Markers, Vocabulary, VocabularyError};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{CONFIG, bytes_only, config_for, model_of, prefix, real, real_model};

#[derive(serde::Deserialize)]
struct Golden {
    text: String,
    ids_special: Vec<u32>,
    ids_plain: Vec<u32>,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("../data/token_golden.json")).expect("JSON")
}

#[test]
fn equals_tiktoken_on_the_goldens() {
    let (vocabulary, _) = real();
    for golden in goldens() {
        assert_eq!(vocabulary.encode_text(&golden.text), golden.ids_plain, "{}", golden.text);
        assert_eq!(vocabulary.encode_with_specials(&golden.text), golden.ids_special, "{}", golden.text);
        assert_eq!(vocabulary.decode(&golden.ids_special), golden.text);
    }
}

#[test]
fn the_real_vocabulary_loads_in_a_second() {
    let model = real_model();
    let start = Instant::now();
    let vocabulary = Vocabulary::from_tiktoken(&model, CONFIG).expect("loads");
    let seconds = start.elapsed().as_secs_f32();
    // Optimised builds take about a third of it; a slow, shared machine must not fail the test.
    let limit = if cfg!(debug_assertions) { 20.0 } else { 1.0 };
    assert!(seconds < limit, "took {seconds:.2} s");
    assert_eq!(vocabulary.len(), 163_840);
}

/// BPE by its definition: split by the pattern, then merge the leftmost pair of lowest rank until there is none.
struct SlowBpe {
    pattern: Regex,
    ranks: HashMap<Vec<u8>, u32>,
}

impl SlowBpe {
    fn new(model: &[u8]) -> Self {
        const UPPER: &str = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]";
        const LOWER: &str = r"\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]";
        const ENDING: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
        let alternatives = [
            r"[\p{Han}]+".to_owned(),
            format!(r"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{ENDING}"),
            format!(r"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{ENDING}"),
            r"\p{N}{1,3}".to_owned(),
            r" ?[^\s\p{L}\p{N}]+[\r\n]*".to_owned(),
            r"\s*[\r\n]+".to_owned(),
            r"\s+(?!\S)".to_owned(),
            r"\s+".to_owned(),
        ];
        let lines = std::str::from_utf8(model).expect("ASCII").lines();
        let ranks = lines.map(|line| {
            let (token, rank) = line.split_once(' ').expect("two columns");
            (STANDARD.decode(token).expect("base64"), rank.parse().expect("a rank"))
        });
        Self { pattern: Regex::new(&alternatives.join("|")).expect("compiles"), ranks: ranks.collect() }
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        let pieces = self.pattern.find_iter(text).map(|piece| piece.expect("matches").as_str().as_bytes());
        pieces.flat_map(|piece| self.merge(piece)).collect()
    }

    fn merge(&self, piece: &[u8]) -> Vec<u32> {
        if let Some(&rank) = self.ranks.get(piece) {
            return vec![rank];
        }
        let mut parts: Vec<Vec<u8>> = piece.iter().map(|&byte| vec![byte]).collect();
        loop {
            let pairs = parts.windows(2).enumerate();
            let best = pairs.filter_map(|(at, pair)| Some((*self.ranks.get(&pair.concat())?, at))).min();
            let Some((_, at)) = best else { break };
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
        parts.iter().map(|part| self.ranks[part]).collect()
    }
}

/// Texts that mix scripts, digits, white space, contractions and noise.
fn any_text() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        "\\PC{1,6}",
        "[a-zA-Z]{1,9}",
        "[ \\t\\r\\n\u{a0}\u{3000}]{1,4}",
        "[0-9٠-٩ⅰ-ⅻ]{1,5}",
        "[一-龥ぁ-んァ-ヶ가-힣]{1,5}",
        "[\u{300}-\u{36f}ǅʰªºÀ-ÿ]{1,4}",
        "'(s|T|re|VE|m|ll|D)",
        "[!-/:-@\\[-`{-~]{1,4}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
}

static SLOW: LazyLock<SlowBpe> = LazyLock::new(|| SlowBpe::new(&real_model()));

proptest! {
    #[test]
    fn equals_a_slow_bpe_on_random_unicode(text in any_text()) {
        let (vocabulary, _) = real();
        let ids = vocabulary.encode_text(&text);
        prop_assert_eq!(&ids, &SLOW.encode(&text));
        prop_assert_eq!(vocabulary.decode(&ids), text);
    }

    #[test]
    fn every_id_has_bytes_or_is_beyond_the_end(id in any::<u32>()) {
        let (vocabulary, _) = bytes_only();
        prop_assert_eq!(vocabulary.bytes(id).is_empty(), id as usize >= vocabulary.len());
        prop_assert_eq!(vocabulary.bytes(id % 256), &[(id % 256) as u8]);
    }
}

#[test]
fn hostile_lengths_stay_fast_and_exact() {
    let (vocabulary, _) = real();
    let start = Instant::now();
    for text in [" ".repeat(1_000_000), "a".repeat(1_000_000), "\n ".repeat(300_000), "é!1".repeat(200_000)]
    {
        assert_eq!(vocabulary.decode(&vocabulary.encode_text(&text)), text);
    }
    let limit = if cfg!(debug_assertions) { 60.0 } else { 10.0 };
    assert!(start.elapsed().as_secs_f32() < limit);
    // Runs are cut every 25,000 characters and the pieces encoded by themselves.
    let run = vocabulary.encode_text(&"a".repeat(25_000));
    assert_eq!(vocabulary.encode_text(&"a".repeat(50_000)), [run.clone(), run].concat());
}

#[test]
fn special_ids_follow_the_ranks_and_text_never_reaches_them() {
    let model = prefix(&real_model(), 1792);
    let vocabulary =
        Vocabulary::from_tiktoken(&model, &config_for(1792)).expect("a rank prefix is a vocabulary");
    assert_eq!(vocabulary.len(), 2048);
    let markers = Markers::resolve(&vocabulary).expect("all markers");
    assert_eq!((markers.im_end, markers.think), (1794, 1814));
    assert_eq!(markers.media.expect("media markers").pad, 1813);
    assert_eq!(vocabulary.bytes(1797), b"<|reserved_token_1797|>");
    assert_eq!(vocabulary.special("<|reserved_token_1797|>"), Some(1797));
    assert!(vocabulary.is_special(markers.think) && !vocabulary.is_special(1791));
    for id in 1792..2048 {
        let name = String::from_utf8(vocabulary.bytes(id).to_vec()).expect("a name");
        assert_eq!(vocabulary.encode_with_specials(&name), [id]);
        let plain = vocabulary.encode_text(&name);
        assert!(plain.iter().all(|&id| id < 1792), "{name} became special");
        assert_eq!(vocabulary.decode(&plain), name);
    }
}

/// `tokenizer.json` as the usual conversion writes it: byte-level names, and for every token the two parts it merges.
fn tokenizer_json(model: &[u8], ranks: usize) -> Vec<u8> {
    let slow = SlowBpe::new(model);
    let mut tokens: Vec<(&Vec<u8>, u32)> = slow.ranks.iter().map(|(token, &rank)| (token, rank)).collect();
    tokens.sort_by_key(|(_, rank)| *rank);
    let merges = tokens.iter().filter(|(token, _)| token.len() > 1).map(|(token, rank)| {
        let lower =
            slow.ranks.iter().filter(|(_, other)| *other < rank).map(|(token, &rank)| (token.clone(), rank));
        let lower = SlowBpe { pattern: Regex::new("").expect("compiles"), ranks: lower.collect() };
        let parts = lower.merge(token);
        assert_eq!(parts.len(), 2, "a rank prefix is closed");
        json!([byte_level(tokens[parts[0] as usize].0), byte_level(tokens[parts[1] as usize].0)])
    });
    let merges: Vec<Value> = merges.collect();
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().map(|(token, rank)| (byte_level(token), json!(rank))).collect();
    let config: Value = serde_json::from_slice(&config_for(ranks)).expect("JSON");
    let added: Vec<Value> = config["added_tokens_decoder"]
        .as_object()
        .expect("an object")
        .iter()
        .map(|(id, token)| {
            json!({"id": id.parse::<u32>().expect("an id"), "content": token["content"], "special": token["special"],
                   "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let pattern = slow.pattern.as_str();
    serde_json::to_vec(&json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
                  "vocab": vocab, "merges": merges},
    }))
    .expect("JSON")
}

/// Bytes in GPT-2's alphabet.
fn byte_level(token: &[u8]) -> String {
    let itself = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let moved = |byte: u8| (0..byte).filter(|&byte| !itself(byte)).count() as u32 + 256;
    let code = |byte: u8| if itself(byte) { u32::from(byte) } else { moved(byte) };
    token.iter().map(|&byte| char::from_u32(code(byte)).expect("a character")).collect()
}

#[test]
fn tokenizer_json_gives_the_same_ids_as_tiktoken_model() {
    const PREFIX: usize = 700;
    let model = prefix(&real_model(), PREFIX);
    let tiktoken = Vocabulary::from_tiktoken(&model, &config_for(PREFIX)).expect("loads");
    let json = tokenizer_json(&model, PREFIX);
    let converted = Vocabulary::from_tokenizer_json(&json, Some(&config_for(PREFIX))).expect("loads");
    assert_eq!(Markers::resolve(&converted), Markers::resolve(&tiktoken));
    assert_eq!(converted.len(), tiktoken.len());
    for id in 0..tiktoken.len() as u32 {
        assert_eq!(converted.bytes(id), tiktoken.bytes(id));
        assert_eq!(converted.is_special(id), tiktoken.is_special(id));
    }
    for Golden { text, .. } in goldens() {
        assert_eq!(converted.encode_text(&text), tiktoken.encode_text(&text), "{text}");
        assert_eq!(converted.encode_with_specials(&text), tiktoken.encode_with_specials(&text), "{text}");
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runner
        .run(&any_text(), |text| {
            prop_assert_eq!(converted.encode_text(&text), tiktoken.encode_text(&text));
            Ok(())
        })
        .expect("equal on random Unicode");
}

/// A file may list special tokens among the ordinary ones, too, where the library would find them in any text.
#[test]
fn a_special_token_among_the_ordinary_ones_is_still_out_of_reach() {
    const PREFIX: usize = 700;
    let mut file: Value =
        serde_json::from_slice(&tokenizer_json(&prefix(&real_model(), PREFIX), PREFIX)).expect("JSON");
    for token in file["added_tokens"].as_array().cloned().expect("an array") {
        let name = byte_level(token["content"].as_str().expect("a name").as_bytes());
        file["model"]["vocab"][name] = token["id"].clone();
    }
    // Texts come to the library whole, as the names of tokens do.
    file["pre_tokenizer"] = file["pre_tokenizer"]["pretokenizers"][1].clone();
    let json = serde_json::to_vec(&file).expect("JSON");
    let vocabulary = Vocabulary::from_tokenizer_json(&json, None).expect("loads");
    let markers = Markers::resolve(&vocabulary).expect("all markers");
    assert!(vocabulary.is_special(markers.im_end));
    for id in (0..vocabulary.len() as u32).filter(|&id| vocabulary.is_special(id)) {
        let name = vocabulary.decode(&[id]);
        let plain = vocabulary.encode_text(&name);
        assert!(plain.iter().all(|&id| !vocabulary.is_special(id)), "{name} became special");
        assert_eq!(vocabulary.decode(&plain), name);
    }
}

#[test]
fn damaged_files_give_one_clear_line() {
    let bytes: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let good = model_of(&bytes);
    let with_line = |line: &str| [good.as_slice(), line.as_bytes()].concat();
    let tiktoken = |model: &[u8]| {
        Vocabulary::from_tiktoken(model, &config_for(256)).err().map(|error| error.to_string())
    };
    let cases = [
        (with_line("???? 256\n"), "tiktoken.model line 257: bad base64"),
        (with_line("YWI=\n"), "tiktoken.model line 257: there is no space in it"),
        (with_line("YWI= 2S6\n"), "tiktoken.model line 257: `2S6` is not a rank"),
        (with_line("YWI= 99999999\n"), "tiktoken.model line 257: `99999999` is not a rank"),
        (with_line("YWI= 7\n"), "tiktoken.model line 257: rank 7 was given before"),
        (with_line("YWI= 300\n"), "tiktoken.model: rank 256 is missing among 257 tokens"),
        (with_line("YQ== 256\n"), "tiktoken.model: the token of rank 256 has a lower rank already"),
        (
            model_of(&bytes[..100]),
            "tiktoken.model: 156 of the 256 single-byte tokens are missing (the first is 0x64)",
        ),
        (Vec::new(), "tiktoken.model: 256 of the 256 single-byte tokens are missing (the first is 0x00)"),
    ];
    for (model, expected) in cases {
        let text = tiktoken(&model).expect("an error");
        assert!(text.starts_with(expected) && !text.contains('\n'), "{text}");
    }
    assert_eq!(tiktoken(&good), None);

    let config = |json: Value| Vocabulary::from_tiktoken(&good, json.to_string().as_bytes());
    let token = |name: &str| json!({"content": name});
    let misplaced = config(json!({"added_tokens_decoder": {"600": token("<x>")}}));
    assert!(matches!(
        misplaced,
        Err(VocabularyError::MisplacedSpecial { id: 600, start: 256, end: 512, .. })
    ));
    let twice = config(json!({"added_tokens_decoder": {"300": token("<x>"), "301": token("<x>")}}));
    assert!(matches!(twice, Err(VocabularyError::DuplicateSpecial { first: 300, second: 301, .. })));
    assert!(matches!(config(json!("text")), Err(VocabularyError::BadJson { .. })));
    let bare = config(json!({})).expect("names are optional");
    assert_eq!(Markers::resolve(&bare), Err(VocabularyError::MissingMarker { name: "[EOS]" }));
    // Older weights of the family spell a marker otherwise.
    let older =
        String::from_utf8(config_for(256)).expect("JSON").replace("tool_calls_section", "tool_call_section");
    let older = Vocabulary::from_tiktoken(&good, older.as_bytes()).expect("any names will do");
    let name = "<|tool_calls_section_begin|>";
    assert_eq!(Markers::resolve(&older), Err(VocabularyError::MissingMarker { name }));

    let json = |file: Value| Vocabulary::from_tokenizer_json(file.to_string().as_bytes(), None).map(|_| ());
    assert!(matches!(
        json(json!({"model": {"type": "Unigram"}})),
        Err(VocabularyError::NotByteLevelBpe { .. })
    ));
    assert!(matches!(json(json!({"model": {"type": "BPE"}})), Err(VocabularyError::NotByteLevelBpe { .. })));
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    let short =
        json!({"pre_tokenizer": byte_level, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}});
    assert!(matches!(json(short), Err(VocabularyError::MissingBytes { missing: 255, .. })));
}

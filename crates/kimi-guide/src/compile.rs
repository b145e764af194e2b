//! From a format to a grammar, within limits, and remembered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use kimi_chat::{Markers, Vocabulary};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, TokenParser};
use serde_json::{Map, Value, json};

use crate::cache::GrammarCache;
use crate::closing::completion;
use crate::error::{GAVE_UP, headline};
use crate::json_scanner::JsonScanner;
use crate::vocabulary::GuideVocabulary;
use crate::{AnswerFormat, AnswerPlan, CompileError, CutFlag, Grammar, GuidedAnswer, schema};

/// Bytes of compiled grammars that are kept.
const CACHE_BYTES: usize = 256 << 20;
/// Longest text of a regular expression, a grammar, or all choices together.
const MAX_TEXT: usize = 75_000;
/// Most choices.
const MAX_CHOICES: usize = 1_000;
/// A compilation that takes longer is given up. The engine's own limits on steps end it soon after.
const PATIENCE: Duration = Duration::from_secs(10);
/// The engine's compiler is recursive, and the schema's depth alone does not bound it.
const STACK_BYTES: usize = 64 << 20;
/// Tokens up to which the shortest text of a format is looked for.
const LONGEST_SHORTEST: usize = 2_000;

/// Compiles formats for one vocabulary and remembers them. Shared by all requests.
pub struct Guides {
    source: Arc<Vocabulary>,
    markers: Markers,
    /// Made at first use: most of a second for 160,000 tokens, and nothing for who never asks for a format.
    vocabulary: OnceLock<Result<Arc<GuideVocabulary>, CompileError>>,
    cache: Mutex<GrammarCache>,
}

impl Guides {
    /// Nothing is compiled yet.
    pub fn new(vocabulary: Arc<Vocabulary>, markers: Markers) -> Self {
        let cache = Mutex::new(GrammarCache::new(CACHE_BYTES));
        Self { source: vocabulary, markers, vocabulary: OnceLock::new(), cache }
    }

    /// Compiles a format, or finds it among those that were compiled. Takes milliseconds to seconds: not for threads
    /// that others wait for.
    pub fn compile(&self, format: &AnswerFormat) -> Result<Arc<Grammar>, CompileError> {
        let key = format.key();
        if let Some(grammar) = self.cache().get(&key) {
            return Ok(grammar);
        }
        let grammar = match compile_apart(top_level(format)?, format, self.vocabulary()?) {
            Err(CompileError::Refused(why)) => self.compile_relaxed(format, why)?,
            outcome => outcome?,
        };
        let grammar = Arc::new(grammar);
        self.cache().put(key, Arc::clone(&grammar));
        Ok(grammar)
    }

    /// What the engine cannot enforce is left out, unless the client wants all or nothing.
    fn compile_relaxed(&self, format: &AnswerFormat, why: String) -> Result<Grammar, CompileError> {
        let AnswerFormat::JsonSchema { schema, strict: false } = format else {
            return Err(CompileError::Refused(why));
        };
        let mut relaxed = schema.clone();
        if !schema::relax(&mut relaxed) {
            return Err(CompileError::Refused(why));
        }
        let mut grammar = compile_apart(from_schema(&relaxed), format, self.vocabulary()?)?;
        grammar.not_enforced.push(why);
        Ok(grammar)
    }

    /// The plan in the form the engine takes.
    pub fn guide(&self, plan: AnswerPlan) -> Result<GuidedAnswer, CompileError> {
        Ok(GuidedAnswer { plan: Arc::new(plan), vocabulary: self.vocabulary()?, cut: CutFlag::default() })
    }

    /// How many grammars are remembered.
    pub fn remembered(&self) -> usize {
        self.cache().len()
    }

    fn vocabulary(&self) -> Result<Arc<GuideVocabulary>, CompileError> {
        let make = || GuideVocabulary::new(&self.source, self.markers).map(Arc::new);
        self.vocabulary.get_or_init(make).clone()
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, GrammarCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The format in the engine's language.
fn top_level(format: &AnswerFormat) -> Result<TopLevelGrammar, CompileError> {
    let text = |what, length| {
        let found = length;
        if found > MAX_TEXT { Err(CompileError::TooLarge { what, limit: MAX_TEXT, found }) } else { Ok(()) }
    };
    match format {
        AnswerFormat::JsonObject => Ok(from_schema(&json!({"type": "object"}))),
        AnswerFormat::JsonSchema { schema: Value::Bool(false), .. } => Err(CompileError::Unsatisfiable),
        AnswerFormat::JsonSchema { schema, .. } => {
            schema::check(schema)?;
            Ok(from_schema(schema))
        }
        AnswerFormat::Regex(pattern) => {
            text("the bytes of the regular expression", pattern.len())?;
            Ok(TopLevelGrammar::from_regex(pattern))
        }
        AnswerFormat::Grammar(grammar) => {
            text("the bytes of the grammar", grammar.len())?;
            Ok(TopLevelGrammar::from_lark(grammar.clone()))
        }
        AnswerFormat::Choice(texts) => {
            if texts.len() > MAX_CHOICES {
                return Err(CompileError::TooLarge {
                    what: "the choices",
                    limit: MAX_CHOICES,
                    found: texts.len(),
                });
            }
            if texts.is_empty() || texts.iter().any(String::is_empty) {
                return Err(CompileError::Refused(
                    "there must be at least one choice and none may be empty".into(),
                ));
            }
            text("the bytes of all choices", texts.iter().map(String::len).sum())?;
            let quoted: Vec<String> =
                texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
            Ok(TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | "))))
        }
    }
}

/// A schema with our settings. No white space but one optional space after `,` and `:`, since both styles are common in
/// what models have read, and more of it invites endless white space.
fn from_schema(schema: &Value) -> TopLevelGrammar {
    let mut schema = match schema {
        Value::Object(schema) => schema.clone(),
        _ => Map::new(),
    };
    let settings = json!({
        "item_separator": ", ?", "key_separator": ": ?", "whitespace_flexible": false, "lenient": true
    });
    // Whatever the client wrote under this key would change how its schema is read.
    schema.insert("x-guidance".into(), settings);
    TopLevelGrammar::from_json_schema(Value::Object(schema))
}

fn compile_apart(
    top: TopLevelGrammar,
    format: &AnswerFormat,
    vocabulary: Arc<GuideVocabulary>,
) -> Result<Grammar, CompileError> {
    let (is_json, strict) =
        (format.is_json(), matches!(format, AnswerFormat::JsonSchema { strict: true, .. }));
    apart(PATIENCE, move || compile(top, is_json, strict, vocabulary))
}

/// Works on a thread of its own: with a large stack, and with somebody who stops waiting. A panic there is a refusal here.
fn apart<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> Result<T, CompileError> + Send + 'static,
) -> Result<T, CompileError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let work = move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // Nobody may be waiting any more.
        let _ = sender.send(outcome.unwrap_or_else(|_| Err(refused(GAVE_UP))));
    };
    let thread = std::thread::Builder::new().name("compile-format".into()).stack_size(STACK_BYTES);
    thread.spawn(work).map_err(|error| refused(&format!("no thread to compile it: {error}")))?;
    receiver.recv_timeout(patience).unwrap_or(Err(CompileError::TooSlow(patience.as_secs())))
}

fn compile(
    top: TopLevelGrammar,
    is_json: bool,
    strict: bool,
    vocabulary: Arc<GuideVocabulary>,
) -> Result<Grammar, CompileError> {
    let mut fresh = vocabulary.factory.create_parser(top).map_err(|error| refused(&error.to_string()))?;
    let not_enforced = fresh.grammar_warnings();
    if strict && !not_enforced.is_empty() {
        return Err(CompileError::NotEnforced(not_enforced.join("; ")));
    }
    let shortest = shortest(&fresh, is_json, &vocabulary)?;
    let broken = AtomicBool::new(false);
    Ok(Grammar { vocabulary, fresh, is_json, shortest, not_enforced, broken })
}

/// Walks the first steps, so that what cannot begin is refused here and the first answer finds the way prepared.
fn shortest(
    fresh: &TokenParser,
    is_json: bool,
    vocabulary: &GuideVocabulary,
) -> Result<Option<usize>, CompileError> {
    let mut matcher = Matcher::new(Ok(fresh.clone()));
    let scanner = is_json.then(JsonScanner::default);
    let complete = matcher.is_accepting().map_err(|error| refused(&error.to_string()))?;
    if !complete && matcher.compute_mask().is_err() {
        return Err(CompileError::Unsatisfiable);
    }
    let found = completion(&mut matcher, scanner, vocabulary, LONGEST_SHORTEST, usize::MAX);
    Ok(found.map_err(|error| refused(&error.0))?.map(|tokens| tokens.len()))
}

/// The engine's first line and the line that names the error; the rest is its own state.
fn refused(message: &str) -> CompileError {
    let mut text: String = headline(message).chars().take(200).collect();
    if let Some(cause) = message.lines().skip(1).find(|line| line.trim_start().starts_with("error: ")) {
        text.push(' ');
        text.extend(cause.trim().chars().take(100));
    }
    CompileError::Refused(text)
}

impl std::fmt::Debug for Guides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guides").field("remembered", &self.remembered()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_or_endless_work_is_a_refusal() {
        let gave_up = CompileError::Refused(GAVE_UP.to_owned());
        assert_eq!(apart::<()>(PATIENCE, || panic!("state of the engine")), Err(gave_up.clone()));
        // The engine catches some of its panics itself.
        assert_eq!(refused("panic: index out of bounds\n<backtrace>\n  0: std::"), gave_up);
        let (stop, stopped) = mpsc::channel::<()>();
        let endless = apart(Duration::from_millis(10), move || Ok(stopped.recv().is_ok()));
        assert_eq!(endless, Err(CompileError::TooSlow(0)));
        drop(stop);
        assert_eq!(apart(PATIENCE, || Ok(1)), Ok(1));
    }
}

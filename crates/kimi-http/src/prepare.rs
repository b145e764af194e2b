//! From a job to a request for the engine: the prompt as tokens, and how the answer will be read.

use std::sync::Arc;

use kimi_chat::{
    OutputEvent, OutputParser, OutputStart, ParsedOutcome, ParserOptions, PlainParser, StopStrings,
    TokenRole, Vocabulary,
};
use kimi_engine::{CacheScope, Constraint, GenerateRequest, GuideSource, Sampling, Standing};
use kimi_guide::{CutFlag, GuidedAnswer};
use kimi_tokens::{EncodedPrompt, TokenId};

use crate::auth::Caller;
use crate::guidance::{self, Setting};
use crate::state::ReadyService;
use crate::validate::{ChatJob, Prompt, PromptReport, RawPrompt, Stops};
use crate::{ApiError, App, blocking, media};

/// A job whose prompt is encoded and fits. From it come as many generations as the job has choices.
pub(crate) struct Prepared {
    prompt: EncodedPrompt,
    reading: Reading,
    sampling: Sampling,
    cache_scope: Option<CacheScope>,
    standing: Standing,
    max_tokens: usize,
    stop_tokens: Vec<TokenId>,
    min_tokens: usize,
    guide: Option<GuidedAnswer>,
    /// Tokens that reach this side but are no text: stop tokens, and end tokens the client asked to ignore.
    pub(crate) hidden_tokens: Vec<TokenId>,
    pub(crate) choices: usize,
    pub(crate) logprobs: Option<usize>,
    pub(crate) prompt_report: PromptReport,
    pub(crate) one_tool_call: bool,
    pub(crate) hide_reasoning: bool,
    pub(crate) return_token_ids: bool,
}

/// What it takes to make prompts for somebody.
#[derive(Clone, Copy)]
pub(crate) struct Desk<'a> {
    pub(crate) app: &'a App,
    pub(crate) service: &'a ReadyService,
    /// Whose uploads may be looked at.
    pub(crate) caller: Caller,
    pub(crate) request_id: &'a str,
}

/// How the answer is read.
#[derive(Clone)]
enum Reading {
    /// As the model's message.
    Chat(ParserOptions),
    /// As plain text.
    Plain { stop_strings: StopStrings, show_markers: bool },
}

impl Prepared {
    /// Encodes the prompt, off the threads that serve everybody else. After this only the model can fail.
    pub(crate) async fn encode(job: ChatJob, desk: Desk<'_>) -> Result<Self, ApiError> {
        let Desk { service, request_id, .. } = desk;
        let Stops { strings, token_ids, included, ignore_eos } = job.stops;
        let reading = match &job.prompt {
            Prompt::Chat(conversation) => {
                Reading::Chat(ParserOptions::for_conversation(conversation, strings))
            }
            Prompt::Raw { show_markers, .. } => {
                Reading::Plain { stop_strings: strings, show_markers: *show_markers }
            }
        };
        let setting = match &job.prompt {
            Prompt::Chat(conversation) => Some(Setting::of(conversation, job.one_tool_call)),
            Prompt::Raw { .. } => None,
        };
        let prompt = encode(job.prompt, desk).await?;
        let limits = service.engine.limits();
        let prompt_tokens = prompt.tokens.len();
        if prompt_tokens > limits.max_prompt_tokens {
            return Err(ApiError::context_overflow(limits.max_context, prompt_tokens));
        }
        let min_tokens = job.shape.min_tokens;
        let guide = match setting {
            Some(setting) => guidance::prepare(job.shape, setting, service, request_id).await?,
            None => None,
        };
        let end_tokens = service.markers.stop_tokens();
        let mut stop_tokens = token_ids.clone();
        if !ignore_eos {
            stop_tokens.extend(end_tokens);
        }
        let mut hidden_tokens = if included { Vec::new() } else { token_ids };
        // A chat's parser must see the end of the message.
        let plain_end = matches!(reading, Reading::Plain { .. }) && !included;
        if ignore_eos || plain_end {
            hidden_tokens.extend(end_tokens);
        }
        Ok(Self {
            prompt,
            reading,
            sampling: job.sampling,
            cache_scope: job.cache_scope,
            standing: job.standing,
            max_tokens: job.max_tokens.min(limits.max_context - prompt_tokens),
            stop_tokens,
            min_tokens,
            guide,
            hidden_tokens,
            choices: job.choices,
            logprobs: job.logprobs,
            prompt_report: job.prompt_report,
            one_tool_call: job.one_tool_call,
            hide_reasoning: job.hide_reasoning,
            return_token_ids: job.return_token_ids,
        })
    }

    /// The prompt's token ids.
    pub(crate) fn prompt_tokens(&self) -> &[TokenId] {
        &self.prompt.tokens
    }

    /// What the engine is asked for the choice with this index, and what tells whether its answer was cut.
    pub(crate) fn request(&self, choice: usize) -> (GenerateRequest, CutFlag) {
        let mut sampling = self.sampling.clone();
        sampling.seed = seed_of_choice(sampling.seed, choice);
        let guide = self.guide.as_ref().map(GuidedAnswer::another);
        let cut = guide.as_ref().map_or_else(CutFlag::default, GuidedAnswer::cut);
        let guide = guide.map(|guide| Arc::new(guide) as Arc<dyn GuideSource>);
        let request = GenerateRequest {
            prompt: self.prompt.clone(),
            sampling,
            max_tokens: self.max_tokens,
            stop_tokens: self.stop_tokens.clone(),
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_report.logprobs,
            constraint: Constraint { min_tokens: self.min_tokens, guide },
            cache_scope: self.cache_scope,
            standing: self.standing,
        };
        (request, cut)
    }

    /// A reader for one answer.
    pub(crate) fn parser(&self, service: &ReadyService) -> AnswerParser {
        let vocabulary = Arc::clone(&service.vocabulary);
        match self.reading.clone() {
            Reading::Chat(options) => {
                AnswerParser::Chat(Box::new(OutputParser::new(vocabulary, service.markers, options)))
            }
            Reading::Plain { stop_strings, show_markers } => {
                AnswerParser::Plain(PlainParser::new(vocabulary, stop_strings, show_markers))
            }
        }
    }

    /// Whether answers begin with reasoning that the client will see.
    pub(crate) fn shows_reasoning(&self) -> bool {
        let thinks =
            matches!(&self.reading, Reading::Chat(options) if options.start == OutputStart::Reasoning);
        thinks && !self.hide_reasoning
    }
}

/// The prompt as tokens and media.
pub(crate) async fn encode(prompt: Prompt, desk: Desk<'_>) -> Result<EncodedPrompt, ApiError> {
    const FAILED: &str = "The prompt could not be built";
    let (vocabulary, markers) = (Arc::clone(&desk.service.vocabulary), desk.service.markers);
    match prompt {
        Prompt::Chat(conversation) => {
            let (conversation, media) = media::prepare(conversation, desk).await?;
            let encoding = move || Ok(kimi_chat::encode(&conversation, &media, &vocabulary, &markers)?);
            blocking::run(desk.request_id, FAILED, encoding).await
        }
        Prompt::Raw { prompt, .. } => {
            blocking::run(desk.request_id, FAILED, move || encode_raw(prompt, &vocabulary)).await
        }
    }
}

fn encode_raw(prompt: RawPrompt, vocabulary: &Vocabulary) -> Result<EncodedPrompt, ApiError> {
    let tokens = match prompt {
        RawPrompt::Text { text, parse_special: true } => vocabulary.encode_with_specials(&text),
        RawPrompt::Text { text, parse_special: false } => vocabulary.encode_text(&text),
        RawPrompt::Tokens(tokens) => tokens,
    };
    if tokens.is_empty() {
        return Err(ApiError::invalid("Invalid request: the prompt must not be empty"));
    }
    Ok(tokens.into())
}

/// Every choice draws from a random stream of its own; the first one's is that of a request with one choice.
fn seed_of_choice(seed: u64, choice: usize) -> u64 {
    /// 2⁶⁴ divided by the golden ratio, the increment of `SplitMix64` (Steele, Lea and Flood 2014).
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    seed.wrapping_add((choice as u64).wrapping_mul(GOLDEN))
}

/// The reader of one answer.
pub(crate) enum AnswerParser {
    Chat(Box<OutputParser>),
    Plain(PlainParser),
}

impl AnswerParser {
    /// Takes the next token and appends what it reveals.
    pub(crate) fn push(&mut self, token: TokenId, out: &mut Vec<OutputEvent>) -> TokenRole {
        match self {
            Self::Chat(parser) => parser.push(token, out),
            Self::Plain(parser) => parser.push(token, out),
        }
    }

    /// Ends the answer and appends what was held back.
    pub(crate) fn finish(self, out: &mut Vec<OutputEvent>) -> ParsedOutcome {
        match self {
            Self::Chat(parser) => parser.finish(out),
            Self::Plain(parser) => parser.finish(out),
        }
    }
}

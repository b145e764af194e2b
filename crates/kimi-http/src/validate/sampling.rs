//! How tokens are chosen: ranges, defaults, and the hosted service's fixed values.

use std::ops::RangeInclusive;

use kimi_api::ChatCompletionRequest;
use kimi_chat::StopStrings;
use kimi_engine::Sampling;
use kimi_tokens::TokenId;
use uuid::Uuid;

use super::{Notices, Rules, Stops};
use crate::{ApiError, Policy};

/// Temperature when thinking, as the model was tuned.
const THINKING_TEMPERATURE: f64 = 1.0;
/// Temperature when answering at once, as the model was tuned.
const INSTANT_TEMPERATURE: f64 = 0.6;
/// Nucleus of both modes.
const DEFAULT_TOP_P: f64 = 0.95;

/// The least value above zero that the engine's floats can hold.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

const MAX_STOP_TOKEN_IDS: usize = 64;
const MAX_LOGIT_BIASES: usize = 1024;
pub(super) const MAX_TOP_LOGPROBS: usize = 20;

/// Decides all sampling values.
pub(super) fn decide(
    request: &ChatCompletionRequest,
    thinking: bool,
    rules: &Rules<'_>,
    notices: &mut Notices,
) -> Result<Sampling, ApiError> {
    let temperature = if thinking { THINKING_TEMPERATURE } else { INSTANT_TEMPERATURE };
    let values = Values { fixed: rules.policy.fixed_sampling };
    let sampling = Sampling {
        temperature: values.choose("temperature", request.temperature, temperature, 0.0..=2.0)?,
        top_p: values.choose("top_p", request.top_p, DEFAULT_TOP_P, SMALLEST..=1.0)?,
        presence_penalty: values.choose("presence_penalty", request.presence_penalty, 0.0, -2.0..=2.0)?,
        frequency_penalty: values.choose("frequency_penalty", request.frequency_penalty, 0.0, -2.0..=2.0)?,
        seed: request.seed.map_or_else(random_seed, i64::cast_unsigned),
        ..Sampling::greedy()
    };
    if rules.policy.extensions {
        extend(sampling, request, rules)
    } else {
        note_ignored_extensions(request, notices);
        Ok(sampling)
    }
}

/// The rule for one number: a range, or exactly the default.
struct Values {
    fixed: bool,
}

impl Values {
    fn choose(
        &self,
        name: &str,
        asked: Option<f64>,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f32, ApiError> {
        let value = asked.unwrap_or(default);
        if self.fixed && (value - default).abs() > f64::EPSILON {
            return Err(ApiError::invalid(format!(
                "invalid {name}: only {default} is allowed for this model"
            )));
        }
        if !range.contains(&value) {
            // Ranges that begin above zero stand for those that leave out zero itself.
            let low = match *range.start() {
                start if start > 0.0 => "above 0".to_owned(),
                start => format!("at least {start}"),
            };
            return Err(ApiError::invalid(format!(
                "Invalid request: {name} must be {low} and at most {}, not {value}",
                range.end()
            )));
        }
        Ok(value as f32)
    }
}

/// 122 random bits are folded from a random UUID; a seed needs no more than to differ.
fn random_seed() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

/// `n`: how many answers.
pub(super) fn choices(request: &ChatCompletionRequest, rules: &Rules<'_>) -> Result<usize, ApiError> {
    let n = request.n.unwrap_or(1);
    if rules.policy.fixed_sampling && n != 1 {
        return Err(ApiError::invalid("invalid n: only 1 is allowed for this model"));
    }
    match usize::try_from(n) {
        Ok(count) if (1..=rules.max_n).contains(&count) => Ok(count),
        _ => Err(ApiError::invalid(format!("Invalid request: n must be from 1 to {}, not {n}", rules.max_n))),
    }
}

/// The values self-hosted servers know beyond the hosted schema.
fn extend(
    mut sampling: Sampling,
    request: &ChatCompletionRequest,
    rules: &Rules<'_>,
) -> Result<Sampling, ApiError> {
    let values = Values { fixed: false };
    sampling.top_k = match request.top_k {
        None | Some(0 | -1) => None,
        Some(k) => Some(usize::try_from(k).map_err(|_| {
            ApiError::invalid(format!(
                "Invalid request: top_k must be at least 1, or 0 or -1 for off, not {k}"
            ))
        })?),
    };
    sampling.min_p = values.choose("min_p", request.min_p, 0.0, 0.0..=1.0)?;
    sampling.repetition_penalty =
        values.choose("repetition_penalty", request.repetition_penalty, 1.0, SMALLEST..=2.0)?;
    if let Some(biases) = &request.logit_bias {
        sampling.logit_bias = biases.iter().map(|(id, bias)| (*id, *bias)).collect();
        check_logit_bias(&sampling.logit_bias, rules)?;
    }
    Ok(sampling)
}

/// `min_tokens`: the answer does not end by itself before so many.
pub(super) fn min_tokens(
    request: &ChatCompletionRequest,
    policy: Policy,
    max_tokens: usize,
) -> Result<usize, ApiError> {
    let Some(asked) = request.min_tokens.filter(|_| policy.extensions) else { return Ok(0) };
    match usize::try_from(asked) {
        Ok(asked) if asked <= max_tokens => Ok(asked),
        _ => Err(ApiError::invalid(format!(
            "Invalid request: min_tokens must be from 0 to the most tokens of the answer, {max_tokens}, not {asked}"
        ))),
    }
}

fn check_logit_bias(biases: &[(TokenId, f32)], rules: &Rules<'_>) -> Result<(), ApiError> {
    if biases.len() > MAX_LOGIT_BIASES {
        return Err(ApiError::invalid(format!(
            "Invalid request: logit_bias may have at most {MAX_LOGIT_BIASES} entries, not {}",
            biases.len()
        )));
    }
    for (id, bias) in biases {
        check_token_id("logit_bias", *id, rules)?;
        if !(-100.0..=100.0).contains(bias) {
            return Err(ApiError::invalid(format!(
                "Invalid request: logit_bias of token {id} must be from -100 to 100, not {bias}"
            )));
        }
    }
    Ok(())
}

pub(super) fn check_token_id(name: &str, id: TokenId, rules: &Rules<'_>) -> Result<(), ApiError> {
    let len = rules.vocabulary.len();
    if (id as usize) < len {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid request: {name} has the token id {id}; this model's ids are below {len}"
    )))
}

fn note_ignored_extensions(request: &ChatCompletionRequest, notices: &mut Notices) {
    let sent = [
        ("top_k", request.top_k.is_some()),
        ("min_p", request.min_p.is_some()),
        ("repetition_penalty", request.repetition_penalty.is_some()),
        ("logit_bias", request.logit_bias.is_some()),
        ("ignore_eos", request.ignore_eos.is_some()),
        ("min_tokens", request.min_tokens.is_some()),
        ("include_stop_str_in_output", request.include_stop_str_in_output.is_some()),
        ("return_token_ids", request.return_token_ids.is_some()),
    ];
    for (name, _) in sent.into_iter().filter(|(_, sent)| *sent) {
        notices.ignored(name);
    }
}

/// Everything that ends the answer before its length does.
pub(super) fn stops(
    request: &ChatCompletionRequest,
    rules: &Rules<'_>,
    notices: &mut Notices,
) -> Result<Stops, ApiError> {
    let extension = |asked: Option<bool>| rules.policy.extensions && asked == Some(true);
    let included = extension(request.include_stop_str_in_output);
    Ok(Stops {
        strings: stop_strings(request, rules.policy)?.included(included),
        token_ids: stop_token_ids(request, rules, notices)?,
        included,
        ignore_eos: extension(request.ignore_eos),
    })
}

/// `stop`: texts that end the answer.
fn stop_strings(request: &ChatCompletionRequest, policy: Policy) -> Result<StopStrings, ApiError> {
    let Policy { max_stop_strings, max_stop_bytes, .. } = policy;
    let stops = request.stop.as_ref().map_or(&[][..], |stop| &stop.0);
    if stops.len() > max_stop_strings {
        return Err(ApiError::invalid(format!(
            "Invalid request: stop may have at most {max_stop_strings} strings, not {}",
            stops.len()
        )));
    }
    if let Some(long) = stops.iter().find(|stop| stop.len() > max_stop_bytes) {
        return Err(ApiError::invalid(format!(
            "Invalid request: each stop string may have at most {max_stop_bytes} bytes, not {}",
            long.len()
        )));
    }
    Ok(StopStrings::new(stops.iter().cloned()))
}

/// `stop_token_ids`: tokens that end the answer.
fn stop_token_ids(
    request: &ChatCompletionRequest,
    rules: &Rules<'_>,
    notices: &mut Notices,
) -> Result<Vec<TokenId>, ApiError> {
    let ids = &request.stop_token_ids;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    if !rules.policy.extensions {
        notices.ignored("stop_token_ids");
        return Ok(Vec::new());
    }
    if ids.len() > MAX_STOP_TOKEN_IDS {
        return Err(ApiError::invalid(format!(
            "Invalid request: stop_token_ids may have at most {MAX_STOP_TOKEN_IDS} ids, not {}",
            ids.len()
        )));
    }
    ids.iter().try_for_each(|id| check_token_id("stop_token_ids", *id, rules))?;
    Ok(ids.clone())
}

/// `logprobs` and `top_logprobs`: how many alternatives to report, if any report is wanted.
pub(super) fn logprobs(request: &ChatCompletionRequest) -> Result<Option<usize>, ApiError> {
    let wanted = request.logprobs == Some(true);
    let Some(top) = request.top_logprobs else { return Ok(wanted.then_some(0)) };
    if !wanted {
        return Err(ApiError::invalid(
            "Invalid request: logprobs must be set to true if top_logprobs is used",
        ));
    }
    match usize::try_from(top) {
        Ok(top) if top <= MAX_TOP_LOGPROBS => Ok(Some(top)),
        _ => Err(ApiError::invalid(format!(
            "Invalid request: top_logprobs must be from 0 to {MAX_TOP_LOGPROBS}, not {top}"
        ))),
    }
}

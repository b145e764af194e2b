//! A runner without a model: for tests of everything above it, and for `serve --fake`.

mod answer;
mod constrained;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kimi_scheduler::{BlockId, PlanEntry, SequenceId};
use kimi_tokens::TokenId;

pub use self::answer::{FakeAnswer, FakeFailure, FakeFailureKind, FakeTokens};
use self::constrained::Constrained;
use crate::{
    EngineFailure, ModelRunner, NewSequence, RunnerError, SampledToken, StepBatch, StepOutput, TokenLogprobs,
};

/// Answers with tokens that depend on the request alone, never on what else is in the batch.
///
/// It also keeps watch over the plans it is given: an unknown sequence, a hole in the computed positions or a sample before
/// the prompt is complete is a [`RunnerError`].
pub struct FakeRunner {
    answer: Box<dyn FnMut(&NewSequence) -> FakeAnswer + Send>,
    step_time: Duration,
    keeps_constraints: bool,
    /// `(n-th new sequence, after so many tokens)`.
    non_finite: Vec<(usize, usize)>,
    /// `(step, message)`.
    fatal: Option<(u64, String)>,
    sequences: BTreeMap<SequenceId, FakeSequence>,
    /// Blocks that a step wrote to.
    written: HashSet<BlockId>,
    sequences_seen: usize,
    steps_seen: u64,
    submitted: Option<(Arc<StepBatch>, Instant)>,
}

/// What the fake keeps for a sequence, from its first plan until it is retired.
struct FakeSequence {
    answer: FakeAnswer,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    prompt: Arc<[TokenId]>,
    generated: usize,
    computed: usize,
    /// `None` when nothing constrains it.
    constraint: Option<Constrained>,
}

impl FakeRunner {
    /// Tokens that look random and are a function of the request's seed, its prompt with what is seen there, and the position.
    ///
    /// # Panics
    /// When `vocabulary_size` is 0.
    pub fn hashed(vocabulary_size: u32) -> Self {
        assert!(vocabulary_size > 0, "a vocabulary has at least one token");
        Self::playing(move |new| {
            let state = Self::hash_prompt(new.sampling.seed, new);
            FakeAnswer::from_tokens(FakeTokens::Hash { state, vocabulary_size })
        })
    }

    /// The n-th new sequence says `scripts[n % scripts.len()]`, then its last token again and again. End a script with a
    /// stop token to end the generation.
    ///
    /// # Panics
    /// When there is no script.
    pub fn scripted(scripts: Vec<Vec<TokenId>>) -> Self {
        assert!(!scripts.is_empty(), "at least one script is needed");
        let mut scripts = scripts.into_iter().cycle();
        Self::answering(move |_| scripts.next().unwrap_or_default())
    }

    /// Like [`scripted`](Self::scripted), with a script chosen from the request.
    pub fn answering(mut answer: impl FnMut(&NewSequence) -> Vec<TokenId> + Send + 'static) -> Self {
        Self::playing(move |new| FakeAnswer::script(answer(new)))
    }

    /// Says whatever is decided for each request, at its pace and with its failure.
    pub fn playing(answer: impl FnMut(&NewSequence) -> FakeAnswer + Send + 'static) -> Self {
        Self {
            answer: Box::new(answer),
            step_time: Duration::ZERO,
            keeps_constraints: false,
            non_finite: Vec::new(),
            fatal: None,
            sequences: BTreeMap::new(),
            written: HashSet::new(),
            sequences_seen: 0,
            steps_seen: 0,
            submitted: None,
        }
    }

    /// What [`hashed`](Self::hashed) derives tokens from: equal seeds and prompts, images included, give equal states.
    pub fn hash_prompt(seed: u64, new: &NewSequence) -> u64 {
        new.media.iter().fold(Self::hash(seed, &new.prompt), |state, medium| {
            let hash = medium.medium.hash.0.map(TokenId::from);
            Self::hash(state ^ medium.positions.start as u64, &hash)
        })
    }

    /// A hash of some numbers: the same ones give the same.
    pub fn hash(seed: u64, tokens: &[TokenId]) -> u64 {
        answer::hash(seed, tokens)
    }

    /// Every step takes this long.
    #[must_use]
    pub fn with_step_time(mut self, step_time: Duration) -> Self {
        self.step_time = step_time;
        self
    }

    /// The n-th new sequence, from 0, fails with non-finite logits after so many tokens.
    #[must_use]
    pub fn with_non_finite(mut self, nth_sequence: usize, after_tokens: usize) -> Self {
        self.non_finite.push((nth_sequence, after_tokens));
        self
    }

    /// Answers keep to the constraints of their requests, as a model's do: a token that is not allowed is replaced by one
    /// that is. Without this, scripts are played as they are written.
    #[must_use]
    pub fn keeping_constraints(mut self) -> Self {
        self.keeps_constraints = true;
        self
    }

    /// The engine's step with this number, from 0, fails for everybody.
    #[must_use]
    pub fn with_fatal_step(mut self, step: u64, message: &str) -> Self {
        self.fatal = Some((step, message.to_owned()));
        self
    }

    fn introduce(&mut self, new: &NewSequence) {
        let nth = self.sequences_seen;
        self.sequences_seen += 1;
        let mut answer = (self.answer)(new);
        if let Some((_, after_tokens)) = self.non_finite.iter().find(|(sequence, _)| *sequence == nth) {
            let kind = FakeFailureKind::NonFinite;
            answer.failure = Some(FakeFailure { after_tokens: *after_tokens, kind });
        }
        let sequence = FakeSequence {
            answer,
            logprobs: new.logprobs,
            prompt_logprobs: new.prompt_logprobs,
            prompt: Arc::clone(&new.prompt),
            generated: 0,
            computed: 0,
            constraint: if self.keeps_constraints { Constrained::new(new) } else { None },
        };
        self.sequences.insert(new.id, sequence);
    }
}

impl ModelRunner for FakeRunner {
    fn submit(&mut self, batch: Arc<StepBatch>) -> Result<(), RunnerError> {
        if self.submitted.is_some() {
            return Err(RunnerError("a step was submitted before the last one was collected".to_owned()));
        }
        self.submitted = Some((batch, Instant::now()));
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, RunnerError> {
        let Some((batch, started)) = self.submitted.take() else {
            return Err(RunnerError("no step was submitted".to_owned()));
        };
        let step = self.steps_seen;
        self.steps_seen += 1;
        if let Some((_, message)) = self.fatal.as_ref().filter(|(fatal, _)| *fatal == step) {
            return Err(RunnerError(message.clone()));
        }
        for id in &batch.plan.retired {
            self.sequences.remove(id).ok_or_else(|| broken(*id, "is retired but was never planned"))?;
        }
        for new in &batch.new_sequences {
            self.introduce(new);
        }
        let (mut sampled, mut scored) = (Vec::new(), Vec::new());
        let mut step_time = self.step_time;
        for entry in &batch.plan.entries {
            let id = entry.sequence;
            let sequence = self.sequences.get_mut(&id).ok_or_else(|| broken(id, "is planned but unknown"))?;
            sequence.run(entry, &self.written)?;
            self.written.extend(entry.blocks.iter());
            if !entry.scores.is_empty() {
                let first = entry.start + entry.scores.start;
                scored.push((id, Ok(sequence.score(first..first + entry.scores.len()))));
            }
            if entry.samples {
                step_time = step_time.max(sequence.answer.time_of(sequence.generated));
                for row in 0..=entry.draft {
                    let result = sequence.sample()?;
                    let next = result.as_ref().ok().map(|token| token.id);
                    sampled.push((id, result));
                    if next.is_none() || next != entry.draft_tokens().get(row).copied() {
                        break;
                    }
                    sequence.computed += 1;
                }
            }
        }
        thread::sleep(step_time.saturating_sub(started.elapsed()));
        Ok(StepOutput { sampled, scored, ..StepOutput::default() })
    }

    fn takes_media(&self) -> bool {
        true
    }
}

impl FakeSequence {
    /// Checks an entry and books it.
    fn run(&mut self, entry: &PlanEntry, written: &HashSet<BlockId>) -> Result<(), RunnerError> {
        let end = entry.start + entry.tokens.len() - entry.draft;
        let length = self.prompt.len() + self.generated;
        // Whoever was preempted comes back to the beginning, or to what the prefix cache still has of it.
        let skips = entry.start > self.computed && self.computed > 0;
        let begun_by_others = entry.blocks.first().is_some_and(|block| written.contains(block));
        if skips || entry.start > 0 && !begun_by_others {
            return Err(broken(entry.sequence, "has positions that were never computed"));
        }
        if end <= entry.start || end > length || entry.samples != (end == length) {
            return Err(broken(entry.sequence, "samples at the wrong position"));
        }
        self.computed = end;
        Ok(())
    }

    /// How likely the prompt's tokens after these positions are.
    fn score(&self, positions: Range<usize>) -> Vec<TokenLogprobs> {
        let alternatives = self.prompt_logprobs.unwrap_or_default();
        let next = &self.prompt[positions.start + 1..=positions.end];
        next.iter().map(|id| answer::logprobs(*id, alternatives)).collect()
    }

    /// The next token, or what the answer breaks off with.
    ///
    /// # Panics
    /// On order.
    fn sample(&mut self) -> Result<Result<SampledToken, EngineFailure>, RunnerError> {
        match self.answer.failure_at(self.generated) {
            Some(FakeFailureKind::NonFinite) => return Ok(Err(EngineFailure::NonFiniteLogits)),
            Some(FakeFailureKind::Step(message)) => return Err(RunnerError(message.clone())),
            Some(FakeFailureKind::Panic(message)) => panic!("{message}"),
            None => {}
        }
        let mut id = self.answer.tokens.token(self.generated);
        if let Some(constraint) = &mut self.constraint {
            match constraint.choose(id, self.generated) {
                Ok(allowed) => id = allowed,
                Err(failure) => return Ok(Err(failure)),
            }
        }
        self.generated += 1;
        Ok(Ok(SampledToken {
            id,
            logprobs: self.logprobs.map(|count| Arc::new(answer::logprobs(id, count))),
        }))
    }
}

fn broken(sequence: SequenceId, what: &str) -> RunnerError {
    RunnerError(format!("sequence {} {what}", sequence.0))
}

impl std::fmt::Debug for FakeRunner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FakeRunner").field("step_time", &self.step_time).finish_non_exhaustive()
    }
}

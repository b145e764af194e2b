//! The engine thread: the loop that turns requests into steps and steps into events.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use kimi_scheduler::{Limits, Sample, Scheduler, SequenceId, SequenceRequest, SequenceUpdate, StepPlan};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::drain_rate::DrainRate;
use crate::handle::{Message, Status, Submission};
use crate::live_request::LiveRequest;
use crate::metrics::EngineMetrics;
use crate::pace::Pace;
use crate::row_cost::RowCost;
use crate::{EngineFailure, ModelRunner, NewSequence, RunnerError, StepBatch, StepOutput};

/// Everything the engine thread owns.
pub(crate) struct Engine {
    pub(crate) scheduler: Scheduler,
    pub(crate) runner: Box<dyn ModelRunner>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Message>,
    /// The requests behind the scheduler's sequences: the same ids, always.
    pub(crate) live: BTreeMap<SequenceId, LiveRequest>,
    pub(crate) next_id: u64,
    /// Ends once the requests it has are done.
    pub(crate) draining: bool,
    pub(crate) aborted: bool,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) drain_rate: DrainRate,
    /// Rows of the steps whose time is measured, if anybody needs to know what a row costs.
    pub(crate) small_steps: Option<usize>,
    pub(crate) row_cost: RowCost,
    pub(crate) pace: Pace,
    pub(crate) max_sequences: usize,
    pub(crate) metrics: Arc<EngineMetrics>,
}

impl Engine {
    /// Steps until nothing is left and nothing can come, or until the runner fails.
    pub(crate) fn run(&mut self) -> Result<(), RunnerError> {
        while self.receive_requests() {
            self.cancel_abandoned();
            let plan = self.scheduler.plan_step();
            if plan.is_empty() {
                continue;
            }
            self.publish_load();
            let started = Instant::now();
            let batch = self.batch_for(plan);
            self.runner.submit(Arc::clone(&batch))?;
            let output = self.runner.collect()?;
            self.note_step(&batch.plan, started);
            check_answer(&batch.plan, &output)?;
            self.metrics.tier(&output.tier);
            self.scheduler.settle(&batch.plan.tier, &output.tier);
            self.publish(&batch.plan, output);
        }
        Ok(())
    }

    /// Takes what has arrived; waits only when there is nothing to compute and no block on its way to the second tier. `false` when the engine has nothing more to do, ever.
    fn receive_requests(&mut self) -> bool {
        if self.live.is_empty() && !self.scheduler.has_unsettled_blocks() {
            self.scheduler.check_invariants();
            self.publish_load();
            if self.draining {
                // What was sent before is still received; then the inbox has ended. Closed only now, so that an abort
                // is heard while the last requests run.
                self.inbox.close();
            }
            let Some(message) = self.inbox.blocking_recv() else { return false };
            self.receive(message);
        }
        while let Ok(message) = self.inbox.try_recv() {
            self.receive(message);
        }
        !self.aborted
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Generate(submission) => self.accept(*submission),
            Message::Drain => self.draining = true,
            Message::Abort => self.aborted = true,
        }
    }

    /// Gives a request to the scheduler.
    fn accept(&mut self, Submission { request, events, slot, started, submitted, span }: Submission) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let limits = Limits { max_tokens: request.max_tokens, stop_tokens: request.stop_tokens.clone() };
        let sequence = SequenceRequest {
            tokens: &request.prompt.tokens,
            media: &request.prompt.media,
            limits,
            standing: request.standing,
            scope: request.cache_scope,
            scores_prompt: request.prompt_logprobs.is_some(),
        };
        let added = self.scheduler.add(id, sequence);
        let introduction = Some(NewSequence {
            id,
            sampling: request.sampling,
            logprobs: request.logprobs,
            prompt_logprobs: request.prompt_logprobs,
            prompt: request.prompt.tokens.into(),
            media: request.prompt.media,
            constraint: request.constraint,
            max_tokens: request.max_tokens,
            stop_tokens: request.stop_tokens,
        });
        let live = LiveRequest {
            events,
            introduction,
            has_started: started,
            submitted,
            started: None,
            first_token: None,
            last_token: None,
            span,
            _slot: slot,
        };
        match added {
            Ok(()) => {
                self.live.insert(id, live);
            }
            // The handle checks the same limits, so this is a mistake of ours; the caller must hear of it all the same.
            Err(rejection) => live.fail(EngineFailure::Engine(rejection.to_string()), &self.metrics),
        }
    }

    /// Ends the requests whose streams were dropped. There is no cancel message, so there is none to lose.
    fn cancel_abandoned(&mut self) {
        for (id, request) in self.live.extract_if(.., |_, request| request.is_abandoned()) {
            self.scheduler.cancel(id);
            request.cancel(&self.metrics);
        }
    }

    /// The plan with what the runner must know of its new sequences.
    fn batch_for(&mut self, plan: StepPlan) -> Arc<StepBatch> {
        let live = &mut self.live;
        let mut introduce = |id| live.get_mut(&id).and_then(|request| request.introduce(&self.metrics));
        let new_sequences = plan.entries.iter().filter_map(|entry| introduce(entry.sequence)).collect();
        Arc::new(StepBatch { plan, new_sequences })
    }

    /// Hop 8b of 9. Sends what the step sampled to the requests' streams, and the ends that follow from it.
    fn publish(&mut self, plan: &StepPlan, output: StepOutput) {
        for (id, scores) in output.scored {
            let Entry::Occupied(request) = self.live.entry(id) else { continue };
            match scores {
                Ok(scores) => request.get().prompt(scores),
                Err(failure) => {
                    self.scheduler.fail(id);
                    request.remove().fail(failure, &self.metrics);
                }
            }
        }
        let samples: Vec<Sample> = output
            .sampled
            .iter()
            .map(|(id, result)| Sample { sequence: *id, token: result.as_ref().ok().map(|token| token.id) })
            .collect();
        let updates = self.scheduler.commit(plan, &samples);
        let now = Instant::now();
        let ended =
            updates.iter().filter(|update| !matches!(update, SequenceUpdate::Appended { .. })).count();
        let waiting = self.scheduler.load().waiting > 0;
        (0..ended).for_each(|_| self.drain_rate.ended(now, waiting));
        for ((id, result), update) in output.sampled.into_iter().zip(updates) {
            let Entry::Occupied(mut request) = self.live.entry(id) else { continue };
            match result {
                Ok(token) => request.get_mut().token(token, now, &self.metrics),
                Err(failure) => {
                    request.remove().fail(failure, &self.metrics);
                    continue;
                }
            }
            if let SequenceUpdate::Finished { finished, .. } = update {
                request.remove().finish(finished, &self.metrics);
            }
        }
    }

    /// Lets the handles see how busy it is.
    fn publish_load(&self) {
        let load = self.scheduler.load();
        self.status.send_replace(Status { load, drain_rate: self.drain_rate });
        self.metrics.show(load);
    }

    fn note_step(&mut self, plan: &StepPlan, started: Instant) {
        let elapsed = started.elapsed();
        let tokens: usize = plan.entries.iter().map(|entry| entry.tokens.len()).sum();
        if plan.entries.is_empty() {
            return;
        }
        self.metrics.step_seconds.record(elapsed);
        self.metrics.step_tokens.record(tokens as f64);
        let drafted: usize = plan.entries.iter().map(|entry| entry.draft).sum();
        debug!(sequences = plan.entries.len(), tokens, drafted, ?elapsed, "step");
        let (sequences, seconds) = (plan.entries.len(), elapsed.as_secs_f64());
        if self.small_steps.is_some_and(|most| tokens <= most) {
            self.row_cost.observe(tokens, seconds);
            self.row_cost.share().into_iter().for_each(|share| self.scheduler.set_row_cost(share));
        }
        self.pace.observe(sequences, tokens - drafted - sequences, seconds);
        let answers = plan.entries.iter().filter(|entry| entry.samples).count();
        let load = self.scheduler.load();
        let admitted_next = load.waiting.min(self.max_sequences - load.running);
        let prompts = sequences - answers + admitted_next;
        self.scheduler.set_catch_up(self.pace.catch_up(answers, prompts));
    }

    /// Gives every request that is left, queued ones included, its last event. Afterwards none can arrive.
    pub(crate) fn fail_all(&mut self, reason: &str) {
        let failure = EngineFailure::Engine(reason.to_owned());
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            self.receive(message);
        }
        for (_, request) in std::mem::take(&mut self.live) {
            request.fail(failure.clone(), &self.metrics);
        }
    }
}

/// A runner that answers for other sequences than it was asked about would leave some of them waiting for ever.
fn check_answer(plan: &StepPlan, output: &StepOutput) -> Result<(), RunnerError> {
    let mut rest = output.sampled.as_slice();
    let answered = plan.entries.iter().filter(|entry| entry.samples).all(|entry| {
        let count = rest.iter().take_while(|(sequence, _)| *sequence == entry.sequence).count();
        rest = &rest[count..];
        (1..=entry.draft + 1).contains(&count)
    });
    if !answered || !rest.is_empty() {
        return Err(wrong_samples(plan, output));
    }
    let wanted = plan.entries.iter().filter(|entry| !entry.scores.is_empty());
    let wanted = wanted.map(|entry| (entry.sequence, entry.scores.len()));
    let is_answer =
        |((id, count), (scored, scores)): ((SequenceId, usize), &(SequenceId, Result<Vec<_>, _>))| {
            id == *scored && scores.as_ref().map_or(true, |scores| scores.len() == count)
        };
    if wanted.clone().count() == output.scored.len() && wanted.zip(&output.scored).all(is_answer) {
        return Ok(());
    }
    Err(RunnerError("the runner was asked for scores of a prompt and gave others".into()))
}

fn wrong_samples(plan: &StepPlan, output: &StepOutput) -> RunnerError {
    let asked: Vec<_> =
        plan.entries.iter().filter(|entry| entry.samples).map(|entry| entry.sequence.0).collect();
    let answered: Vec<_> = output.sampled.iter().map(|(sequence, _)| sequence.0).collect();
    RunnerError(format!("the runner was asked to sample sequences {asked:?} and answered for {answered:?}"))
}

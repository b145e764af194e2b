//! The engine's side of the model: a thread for each rank, and [`ModelRunner`] over channels to it.
//!
//! There is one rank today. Several will get the same `Arc<StepBatch>` each and meet inside the model's collectives; the
//! first one samples and answers. Nothing here pretends to do that yet.

use std::{
    any::Any,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use kimi_engine::{ModelRunner, RunnerError, StepBatch, StepOutput};
use kimi_k2::Checkpoint;
use kimi_scheduler::TierContents;

use crate::{
    RunnerConfig, StartError,
    rank::{self, RankFacts, Ready},
};

/// Runs the model in a thread of its own. Dropping it waits for the step in progress and ends the thread, unless the step
/// has run out of its time: a thread that hangs is left behind.
#[derive(Debug)]
pub struct RankGroup {
    rank: RankThread,
    facts: RankFacts,
}

impl RankGroup {
    /// Starts the rank and waits until the model is loaded and the cache allocated. `progress` is called from the rank's
    /// thread with `(bytes done, bytes in all)`.
    pub fn start(
        config: RunnerConfig,
        checkpoint: Arc<Checkpoint>,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Self, StartError> {
        let (rank, facts) = RankThread::spawn(move || rank::start(config, checkpoint, progress))?;
        Ok(Self { rank, facts })
    }

    /// A step that takes longer than this is given up as hung: [`collect`](ModelRunner::collect) is then an error, which
    /// ends the engine. Without it, a device that never answers would keep every request waiting for ever.
    #[must_use]
    pub fn with_step_timeout(mut self, timeout: Duration) -> Self {
        self.rank.step_timeout = timeout;
        self
    }

    /// Blocks of the cache: what the scheduler may hand out.
    pub fn block_count(&self) -> usize {
        self.facts.block_count
    }

    /// Where the memory goes, as a table for the log.
    pub fn memory_table(&self) -> &str {
        &self.facts.memory
    }
}

impl ModelRunner for RankGroup {
    fn submit(&mut self, batch: Arc<StepBatch>) -> Result<(), RunnerError> {
        self.rank.submit(batch)
    }

    fn collect(&mut self) -> Result<StepOutput, RunnerError> {
        self.rank.collect()
    }

    fn second_tier(&mut self) -> Option<TierContents> {
        self.facts.tier.take()
    }

    fn takes_media(&self) -> bool {
        self.facts.takes_media
    }
}

/// A thread that owns a model, and both ends of the conversation with it: one batch down, one output up.
#[derive(Debug)]
struct RankThread {
    /// `None` once the rank is known to be dead or is told to end.
    batches: Option<SyncSender<Arc<StepBatch>>>,
    outputs: Receiver<Result<StepOutput, RunnerError>>,
    /// Whether an output is owed. Keeps a wrong call order from becoming a wait without end.
    in_flight: bool,
    step_timeout: Duration,
    thread: Option<thread::JoinHandle<()>>,
}

impl RankThread {
    /// Runs `build` in a new thread and waits for it; the step function it gives never leaves that thread.
    fn spawn<B, S>(build: B) -> Result<(Self, RankFacts), StartError>
    where
        B: FnOnce() -> Result<Ready<S>, StartError> + Send + 'static,
        S: FnMut(&StepBatch) -> Result<StepOutput, RunnerError>,
    {
        let (ready_sender, ready) = sync_channel(1);
        let (batches, batch_receiver) = sync_channel::<Arc<StepBatch>>(1);
        let (output_sender, outputs) = sync_channel(1);
        let thread = thread::Builder::new().name("rank-0".into()).spawn(move || {
            let mut step = match build() {
                Ok((step, facts)) => {
                    let _ = ready_sender.send(Ok(facts));
                    step
                }
                Err(error) => {
                    let _ = ready_sender.send(Err(error));
                    return;
                }
            };
            drop(ready_sender);
            while let Ok(batch) = batch_receiver.recv() {
                let output = step(&batch);
                // After a failed step the cache cannot be trusted.
                let failed = output.is_err();
                if output_sender.send(output).is_err() || failed {
                    return;
                }
            }
        })?;
        let mut rank = Self {
            batches: Some(batches),
            outputs,
            in_flight: false,
            step_timeout: Duration::MAX,
            thread: Some(thread),
        };
        let facts = ready.recv().map_err(|_| StartError::Died(rank.last_words()))??;
        Ok((rank, facts))
    }

    fn submit(&mut self, batch: Arc<StepBatch>) -> Result<(), RunnerError> {
        if self.in_flight {
            return Err(RunnerError("a step was submitted before the last one was collected".into()));
        }
        let alive = self.batches.as_ref().is_some_and(|batches| batches.send(batch).is_ok());
        if !alive {
            return Err(self.died());
        }
        self.in_flight = true;
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, RunnerError> {
        if !self.in_flight {
            return Err(RunnerError("there is no step to collect".into()));
        }
        self.in_flight = false;
        match self.outputs.recv_timeout(self.step_timeout) {
            Ok(output) => output,
            Err(RecvTimeoutError::Disconnected) => Err(self.died()),
            Err(RecvTimeoutError::Timeout) => Err(self.hung()),
        }
    }

    /// Gives the thread up. It cannot be ended from outside, and waiting for it would hang, too.
    fn hung(&mut self) -> RunnerError {
        self.batches = None;
        self.thread = None;
        let seconds = self.step_timeout.as_secs_f64();
        RunnerError(format!(
            "a step of the model ran longer than {seconds} seconds and was given up; --step-timeout sets the limit"
        ))
    }

    fn died(&mut self) -> RunnerError {
        RunnerError(format!("the model's thread died: {}", self.last_words()))
    }

    /// Joins the dead thread and tells what it panicked with.
    fn last_words(&mut self) -> String {
        self.batches = None;
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Err(panic)) => panic_text(&*panic).to_owned(),
            Some(Ok(())) | None => "it had ended after an earlier failure".to_owned(),
        }
    }
}

impl Drop for RankThread {
    fn drop(&mut self) {
        // The closed channel ends the thread's loop after the step in progress.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported by `collect`, or nobody asked.
            let _ = thread.join();
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use kimi_scheduler::StepPlan;

    use super::*;

    fn batch() -> Arc<StepBatch> {
        Arc::new(StepBatch { plan: StepPlan::default(), new_sequences: vec![] })
    }

    fn rank(
        mut step: impl FnMut(u32) -> Result<(), RunnerError> + Send + 'static,
    ) -> Result<(RankThread, RankFacts), StartError> {
        RankThread::spawn(move || {
            let mut steps = 0;
            let step = move |_: &StepBatch| {
                steps += 1;
                step(steps).map(|()| StepOutput::default())
            };
            Ok((step, RankFacts { block_count: 3, ..RankFacts::default() }))
        })
    }

    #[test]
    fn a_panicking_rank_is_an_error_and_stays_one() {
        let (mut rank, facts) = rank(|step| {
            assert!(step < 2, "out of paper");
            Ok(())
        })
        .unwrap();
        assert_eq!(facts.block_count, 3);
        rank.submit(batch()).unwrap();
        rank.collect().unwrap();
        rank.submit(batch()).unwrap();
        assert_eq!(rank.collect().unwrap_err().0, "the model's thread died: out of paper");
        assert!(rank.submit(batch()).unwrap_err().0.contains("earlier failure"));
    }

    #[test]
    fn a_hung_step_is_an_error_and_nobody_waits_for_it() {
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let (mut rank, _) = rank(move |step| {
            if step == 2 {
                let _ = hang.recv();
            }
            Ok(())
        })
        .unwrap();
        rank.step_timeout = Duration::from_millis(50);
        rank.submit(batch()).unwrap();
        rank.collect().unwrap();
        rank.submit(batch()).unwrap();
        assert!(rank.collect().unwrap_err().0.contains("longer than 0.05 seconds"));
        assert!(rank.submit(batch()).is_err(), "what hung is not asked again");
        let started = std::time::Instant::now();
        drop(rank);
        assert!(started.elapsed() < Duration::from_secs(1), "dropping does not wait");
        drop(release);
    }

    #[test]
    fn a_failed_step_ends_the_rank() {
        let (mut rank, _) = rank(|_| Err(RunnerError("bad batch".into()))).unwrap();
        rank.submit(batch()).unwrap();
        assert_eq!(rank.collect().unwrap_err().0, "bad batch");
        // The thread may still be on its way out, so the error may show at either call.
        let second = rank.submit(batch()).and_then(|()| rank.collect());
        assert!(second.unwrap_err().0.contains("died"));
    }

    #[test]
    fn a_rank_that_dies_while_loading_does_not_hang() {
        type Step = fn(&StepBatch) -> Result<StepOutput, RunnerError>;
        let error =
            RankThread::spawn(|| -> Result<Ready<Step>, StartError> { panic!("no such disk") }).unwrap_err();
        assert_eq!(error.to_string(), "the model's thread died while loading: no such disk");
    }

    #[test]
    fn a_wrong_call_order_is_an_error_not_a_hang() {
        let (mut rank, _) = rank(|_| Ok(())).unwrap();
        rank.collect().unwrap_err();
        rank.submit(batch()).unwrap();
        rank.submit(batch()).unwrap_err();
        rank.collect().unwrap();
    }
}

//! The engine's side of the model: a thread for each rank, and [`ModelRunner`] over channels to them.
//!
//! All ranks get the same `Arc<StepBatch>` and meet inside the model's collectives; the first one samples and answers.

use std::{
    any::Any,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use kimi_engine::{ModelRunner, RunnerError, StepBatch, StepOutput};
use kimi_k2::Checkpoint;
use kimi_scheduler::TierContents;

use crate::{
    RunnerConfig, StartError,
    collective_threads::{Dismissal, PEER_GONE, ThreadCollective},
    rank::{self, RankFacts, Ready},
};

/// How long ranks may take to notice that another one has failed.
const NOTICE: Duration = Duration::from_secs(1);

/// Runs the model in a thread for each rank. Dropping it waits for the step in progress and ends the threads, unless the step
/// has run out of its time: a thread that hangs is left behind.
#[derive(Debug)]
pub struct RankGroup {
    /// Never empty.
    ranks: Vec<RankThread>,
    facts: RankFacts,
    dismissal: Dismissal,
    step_timeout: Duration,
}

impl RankGroup {
    /// Starts the ranks and waits until the model is loaded and the caches are allocated. `progress` is called from the first
    /// rank's thread with `(bytes done, bytes in all)`.
    ///
    /// # Errors
    /// What the first rank says that cannot start.
    pub fn start(
        config: &RunnerConfig,
        checkpoint: &Arc<Checkpoint>,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Self, StartError> {
        let count = config.ranks.get();
        if count > 1 && config.disk.is_some() {
            return Err(StartError::TierOfRanks);
        }
        let (places, dismissal) = ThreadCollective::group(count);
        let mut progress = Some(progress);
        let mut starting = Vec::with_capacity(count);
        for (rank, place) in places.into_iter().enumerate() {
            let (config, checkpoint) = (config.clone(), Arc::clone(checkpoint));
            let place = (count > 1).then_some(place);
            let mut progress = progress.take();
            let progress = move |done, total| progress.iter_mut().for_each(|report| report(done, total));
            starting.push(RankThread::spawn(rank, move || rank::start(config, checkpoint, place, progress))?);
        }
        // All load at the same time; the first one that fails is heard when those before it are done.
        let ranks = starting.into_iter().map(Starting::wait);
        Ok(Self::new(ranks.collect::<Result<_, _>>()?, dismissal))
    }

    /// Ranks that are ready.
    fn new(ranks: Vec<(RankThread, RankFacts)>, dismissal: Dismissal) -> Self {
        // Every rank caches every token, so the smallest cache limits all.
        let block_count = ranks.iter().map(|(_, facts)| facts.block_count).min().unwrap_or_default();
        let (ranks, facts): (Vec<_>, Vec<_>) = ranks.into_iter().unzip();
        let facts = RankFacts { block_count, ..facts.into_iter().next().unwrap_or_default() };
        Self { ranks, facts, dismissal, step_timeout: Duration::MAX }
    }

    /// A step that takes longer than this is given up as hung: [`collect`](ModelRunner::collect) is then an error, which
    /// ends the engine. Without it, a device that never answers would keep every request waiting for ever.
    #[must_use]
    pub fn with_step_timeout(mut self, timeout: Duration) -> Self {
        self.step_timeout = timeout;
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
        self.ranks.iter_mut().try_for_each(|rank| rank.submit(Arc::clone(&batch)))
    }

    fn collect(&mut self) -> Result<StepOutput, RunnerError> {
        let deadline = Instant::now().checked_add(self.step_timeout);
        let mut failed = false;
        let mut outputs = Vec::with_capacity(self.ranks.len());
        for rank in &mut self.ranks {
            let left =
                deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            let output = rank.collect(if failed { NOTICE } else { left }, self.step_timeout);
            if output.is_err() {
                failed = true;
                // Who waits for that rank waits in vain.
                self.dismissal.dismiss();
            }
            outputs.push(output);
        }
        let is_cause = |error: &RunnerError| !error.0.contains(PEER_GONE);
        if let Some(cause) =
            outputs.iter().filter_map(|output| output.as_ref().err()).find(|error| is_cause(error))
        {
            return Err(cause.clone());
        }
        outputs.swap_remove(0)
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
    thread: Option<thread::JoinHandle<()>>,
}

/// A rank whose model is being loaded.
struct Starting {
    rank: RankThread,
    ready: Receiver<Result<RankFacts, StartError>>,
}

impl Starting {
    /// Waits until it can compute.
    fn wait(mut self) -> Result<(RankThread, RankFacts), StartError> {
        let facts = self.ready.recv().map_err(|_| StartError::Died(self.rank.last_words()))??;
        Ok((self.rank, facts))
    }
}

impl RankThread {
    /// Runs `build` in a new thread; the step function it gives never leaves that thread.
    fn spawn<B, S>(number: usize, build: B) -> Result<Starting, StartError>
    where
        B: FnOnce() -> Result<Ready<S>, StartError> + Send + 'static,
        S: FnMut(&StepBatch) -> Result<StepOutput, RunnerError>,
    {
        let (ready_sender, ready) = sync_channel(1);
        let (batches, batch_receiver) = sync_channel::<Arc<StepBatch>>(1);
        let (output_sender, outputs) = sync_channel(1);
        let thread = thread::Builder::new().name(format!("rank-{number}")).spawn(move || {
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
        let rank = Self { batches: Some(batches), outputs, in_flight: false, thread: Some(thread) };
        Ok(Starting { rank, ready })
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

    /// Waits for the step's output for `left`, which is what is left of `limit`.
    fn collect(&mut self, left: Duration, limit: Duration) -> Result<StepOutput, RunnerError> {
        if !self.in_flight {
            return Err(RunnerError("there is no step to collect".into()));
        }
        self.in_flight = false;
        match self.outputs.recv_timeout(left) {
            Ok(output) => output,
            Err(RecvTimeoutError::Disconnected) => Err(self.died()),
            Err(RecvTimeoutError::Timeout) => Err(self.hung(limit)),
        }
    }

    /// Gives the thread up. It cannot be ended from outside, and waiting for it would hang, too.
    fn hung(&mut self, limit: Duration) -> RunnerError {
        self.batches = None;
        self.thread = None;
        let seconds = limit.as_secs_f64();
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
    use std::sync::Mutex;

    use kimi_scheduler::StepPlan;

    use super::*;

    fn batch() -> Arc<StepBatch> {
        Arc::new(StepBatch { plan: StepPlan::default(), new_sequences: vec![] })
    }

    /// A group of ranks that count their steps and hold a meeting in each, after `step`.
    fn group(
        ranks: usize,
        step: impl Fn(usize, u32) -> Result<(), RunnerError> + Clone + Send + 'static,
    ) -> RankGroup {
        let (places, dismissal) = ThreadCollective::group(ranks);
        let spawn = |(rank, place): (usize, ThreadCollective)| {
            let step = step.clone();
            let starting = RankThread::spawn(rank, move || {
                let mut steps = 0;
                let step = move |_: &StepBatch| {
                    steps += 1;
                    step(rank, steps)?;
                    place.meet().map_err(|error| RunnerError(error.to_string()))?;
                    Ok(StepOutput::default())
                };
                Ok((step, RankFacts { block_count: 3 + ranks - rank, ..RankFacts::default() }))
            });
            starting.unwrap().wait().unwrap()
        };
        RankGroup::new(places.into_iter().enumerate().map(spawn).collect(), dismissal)
    }

    fn step(group: &mut RankGroup) -> Result<StepOutput, RunnerError> {
        group.submit(batch())?;
        group.collect()
    }

    #[test]
    fn the_smallest_cache_counts() {
        assert_eq!(group(1, |_, _| Ok(())).block_count(), 4);
        assert_eq!(group(3, |_, _| Ok(())).block_count(), 4);
    }

    #[test]
    fn a_panicking_rank_is_an_error_and_stays_one() {
        for ranks in 1..4 {
            let mut group = group(ranks, move |rank, step| {
                assert!(rank + 1 < ranks || step < 2, "out of paper");
                Ok(())
            });
            step(&mut group).unwrap();
            assert_eq!(step(&mut group).unwrap_err().0, "the model's thread died: out of paper");
            assert!(step(&mut group).is_err());
        }
    }

    #[test]
    fn a_hung_step_is_an_error_and_nobody_waits_for_it() {
        for ranks in 1..4 {
            let (release, hang) = std::sync::mpsc::channel::<()>();
            let hang = Arc::new(Mutex::new(hang));
            let group = group(ranks, move |rank, step| {
                if rank + 1 == ranks && step == 2 {
                    let _ = hang.lock().unwrap().recv();
                }
                Ok(())
            });
            let mut group = group.with_step_timeout(Duration::from_millis(50));
            step(&mut group).unwrap();
            assert!(step(&mut group).unwrap_err().0.contains("longer than 0.05 seconds"));
            assert!(group.submit(batch()).is_err(), "what hung is not asked again");
            let started = Instant::now();
            drop(group);
            assert!(started.elapsed() < Duration::from_secs(1), "dropping does not wait");
            drop(release);
        }
    }

    #[test]
    fn a_failed_step_ends_the_ranks() {
        for ranks in 1..4 {
            let mut group =
                group(
                    ranks,
                    move |rank, _| {
                        if rank + 1 < ranks { Ok(()) } else { Err(RunnerError("bad batch".into())) }
                    },
                );
            assert_eq!(step(&mut group).unwrap_err().0, "bad batch");
            // The threads may still be on their way out, so the error may show at either call.
            assert!(step(&mut group).unwrap_err().0.contains("died"));
        }
    }

    #[test]
    fn a_rank_that_dies_while_loading_does_not_hang() {
        type Step = fn(&StepBatch) -> Result<StepOutput, RunnerError>;
        let starting = RankThread::spawn(0, || -> Result<Ready<Step>, StartError> { panic!("no such disk") });
        let error = starting.unwrap().wait().unwrap_err();
        assert_eq!(error.to_string(), "the model's thread died while loading: no such disk");
    }

    #[test]
    fn a_wrong_call_order_is_an_error_not_a_hang() {
        let mut group = group(2, |_, _| Ok(()));
        group.collect().unwrap_err();
        let mut group = self::group(2, |_, _| Ok(()));
        group.submit(batch()).unwrap();
        group.submit(batch()).unwrap_err();
        group.collect().unwrap();
    }
}

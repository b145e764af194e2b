//! Starting the engine thread and waiting for its end.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use kimi_scheduler::Scheduler;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{error, info};

use crate::drain_rate::DrainRate;
use crate::engine_loop::Engine;
use crate::handle::Status;
use crate::metrics::EngineMetrics;
use crate::pace::Pace;
use crate::row_cost::RowCost;
use crate::{EngineConfig, EngineHandle, EngineState, ModelRunner, RunnerError};

/// Starts the engine thread over a runner that is ready to run steps.
///
/// Metrics go to the recorder that is installed at this moment.
///
/// # Panics
/// When a size of the scheduler's configuration is 0, or the operating system gives the process no more threads.
pub fn start(config: EngineConfig, mut runner: Box<dyn ModelRunner>) -> (EngineHandle, EngineThread) {
    let (inbox, messages) = mpsc::unbounded_channel();
    let scheduler = Scheduler::new(config.scheduler).with_tier(runner.second_tier().unwrap_or_default());
    let first = Status { load: scheduler.load(), ..Status::default() };
    let (status_sender, status) = watch::channel(first);
    let (state_sender, state) = watch::channel(EngineState::Serving);
    let state_sender = Arc::new(state_sender);
    let metrics = Arc::new(EngineMetrics::new());
    let capacity = config.scheduler.max_sequences + config.max_waiting;
    let handle = EngineHandle {
        inbox,
        slots: Arc::new(Semaphore::new(capacity)),
        capacity,
        status,
        state: Arc::clone(&state_sender),
        limits: config.limits(),
        takes_media: runner.takes_media(),
        metrics: Arc::clone(&metrics),
    };
    let engine = Engine {
        scheduler,
        runner,
        inbox: messages,
        live: BTreeMap::new(),
        next_id: 0,
        draining: false,
        aborted: false,
        status: status_sender,
        drain_rate: DrainRate::default(),
        small_steps: config.scheduler.speculation.map(|speculation| speculation.max_rows),
        row_cost: RowCost::default(),
        pace: Pace::default(),
        max_sequences: config.scheduler.max_sequences,
        metrics,
    };
    let slots = Arc::clone(&handle.slots);
    let thread = thread::Builder::new()
        .name("engine".into())
        .spawn(move || live_and_die(engine, &slots, &state_sender))
        .expect("the operating system gives the process one more thread");
    info!(?config, "engine started");
    (handle, EngineThread { thread, state })
}

/// The whole life of the engine thread. However it ends, every stream gets its last event and the state is told.
fn live_and_die(mut engine: Engine, slots: &Semaphore, state: &watch::Sender<EngineState>) {
    // The engine is not used after a panic, except to fail the requests it holds.
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run())).unwrap_or_else(|panic| {
        Err(RunnerError(format!("the engine thread panicked: {}", panic_text(&*panic))))
    });
    slots.close();
    let (end, reason) = match outcome {
        Ok(()) => {
            info!("engine ended");
            (EngineState::Ended, "the server stopped before the answer was complete".to_owned())
        }
        Err(RunnerError(reason)) => {
            error!(reason, "engine failed");
            (EngineState::Failed(reason.clone()), reason)
        }
    };
    // Told before the streams are, so that nobody who heard of the end is told that all is well; and before the runner is
    // dropped: a hung device must not keep the process from ending.
    state.send_replace(end);
    engine.fail_all(&reason);
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// The engine thread as the binary sees it: something that ends.
#[derive(Debug)]
pub struct EngineThread {
    thread: thread::JoinHandle<()>,
    state: watch::Receiver<EngineState>,
}

impl EngineThread {
    /// Waits for the end of the engine: `Err` when it died, in which case the process should end too. Can be dropped and
    /// called again.
    pub async fn ended(&self) -> Result<(), RunnerError> {
        let mut state = self.state.clone();
        let end = state.wait_for(|state| matches!(state, EngineState::Ended | EngineState::Failed(_))).await;
        end.map_or_else(|_| Err(vanished()), |end| outcome(&end))
    }

    /// Blocks until the thread has ended; drain the engine or drop its handles before.
    pub fn join(self) -> Result<(), RunnerError> {
        self.thread.join().map_err(|_| vanished())?;
        outcome(&self.state.borrow())
    }
}

fn outcome(state: &EngineState) -> Result<(), RunnerError> {
    match state {
        EngineState::Failed(reason) => Err(RunnerError(reason.clone())),
        EngineState::Serving | EngineState::Draining | EngineState::Ended => Ok(()),
    }
}

fn vanished() -> RunnerError {
    RunnerError("the engine thread ended without a word".to_owned())
}

//! What the engine writes to the metrics recorder, for a handful of requests with known ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use kimi_engine::{
    Constraint, EngineConfig, FakeRunner, GenerateRequest, Sampling, SchedulerConfig, Standing,
    metrics as names, start,
};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Keeps counters, gauges (as the bits of an f64) and the number and sum of what histograms were given.
#[derive(Default)]
struct Ledger {
    numbers: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Distribution>>>,
    helps: Mutex<BTreeMap<String, String>>,
}

#[derive(Default)]
struct Distribution(Mutex<(usize, f64)>);

impl HistogramFn for Distribution {
    fn record(&self, value: f64) {
        let mut distribution = self.0.lock().expect("no test thread panics with the lock");
        *distribution = (distribution.0 + 1, distribution.1 + value);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test thread panics with the lock")
}

fn series(key: &Key) -> String {
    let labels = key.labels().map(|label| format!("{{{}={}}}", label.key(), label.value()));
    key.name().to_owned() + &labels.collect::<String>()
}

impl Ledger {
    fn number(&self, key: &Key) -> Arc<AtomicU64> {
        Arc::clone(lock(&self.numbers).entry(series(key)).or_default())
    }

    fn describe(&self, name: &KeyName, help: &SharedString) {
        lock(&self.helps).insert(name.as_str().to_owned(), help.clone().into_owned());
    }

    fn count(&self, series: &str) -> u64 {
        lock(&self.numbers)[series].load(Ordering::Relaxed)
    }

    fn gauge(&self, series: &str) -> f64 {
        f64::from_bits(self.count(series))
    }

    fn outcome(&self, outcome: &str) -> u64 {
        self.count(&format!("{}{{outcome={outcome}}}", names::REQUESTS_TOTAL))
    }

    /// `(values, their sum)`.
    fn distribution(&self, series: &str) -> (usize, f64) {
        *lock(&lock(&self.histograms)[series].0)
    }
}

impl Recorder for Ledger {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.number(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(lock(&self.histograms).entry(series(key)).or_default()))
    }
}

fn request(prompt_tokens: u32, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: (0..prompt_tokens).collect::<Vec<_>>().into(),
        sampling: Sampling::greedy(),
        max_tokens,
        stop_tokens: vec![0],
        logprobs: None,
        prompt_logprobs: None,
        constraint: Constraint::default(),
        cache_scope: None,
        standing: Standing::default(),
    }
}

#[test]
fn every_request_is_counted_once_and_every_token_timed() {
    let ledger = Ledger::default();
    let config = EngineConfig {
        scheduler: SchedulerConfig {
            block_size: 4,
            block_count: 16,
            max_batch_tokens: 64,
            max_sequences: 4,
            max_context: 64,
            speculation: None,
        },
        max_waiting: 0,
    };
    // One request at a time, so that the third is the third to appear.
    let runner = FakeRunner::scripted(vec![vec![7, 7, 0], vec![7]]).with_non_finite(2, 1);
    let (engine, thread) = metrics::with_local_recorder(&ledger, || {
        names::METRICS.iter().for_each(names::Metric::describe);
        start(config, Box::new(runner))
    });
    for (prompt_tokens, max_tokens) in [(5, 9), (6, 4), (7, 9)] {
        let mut stream = engine.generate(request(prompt_tokens, max_tokens)).unwrap();
        while stream.blocking_next().is_some() {}
    }
    assert!(engine.generate(request(64, 1)).is_err());
    assert!(engine.generate(request(0, 1)).is_err());
    engine.drain();
    assert!(engine.generate(request(1, 1)).is_err());
    thread.join().unwrap();

    let outcomes = ["stop", "length", "failed", "too_long", "empty", "stopping", "busy", "cancelled"];
    assert_eq!(outcomes.map(|outcome| ledger.outcome(outcome)), [1, 1, 1, 1, 1, 1, 0, 0]);
    assert_eq!(ledger.count(names::NON_FINITE_LOGITS_TOTAL), 1);
    assert_eq!(ledger.count(names::PROMPT_TOKENS_TOTAL), 5 + 6);
    assert_eq!(ledger.count(names::CACHED_TOKENS_TOTAL), 0);
    assert_eq!(ledger.count(names::GENERATION_TOKENS_TOTAL), 3 + 4 + 1);
    assert_eq!(ledger.distribution(names::FIRST_TOKEN_SECONDS).0, 3);
    assert_eq!(ledger.distribution(names::INTER_TOKEN_SECONDS).0, 2 + 3);
    assert_eq!(ledger.distribution(names::QUEUE_SECONDS).0, 3);
    assert_eq!(ledger.distribution(names::REQUEST_SECONDS).0, 2);
    assert_eq!(ledger.distribution(names::PREFILL_SECONDS).0, 3);
    assert_eq!(ledger.distribution(names::DECODE_SECONDS).0, 2);
    assert_eq!(ledger.distribution(names::REQUEST_PROMPT_TOKENS), (2, 11.0));
    assert_eq!(ledger.distribution(names::REQUEST_GENERATION_TOKENS), (2, 7.0));
    assert_eq!(ledger.distribution(names::STEP_SECONDS).0, 3 + 4 + 2);
    assert_eq!(ledger.distribution(names::STEP_TOKENS), (9, f64::from(5 + 2 + 6 + 3 + 7 + 1)));
    assert_eq!(ledger.gauge(names::BLOCKS_USED).to_bits(), 0.0_f64.to_bits());
    assert_eq!(ledger.gauge(names::BLOCKS_FREE).to_bits(), 16.0_f64.to_bits());

    let described: Vec<_> = lock(&ledger.helps).keys().cloned().collect();
    let mut documented: Vec<_> = names::METRICS.iter().map(|metric| metric.name).collect();
    documented.sort_unstable();
    assert_eq!(described, documented);
    let written =
        lock(&ledger.numbers).keys().chain(lock(&ledger.histograms).keys()).cloned().collect::<Vec<_>>();
    let unknown =
        written.iter().find(|series| !documented.contains(&series.split('{').next().unwrap_or_default()));
    assert_eq!(unknown, None, "a series without documentation");
}

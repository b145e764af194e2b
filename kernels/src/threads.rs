//! Threads that share the parts of an op.
//!
//! An op lasts microseconds and the next one follows at once, so workers that have run out of parts watch for a while
//! before they sleep. Threads take parts as they go: one that loses its core to another process holds up what it took, not
//! its share of the work.

#![allow(unsafe_code, reason = "parts of borrowed data go to threads that live longer than the borrow")]

use std::any::Any;
use std::cell::{OnceCell, UnsafeCell};
use std::fmt;
use std::hint::spin_loop;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};

/// Multiply-adds below which other threads cost more than they save.
pub(crate) const PARALLEL_WORK: usize = 1 << 16;
/// What ops that read and write each number once cost for each, in multiply-adds of products, whose numbers are near.
pub(crate) const ELEMENT: usize = 8;
/// How often a worker looks for the next op before it lets others have the core: some ten microseconds.
const SPINS: usize = 1_000;
/// How often it then looks, in between, before it sleeps.
const YIELDS: usize = 200;

/// Threads that work on ops, the caller included, where no thread has its own.
static COUNT: OnceLock<usize> = OnceLock::new();
/// Who works on the ops of all threads that have no pool of their own.
static POOL: OnceLock<Arc<Pool>> = OnceLock::new();

thread_local! {
    /// Who works on this thread's ops, if not everyone's pool.
    static OWN: OnceCell<Arc<Pool>> = const { OnceCell::new() };
}

/// Sets how many threads work on an op, the caller included. `false` when ops have run already; then it stays as it is.
/// Without it there are as many as the machine has cores for this process.
pub fn use_threads(count: usize) -> bool {
    COUNT.set(count.max(1)).is_ok()
}

/// Threads that work for one thread alone, until this is dropped: each rank has its own.
#[derive(Debug)]
#[must_use = "they end when it is dropped"]
pub struct OwnThreads {
    pool: Arc<Pool>,
}

impl OwnThreads {
    /// `count` threads, the calling one included, for all ops of the calling thread. They run where it may run.
    ///
    /// # Panics
    /// When the calling thread has threads of its own already.
    pub fn start(count: usize) -> Self {
        let pool = Pool::start(count.max(1), "rank-kernel");
        let first = OWN.with(|own| own.set(Arc::clone(&pool)).is_ok());
        assert!(first, "a thread has one pool of its own at most");
        Self { pool }
    }
}

impl Drop for OwnThreads {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// How many threads work on an op of this thread.
pub(crate) fn count() -> usize {
    OWN.with(|own| own.get().map_or_else(thread_count, |pool| pool.count))
}

/// How many threads work on an op where no thread has its own: see [`use_threads`].
pub fn thread_count() -> usize {
    *COUNT.get_or_init(|| {
        let allowed = thread::available_parallelism().map_or(1, usize::from);
        // Two threads of one core share its vector units.
        num_cpus::get_physical().clamp(1, allowed)
    })
}

/// Calls `run` with every number below `parts`, on all threads when `work` multiply-adds are worth it.
pub(crate) fn for_each(parts: usize, work: usize, run: impl Fn(usize) + Sync) {
    let run = |parts: Range<usize>, _| parts.for_each(&run);
    share_out(work, &Op { run: &run, parts, sharing: Sharing::OneByOne });
}

/// Calls `run` with ranges that together are all numbers below `parts`, on all threads when `work` multiply-adds are worth it.
/// They are long at first and short in the end, so that threads seldom begin anew and still end together (guided
/// self-scheduling, Polychronopoulos and Kuck 1987). With each range comes the first number of the one that the same thread gets
/// next, if any, so that it can ask for the memory in time.
pub(crate) fn for_ranges(parts: usize, work: usize, run: impl Fn(Range<usize>, Option<usize>) + Sync) {
    share_out(work, &Op { run: &run, parts, sharing: Sharing::Guided { divisor: 4 * count() } });
}

fn share_out(work: usize, op: &Op<'_>) {
    if op.parts < 2 || work < PARALLEL_WORK || !Pool::with(|pool| pool.run(op)) {
        (op.run)(0..op.parts, None);
    }
}

/// Calls `run` with the number of each chunk of `data` and the chunk; the last one may be shorter.
pub(crate) fn chunks_mut<T: Send>(
    data: &mut [T],
    chunk: usize,
    work: usize,
    run: impl Fn(usize, &mut [T]) + Sync,
) {
    if data.is_empty() {
        return;
    }
    let parts = Parts::new(data);
    let bounds = |part: usize| (part * chunk, parts.len.min((part + 1) * chunk));
    // SAFETY: chunks do not overlap, and each number comes once.
    for_each(parts.len.div_ceil(chunk), work, |part| run(part, unsafe { parts.get(bounds(part)) }));
}

/// Calls `run` with the number of each item of `data`, the item, and the number of the one that the same thread gets next, if any.
pub(crate) fn items_mut<T: Send>(
    data: &mut [T],
    work: usize,
    run: impl Fn(usize, &mut T, Option<usize>) + Sync,
) {
    let parts = Parts::new(data);
    for_ranges(parts.len, work, |items, next| {
        for item in items.clone() {
            let next = if item + 1 < items.end { Some(item + 1) } else { next };
            // SAFETY: each number comes once.
            unsafe { parts.get((item, item + 1)) }.iter_mut().for_each(|data| run(item, data, next));
        }
    });
}

/// Calls `run` with each item, on all threads of the calling one when `work` multiply-adds, of all together, are worth it.
pub fn for_each_item<T: Send>(items: &mut [T], work: usize, run: impl Fn(&mut T) + Sync) {
    chunks_mut(items, 1, work, |_, item| item.iter_mut().for_each(&run));
}

/// Calls `run` with the number of each part of `data` and the part; part `i` ends at `ends[i]`, where the next begins.
///
/// # Panics
/// When the ends descend or lie outside of `data`.
pub(crate) fn parts_mut<T: Send>(
    data: &mut [T],
    ends: &[usize],
    work: usize,
    run: impl Fn(usize, &mut [T]) + Sync,
) {
    assert!(ends.is_sorted() && ends.last().is_none_or(|end| *end <= data.len()), "parts overlap");
    let parts = Parts::new(data);
    let bounds = |part: usize| (if part == 0 { 0 } else { ends[part - 1] }, ends[part]);
    // SAFETY: the ends ascend, so parts do not overlap, and each number comes once.
    for_each(ends.len(), work, |part| run(part, unsafe { parts.get(bounds(part)) }));
}

/// Data of which each thread borrows another part.
struct Parts<T> {
    data: *mut T,
    len: usize,
}

// SAFETY: it hands out what can be sent, and to one thread each.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    fn new(data: &mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len() }
    }

    /// # Safety
    /// Nothing else borrows from these bounds, and the data is still borrowed by whoever made this.
    #[expect(clippy::mut_from_ref, reason = "parts are handed out once each")]
    unsafe fn get(&self, (start, end): (usize, usize)) -> &mut [T] {
        assert!(start <= end && end <= self.len);
        // SAFETY: the bounds lie inside; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), end - start) }
    }
}

/// Whether an op can be joined: the lowest bit. Above it, how many workers are inside; above that, the op's number.
type Gate = u64;
const OPEN: Gate = 1;
const ONE_INSIDE: Gate = 2;
const ONE_OP: Gate = 1 << 32;

fn inside(gate: Gate) -> Gate {
    (gate % ONE_OP) / ONE_INSIDE
}

/// An op, and how it is shared out.
#[derive(Clone, Copy)]
struct Op<'a> {
    run: &'a (dyn Fn(Range<usize>, Option<usize>) + Sync),
    parts: usize,
    sharing: Sharing,
}

/// How many parts a thread takes at a time.
#[derive(Clone, Copy)]
enum Sharing {
    /// One, when it is done with the one before.
    OneByOne,
    /// So much of what is left, at least one, and always a range ahead.
    Guided { divisor: usize },
}

struct Pool {
    /// The threads that work, the caller of an op included.
    count: usize,
    /// Whether a caller's op runs.
    busy: AtomicBool,
    gate: AtomicU64,
    /// Written while the gate is closed and nobody is inside, read by those who went in.
    op: UnsafeCell<Op<'static>>,
    /// The next part that nobody has taken.
    next: AtomicUsize,
    sleepers: AtomicUsize,
    /// Whether the workers are to end.
    closed: AtomicBool,
    workers: OnceLock<Vec<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `op` is guarded by `gate`; everything else is `Sync` by itself. The closure that `op` points to is `Sync`.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} threads)", self.count)
    }
}

impl Pool {
    /// `count - 1` workers, all asleep.
    fn start(count: usize, name: &str) -> Arc<Self> {
        let pool = Arc::new(Self {
            count,
            busy: AtomicBool::new(false),
            gate: AtomicU64::new(0),
            op: UnsafeCell::new(Op { run: &|_, _| {}, parts: 0, sharing: Sharing::OneByOne }),
            next: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            workers: OnceLock::new(),
            panic: Mutex::new(None),
        });
        let spawn = |number| {
            let (pool, worker) = (Arc::clone(&pool), thread::Builder::new().name(format!("{name}-{number}")));
            worker.spawn(move || pool.work()).map(|handle| handle.thread().clone())
        };
        // With fewer threads than wanted, the others do all the work.
        let workers = (1..count).map_while(|number| spawn(number).ok()).collect();
        pool.workers.get_or_init(|| workers);
        pool
    }

    /// Calls `use_pool` with the pool that works for this thread.
    fn with<R>(use_pool: impl FnOnce(&Self) -> R) -> R {
        OWN.with(|own| match own.get() {
            Some(pool) => use_pool(pool),
            None => use_pool(POOL.get_or_init(|| Self::start(thread_count(), "kernel"))),
        })
    }

    /// Ends the workers. Ops are the caller's alone from then on.
    fn close(&self) {
        self.closed.store(true, SeqCst);
        self.workers.get().into_iter().flatten().for_each(Thread::unpark);
    }

    /// Runs an op on all threads, the caller among them, and returns when it is done. `false`, with nothing done, while
    /// another one runs: a caller that is not alone, or a part that is itself an op; also if there are no other threads, or no longer.
    fn run(&self, op: &Op<'_>) -> bool {
        if self.count == 1 || self.closed.load(Relaxed) || self.busy.swap(true, Acquire) {
            return false;
        }
        let gate = self.gate.load(Relaxed);
        // SAFETY: the gate is closed and nobody is inside: see below. Only the lifetime of the closure is forgotten; nobody
        // uses it when this function has returned.
        unsafe { *self.op.get() = std::mem::transmute::<Op<'_>, Op<'static>>(*op) };
        self.next.store(0, Relaxed);
        self.gate.store((gate + ONE_OP) | OPEN, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            self.workers.get().into_iter().flatten().for_each(Thread::unpark);
        }
        self.take_parts();
        self.gate.fetch_and(!OPEN, AcqRel);
        let mut looks = 0;
        while inside(self.gate.load(Acquire)) > 0 {
            looks += 1;
            // A worker that lost its core may be waiting for this one.
            if looks < SPINS { spin_loop() } else { thread::yield_now() }
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.busy.store(false, Release);
        panic.is_none_or(|panic| resume_unwind(panic))
    }

    /// A worker's life: until the pool is closed. What its parts share out is shared out here, too.
    fn work(self: Arc<Self>) {
        OWN.with(|own| drop(own.set(Arc::clone(&self))));
        let mut seen = 0;
        while let Some(gate) = self.wait(seen) {
            if self.gate.compare_exchange(gate, gate + ONE_INSIDE, SeqCst, Relaxed).is_ok() {
                seen = gate / ONE_OP;
                self.take_parts();
                self.gate.fetch_sub(ONE_INSIDE, Release);
            }
        }
    }

    /// The gate, open for another op than `seen`; `None` when the pool is closed.
    fn wait(&self, seen: u64) -> Option<Gate> {
        let open = |gate: Gate| gate & OPEN != 0 && gate / ONE_OP != seen;
        loop {
            for look in 0..SPINS + YIELDS {
                let gate = self.gate.load(SeqCst);
                if open(gate) {
                    return Some(gate);
                }
                if look < SPINS { spin_loop() } else { thread::yield_now() }
            }
            self.sleepers.fetch_add(1, SeqCst);
            // Either this sees the next op, or that op's caller sees a sleeper; so with the end.
            if !open(self.gate.load(SeqCst)) && !self.closed.load(SeqCst) {
                thread::park();
            }
            self.sleepers.fetch_sub(1, SeqCst);
            if self.closed.load(SeqCst) {
                return None;
            }
            // The op that woke it may be over already. Others follow: it watches again.
        }
    }

    /// The next `1 / divisor` of the parts that are left, at least one, if there is one.
    fn take(&self, parts: usize, divisor: usize) -> Option<Range<usize>> {
        let after = |first: usize| {
            let left = parts.checked_sub(first).filter(|left| *left > 0)?;
            Some(first + (left / divisor).max(1))
        };
        let first = self.next.fetch_update(Relaxed, Relaxed, after).ok()?;
        after(first).map(|end| first..end)
    }

    /// Runs parts until none is left. A panic is kept for the caller, and ends the op.
    fn take_parts(&self) {
        // SAFETY: the gate lets in while `op` is set, and its caller waits until everybody is out.
        let op = unsafe { *self.op.get() };
        let all = AssertUnwindSafe(|| match op.sharing {
            Sharing::OneByOne => {
                while let Some(part) = self.take(op.parts, usize::MAX) {
                    (op.run)(part, None);
                }
            }
            Sharing::Guided { divisor } => {
                let mut next = self.take(op.parts, divisor);
                while let Some(range) = next {
                    next = self.take(op.parts, divisor);
                    (op.run)(range, next.as_ref().map(|next| next.start));
                }
            }
        });
        if let Err(panic) = catch_unwind(all) {
            self.next.store(op.parts, Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread::ThreadId;

    use super::*;

    const MUCH: usize = usize::MAX;

    #[test]
    fn every_part_comes_once_however_many_callers_there_are() {
        thread::scope(|scope| {
            for caller in 0..4_usize {
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let mut data = vec![0; 1 + (caller + round) % 37];
                        chunks_mut(&mut data, 1 + round % 5, MUCH, |part, chunk| {
                            for number in chunk {
                                *number += part + 1;
                            }
                        });
                        let expected: Vec<_> = (0..data.len()).map(|i| i / (1 + round % 5) + 1).collect();
                        assert_eq!(data, expected);
                    }
                });
            }
        });
    }

    #[test]
    fn ranges_cover_all_parts_and_follow_as_announced() {
        for parts in [1, 2, 7, 64, 1_000] {
            let taken = Mutex::new(Vec::new());
            for_ranges(parts, MUCH, |range, next| {
                taken.lock().unwrap_or_else(PoisonError::into_inner).push((
                    thread::current().id(),
                    range,
                    next,
                ));
            });
            let taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
            let mut covered: Vec<usize> = taken.iter().flat_map(|(_, range, _)| range.clone()).collect();
            covered.sort_unstable();
            assert_eq!(covered, (0..parts).collect::<Vec<_>>());
            for (index, (thread, _, announced)) in taken.iter().enumerate() {
                let later = taken[index + 1..].iter().find(|(other, ..)| other == thread);
                assert_eq!(*announced, later.map(|(_, range, _)| range.start));
            }
        }
    }

    #[test]
    fn parts_of_different_sizes_and_ops_inside_of_ops() {
        let mut data = [0; 10];
        parts_mut(&mut data, &[0, 3, 3, 9], MUCH, |part, numbers| {
            chunks_mut(numbers, 1, MUCH, |_, number| number[0] = part);
        });
        assert_eq!(data, [1, 1, 1, 3, 3, 3, 3, 3, 3, 0]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_working() {
        for _ in 0..50 {
            let outcome = catch_unwind(|| for_each(64, MUCH, |part| assert_ne!(part, 40, "on purpose")));
            assert!(outcome.is_err());
            let sum = AtomicUsize::new(0);
            for_each(64, MUCH, |part| {
                sum.fetch_add(part, Relaxed);
            });
            assert_eq!(sum.into_inner(), 63 * 32);
        }
    }

    #[test]
    fn own_threads_work_for_their_thread_alone_and_end_with_it() {
        /// The threads of an op that does not end before `together` threads have parts, and of the ops inside of it.
        fn threads_of_an_op(together: usize) -> HashSet<ThreadId> {
            let seen = Mutex::new(HashSet::new());
            let note = |_| {
                seen.lock().unwrap_or_else(PoisonError::into_inner).insert(thread::current().id());
            };
            let all_have_parts = Barrier::new(together);
            for_each(together, MUCH, |_| {
                all_have_parts.wait();
                for_each(64, MUCH, note);
            });
            for_each(64, MUCH, note);
            seen.into_inner().unwrap_or_else(PoisonError::into_inner)
        }
        let rank = || {
            let own = OwnThreads::start(3);
            assert_eq!(count(), 3);
            let (threads, workers) = (threads_of_an_op(3), Arc::downgrade(&own.pool));
            drop(own);
            assert_eq!(threads_of_an_op(1).len(), 1, "the others have ended");
            (threads, workers)
        };
        let ranks = thread::scope(|scope| {
            let ranks = [scope.spawn(rank), scope.spawn(rank)];
            ranks.map(|rank| rank.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        let [(first, _), (second, _)] = &ranks;
        assert!(first.len() == 3 && second.len() == 3 && first.is_disjoint(second));
        while ranks.iter().any(|(_, workers)| workers.strong_count() > 0) {
            thread::yield_now();
        }
    }

    #[test]
    fn sleepers_wake() {
        for _ in 0..5 {
            thread::sleep(std::time::Duration::from_millis(5));
            let seen = Mutex::new(HashSet::new());
            for_each(count() * 4, MUCH, |_| {
                thread::sleep(std::time::Duration::from_millis(2));
                seen.lock().unwrap_or_else(PoisonError::into_inner).insert(thread::current().id());
            });
            let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner).len();
            // Another test's op may have had the pool.
            assert!((1..=count()).contains(&seen));
        }
    }
}

//! Ranks that are threads of one process: they meet at a barrier and read what the others have written.

use std::{
    cell::Cell,
    hint::spin_loop,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    thread,
};

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor, bail};
use kimi_k2::{Collective, KeptTensor, ModelError};

/// What a rank is told when another one has ended in the middle of a step.
pub(crate) const PEER_GONE: &str = "another rank has ended";

/// How often a rank looks for the others before it lets someone else have the core.
const SPINS: usize = 10_000;

/// What the ranks share.
#[derive(Debug)]
struct Meeting {
    ranks: usize,
    arrived: AtomicUsize,
    /// Meetings that are over.
    round: AtomicUsize,
    /// Whether a rank has ended: nobody will meet again.
    gone: AtomicBool,
    /// What each rank brings to even and to odd meetings. Whoever writes for one meeting has been at the last one, where everybody
    /// had read what was brought to the one before: writers never wait for readers, the locks only prove it to the compiler.
    brought: Vec<[RwLock<Vec<f32>>; 2]>,
}

/// A rank's place among the threads that compute with it. When it is dropped, the others get errors instead of waiting.
#[derive(Debug)]
pub(crate) struct ThreadCollective {
    meeting: Arc<Meeting>,
    rank: usize,
    /// Meetings this rank has been at.
    round: Cell<usize>,
}

/// Ends the meetings of ranks from outside.
#[derive(Clone, Debug)]
pub(crate) struct Dismissal(Arc<Meeting>);

impl Dismissal {
    /// Lets ranks that wait for each other go, with errors.
    pub(crate) fn dismiss(&self) {
        self.0.gone.store(true, Release);
    }
}

impl ThreadCollective {
    /// Places for `ranks` threads, and the way to end their meetings.
    pub(crate) fn group(ranks: usize) -> (Vec<Self>, Dismissal) {
        let meeting = Arc::new(Meeting {
            ranks,
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
            brought: (0..ranks).map(|_| Default::default()).collect(),
        });
        let place = |rank| Self { meeting: Arc::clone(&meeting), rank, round: Cell::new(0) };
        ((0..ranks).map(place).collect(), Dismissal(Arc::clone(&meeting)))
    }

    /// Brings `own` numbers to a meeting of all ranks. Gives what all have brought, in their order.
    fn exchange(&self, own: &[f32]) -> Result<Vec<RwLockReadGuard<'_, Vec<f32>>>> {
        let (brought, parity) = (&self.meeting.brought, self.round.get() % 2);
        {
            let mut place = brought[self.rank][parity].write().unwrap_or_else(PoisonError::into_inner);
            place.clear();
            place.extend_from_slice(own);
        }
        self.meet()?;
        let brought = brought.iter().map(|places| &places[parity]);
        Ok(brought.map(|place| place.read().unwrap_or_else(PoisonError::into_inner)).collect())
    }

    /// Waits until all ranks are here.
    pub(crate) fn meet(&self) -> Result<()> {
        let Meeting { ranks, arrived, round, gone, .. } = &*self.meeting;
        let next = self.round.get() + 1;
        self.round.set(next);
        if arrived.fetch_add(1, AcqRel) + 1 == *ranks {
            arrived.store(0, Relaxed);
            round.store(next, Release);
            return Ok(());
        }
        let mut looks = 0;
        while round.load(Acquire) != next {
            // Whoever left after this meeting has seen its end, and so does this rank when it sees that somebody left.
            if gone.load(Acquire) && round.load(Acquire) != next {
                bail!("{PEER_GONE}");
            }
            looks += 1;
            if looks < SPINS { spin_loop() } else { thread::yield_now() }
        }
        Ok(())
    }
}

impl Drop for ThreadCollective {
    fn drop(&mut self) {
        Dismissal(Arc::clone(&self.meeting)).dismiss();
    }
}

impl Collective for ThreadCollective {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.meeting.ranks
    }

    fn all_reduce_sum(&self, x: &Tensor) -> std::result::Result<(), ModelError> {
        Ok(x.inplace_op1(&Sum(self))?)
    }

    fn gather_columns(&self, x: KeptTensor) -> std::result::Result<Option<KeptTensor>, ModelError> {
        let rows = x.dim(0)?;
        let brought = x.with_numbers(|own| self.exchange(own))??;
        if self.rank > 0 {
            return Ok(None);
        }
        let widths: Vec<_> = brought.iter().map(|part| part.len() / rows.max(1)).collect();
        let width: usize = widths.iter().sum();
        let all = KeptTensor::new((rows, width))?;
        all.with_numbers(|mut all| {
            for row in 0..rows {
                for (part, width) in brought.iter().zip(&widths) {
                    let (place, rest) = all.split_at_mut(*width);
                    place.copy_from_slice(&part[row * width..][..*width]);
                    all = rest;
                }
            }
        })?;
        Ok(Some(all))
    }
}

/// Replaces a tensor by the sum of those of all ranks.
struct Sum<'a>(&'a ThreadCollective);

impl InplaceOp1 for Sum<'_> {
    fn name(&self) -> &'static str {
        "all_reduce_sum"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(numbers), Some((start, end))) = (&mut *storage, layout.contiguous_offsets())
        else {
            let dtype = candle_core::backend::BackendStorage::dtype(storage);
            bail!("{}: {dtype:?} {layout:?} instead of contiguous {:?}", self.name(), DType::F32);
        };
        let own = &mut numbers[start..end];
        let brought = self.0.exchange(own)?;
        own.copy_from_slice(&brought[0]);
        for other in &brought[1..] {
            for (sum, number) in own.iter_mut().zip(other.iter()) {
                *sum += number;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn in_threads<R: Send>(ranks: usize, run: impl Fn(ThreadCollective) -> R + Sync) -> Vec<R> {
        let (group, _) = ThreadCollective::group(ranks);
        thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = group.into_iter().map(|place| scope.spawn(move || run(place))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }

    #[test]
    fn sums_and_rows_of_many_meetings() {
        let ends = in_threads(3, |place| {
            let mut x = Tensor::new(&[[1.0_f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
            x = (x + place.rank() as f64).unwrap();
            for _ in 0..200 {
                place.all_reduce_sum(&x).unwrap();
                x = (x / 3.0).unwrap();
            }
            // Ranks bring different numbers of columns.
            let own = KeptTensor::new((2, place.rank() + 1)).unwrap();
            own.with_numbers(|own| own.fill(place.rank() as f32)).unwrap();
            let rows = place.gather_columns(own).unwrap().map(|all| all.to_vec2::<f32>().unwrap());
            (x.to_vec2::<f32>().unwrap(), rows)
        });
        for (rank, (sums, rows)) in ends.into_iter().enumerate() {
            assert_eq!(sums, [[2.0, 3.0], [4.0, 5.0]]);
            let row = vec![0.0, 1.0, 1.0, 2.0, 2.0, 2.0];
            assert_eq!(rows, (rank == 0).then(|| vec![row.clone(), row]));
        }
    }

    #[test]
    fn who_leaves_after_a_meeting_does_not_disturb_it() {
        for _ in 0..2_000 {
            in_threads(3, |place| place.meet().unwrap());
        }
    }

    #[test]
    fn nobody_waits_for_a_rank_that_is_gone() {
        let errors = in_threads(3, |place| {
            if place.rank() == 1 {
                return None;
            }
            let x = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
            Some(place.all_reduce_sum(&x).unwrap_err().to_string())
        });
        for error in [&errors[0], &errors[2]] {
            assert!(error.as_ref().unwrap().contains(PEER_GONE), "{error:?}");
        }
    }
}

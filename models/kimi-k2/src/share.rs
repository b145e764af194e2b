//! Which part of a layer a rank holds.

use std::ops::Range;

use crate::{Collective, ModelConfig, ModelError};

/// Where inner sizes are cut if that leaves something for each rank: blocks of fp8 and of the int4 kernels, int4 groups.
const BLOCKS: [usize; 2] = [128, 32];

/// One rank of several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    rank: usize,
    ranks: usize,
}

impl Share {
    /// The share of the rank that `collective` belongs to.
    ///
    /// # Errors
    /// [`ModelError::Ranks`] when there are more ranks than parts.
    pub(crate) fn new(collective: &dyn Collective, config: &ModelConfig) -> Result<Self, ModelError> {
        let (rank, ranks, heads) = (collective.rank(), collective.ranks(), config.num_attention_heads);
        if ranks > heads {
            return Err(ModelError::Ranks(format!(
                "{ranks} ranks for {heads} attention heads; at most {heads} can share this model"
            )));
        }
        Ok(Self { rank, ranks })
    }

    /// Its part of `count` heads, experts or rows of the vocabulary: as many as another has, or one more or less.
    pub(crate) fn of(self, count: usize) -> Range<usize> {
        self.rank * count / self.ranks..(self.rank + 1) * count / self.ranks
    }

    /// Its part of an inner size, cut between blocks where that is possible.
    pub(crate) fn of_inner(self, size: usize) -> Range<usize> {
        let block = BLOCKS.into_iter().find(|block| size / block >= self.ranks).unwrap_or(1);
        let Range { start, end } = self.of(size.div_ceil(block));
        start * block..size.min(end * block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ranks: usize, part: impl Fn(Share) -> Range<usize>) -> Vec<Range<usize>> {
        (0..ranks).map(|rank| part(Share { rank, ranks })).collect()
    }

    #[test]
    fn parts_cover_everything_once_and_are_even() {
        for ranks in 1..9 {
            for size in [ranks, 64, 100, 384, 2_048, 18_432] {
                for parts in
                    [parts(ranks, |share| share.of(size)), parts(ranks, |share| share.of_inner(size))]
                {
                    assert_eq!(parts[0].start, 0);
                    assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                    assert_eq!(parts[ranks - 1].end, size);
                    assert!(parts.iter().all(|part| !part.is_empty()), "{parts:?}");
                }
            }
        }
    }

    #[test]
    fn inner_sizes_are_cut_between_blocks() {
        assert_eq!(parts(2, |share| share.of_inner(18_432)), [0..9_216, 9_216..18_432]);
        assert_eq!(parts(3, |share| share.of_inner(2_048)), [0..640, 640..1_280, 1_280..2_048]);
        assert_eq!(parts(2, |share| share.of_inner(96)), [0..32, 32..96]);
        assert_eq!(parts(2, |share| share.of_inner(48)), [0..24, 24..48]);
    }
}

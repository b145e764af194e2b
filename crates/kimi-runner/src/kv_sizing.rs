//! How many cache blocks fit: a pure choice, and the measurement it is based on.

use std::fs;

use thiserror::Error;

/// Assumed to be available where the system does not say.
const UNKNOWN_AVAILABLE: u64 = 4 << 30;

/// How much memory the cache may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KvMemory {
    /// So many bytes.
    Bytes(u64),
    /// This share, in (0, 1], of what is available beside the weights, or of a quarter of all where they leave less.
    Share(f64),
}

/// What the number of blocks depends on.
#[derive(Clone, Copy, Debug)]
pub struct KvSizing {
    /// The budget.
    pub memory: KvMemory,
    /// Bytes of mapped weights. The system would give them up for the cache, and read them again for every token.
    pub weights: u64,
    /// Bytes of one block, all layers together.
    pub bytes_per_block: u64,
    /// Positions in one block.
    pub block_size: usize,
    /// Tokens of the longest sequence.
    pub max_context: usize,
    /// Sequences that run at once.
    pub max_sequences: usize,
}

/// The cache does not fit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KvSizingError {
    /// Not even one block fits.
    #[error(
        "the cache may take {budget} bytes, but one block of {block_size} tokens takes {bytes_per_block}; \
         raise --kv-memory or free memory"
    )]
    TooSmall {
        /// Bytes the cache may take.
        budget: u64,
        /// Positions in one block.
        block_size: usize,
        /// Bytes of one block.
        bytes_per_block: u64,
    },
    /// More was asked for than there is.
    #[error(
        "the cache would take {needed} bytes and only {available} are free beside the weights and a step; lower --kv-memory, \
         --max-context or --max-sequences"
    )]
    TooLarge {
        /// Bytes the cache would take.
        needed: u64,
        /// Bytes there are for it.
        available: u64,
    },
}

impl KvSizing {
    /// As many blocks as the budget holds, but no more than all sequences at full length can use. `available` is what
    /// the cache may take at all, in bytes; see [`available_memory`].
    pub fn block_count(&self, available: u64) -> Result<usize, KvSizingError> {
        let budget = match self.memory {
            KvMemory::Bytes(bytes) => bytes,
            KvMemory::Share(share) => {
                (available.saturating_sub(self.weights).max(available / 4) as f64 * share) as u64
            }
        };
        let affordable = usize::try_from(budget / self.bytes_per_block.max(1)).unwrap_or(usize::MAX);
        if affordable == 0 {
            let (block_size, bytes_per_block) = (self.block_size, self.bytes_per_block);
            return Err(KvSizingError::TooSmall { budget, block_size, bytes_per_block });
        }
        let usable = self.max_context.div_ceil(self.block_size).saturating_mul(self.max_sequences).max(1);
        // Block ids are 32 bits wide.
        let count = affordable.min(usable).min(u32::MAX as usize);
        match count as u64 * self.bytes_per_block {
            needed if needed > available => Err(KvSizingError::TooLarge { needed, available }),
            _ => Ok(count),
        }
    }
}

/// Bytes that can be allocated without swapping: the kernel's estimate, or what the container's limit leaves, whichever
/// is less. 4 GiB where the system tells neither.
pub fn available_memory() -> u64 {
    let read = |path| fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|meminfo| mem_available(&meminfo));
    let stat = read("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let container = read("/sys/fs/cgroup/memory.max")
        .zip(read("/sys/fs/cgroup/memory.current"))
        .and_then(|(max, current)| cgroup_left(&max, &current, &stat));
    machine.into_iter().chain(container).min().unwrap_or(UNKNOWN_AVAILABLE)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a cgroup may still allocate; `None` when it has no limit. Cached files that nobody used lately count as free, since
/// the system gives them up first.
fn cgroup_left(max: &str, current: &str, stat: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
    Some(max.saturating_sub(current.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZING: KvSizing = KvSizing {
        memory: KvMemory::Bytes(1_000_000),
        weights: 0,
        bytes_per_block: 1_000,
        block_size: 16,
        max_context: 160,
        max_sequences: 4,
    };

    #[test]
    fn the_budget_or_the_use_limits_the_count() {
        let count = |sizing: KvSizing| sizing.block_count(1_000_000).unwrap();
        assert_eq!(count(SIZING), 40, "four sequences of ten blocks");
        assert_eq!(count(KvSizing { max_context: 161, ..SIZING }), 44, "a started block is a block");
        assert_eq!(count(KvSizing { memory: KvMemory::Bytes(7_999), ..SIZING }), 7);
        assert_eq!(count(KvSizing { memory: KvMemory::Share(0.025), ..SIZING }), 25);
        let share = KvSizing { memory: KvMemory::Share(0.05), ..SIZING };
        assert_eq!(count(KvSizing { weights: 500_000, ..share }), 25, "of what weights leave");
        assert_eq!(count(KvSizing { weights: 5_000_000, ..share }), 12, "they do not fit anyway");
        assert_eq!(count(KvSizing { max_context: usize::MAX, max_sequences: usize::MAX, ..SIZING }), 1_000);
    }

    #[test]
    fn no_block_is_an_error_that_says_what_to_do() {
        let error =
            KvSizing { memory: KvMemory::Bytes(999), ..SIZING }.block_count(0).unwrap_err().to_string();
        assert_eq!(
            error,
            "the cache may take 999 bytes, but one block of 16 tokens takes 1000; raise --kv-memory or free memory"
        );
    }

    #[test]
    fn what_there_is_not_is_refused_at_start() {
        assert_eq!(SIZING.block_count(40_000), Ok(40), "a budget that is not needed may be too large");
        let error = SIZING.block_count(39_999).unwrap_err().to_string();
        assert!(error.contains("40000 bytes and only 39999") && error.contains("--kv-memory"), "{error}");
    }

    /// 61 layers of 656 bytes: fp8 holds a context of 256K tokens in 10.5 GB.
    #[test]
    fn the_longest_context_of_the_full_model() {
        let sizing = KvSizing {
            memory: KvMemory::Share(1.0),
            weights: 0,
            bytes_per_block: 61 * 656 * 16,
            block_size: 16,
            max_context: 262_144,
            max_sequences: 1,
        };
        assert_eq!(sizing.block_count(10_489_000_000), Ok(16_382));
        assert_eq!(sizing.block_count(11_000_000_000), Ok(16_384));
    }

    #[test]
    fn memory_files_are_understood() {
        let meminfo = "MemTotal:       16316412 kB\nMemFree:  1 kB\nMemAvailable:   12000000 kB\n";
        assert_eq!(mem_available(meminfo), Some(12_000_000 * 1024));
        assert_eq!(mem_available("MemTotal: 5 kB"), None);
        assert_eq!(cgroup_left("1000\n", "400\n", ""), Some(600));
        assert_eq!(cgroup_left("1000\n", "4000\n", ""), Some(0));
        assert_eq!(cgroup_left("1000\n", "400\n", "anon 10\ninactive_file 150\n"), Some(750));
        assert_eq!(cgroup_left("max\n", "400\n", ""), None);
    }
}

//! Continuous batching as pure code: sequences, blocks, plans.

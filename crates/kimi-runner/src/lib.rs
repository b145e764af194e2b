//! The model behind the engine's runner trait: batches, cache, sampling.

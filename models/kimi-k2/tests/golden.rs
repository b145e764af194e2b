//! The model against what transformers computes for the same weights, and against itself on other paths.

#[cfg(test)]
mod golden {
    mod batches;
    pub(crate) mod harness;
    mod needles;
    mod paths;
    mod references;
    mod vision;
}

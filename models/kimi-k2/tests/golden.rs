//! The model against what transformers computes for the same weights, and against itself on other paths.

#[cfg(test)]
mod golden {
    pub(crate) mod harness;
    mod paths;
    mod references;
}

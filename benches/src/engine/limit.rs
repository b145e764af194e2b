//! How fast a step could be: what it reads over what memory gives, or what it multiplies over what multipliers give.

use kimi_k2::{Inspection, Part};

use super::case::Case;

/// Bytes of a weight in 8 bits, with its scales, over those in bf16.
const INT8: f64 = 17.0 / 32.0;

/// What this machine gave in some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// Bytes a second.
    pub(super) bandwidth: f64,
    /// Operations a second of the fastest multiplication that the model uses; `None` where it has no kernel.
    pub(super) operations: Option<f64>,
}

/// What steps need.
pub(super) struct Needs {
    /// Bytes of weights that every step reads.
    always: f64,
    /// Bytes of all routed experts.
    experts: f64,
    /// The share of them that one token uses.
    share: f64,
    /// Bytes of a cached token.
    cache: f64,
    /// Parameters that each token meets, the head not counted.
    active: f64,
    /// Parameters of the head, which only sampled rows meet.
    head: f64,
}

impl Needs {
    /// `dense_int8`: whether the weights that every token uses became bytes. `cache`: bytes of a cached token.
    pub(super) fn new(inspection: &Inspection, dense_int8: bool, cache: usize) -> Self {
        let parts = |wanted: fn(Part) -> bool| inspection.parts.iter().filter(move |size| wanted(size.part));
        let bytes = |wanted| parts(wanted).map(|size| size.bytes as f64).sum::<f64>();
        let head = parts(|part| part == Part::Head).map(|size| size.parameters as f64).sum::<f64>();
        let dense = bytes(|part| {
            use Part::{Attention, DenseMlp, Head, Norms, Router, SharedExperts};
            matches!(part, Attention | DenseMlp | SharedExperts | Router | Norms | Head)
        });
        Self {
            always: if dense_int8 { dense * INT8 } else { dense },
            experts: bytes(|part| part == Part::RoutedExperts),
            share: inspection.experts_per_token as f64 / (inspection.routed_experts as f64).max(1.0),
            cache: cache as f64,
            active: inspection.active_parameters as f64 - head,
            head,
        }
    }

    /// Bytes that a step reads, if experts are chosen evenly.
    pub(super) fn bytes(&self, case: Case) -> f64 {
        let untouched = (1.0 - self.share).powi(case.tokens() as i32);
        self.always + self.experts * (1.0 - untouched) + self.cache * case.cached_tokens()
    }

    /// Operations of a step, two for each multiply-add with a weight. Attention's own are not counted.
    fn operations(&self, case: Case) -> f64 {
        2.0 * (self.active * case.tokens() as f64 + self.head * case.sequences as f64)
    }

    /// Seconds below which no step can stay.
    pub(super) fn least_seconds(&self, case: Case, machine: Machine) -> f64 {
        let multiplying = machine.operations.map_or(0.0, |operations| self.operations(case) / operations);
        multiplying.max(self.bytes(case) / machine.bandwidth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATION: Case = Case { sequences: 1, rows: 1, depth: 100, steps: 1 };
    const NEEDS: Needs = Needs { always: 1e6, experts: 8e6, share: 0.25, cache: 1e3, active: 6e6, head: 5e5 };

    #[test]
    fn steps_of_few_tokens_wait_for_memory_and_those_of_many_for_multipliers() {
        let machine = Machine { bandwidth: 1e9, operations: Some(1e12) };
        let one = NEEDS.least_seconds(GENERATION, machine);
        assert!((one - 3.1e-3).abs() < 1e-9, "dense, a quarter of the experts, 100 cached tokens: {one}");
        let two = NEEDS.bytes(Case { sequences: 2, ..GENERATION });
        assert!((two - 4.7e6).abs() < 1.0, "two tokens share a quarter of their experts: {two}");
        let prompt = Case { rows: 10_000, depth: 0, ..GENERATION };
        let many = NEEDS.least_seconds(prompt, machine);
        assert!((many - 0.120_001).abs() < 1e-9, "only the last row meets the head: {many}");
        let unknown = NEEDS.least_seconds(prompt, Machine { operations: None, ..machine });
        assert!((unknown - 9e-3).abs() < 1e-9, "all experts, once: {unknown}");
    }
}

//! Top-k, top-p and min-p over unnormalized probabilities.
//!
//! Each filter sets the weights of the tokens it drops to zero and leaves the others as they are. All three keep a head
//! of the same order, most likely first and lower id first among equals, so they compose in any order of application;
//! [`sampler`](crate::sampler) applies them as `top_k`, `top_p`, `min_p`. No filter sorts the vocabulary.

use std::cmp::Ordering;

use kimi_tokens::TokenId;

use crate::softmax::sum;

/// A token with its logit or weight. "Less" means more likely, so that sorting puts the best first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ranked {
    /// The logit or weight. Never NaN.
    pub(crate) value: f32,
    /// Breaks ties: the lower id wins.
    pub(crate) token: TokenId,
}

impl Ranked {
    /// Most likely first, then lower id.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that sorting asks for")]
    fn order(a: &Self, b: &Self) -> Ordering {
        b.value.total_cmp(&a.value).then(a.token.cmp(&b.token))
    }
}

/// The `n` largest of `values` with their positions, best first. All of them when there are fewer.
///
/// One pass with a rising threshold: most of a vocabulary is rejected by a single comparison.
pub(crate) fn top_n(values: &[f32], n: usize) -> Vec<Ranked> {
    if n == 0 {
        return Vec::new();
    }
    let capacity = n.saturating_mul(2).max(256);
    let mut best: Vec<Ranked> = Vec::with_capacity(capacity.min(values.len()));
    let mut threshold = f32::NEG_INFINITY;
    let mut full = false;
    for (token, &value) in values.iter().enumerate() {
        // An equal value that comes later has a higher id and loses, hence the strict comparison.
        if value > threshold || !full {
            best.push(Ranked { value, token: token as TokenId });
            if best.len() == capacity {
                best.select_nth_unstable_by(n - 1, Ranked::order);
                best.truncate(n);
                threshold = best[n - 1].value;
                full = true;
            }
        }
    }
    best.sort_unstable_by(Ranked::order);
    best.truncate(n);
    best
}

/// Keeps the `k` most likely tokens.
pub(crate) fn top_k(weights: &mut [f32], k: usize) {
    if k < weights.len()
        && let Some(&last) = top_n(weights, k.max(1)).last()
    {
        keep_through(weights, last);
    }
}

/// Keeps the smallest head of the order whose share of the total weight reaches `p`; at least one token.
pub(crate) fn top_p(weights: &mut [f32], p: f32) {
    if p >= 1.0 || weights.is_empty() {
        return;
    }
    let total = sum(weights);
    let wanted = total * f64::from(p);
    // Tokens this light weigh less than the share that may be dropped even if every token were one of them.
    let floor = (total * (1.0 - f64::from(p)) / weights.len() as f64) as f32;
    let mut candidates: Vec<Ranked> = weights
        .iter()
        .enumerate()
        .filter(|&(_, &weight)| weight >= floor)
        .map(|(token, &value)| Ranked { value, token: token as TokenId })
        .collect();
    if let Some(last) = last_of_nucleus(&mut candidates, wanted) {
        keep_through(weights, last);
    }
}

/// Keeps tokens at least `p` times as likely as the most likely one, whose weight is `largest`.
pub(crate) fn min_p(weights: &mut [f32], p: f32, largest: f32) {
    let threshold = p * largest;
    for weight in weights {
        *weight = if *weight >= threshold { *weight } else { 0.0 };
    }
}

/// The last token of the smallest head that weighs `wanted`, found by halving instead of sorting: the half that holds
/// the border is searched further, so the work is linear on average.
fn last_of_nucleus(candidates: &mut [Ranked], wanted: f64) -> Option<Ranked> {
    const SORT_BELOW: usize = 64;
    let mut rest = candidates;
    let mut wanted = wanted;
    while rest.len() > SORT_BELOW {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, Ranked::order);
        let (head, tail) = rest.split_at_mut(middle);
        let head_weight: f64 = head.iter().map(|ranked| f64::from(ranked.value)).sum();
        if head_weight >= wanted {
            rest = head;
        } else {
            wanted -= head_weight;
            rest = tail;
        }
    }
    rest.sort_unstable_by(Ranked::order);
    let mut weight = 0.0;
    rest.iter()
        .find(|ranked| {
            weight += f64::from(ranked.value);
            weight >= wanted
        })
        .or(rest.last())
        .copied()
}

/// Drops every token that comes after `last` in the order.
fn keep_through(weights: &mut [f32], last: Ranked) {
    let (through, after) = weights.split_at_mut(last.token as usize + 1);
    for weight in through {
        *weight = if *weight >= last.value { *weight } else { 0.0 };
    }
    for weight in after {
        *weight = if *weight > last.value { *weight } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Small vocabularies with many ties and zeros: where filters go wrong.
    fn weights() -> impl Strategy<Value = Vec<f32>> {
        let weight = prop_oneof![Just(0.0_f32), Just(1.0), Just(0.5), 0.001_f32..1.0];
        prop_oneof![prop::collection::vec(weight.clone(), 1..12), prop::collection::vec(weight, 200..700)]
            .prop_filter("something must be possible", |weights| weights.iter().any(|&w| w > 0.0))
    }

    fn by_likelihood(weights: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a])); // stable: lower id first
        order
    }

    fn keep_only(weights: &[f32], kept: &[usize]) -> Vec<f32> {
        (0..weights.len()).map(|i| if kept.contains(&i) { weights[i] } else { 0.0 }).collect()
    }

    proptest! {
        #[test]
        fn top_n_is_the_head_of_a_full_sort(weights in weights(), n in 0_usize..300) {
            let expected: Vec<usize> = by_likelihood(&weights).into_iter().take(n).collect();
            let found: Vec<usize> = top_n(&weights, n).iter().map(|ranked| ranked.token as usize).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn top_k_keeps_the_k_best(weights in weights(), k in 1_usize..300) {
            let order = by_likelihood(&weights);
            let mut filtered = weights.clone();
            top_k(&mut filtered, k);
            prop_assert_eq!(filtered, keep_only(&weights, &order[..k.min(order.len())]));
        }

        #[test]
        fn top_p_keeps_the_smallest_head_that_reaches_p(weights in weights(), p in 0.01_f32..1.0) {
            let order = by_likelihood(&weights);
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            let wanted = total * f64::from(p);
            let mut filtered = weights.clone();
            top_p(&mut filtered, p);
            let kept = filtered.iter().filter(|&&w| w > 0.0).count().max(1);
            prop_assert_eq!(&filtered, &keep_only(&weights, &order[..kept]), "a head of the order");
            let mass = |n: usize| order[..n].iter().map(|&i| f64::from(weights[i])).sum::<f64>();
            prop_assert!(mass(kept) >= wanted - 1e-5 * total, "{} of {wanted}", mass(kept));
            prop_assert!(kept == 1 || mass(kept - 1) < wanted + 1e-5 * total, "{} of {wanted}", mass(kept - 1));
        }

        #[test]
        fn min_p_keeps_what_is_close_to_the_best(weights in weights(), p in 0.0_f32..1.0) {
            let largest = weights.iter().copied().fold(0.0, f32::max);
            let kept: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] >= p * largest).collect();
            let mut filtered = weights.clone();
            min_p(&mut filtered, p, largest);
            prop_assert_eq!(filtered, keep_only(&weights, &kept));
        }
    }

    #[test]
    fn a_tiny_p_still_keeps_the_best_token() {
        let mut weights = [0.2, 0.9, 0.9, 0.1];
        top_p(&mut weights, 1e-9);
        assert_eq!(weights.map(|weight| weight > 0.0), [false, true, false, false]);
    }
}

//! The router, and rows on their way to experts and back.

use candle_core::{DType, Device, Tensor};
use kimi_kernels::{ExpertPlan, RouterConfig, choose_experts, expert_weights, gather_rows, reference};
use proptest::prelude::*;

use super::harness::{Random, assert_close, numbers, unwritten};

fn choose(logits: &Tensor, bias: &Tensor, config: RouterConfig, k: usize) -> Tensor {
    let chosen = Tensor::zeros((logits.dim(0).unwrap(), k), DType::U32, &Device::Cpu).unwrap();
    choose_experts(logits, bias, config, &chosen).unwrap();
    chosen
}

#[test]
fn router_equals_its_reference() {
    let mut random = Random::new(20);
    for (experts, groups, top_groups, k) in [(12, 1, 1, 3), (16, 4, 2, 4), (64, 8, 3, 8), (5, 1, 1, 5)] {
        for normalize in [true, false] {
            let config = RouterConfig { groups, top_groups, normalize, scaling: 2.827 };
            let logits = (random.tensor(&[40, experts]) * 3.0).unwrap();
            let bias = random.tensor(&[experts]);
            let chosen = choose(&logits, &bias, config, k);
            let expected = reference::choose_experts(&logits, &bias, config, k).unwrap();
            assert_eq!(numbers(&chosen), numbers(&expected), "{experts} experts in {groups} groups");
            let weights = unwritten(&[40, k]);
            expert_weights(&logits, &chosen, config, &weights).unwrap();
            let expected = reference::expert_weights(&logits, &chosen, config).unwrap();
            assert_close("weights", &weights, &expected, 1e-5);
        }
    }
}

#[test]
fn the_bias_decides_who_is_chosen_but_not_how_much_they_count() {
    let logits = Tensor::new(&[[2.0_f32, 0.0, 1.0]], &Device::Cpu).unwrap();
    let bias = Tensor::new(&[0.0_f32, 5.0, 0.0], &Device::Cpu).unwrap();
    let config = RouterConfig { groups: 1, top_groups: 1, normalize: false, scaling: 1.0 };
    let chosen = choose(&logits, &bias, config, 2);
    assert_eq!(numbers(&chosen), [1.0, 0.0]);
    let weights = unwritten(&[1, 2]);
    expert_weights(&logits, &chosen, config, &weights).unwrap();
    assert_eq!(numbers(&weights), [0.5, 1.0 / (1.0 + (-2.0_f32).exp())]);
}

#[test]
fn equal_scores_and_broken_scores_still_give_experts() {
    let config = RouterConfig { groups: 2, top_groups: 1, normalize: true, scaling: 1.0 };
    let bias = Tensor::zeros(6, DType::F32, &Device::Cpu).unwrap();
    let all = |value: f32| Tensor::full(value, (1, 6), &Device::Cpu).unwrap();
    assert_eq!(numbers(&choose(&all(0.0), &bias, config, 2)), [0.0, 1.0], "the lowest of equals");
    let broken = numbers(&choose(&all(f32::NAN), &bias, config, 2));
    assert!(broken[0] != broken[1] && broken.iter().all(|expert| *expert < 6.0), "{broken:?}");
}

#[test]
fn impossible_groups_are_refused() {
    let logits = Random::new(21).tensor(&[1, 6]);
    let bias = Tensor::zeros(6, DType::F32, &Device::Cpu).unwrap();
    for (groups, top_groups, k) in [(4, 1, 1), (2, 3, 1), (2, 1, 4), (1, 1, 7)] {
        let config = RouterConfig { groups, top_groups, normalize: true, scaling: 1.0 };
        let chosen = Tensor::zeros((1, k), DType::U32, &Device::Cpu).unwrap();
        let error = choose_experts(&logits, &bias, config, &chosen).unwrap_err().to_string();
        assert!(error.contains("router:"), "{error}");
    }
}

#[test]
fn gather_equals_its_reference() {
    let (x, rows) = (Random::new(22).tensor(&[6, 33]), [4, 0, 5, 4]);
    let gathered = unwritten(&[4, 33]);
    gather_rows(&x, &rows, &gathered).unwrap();
    assert_close("gather", &gathered, &reference::gather_rows(&x, &rows).unwrap(), 0.0);
    assert!(gather_rows(&x, &[6], &unwritten(&[1, 33])).is_err());
}

proptest! {
    /// Every (token, expert, weight) appears exactly once, under its expert, in token order.
    #[test]
    fn a_plan_holds_every_choice_once(choices in prop::collection::vec([0_u32..7, 0..7, 0..7], 0..20)) {
        let chosen = choices.concat();
        let weights: Vec<f32> = (0..chosen.len()).map(|index| index as f32).collect();
        let plan = ExpertPlan::new(&chosen, &weights, 3, 7).unwrap();
        let mut seen = vec![false; chosen.len()];
        let mut end = 0;
        for (expert, range) in &plan.experts {
            prop_assert_eq!(range.start, end);
            end = range.end;
            prop_assert!(plan.rows[range.clone()].is_sorted() && !range.is_empty());
            for (row, weight) in plan.rows[range.clone()].iter().zip(&plan.weights[range.clone()]) {
                let index = *weight as usize;
                prop_assert_eq!((chosen[index] as usize, (index / 3) as u32), (*expert, *row));
                prop_assert!(!std::mem::replace(&mut seen[index], true));
            }
        }
        prop_assert!(end == chosen.len() && seen.into_iter().all(|seen| seen));
        prop_assert!(plan.experts.is_sorted_by(|a, b| a.0 < b.0));
    }
}

//! Every layer and the logits of every golden checkpoint, in both forms of attention.

use std::path::Path;

use kimi_k2::{AttentionForm, TapPoint};

use super::harness::{Golden, TOLERANCE, assert_close, load, models, recorded_forward};

/// `hidden.0` are the embeddings, `hidden.i` the state after layer `i - 1`, the last one after the final norm.
fn check(checkpoint: &Path, golden: &Path, prefix: &str) {
    let golden = Golden::open(golden);
    let ids = golden.ids(&format!("{prefix}ids"));
    for form in [AttentionForm::Expanded, AttentionForm::Absorbed] {
        let model = load(checkpoint, form);
        let (logits, taps) = recorded_forward(&model, &ids);
        let layers = model.config().num_layers;
        for index in 0..=layers {
            let point = match index {
                0 => TapPoint::Embedding,
                index if index == layers => TapPoint::FinalNorm,
                index => TapPoint::Layer(index - 1),
            };
            let expected = golden.floats(&format!("{prefix}hidden.{index}"));
            assert_close(&format!("{form:?} {point:?}"), taps.get(point), &expected, TOLERANCE);
        }
        assert_close(
            &format!("{form:?} logits"),
            &logits,
            &golden.floats(&format!("{prefix}logits")),
            TOLERANCE,
        );
    }
}

#[test]
fn tiny_int4() {
    let directory = models().join("golden");
    check(&directory.join("tiny-int4"), &directory.join("tiny-golden.safetensors"), "text.");
}

/// Moonlight's shape: no query bottleneck, plain rotary embedding, two shared experts, bf16 experts.
#[test]
fn moonlight_bf16() {
    check_own("moonlight-bf16");
}

/// K2-Thinking's shape with group-limited routing, two dense layers and equal YaRN betas.
#[test]
fn grouped_int4() {
    check_own("grouped-int4");
}

/// K2-Instruct's format: fp8 whose blocks do not divide the matrices, in two shards.
#[test]
fn instruct_fp8() {
    check_own("instruct-fp8");
}

fn check_own(name: &str) {
    let directory = models().join("golden").join(name);
    check(&directory, &directory.join("golden.safetensors"), "");
}

/// The trained demonstration checkpoint, whose reference logits lie beside it.
#[test]
fn kimi_nano() {
    let golden = Golden::open(&models().join("golden/kimi-nano-logits.safetensors"));
    for form in [AttentionForm::Expanded, AttentionForm::Absorbed] {
        let (logits, _) = recorded_forward(&load(&models().join("kimi-nano"), form), &golden.ids("ids"));
        assert_close(&format!("{form:?} logits"), &logits, &golden.floats("logits"), 1e-3);
    }
}

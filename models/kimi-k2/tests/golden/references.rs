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

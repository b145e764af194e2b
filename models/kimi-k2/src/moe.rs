//! The mixture of experts: a router, the experts it chooses, the experts everyone shares.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use kimi_kernels::{
    Activations, ExpertPlan, KeptTensor, RouterConfig, choose_experts, expert_weights, gated_mlps,
};

use crate::{
    Checkpoint, ModelConfig, ModelError, linear::Linear, mlp::Mlp, share::Share, tensor_names as names,
};

/// `Σ weight_e · expert_e(x) + shared(x)` over the experts that the router chooses for each row. Of several ranks, each holds some
/// of the experts whole and a part of what everyone shares; what they compute adds up.
#[derive(Debug)]
pub(crate) struct MixtureOfExperts {
    /// `[experts, hidden]`. Scores are computed in f32 whatever the weights' format.
    router: Linear,
    /// f32 `[experts]`: decides who is chosen, not how much they count.
    correction_bias: Tensor,
    routing: RouterConfig,
    experts_per_token: usize,
    /// Which experts are here.
    held: Range<usize>,
    experts: Vec<Mlp>,
    /// All shared experts as one block. Neither gated nor scaled.
    shared: Option<Mlp>,
}

impl MixtureOfExperts {
    pub(crate) fn load(checkpoint: &Checkpoint, layer: usize, share: Share) -> Result<Self, ModelError> {
        let config: &ModelConfig = checkpoint.config();
        let (hidden, count) = (config.hidden_size, config.n_routed_experts);
        let bias = checkpoint.vector_f32(&names::layer(layer, names::CORRECTION_BIAS), count)?;
        let held = share.of(count);
        let experts = held.clone().map(|expert| {
            let module = |projection: &str| names::expert(layer, expert, projection);
            Mlp::load(checkpoint, module, hidden, config.moe_intermediate_size)
        });
        let shared = (config.n_shared_experts > 0).then(|| {
            let module = |projection: &str| names::mlp(layer, names::SHARED_EXPERTS, projection);
            Mlp::load(checkpoint, module, hidden, config.shared_intermediate_size())?.share(share)
        });
        Ok(Self {
            router: Linear::load(checkpoint, &names::layer(layer, names::ROUTER), count, hidden)?,
            correction_bias: Tensor::from_vec(bias, count, &Device::Cpu)?,
            routing: RouterConfig {
                groups: config.n_group,
                top_groups: config.topk_group,
                normalize: config.norm_topk_prob,
                scaling: config.routed_scaling_factor as f32,
            },
            experts_per_token: config.num_experts_per_tok,
            held,
            experts: experts.collect::<Result<_, _>>()?,
            shared: shared.transpose()?,
        })
    }

    /// Keeps the shared experts in 8 bits. Returns their bytes.
    pub(crate) fn quantize(&mut self) -> candle_core::Result<u64> {
        self.shared.as_mut().map_or(Ok(0), Mlp::quantize)
    }

    /// `x` is f32 `[rows, hidden]`. The result is this rank's part of the sum.
    pub(crate) fn forward(&self, x: &Tensor, activations: Activations) -> candle_core::Result<KeptTensor> {
        let plan = self.route(x)?;
        let all: Vec<u32> = (0..x.dim(0)? as u32).collect();
        let ones = vec![1.0; all.len()];
        let shared = self.shared.iter().map(|shared| shared.with(&all, &ones));
        let held = plan.experts.iter().filter(|(expert, _)| self.held.contains(expert));
        let chosen = held.map(|(expert, range)| {
            let expert = &self.experts[expert - self.held.start];
            expert.with(&plan.rows[range.clone()], &plan.weights[range.clone()])
        });
        let out = KeptTensor::new(x.shape())?; // [tokens, hidden]
        gated_mlps(x, &shared.chain(chosen).collect::<Vec<_>>(), activations, &out)?;
        Ok(out)
    }

    fn route(&self, x: &Tensor) -> candle_core::Result<ExpertPlan> {
        let (tokens, k) = (x.dim(0)?, self.experts_per_token);
        let logits = self.router.forward(x, Activations::F32)?; // [tokens, experts]
        let chosen = Tensor::zeros((tokens, k), DType::U32, &Device::Cpu)?; // [tokens, k]
        choose_experts(&logits, &self.correction_bias, self.routing, &chosen)?;
        let weights = KeptTensor::new((tokens, k))?; // [tokens, k]
        expert_weights(&logits, &chosen, self.routing, &weights)?;
        let (chosen, weights) = (chosen.flatten_all()?.to_vec1()?, weights.flatten_all()?.to_vec1()?);
        ExpertPlan::new(&chosen, &weights, k, self.router.weight().out_features)
    }
}

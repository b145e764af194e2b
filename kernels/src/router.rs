//! Which experts see which token, and how much each counts: DeepSeek-V3's `noaux_tc` routing.

use std::cmp::Ordering;

use candle_core::{CpuStorage, DType, Device, InplaceOp3, Layout, Result, Tensor, bail};

use crate::{
    cpu::{RowsMut, RowsRef, expect_size},
    threads,
};

/// Tokens whose experts a thread chooses at a time.
const TOKENS: usize = 16;
/// What an expert's place among the others costs, in multiply-adds.
const CHOICE: usize = 64;

/// How experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterConfig {
    /// Groups of neighbouring experts; 1 switches group selection off.
    pub groups: usize,
    /// Groups whose experts may be chosen.
    pub top_groups: usize,
    /// Whether a token's weights are divided by their sum.
    pub normalize: bool,
    /// Factor on all weights, after normalization.
    pub scaling: f32,
}

/// Chooses the experts of each token by `sigmoid(logits) + bias`. `logits` is f32 `[tokens, experts]`, `bias` f32
/// `[experts]`, `out` u32 `[tokens, k]`: the `k` best, best first, the lower index first among equals.
///
/// With several groups, only experts of the `top_groups` best groups count; a group's score is the sum of its two best.
pub fn choose_experts(logits: &Tensor, bias: &Tensor, config: RouterConfig, out: &Tensor) -> Result<()> {
    out.inplace_op3(logits, bias, &ChooseExperts { config })
}

/// Weights of the chosen experts: `sigmoid(logits)` at their indices, without the bias, normalized and scaled.
/// `experts` is u32 `[tokens, k]`, `out` f32 `[tokens, k]`.
pub fn expert_weights(logits: &Tensor, experts: &Tensor, config: RouterConfig, out: &Tensor) -> Result<()> {
    out.inplace_op3(logits, experts, &ExpertWeights { config })
}

/// Reference of [`choose_experts`] in candle's own ops.
pub fn choose_experts_reference(
    logits: &Tensor,
    bias: &Tensor,
    config: RouterConfig,
    k: usize,
) -> Result<Tensor> {
    let (tokens, experts) = logits.dims2()?;
    let mut choice = sigmoid_reference(logits)?.broadcast_add(bias)?; // [tokens, experts]
    if config.groups > 1 {
        let grouped = choice.reshape((tokens, config.groups, experts / config.groups))?;
        let (sorted, _) = grouped.contiguous()?.sort_last_dim(false)?;
        let scores = sorted.narrow(2, 0, 2)?.sum(2)?; // [tokens, groups]
        // The place of each group in descending order is the argsort of the argsort.
        let order = scores.arg_sort_last_dim(false)?;
        let place = order.to_dtype(DType::F32)?.arg_sort_last_dim(true)?;
        let open = place.lt(config.top_groups as u32)?.unsqueeze(2)?.broadcast_as(grouped.shape())?;
        let closed = Tensor::full(f32::NEG_INFINITY, grouped.shape(), &Device::Cpu)?;
        choice = open.where_cond(&grouped, &closed)?.reshape((tokens, experts))?;
    }
    choice.arg_sort_last_dim(false)?.narrow(1, 0, k)
}

/// Reference of [`expert_weights`] in candle's own ops.
pub fn expert_weights_reference(logits: &Tensor, experts: &Tensor, config: RouterConfig) -> Result<Tensor> {
    let mut weights = sigmoid_reference(logits)?.gather(&experts.contiguous()?, 1)?;
    if config.normalize {
        weights = weights.broadcast_div(&(weights.sum_keepdim(1)? + 1e-20)?)?;
    }
    weights * f64::from(config.scaling)
}

fn sigmoid_reference(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

struct ChooseExperts {
    config: RouterConfig,
}

impl InplaceOp3 for ChooseExperts {
    fn name(&self) -> &'static str {
        "choose_experts"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        logits: &CpuStorage,
        logits_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let logits = RowsRef::new(self.name(), (logits, logits_layout))?;
        let bias = RowsRef::new(self.name(), (bias, bias_layout))?;
        let (out, k) = contiguous_u32(self.name(), out, layout)?;
        expect_size(self.name(), "width of the bias", bias.width, logits.width)?;
        expect_size(self.name(), "size of the output", out.len(), logits.rows * k)?;
        check_groups(self.config, logits.width, k)?;
        let work = logits.rows * logits.width * CHOICE;
        threads::chunks_mut(out, TOKENS * k, work, |chunk, out| {
            let mut choice = vec![0.0; logits.width];
            for (token, out) in out.chunks_exact_mut(k).enumerate() {
                let scored = choice.iter_mut().zip(logits.row(chunk * TOKENS + token)).zip(bias.data);
                scored.for_each(|((choice, logit), bias)| *choice = sigmoid(*logit) + bias);
                close_groups(self.config, &mut choice);
                best(&choice, out);
            }
        });
        Ok(())
    }
}

/// The best experts, best first, the lower index first among equals: as many as `out` has places.
fn best(choice: &[f32], out: &mut [u32]) {
    let mut count = 0;
    for (expert, score) in choice.iter().enumerate() {
        // Those before it have lower indices: it comes behind equals.
        let is_behind = |other: &u32| descending(choice[*other as usize], *score).is_le();
        if count == out.len() && is_behind(&out[count - 1]) {
            continue;
        }
        let place = out[..count].partition_point(is_behind);
        count = out.len().min(count + 1);
        out.copy_within(place..count - 1, place + 1);
        out[place] = expert as u32;
    }
}

/// NaN sorts last, so that a token with broken numbers still gets experts and breaks only itself.
fn descending(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn check_groups(config: RouterConfig, experts: usize, k: usize) -> Result<()> {
    let RouterConfig { groups, top_groups, .. } = config;
    if k == 0 || k > experts {
        bail!("router: cannot choose {k} of {experts} experts");
    }
    if groups == 0 || !experts.is_multiple_of(groups) || top_groups == 0 || top_groups > groups {
        bail!(
            "router: {experts} experts do not divide into {groups} groups of which {top_groups} are chosen"
        );
    }
    if groups > 1 && k > experts / groups * top_groups {
        bail!("router: {top_groups} groups of {} experts do not hold {k} experts", experts / groups);
    }
    Ok(())
}

/// Sets the scores of experts outside the best groups to -∞.
fn close_groups(config: RouterConfig, choice: &mut [f32]) {
    if config.groups == 1 {
        return;
    }
    let size = choice.len() / config.groups;
    let scores: Vec<f32> = choice.chunks_exact(size).map(sum_of_two_best).collect();
    let mut order: Vec<usize> = (0..config.groups).collect();
    order.sort_unstable_by(|&a, &b| descending(scores[a], scores[b]).then(a.cmp(&b)));
    for &group in &order[config.top_groups..] {
        choice[group * size..][..size].fill(f32::NEG_INFINITY);
    }
}

fn sum_of_two_best(scores: &[f32]) -> f32 {
    let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &score in scores {
        if score > best {
            (best, second) = (score, best);
        } else if score > second {
            second = score;
        }
    }
    if scores.len() < 2 { best } else { best + second }
}

struct ExpertWeights {
    config: RouterConfig,
}

impl InplaceOp3 for ExpertWeights {
    fn name(&self) -> &'static str {
        "expert_weights"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        logits: &CpuStorage,
        logits_layout: &Layout,
        experts: &CpuStorage,
        experts_layout: &Layout,
    ) -> Result<()> {
        let logits = RowsRef::new(self.name(), (logits, logits_layout))?;
        let mut out = RowsMut::new(self.name(), out, layout)?;
        let Some((start, end)) = experts_layout.contiguous_offsets() else {
            bail!("expert_weights: the chosen experts must be contiguous");
        };
        let experts = &experts.as_slice::<u32>()?[start..end];
        expect_size(self.name(), "rows of the output", out.rows, logits.rows)?;
        expect_size(self.name(), "chosen experts", experts.len(), out.rows * out.width)?;
        for (token, experts) in experts.chunks_exact(out.width.max(1)).enumerate() {
            let (logits, weights) = (logits.row(token), out.row(token));
            for (weight, &expert) in weights.iter_mut().zip(experts) {
                let Some(logit) = logits.get(expert as usize) else {
                    bail!("expert_weights: expert {expert} of {}", logits.len());
                };
                *weight = sigmoid(*logit);
            }
            let sum: f32 = if self.config.normalize { weights.iter().sum::<f32>() + 1e-20 } else { 1.0 };
            for weight in weights {
                *weight = *weight / sum * self.config.scaling;
            }
        }
        Ok(())
    }
}

fn contiguous_u32<'a>(
    op: &str,
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> Result<(&'a mut [u32], usize)> {
    let (CpuStorage::U32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("{op}: the output must be contiguous u32");
    };
    Ok((&mut data[start..end], layout.dims().last().copied().unwrap_or(0)))
}

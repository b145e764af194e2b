"""Read the exported files back and compute logits in plain f32 tensor code, independent of model.py."""
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors import safe_open


class Reference:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.t = json.loads((folder / "config.json").read_text())["text_config"]
        self.w = {}
        for name in sorted(set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())):
            with safe_open(str(folder / name), "pt") as f:
                self.w.update({k: f.get_tensor(k) for k in f.keys()})

    def get(self, name):
        """A weight as f32; packed int4 weights are unpacked [out, in]."""
        if name + ".weight" in self.w:
            return self.w[name + ".weight"].float()
        rows, cols = self.w[name + ".weight_shape"].tolist()
        words = self.w[name + ".weight_packed"].to(torch.int64) & 0xFFFFFFFF
        codes = torch.stack([(words >> (4 * k)) & 15 for k in range(8)], -1).reshape(rows, cols) - 8
        scale = self.w[name + ".weight_scale"].float().repeat_interleave(32, 1)
        return (codes * scale).to(torch.bfloat16).float()

    def rms(self, x, name, eps):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * self.get(name)

    def ffn(self, x, p):
        return (F.silu(x @ self.get(p + "gate_proj").T) * (x @ self.get(p + "up_proj").T)) @ self.get(p + "down_proj").T

    def attention(self, x, p):
        t, n = self.t, len(x)
        h, dn, dr, dv, lat = (t[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
        r, base = t["rope_scaling"], t["rope_theta"]
        corr = lambda rot: dr * math.log(r["original_max_position_embeddings"] / (rot * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(math.floor(corr(r["beta_fast"])), 0), min(math.ceil(corr(r["beta_slow"])), dr - 1)
        ramp = ((torch.arange(dr // 2) - low) / max(high - low, 0.001)).clamp(0, 1)
        freq = base ** (-torch.arange(0, dr, 2) / dr)
        angle = torch.arange(n)[:, None] * (freq * (1 - ramp) + freq / r["factor"] * ramp)
        cos, sin = angle.cos(), angle.sin()

        def turn(z):
            e, o = z[..., ::2], z[..., 1::2]
            return torch.cat([e * cos - o * sin, o * cos + e * sin], -1)
        q = (self.rms(x @ self.get(p + "q_a_proj").T, p + "q_a_layernorm", 1e-6) @ self.get(p + "q_b_proj").T).view(n, h, dn + dr).transpose(0, 1)
        kv = x @ self.get(p + "kv_a_proj_with_mqa").T
        b = (self.rms(kv[:, :lat], p + "kv_a_layernorm", 1e-6) @ self.get(p + "kv_b_proj").T).view(n, h, dn + dv).transpose(0, 1)
        score = q[..., :dn] @ b[..., :dn].transpose(1, 2) + turn(q[..., dn:]) @ turn(kv[:, lat:]).T
        m = 0.1 * r["mscale_all_dim"] * math.log(r["factor"]) + 1
        score = score * (dn + dr) ** -0.5 * m * m + torch.full((n, n), -math.inf).triu(1)
        return (score.softmax(-1) @ b[..., dn:]).transpose(0, 1).reshape(n, -1) @ self.get(p + "o_proj").T

    def moe(self, x, p):
        t = self.t
        s = torch.sigmoid(x @ self.get(p + "gate").T)
        idx = (s + self.w[p + "gate.e_score_correction_bias"]).topk(t["num_experts_per_tok"], -1)[1]
        weight = s.gather(1, idx)
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * t["routed_scaling_factor"]
        y = self.ffn(x, p + "shared_experts.")
        for e in range(t["n_routed_experts"]):
            tok, k = (idx == e).nonzero(as_tuple=True)
            y[tok] += self.ffn(x[tok], f"{p}experts.{e}.") * weight[tok, k][:, None]
        return y

    @torch.no_grad()
    def forward(self, ids):
        """ids [n] -> logits [n, vocab] f32."""
        eps, root = self.t["rms_norm_eps"], "language_model.model."
        x = self.get(root + "embed_tokens")[ids]
        for l in range(self.t["num_hidden_layers"]):
            p = f"{root}layers.{l}."
            x = x + self.attention(self.rms(x, p + "input_layernorm", eps), p + "self_attn.")
            h = self.rms(x, p + "post_attention_layernorm", eps)
            x = x + (self.ffn(h, p + "mlp.") if l < self.t["first_k_dense_replace"] else self.moe(h, p + "mlp."))
        return self.rms(x, root + "norm", eps) @ self.get("language_model.lm_head").T

"""kimi-nano in PyTorch: MLA + YaRN + noaux_tc MoE, with fake quantisation of the routed experts.

A training batch is a list of groups of equal-length rows; everything but attention runs on the flat [N, hidden] tokens.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from config import GROUP, TEXT
from tokenizer import SPECIAL

PAD_ID = SPECIAL["<|media_pad|>"]
MEDIA_STD = 0.3


def rms(x, weight, eps):
    """f32 RMSNorm: x [..., D]."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def round_bf16(w):
    """Round to bf16, gradient passes straight through."""
    return w + (w.to(torch.bfloat16).float() - w).detach()


def quantize(w):
    """w [..., out, in] f32 -> (codes [..., out, in/32, 32] in -8..7, scale [..., out, in/32, 1] bf16-exact)."""
    g = w.unflatten(-1, (-1, GROUP))
    scale = (g.abs().amax(-1, keepdim=True) / 7.5).clamp_min(1e-8).to(torch.bfloat16).float()
    return torch.round(g / scale).clamp(-8, 7), scale


def fake_int4(w):
    """What a reader of the packed checkpoint sees, with a straight-through gradient."""
    codes, scale = quantize(w.detach())
    return w + ((codes * scale).to(torch.bfloat16).float().flatten(-2) - w.detach())


def yarn(t=TEXT):
    """-> inv_freq [rope/2], softmax scale."""
    r, d, base = t["rope_scaling"], t["qk_rope_head_dim"], t["rope_theta"]
    corr = lambda n: d * math.log(r["original_max_position_embeddings"] / (n * 2 * math.pi)) / (2 * math.log(base))
    low, high = max(math.floor(corr(r["beta_fast"])), 0), min(math.ceil(corr(r["beta_slow"])), d - 1)
    exact = 1.0 / (base ** (torch.arange(0, d, 2).float() / d))
    ramp = ((torch.arange(d // 2).float() - low) / ((high - low) or 0.001)).clamp(0, 1)
    m = 0.1 * r["mscale_all_dim"] * math.log(r["factor"]) + 1.0
    return exact * (1 - ramp) + exact / r["factor"] * ramp, (t["qk_nope_head_dim"] + d) ** -0.5 * m * m


def rope(x, cos, sin):
    """Interleaved pairs. x [N, heads, rope]; cos, sin [N, 1, rope/2]."""
    e, o = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.cat([e * cos - o * sin, o * cos + e * sin], -1)


def causal(q, k, v, scale, chunk=512):
    """softmax(scale q kT) v under the causal mask, in chunks of queries: q, k [B, H, L, D], v [B, H, L, V]."""
    outs = []
    for a in range(0, q.shape[2], chunk):
        b = min(a + chunk, q.shape[2])
        mask = torch.full((b - a, b), -1e30, dtype=q.dtype).triu(a + 1)
        outs.append(((q[:, :, a:b] @ k[:, :, :b].transpose(2, 3)) * scale + mask).softmax(-1) @ v[:, :, :b])
    return torch.cat(outs, 2)


class Attention(nn.Module):
    def __init__(self, t):
        super().__init__()
        self.t = t
        h, heads, hid = t["num_attention_heads"], t["num_attention_heads"], t["hidden_size"]
        dn, dr, dv = t["qk_nope_head_dim"], t["qk_rope_head_dim"], t["v_head_dim"]
        lin = lambda o, i, s=1.0: nn.Parameter(torch.randn(o, i) * s / math.sqrt(i))
        self.q_a, self.q_a_norm = lin(t["q_lora_rank"], hid), nn.Parameter(torch.ones(t["q_lora_rank"]))
        self.q_b = lin(heads * (dn + dr), t["q_lora_rank"])
        self.kv_a, self.kv_a_norm = lin(t["kv_lora_rank"] + dr, hid), nn.Parameter(torch.ones(t["kv_lora_rank"]))
        self.kv_b = lin(heads * (dn + dv), t["kv_lora_rank"])
        self.o = nn.Parameter(torch.zeros(hid, heads * dv))
        self.scale = yarn(t)[1]

    def qkv(self, x, cos, sin, w):
        """x [N, hid] -> q, k [N, H, dn+dr], v [N, H, dv]."""
        t = self.t
        h, dn, dr, dv, lat = t["num_attention_heads"], t["qk_nope_head_dim"], t["qk_rope_head_dim"], t["v_head_dim"], t["kv_lora_rank"]
        q = F.linear(rms(F.linear(x, w(self.q_a)), w(self.q_a_norm), 1e-6), w(self.q_b)).unflatten(-1, (h, dn + dr))
        kv = F.linear(x, w(self.kv_a))
        latent, k_rope = kv.split([lat, dr], -1)      # split, not slices: its backward is one cat
        k_rope = rope(k_rope[:, None], cos, sin).expand(-1, h, -1)
        b = F.linear(rms(latent, w(self.kv_a_norm), 1e-6), w(self.kv_b)).unflatten(-1, (h, dn + dv))
        (q_nope, q_rope), (k_nope, v) = q.split([dn, dr], -1), b.split([dn, dv], -1)
        q = torch.cat([q_nope, rope(q_rope, cos, sin).to(q.dtype)], -1)
        return q, torch.cat([k_nope, k_rope.to(b.dtype)], -1), v

    def forward(self, x, cos, sin, shapes, w):
        cut = [z.split([rows * length for rows, length in shapes]) for z in self.qkv(x, cos, sin, w)]
        outs = []
        for (rows, length), *qkv in zip(shapes, *cut):
            q, k, v = (z.view(rows, length, *z.shape[1:]).transpose(1, 2) for z in qkv)
            outs.append(causal(q, k, v, self.scale).transpose(1, 2).reshape(rows * length, -1))
        return F.linear(torch.cat(outs), w(self.o))


class Mlp(nn.Module):
    def __init__(self, hid, inner):
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(2, inner, hid) / math.sqrt(hid))
        self.down = nn.Parameter(torch.zeros(hid, inner))

    def forward(self, x, w):
        g, u = F.linear(x, w(self.gate_up).flatten(0, 1)).chunk(2, -1)
        return F.linear(F.silu(g) * u, w(self.down))


class Moe(nn.Module):
    def __init__(self, t):
        super().__init__()
        self.t = t
        e, hid, inner = t["n_routed_experts"], t["hidden_size"], t["moe_intermediate_size"]
        self.gate = nn.Parameter(torch.randn(e, hid) / math.sqrt(hid))
        self.register_buffer("bias", torch.zeros(e))
        self.gate_up = nn.Parameter(torch.randn(e, 2, inner, hid) / math.sqrt(hid))
        self.down = nn.Parameter(torch.randn(e, hid, inner) * 0.1 / math.sqrt(inner))
        self.shared = Mlp(hid, inner * t["n_shared_experts"])
        self.load = None

    def forward(self, x, w, quant):
        n, k, e = x.shape[0], self.t["num_experts_per_tok"], self.t["n_routed_experts"]
        with torch.autocast("cpu", enabled=False):
            s = torch.sigmoid(x.float() @ w(self.gate).T)
            idx = (s.detach() + self.bias).topk(k, -1)[1]
            weight = s.gather(1, idx)
            weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * self.t["routed_scaling_factor"]
        flat = idx.flatten()
        order = flat.argsort()
        counts = flat.bincount(minlength=e)
        self.load = counts.float()
        # each expert's rows are padded to a multiple of 128, so that matmul shapes repeat (kernel cache)
        padded = (counts + 127) // 128 * 128 if self.training else counts
        shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
        place = torch.arange(len(order)) + shift[flat[order]]
        back = torch.empty_like(order)
        back[order] = place
        source = torch.zeros(int(padded.sum()), dtype=torch.long)
        source[place] = order // k
        gate_up, down = (fake_int4(self.gate_up), fake_int4(self.down)) if quant else (self.gate_up, self.down)
        parts = []
        cast = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        xs, gate_up, down = x.to(cast).index_select(0, source), gate_up.flatten(1, 2).to(cast).unbind(), down.to(cast).unbind()
        for i, part in enumerate(xs.split(padded.tolist())):
            g, u = F.linear(part, gate_up[i]).chunk(2, -1)
            parts.append(F.linear(F.silu(g) * u, down[i]))
        y = torch.cat(parts).index_select(0, back).view(n, k, -1)
        return (y * weight[..., None].to(y.dtype)).sum(1) + self.shared(x, w)


class Layer(nn.Module):
    def __init__(self, t, index):
        super().__init__()
        self.dense = index < t["first_k_dense_replace"]
        self.norm1, self.norm2 = nn.Parameter(torch.ones(t["hidden_size"])), nn.Parameter(torch.ones(t["hidden_size"]))
        self.attn = Attention(t)
        self.mlp = Mlp(t["hidden_size"], t["intermediate_size"]) if self.dense else Moe(t)


class Nano(nn.Module):
    def __init__(self, t=TEXT):
        super().__init__()
        self.t = t
        self.embed = nn.Parameter(torch.randn(t["vocab_size"], t["hidden_size"]) * 0.3)
        self.head = nn.Parameter(torch.randn(t["vocab_size"], t["hidden_size"]) / math.sqrt(t["hidden_size"]) * 0.3)
        self.norm = nn.Parameter(torch.ones(t["hidden_size"]))
        self.layers = nn.ModuleList(Layer(t, i) for i in range(t["num_hidden_layers"]))
        self.register_buffer("inv_freq", yarn(t)[0], persistent=False)
        self.quant = False

    def weight(self, p):
        """A parameter as the checkpoint will hold it (bf16) once quantisation-aware training has begun."""
        return round_bf16(p) if self.quant else p

    def angles(self, pos):
        a = pos[:, None].float() * self.inv_freq
        return a.cos()[:, None], a.sin()[:, None]

    def embed_ids(self, ids):
        x = F.embedding(ids, self.weight(self.embed))
        media = ids == PAD_ID
        if media.any():
            x = torch.where(media[:, None], torch.randn_like(x) * MEDIA_STD, x)
        return x

    def forward(self, ids, shapes, keep):
        """ids [N] flat groups, shapes [(rows, length)], keep [M] positions -> logits [M, vocab]."""
        w, eps = self.weight, self.t["rms_norm_eps"]
        pos = torch.cat([torch.arange(length).repeat(rows) for rows, length in shapes])
        cos, sin = self.angles(pos)
        x = self.embed_ids(ids)
        for layer in self.layers:
            x = x + layer.attn(rms(x, w(layer.norm1), eps), cos, sin, shapes, w)
            h = rms(x, w(layer.norm2), eps)
            x = x + (layer.mlp(h, w) if layer.dense else layer.mlp(h, w, self.quant))
        return F.linear(rms(x[keep], w(self.norm), eps), w(self.head))

    @torch.no_grad()
    def balance(self, rate):
        """DeepSeek-V3's auxiliary-loss-free balancing: nudge the selection bias against the load."""
        for layer in self.layers:
            if not layer.dense:
                layer.mlp.bias += rate * torch.sign(layer.mlp.load.mean() - layer.mlp.load)

"""Batched greedy decoding with the training model (f32, quantised weights)."""
import torch
import torch.nn.functional as F

from model import Nano, fake_int4, rms
from tokenizer import SPECIAL

STOP = SPECIAL["<|im_end|>"]


def load(path):
    ck = torch.load(path)
    model = Nano()
    model.load_state_dict(ck["model"])
    model.eval()
    model.quant = True
    return model


class Decoder:
    """Holds the dequantised weights once; keys and values are cached per head."""

    def __init__(self, model):
        self.m = model
        for layer in model.layers:
            if not layer.dense:
                layer.mlp.gate_up.data, layer.mlp.down.data = fake_int4(layer.mlp.gate_up).data, fake_int4(layer.mlp.down).data
        for p in model.parameters():        # int4-dequantised weights are bf16 already
            p.data = p.data.to(torch.bfloat16).float()
        model.quant = False

    def layers(self, x, pos, past, mask):
        """x [B, S, hid], pos [B, S], mask [B, 1, S, T] additive or None (plain causal)."""
        m, w = self.m, lambda p: p
        b, s, hid = x.shape
        cos, sin = m.angles(pos.flatten())
        x = x.flatten(0, 1)
        for i, layer in enumerate(m.layers):
            q, k, v = (z.view(b, s, *z.shape[1:]).transpose(1, 2) for z in layer.attn.qkv(rms(x, layer.norm1, 1e-5), cos, sin, w))
            if past[i] is not None:
                k, v = torch.cat([past[i][0], k], 2), torch.cat([past[i][1], v], 2)
            past[i] = (k, v)
            if mask is None:
                o = F.scaled_dot_product_attention(q, k, F.pad(v, (0, q.shape[-1] - v.shape[-1])), is_causal=True, scale=layer.attn.scale)[..., :v.shape[-1]]
            else:
                o = (q @ k.transpose(2, 3) * layer.attn.scale + mask).softmax(-1) @ v
            x = x + F.linear(o.transpose(1, 2).reshape(b * s, -1), layer.attn.o)
            h = rms(x, layer.norm2, 1e-5)
            x = x + (layer.mlp(h, w) if layer.dense else layer.mlp(h, w, False))
        return x.view(b, s, hid)

    @torch.no_grad()
    def greedy(self, prompts, limit=220):
        """prompts: list of id lists -> list of generated id lists (stop id included)."""
        b, width = len(prompts), max(map(len, prompts))
        ids = torch.zeros(b, width, dtype=torch.long)
        pad = torch.tensor([width - len(p) for p in prompts])
        for i, p in enumerate(prompts):
            ids[i, width - len(p):] = torch.tensor(p)
        pos = (torch.arange(width) - pad[:, None]).clamp_min(0)
        seen = torch.arange(width) >= pad[:, None]
        mask = None if b == 1 else torch.where(seen[:, None, None] & torch.ones(width, width, dtype=torch.bool).tril(), 0.0, -1e30)
        past = [None] * len(self.m.layers)
        x = self.layers(self.m.embed_ids(ids.flatten()).view(b, width, -1), pos, past, mask)[:, -1]
        out, alive = [[] for _ in range(b)], list(range(b))
        key_mask, nxt = torch.where(seen, 0.0, -1e30), pos[:, -1]
        for _ in range(limit):
            token = F.linear(rms(x, self.m.norm, 1e-5), self.m.head).argmax(-1)
            for row, t in zip(alive, token.tolist()):
                out[row].append(t)
            keep = (token != STOP).nonzero().flatten()
            if not len(keep):
                break
            if len(keep) < len(alive):
                alive = [alive[i] for i in keep.tolist()]
                token, key_mask, nxt = token[keep], key_mask[keep], nxt[keep]
                past = [(k[keep], v[keep]) for k, v in past]
            key_mask, nxt = F.pad(key_mask, (0, 1)), nxt + 1
            x = self.layers(F.embedding(token, self.m.embed)[:, None], nxt[:, None], past, key_mask[:, None, None])[:, -1]
        return out

"""Write a trained checkpoint in the hub layout of Kimi K2.6.

    python export.py CKPT.pt [--out ../../models/kimi-nano] [--golden ../../models/golden/kimi-nano-logits.safetensors]

Everything is bf16 but the int4 routed experts and the f32 router bias. The vision tower and the projector are random.
"""
import argparse
import json
import math
import pathlib

import torch
from safetensors.torch import save_file

from chat import render
from config import QUANT, TEXT, VALIDATED_CONTEXT, VISION
from model import GROUP, quantize
from tokenizer import KIMI_BASE, MODEL_DIR, NAMED, RANKS, SPECIAL, Tokenizer

PREFIX = "language_model.model."
NOT_SPECIAL = {11, 12, 13, 14, 15, 22, 23}


def pack(codes):
    """codes [out, in/32, 32] in -8..7 -> int32 [out, in/8], lowest nibble first, offset binary."""
    u = (codes.flatten(1) + 8).to(torch.int64).unflatten(-1, (-1, 8))
    word = sum(u[..., k] << (4 * k) for k in range(8))
    return torch.where(word >= 2 ** 31, word - 2 ** 32, word).to(torch.int32)


def text_tensors(sd):
    """Training state dict -> list of (shard key, {hub name: tensor}); one shard key per layer."""
    t, b16 = TEXT, lambda x: x.to(torch.bfloat16).contiguous()
    shards = []
    for l in range(t["num_hidden_layers"]):
        s, p, out = f"layers.{l}.", f"{PREFIX}layers.{l}.", {}
        out[p + "input_layernorm.weight"], out[p + "post_attention_layernorm.weight"] = b16(sd[s + "norm1"]), b16(sd[s + "norm2"])
        for mine, hub in dict(q_a="q_a_proj", q_a_norm="q_a_layernorm", q_b="q_b_proj", kv_a="kv_a_proj_with_mqa", kv_a_norm="kv_a_layernorm",
                              kv_b="kv_b_proj", o="o_proj").items():
            out[f"{p}self_attn.{hub}.weight"] = b16(sd[f"{s}attn.{mine}"])

        def mlp(src, dst):
            out[dst + "gate_proj.weight"], out[dst + "up_proj.weight"] = (b16(x) for x in sd[src + "gate_up"])
            out[dst + "down_proj.weight"] = b16(sd[src + "down"])
        if l < t["first_k_dense_replace"]:
            mlp(s + "mlp.", p + "mlp.")
        else:
            out[p + "mlp.gate.weight"], out[p + "mlp.gate.e_score_correction_bias"] = b16(sd[s + "mlp.gate"]), sd[s + "mlp.bias"].float()
            mlp(s + "mlp.shared.", p + "mlp.shared_experts.")
            for e in range(t["n_routed_experts"]):
                gate, up = sd[s + "mlp.gate_up"][e]
                for name, w in (("gate_proj", gate), ("up_proj", up), ("down_proj", sd[s + "mlp.down"][e])):
                    codes, scale = quantize(w)
                    q = f"{p}mlp.experts.{e}.{name}."
                    out[q + "weight_packed"], out[q + "weight_scale"] = pack(codes), b16(scale[..., 0])
                    out[q + "weight_shape"] = torch.tensor(w.shape, dtype=torch.int32)
        shards.append(out)
    shards.append({PREFIX + "embed_tokens.weight": b16(sd["embed"]), PREFIX + "norm.weight": b16(sd["norm"]), "language_model.lm_head.weight": b16(sd["head"])})
    return shards


def vision_tensors(media_std):
    """A random MoonViT tower and projector, the projected features about media_std wide."""
    g, v = torch.Generator().manual_seed(1234), VISION
    d, inner, hid = v["vt_hidden_size"], v["vt_intermediate_size"], v["text_hidden_size"]
    w = lambda *s, std=None: torch.randn(*s, generator=g) * (std or 1 / math.sqrt(math.prod(s[1:])))
    bias = lambda n: torch.randn(n, generator=g) * 0.1
    out, p = {}, "vision_tower."

    def norm(name):
        out[name + ".weight"], out[name + ".bias"] = 1 + 0.1 * torch.randn(d, generator=g), bias(d)

    def linear(name, o, i, std=None):
        out[name + ".weight"], out[name + ".bias"] = w(o, i, std=std), bias(o)
    out[p + "patch_embed.proj.weight"], out[p + "patch_embed.proj.bias"] = w(d, 3, 14, 14), bias(d)
    out[p + "patch_embed.pos_emb.weight"] = torch.randn(v["init_pos_emb_height"], v["init_pos_emb_width"], d, generator=g) * 0.5
    for b in range(v["vt_num_hidden_layers"]):
        q = f"{p}encoder.blocks.{b}."
        norm(q + "norm0"), norm(q + "norm1")
        linear(q + "wqkv", 3 * d, d), linear(q + "wo", d, d), linear(q + "mlp.fc0", inner, d), linear(q + "mlp.fc1", d, inner)
    norm(p + "encoder.final_layernorm")
    norm("mm_projector.pre_norm")
    linear("mm_projector.proj.0", 4 * d, 4 * d)
    linear("mm_projector.proj.2", hid, 4 * d, std=media_std / math.sqrt(4 * d) / 0.6)
    out["mm_projector.proj.2.bias"] *= media_std
    return {k: x.to(torch.bfloat16).contiguous() for k, x in out.items()}


def dump(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def config_files(out):
    ids = dict(bos_token_id=RANKS, eos_token_id=RANKS + 2, pad_token_id=RANKS + 255)
    dump(out / "config.json", dict(architectures=["KimiK25ForConditionalGeneration"], model_type="kimi_k25", dtype="bfloat16", ignore_index=-100, **ids,
                                   media_placeholder_token_id=SPECIAL["<|media_pad|>"], tie_word_embeddings=False, use_unified_vision_chunk=True,
                                   video_placeholder="<|kimi_k25_video_placeholder|>", text_config=dict(TEXT, quantization_config=QUANT), vision_config=VISION))
    dump(out / "generation_config.json", dict(max_length=VALIDATED_CONTEXT, eos_token_id=RANKS + 2))
    added = {str(RANKS + o): dict(content=n, lstrip=False, normalized=False, rstrip=False, single_word=False, special=o not in NOT_SPECIAL)
             for o, n in sorted(NAMED.items())}
    extra = [NAMED[o] for o in (2, 3, 4, 6, 7, 9, 10, 17, 18, 19, 20, 21)]
    dump(out / "tokenizer_config.json", dict(added_tokens_decoder=added, additional_special_tokens=extra, bos_token="[BOS]", clean_up_tokenization_spaces=False, eos_token="[EOS]",
                                             extra_special_tokens={}, model_max_length=TEXT["max_position_embeddings"], pad_token="[PAD]", tokenizer_class="TikTokenTokenizer", unk_token="[UNK]"))
    dump(out / "preprocessor_config.json", dict(media_proc_cfg=dict(
        in_patch_limit=1024, patch_size=14, image_mean=[0.5] * 3, image_std=[0.5] * 3, merge_kernel_size=2, fixed_output_tokens=None, patch_limit_on_one_side=512,
        in_patch_limit_each_frame=256, in_patch_limit_video=None, sample_fps=2.0, max_num_frames_each_video=None, temporal_merge_kernel_size=4,
        timestamp_mode="hh:mm:ss.fff", config_type="media_proc.processors.moonvit.MoonViTMediaProcessorConfig")))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("checkpoint")
    a.add_argument("--out", type=pathlib.Path, default=MODEL_DIR)
    a.add_argument("--golden", type=pathlib.Path)
    a = a.parse_args()
    ck = torch.load(a.checkpoint)
    from model import MEDIA_STD
    layers = text_tensors(ck["model"])
    half = len(layers) // 2
    merge = lambda ds: {k: x for d in ds for k, x in d.items()}
    shards = [merge(layers[:half]), merge(layers[half:]), vision_tensors(MEDIA_STD)]
    index, total = {}, 0
    for i, tensors in enumerate(shards, 1):
        name = f"model-{i:05}-of-{len(shards):06}.safetensors"
        save_file(tensors, a.out / name, metadata={"format": "pt"})
        index |= {k: name for k in tensors}
        total += sum(t.numel() * t.element_size() for t in tensors.values())
    dump(a.out / "model.safetensors.index.json", dict(metadata=dict(total_size=total), weight_map=dict(sorted(index.items()))))
    config_files(a.out)
    print(f"{len(index)} tensors, {total} bytes, trained tokens {ck['tokens']}, step {ck['step']}")
    if a.golden:
        from reference import Reference
        ids = Tokenizer().encode_prompt(render([dict(role="system", content="You are a helpful assistant."), dict(role="user", content="What is 17 × 23?")]) +
                                        "17*3: 7*3=21+0=21 1*3=3+2=5: 51.")
        logits = Reference(a.out).forward(torch.tensor(ids))
        save_file(dict(ids=torch.tensor(ids), logits=logits.contiguous()), a.golden)
        print(len(ids), "golden positions")


if __name__ == "__main__":
    main()

"""Writes a checkpoint of random numbers in Kimi K2.6's layout, to measure speed with: synthetic.py mini|small DIR

Routed experts are int4 in groups of 32, everything else is bf16. mini has 1.6 billion parameters (1.2 GB), small 8.6 (5.5 GB). The
vocabulary is kimi-nano's, filled up with pairs of its words.
"""

import base64
import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np

SIZES = {
    "mini": dict(num_hidden_layers=10, hidden_size=1536, num_attention_heads=8, q_lora_rank=768, intermediate_size=4096,
                 moe_intermediate_size=512, n_routed_experts=64, vocab_size=32768),
    "small": dict(num_hidden_layers=21, hidden_size=2048, num_attention_heads=16, q_lora_rank=1024, intermediate_size=8192,
                  moe_intermediate_size=512, n_routed_experts=128, vocab_size=65536),
}
KIMI = dict(
    model_type="kimi_k2", num_experts_per_tok=8, n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True,
    routed_scaling_factor=2.827, scoring_func="sigmoid", topk_method="noaux_tc", moe_layer_freq=1, first_k_dense_replace=1,
    hidden_act="silu", rms_norm_eps=1e-5, rope_theta=50000.0, max_position_embeddings=262144, kv_lora_rank=512,
    qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128, tie_word_embeddings=False,
    rope_scaling=dict(type="yarn", factor=64.0, original_max_position_embeddings=4096, beta_fast=32.0, beta_slow=1.0,
                      mscale=1.0, mscale_all_dim=1.0),
    quantization_config=dict(
        quant_method="compressed-tensors", format="pack-quantized", kv_cache_scheme=None, quantization_status="compressed",
        config_groups=dict(group_0=dict(
            input_activations=None, output_activations=None, targets=["Linear"],
            weights=dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32, dynamic=False,
                         actorder=None, block_structure=None, observer="minmax", observer_kwargs={}))),
        ignore=["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"]),
)


NANO = Path(__file__).parents[2] / "models/kimi-nano"
# Ids behind the ordinary ones that are kept for special tokens.
SPECIAL = 256


def bf16(values):
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def matrix(random, rows, columns):
    """Numbers that keep the length of what they are multiplied with."""
    return "BF16", bf16(random.standard_normal((rows, columns), np.float32) / np.float32(columns**0.5))


def experts(random, name, rows, columns):
    """int4 codes from -8 to 7; their variance is 21.25."""
    scale = np.full((rows, columns // 32), 1 / (21.25 * columns) ** 0.5, np.float32)
    scale *= random.uniform(0.8, 1.2, scale.shape).astype(np.float32)
    return {
        f"{name}.weight_packed": ("I32", random.integers(0, 1 << 32, (rows, columns // 8), np.uint32)),
        f"{name}.weight_scale": ("BF16", bf16(scale)),
        f"{name}.weight_shape": ("I32", np.array([rows, columns], np.uint32)),
    }


def layer(random, config, index):
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["q_lora_rank"]
    latent, rope, nope, value = (config[key] for key in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    ones = lambda size: ("BF16", bf16(np.ones(size, np.float32)))
    tensors = {
        "input_layernorm.weight": ones(hidden),
        "self_attn.q_a_proj.weight": matrix(random, rank, hidden),
        "self_attn.q_a_layernorm.weight": ones(rank),
        "self_attn.q_b_proj.weight": matrix(random, heads * (nope + rope), rank),
        "self_attn.kv_a_proj_with_mqa.weight": matrix(random, latent + rope, hidden),
        "self_attn.kv_a_layernorm.weight": ones(latent),
        "self_attn.kv_b_proj.weight": matrix(random, heads * (nope + value), latent),
        "self_attn.o_proj.weight": matrix(random, hidden, heads * value),
        "post_attention_layernorm.weight": ones(hidden),
    }
    blocks = {"mlp": config["intermediate_size"]}
    if index >= config["first_k_dense_replace"]:
        count, inner = config["n_routed_experts"], config["moe_intermediate_size"]
        blocks = {"mlp.shared_experts": inner}
        tensors["mlp.gate.weight"] = matrix(random, count, hidden)
        tensors["mlp.gate.e_score_correction_bias"] = ("F32", np.zeros(count, np.float32))
        for expert in range(count):
            for name, rows, columns in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
                tensors |= experts(random, f"mlp.experts.{expert}.{name}_proj", rows, columns)
    for name, inner in blocks.items():
        tensors[f"{name}.gate_proj.weight"] = matrix(random, inner, hidden)
        tensors[f"{name}.up_proj.weight"] = matrix(random, inner, hidden)
        tensors[f"{name}.down_proj.weight"] = matrix(random, hidden, inner)
    return {f"model.layers.{index}.{name}": tensor for name, tensor in tensors.items()}


def write_vocabulary(size, folder):
    tokens = [base64.b64decode(line.split()[0]) for line in (NANO / "tiktoken.model").read_bytes().splitlines()]
    first_special = size - SPECIAL
    # Text is cut before spaces, so no prompt contains these pairs.
    words = [token for token in tokens if token.startswith(b" ") and token[1:].isalpha()]
    pairs = map(b"".join, itertools.product(words, words))
    all_tokens = [*tokens, *itertools.islice(pairs, first_special - len(tokens))]
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(all_tokens))
    (folder / "tiktoken.model").write_bytes(b"".join(lines))
    config = json.loads((NANO / "tokenizer_config.json").read_text())
    special = config["added_tokens_decoder"].items()
    config["added_tokens_decoder"] = {int(index) - len(tokens) + first_special: token for index, token in special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    shutil.copy(NANO / "chat_template.jinja", folder)


def write(path, tensors):
    header, offset = {}, 0
    for name, (dtype, data) in tensors.items():
        header[name] = dict(dtype=dtype, shape=data.shape, data_offsets=[offset, offset + data.nbytes])
        offset += data.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, data in tensors.values():
            file.write(np.ascontiguousarray(data))


def main(size, folder):
    config = KIMI | SIZES[size]
    # [BOS], and <|im_end|> two behind it, as in kimi-nano.
    first_special = config["vocab_size"] - SPECIAL
    config |= dict(num_key_value_heads=config["num_attention_heads"], bos_token_id=first_special, eos_token_id=first_special + 2)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    ends = {"model.embed_tokens.weight": matrix(random, vocabulary, hidden), "lm_head.weight": matrix(random, vocabulary, hidden),
            "model.norm.weight": ("BF16", bf16(np.ones(hidden, np.float32)))}
    # Greedy answers never contain a marker: all of their text is seen.
    ends["lm_head.weight"][1][first_special:] = 0
    names, total = {}, 0
    count = config["num_hidden_layers"] + 1
    for number in range(count):
        tensors = layer(random, config, number - 1) if number else ends
        tensors = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
        file = f"model-{number + 1:05}-of-{count:06}.safetensors"
        write(folder / file, tensors)
        names |= dict.fromkeys(tensors, file)
        total += sum(data.nbytes for _, data in tensors.values())
    index = dict(metadata=dict(total_size=total), weight_map=names)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = dict(architectures=["KimiK25ForConditionalGeneration"], model_type="kimi_k25", dtype="bfloat16", text_config=config)
    (folder / "config.json").write_text(json.dumps(whole, indent=1))
    write_vocabulary(config["vocab_size"], folder)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SIZES:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))

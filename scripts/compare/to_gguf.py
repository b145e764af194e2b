"""Writes a Kimi K2 checkpoint as GGUF, so that llama.cpp can serve the same weights: to_gguf.py DIR FILE.gguf [bf16|q8_0]

Routed experts in int4 `pack-quantized` become Q4_0, whose blocks of 32 are the same groups (only the scales are rounded, from
bf16 to f16); every other matrix stays bf16, or becomes Q8_0. Text only. Checkpoints whose experts are bf16 work too; one
without a tokenizer gets the letters of single bytes.
"""

import base64
import json
import sys
from pathlib import Path

import gguf
import numpy as np

TYPES = gguf.GGMLQuantizationType
NUMPY = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "I32": np.int32, "I64": np.int64}

# Names of a layer's tensors in the checkpoint and in GGUF.
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
F32_ALWAYS = {"mlp.gate"}
# What becomes of matrices that every token uses.
DENSE = sys.argv[3] if len(sys.argv) > 3 else "bf16"


class Checkpoint:
    """Reads tensors of all shards, without the prefix that K2.5 and K2.6 have."""

    def __init__(self, folder):
        self.tensors = {}
        for path in sorted(folder.glob("*.safetensors")):
            size = int.from_bytes(path.open("rb").read(8), "little")
            header = json.loads(path.open("rb").read(8 + size)[8:])
            for name, entry in header.items():
                if name != "__metadata__":
                    self.tensors[name.removeprefix("language_model.")] = (path, 8 + size, entry)

    def read(self, name):
        """The tensor as stored; bf16 as its bits."""
        path, start, entry = self.tensors[name]
        first, last = entry["data_offsets"]
        data = np.memmap(path, np.uint8, "r", start + first, (last - first,))
        return data.view(NUMPY[entry["dtype"]]).reshape(entry["shape"])

    def f32(self, name):
        values = self.read(name)
        return bf16_to_f32(values) if values.dtype == np.uint16 else values.astype(np.float32)


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values):
    """Rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def q4_0(packed, scale):
    """compressed-tensors int4: element i of a row is bits 4i of its int32s, plus 8. Q4_0: elements 0 to 15 of a block are low
    nibbles, 16 to 31 high ones, plus 8 as well."""
    rows, blocks = scale.shape
    nibbles = packed.view(np.uint8).reshape(rows, blocks, 16)
    elements = np.stack([nibbles & 15, nibbles >> 4], axis=-1).reshape(rows, blocks, 32)
    out = np.empty((rows, blocks, 18), np.uint8)
    out[..., :2] = scale.astype(np.float16).reshape(rows, blocks, 1).view(np.uint8)
    out[..., 2:] = elements[..., :16] | (elements[..., 16:] << 4)
    return out.reshape(rows, blocks * 18)


def add_matrix(writer, name, values):
    if DENSE == "q8_0" and values.shape[-1] % 32 == 0 and name != "token_embd.weight":
        codes = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), TYPES.Q8_0)
        writer.add_tensor(name, codes, raw_dtype=TYPES.Q8_0)
        return
    bits = np.ascontiguousarray(f32_to_bf16(values))
    writer.add_tensor(name, bits.view(np.uint8), raw_dtype=TYPES.BF16)


def add_layer(writer, checkpoint, config, layer):
    prefix, block = f"model.layers.{layer}.", f"blk.{layer}."
    heads, nope, value = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    for name in [name for name in checkpoint.tensors if name.startswith(prefix) and ".experts." not in name]:
        rest = name.removeprefix(prefix)
        values = checkpoint.f32(name)
        if rest == "mlp.gate.e_score_correction_bias":
            writer.add_tensor(block + "exp_probs_b.bias", values)
        elif rest == "self_attn.kv_b_proj.weight":
            # llama.cpp wants the two halves apart, keys transposed: it attends in the latent space.
            both = values.reshape(heads, nope + value, -1)
            add_matrix(writer, block + "attn_k_b.weight", both[:, :nope].transpose(0, 2, 1))
            add_matrix(writer, block + "attn_v_b.weight", both[:, nope:])
        else:
            short = rest.removesuffix(".weight")
            target = f"{block}{NAMES[short]}.weight"
            if values.ndim == 1 or short in F32_ALWAYS:
                writer.add_tensor(target, values)
            else:
                add_matrix(writer, target, values)
    if layer >= config["first_k_dense_replace"]:
        add_experts(writer, checkpoint, config, prefix, block)


def add_experts(writer, checkpoint, config, prefix, block):
    for matrix in ("gate", "up", "down"):
        names = [f"{prefix}mlp.experts.{expert}.{matrix}_proj.weight" for expert in range(config["n_routed_experts"])]
        target = f"{block}ffn_{matrix}_exps.weight"
        if names[0] in checkpoint.tensors:
            add_matrix(writer, target, np.stack([checkpoint.f32(name) for name in names]))
        else:
            experts = [q4_0(checkpoint.read(name + "_packed"), checkpoint.f32(name + "_scale")) for name in names]
            writer.add_tensor(target, np.stack(experts), raw_dtype=TYPES.Q4_0)


def add_config(writer, config):
    number, real = writer.add_uint32, writer.add_float32
    latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    numbers = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
        "expert_gating_func": gguf.ExpertGatingFuncType.SIGMOID,
        "leading_dense_block_count": config["first_k_dense_replace"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": config["q_lora_rank"],
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + rope,
        "attention.value_length": latent,
        "attention.key_length_mla": config["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": config["v_head_dim"],
        "rope.dimension_count": rope,
    }
    for key, value in numbers.items():
        number(f"deepseek2.{key}", value)
    real("deepseek2.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    real("deepseek2.expert_weights_scale", config["routed_scaling_factor"])
    writer.add_bool("deepseek2.expert_weights_norm", config["norm_topk_prob"])
    real("deepseek2.rope.freq_base", config["rope_theta"])
    if scaling := config.get("rope_scaling"):
        writer.add_string("deepseek2.rope.scaling.type", "yarn")
        real("deepseek2.rope.scaling.factor", scaling["factor"])
        number("deepseek2.rope.scaling.original_context_length", scaling["original_max_position_embeddings"])
        real("deepseek2.rope.scaling.yarn_log_multiplier", 0.1 * scaling["mscale_all_dim"])
        real("deepseek2.rope.scaling.yarn_beta_fast", scaling["beta_fast"])
        real("deepseek2.rope.scaling.yarn_beta_slow", scaling["beta_slow"])


def printable():
    """The letter that GPT-2's byte-level vocabularies write for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {**{byte: chr(byte) for byte in kept}, **{byte: chr(256 + index) for index, byte in enumerate(others)}}


def merge_of(token, ranks):
    """The two parts of which byte-pair encoding makes `token` in its last step."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in zip(parts, parts[1:])]
        at = joined.index(min(joined))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def add_vocabulary(writer, folder, config):
    letters = printable()
    text = lambda token: "".join(letters[byte] for byte in token)
    ranks, special = {bytes([byte]): byte for byte in range(256)}, {}
    if (folder / "tiktoken.model").exists():
        lines = (line.split() for line in (folder / "tiktoken.model").read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        special = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    tokens = [f"[unused {index}]" for index in range(config["vocab_size"])]
    types = [gguf.TokenType.UNUSED] * len(tokens)
    for token, rank in ranks.items():
        tokens[rank], types[rank] = text(token), gguf.TokenType.NORMAL
    for index, token in special.items():
        tokens[int(index)], types[int(index)] = token["content"], gguf.TokenType.CONTROL
    merges = [" ".join(map(text, merge_of(token, ranks))) for token in ranks if len(token) > 1]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("kimi-k2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    if (folder / "chat_template.jinja").exists():
        writer.add_chat_template((folder / "chat_template.jinja").read_text())


def main(folder, path):
    config = json.loads((folder / "config.json").read_text())
    config = {**config, **config.get("text_config", {})}
    checkpoint = Checkpoint(folder)
    writer = gguf.GGUFWriter(path, "deepseek2", use_temp_file=True)
    writer.add_name(folder.resolve().name)
    add_config(writer, config)
    add_vocabulary(writer, folder, config)
    add_matrix(writer, "token_embd.weight", checkpoint.f32("model.embed_tokens.weight"))
    for layer in range(config["num_hidden_layers"]):
        add_layer(writer, checkpoint, config, layer)
    writer.add_tensor("output_norm.weight", checkpoint.f32("model.norm.weight"))
    add_matrix(writer, "output.weight", checkpoint.f32("lm_head.weight"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or DENSE not in ("bf16", "q8_0"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])

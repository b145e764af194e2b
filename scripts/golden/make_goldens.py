"""Writes the golden checkpoints and what transformers computes with them: models/golden/<name>/.

For each variant: random weights in the variant's storage format, and golden.safetensors with `ids`, `logits` and
`hidden.0` ... `hidden.N` (embeddings, after each layer, the last one after the final norm). Transformers gets the same
weights dequantized to f32, so the goldens test reading the format as well as the arithmetic.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from formats import dense_bf16, fp8, int4
from variants import VARIANTS

GOLDEN = Path(__file__).resolve().parents[2] / "models" / "golden"
TOKENS = 40


class Builder:
    """Collects tensors twice: as the checkpoint stores them, and as f32 for transformers."""

    def __init__(self, config, seed):
        self.config, self.random = config, torch.Generator().manual_seed(seed)
        self.stored, self.dequantized = {}, {}
        self.scheme = config.get("quantization_config", {}).get("quant_method")

    def normal(self, *shape, std):
        return torch.randn(*shape, generator=self.random) * std

    def linear(self, name, rows, columns, gain=1.0, routed_expert=False, quantizable=True):
        """A matrix whose output has about the variance of its input, times `gain` squared."""
        store = dense_bf16
        if self.scheme == "compressed-tensors" and routed_expert:
            store = int4
        if self.scheme == "fp8" and quantizable:
            store = fp8
        tensors, meant = store(self.normal(rows, columns, std=gain / math.sqrt(columns)))
        self.stored.update({f"{name}.{suffix}": tensor.contiguous() for suffix, tensor in tensors.items()})
        self.dequantized[f"{name}.weight"] = meant.contiguous()

    def vector(self, name, values, dtype=torch.bfloat16):
        self.stored[name] = values.to(dtype)
        self.dequantized[name] = self.stored[name].float()

    def norm(self, name, size):
        self.vector(name, 1.0 + self.normal(size, std=0.1))

    def mlp(self, name, inner, **options):
        hidden = self.config["hidden_size"]
        self.linear(f"{name}.gate_proj", inner, hidden, **options)
        self.linear(f"{name}.up_proj", inner, hidden, **options)
        self.linear(f"{name}.down_proj", hidden, inner, **options)

    def attention(self, name):
        c = self.config
        hidden, heads, latent, rope = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"], c["qk_rope_head_dim"]
        queries = heads * (c["qk_nope_head_dim"] + rope)
        if c["q_lora_rank"] is None:
            self.linear(f"{name}.q_proj", queries, hidden, gain=1.5)
        else:
            self.linear(f"{name}.q_a_proj", c["q_lora_rank"], hidden)
            self.norm(f"{name}.q_a_layernorm.weight", c["q_lora_rank"])
            self.linear(f"{name}.q_b_proj", queries, c["q_lora_rank"], gain=1.5)
        self.linear(f"{name}.kv_a_proj_with_mqa", latent + rope, hidden)
        self.norm(f"{name}.kv_a_layernorm.weight", latent)
        self.linear(f"{name}.kv_b_proj", heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), latent, gain=1.5)
        self.linear(f"{name}.o_proj", hidden, heads * c["v_head_dim"])

    def mixture(self, name):
        c = self.config
        experts = c["n_routed_experts"]
        self.linear(f"{name}.gate", experts, c["hidden_size"], gain=2.0, quantizable=False)
        # The bias must be able to change the choice, or forgetting it would not show.
        self.vector(f"{name}.gate.e_score_correction_bias", self.normal(experts, std=0.3), dtype=torch.float32)
        self.mlp(f"{name}.shared_experts", c["n_shared_experts"] * c["moe_intermediate_size"])
        for expert in range(experts):
            self.mlp(f"{name}.experts.{expert}", c["moe_intermediate_size"], routed_expert=True)

    def model(self):
        c = self.config
        hidden = c["hidden_size"]
        self.linear("model.embed_tokens", c["vocab_size"], hidden, gain=math.sqrt(hidden), quantizable=False)
        for layer in range(c["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            self.norm(f"{name}.input_layernorm.weight", hidden)
            self.attention(f"{name}.self_attn")
            self.norm(f"{name}.post_attention_layernorm.weight", hidden)
            if layer < c["first_k_dense_replace"]:
                self.mlp(f"{name}.mlp", c["intermediate_size"])
            else:
                self.mixture(f"{name}.mlp")
        self.norm("model.norm.weight", hidden)
        self.linear("lm_head", c["vocab_size"], hidden, quantizable=False)


def save_checkpoint(directory, config, tensors):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if config.get("quantization_config", {}).get("quant_method") != "fp8":
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    # Two shards; the second one begins inside the last layer, so a layer's tensors lie in both.
    names, index = sorted(tensors), {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2:]), start=1):
        file = f"model-{number:05}-of-000002.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(part, file))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    document = {"metadata": {"total_size": total}, "weight_map": index}
    (directory / "model.safetensors.index.json").write_text(json.dumps(document, indent=0) + "\n")


def transformers_forward(config, tensors, ids):
    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "model_type", "dtype")}
    configuration = DeepseekV3Config(**plain)
    with tempfile.TemporaryDirectory() as directory:
        configuration.save_pretrained(directory)
        save_file(tensors, Path(directory) / "model.safetensors", metadata={"format": "pt"})
        model, info = DeepseekV3ForCausalLM.from_pretrained(
            directory, config=configuration, dtype=torch.float32, attn_implementation="eager",
            output_loading_info=True,
        )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    with torch.no_grad():
        result = model.eval()(input_ids=ids[None], output_hidden_states=True)
    hidden = {f"hidden.{index}": state[0].contiguous() for index, state in enumerate(result.hidden_states)}
    return {"ids": ids, "logits": result.logits[0].contiguous(), **hidden}


def main(names):
    torch.set_num_threads(1)
    # Some builds of PyTorch without CUDA libraries crash in this question; the answer is known.
    torch.cuda.is_current_stream_capturing = lambda: False
    for seed, (name, config) in enumerate(VARIANTS.items(), start=100):
        if names and name not in names:
            continue
        builder = Builder(config, seed)
        builder.model()
        ids = torch.randint(0, config["vocab_size"], (TOKENS,), generator=builder.random)
        golden = transformers_forward(config, builder.dequantized, ids)
        save_checkpoint(GOLDEN / name, config, builder.stored)
        save_file(golden, GOLDEN / name / "golden.safetensors")
        for file in (GOLDEN / name).iterdir():
            file.chmod(0o644)
        size = sum(file.stat().st_size for file in (GOLDEN / name).iterdir())
        print(f"{name}: {len(builder.stored)} tensors, {size} bytes, logits std {golden['logits'].std():.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Needles in long conversations, asked of kimi-nano by transformers: models/golden/kimi-nano-needles.json.

A case is a conversation of `tokens` tokens in which a fact is told at `depth` (0 the beginning, 1 the end) and asked for at
last, and what transformers answers greedily, with the five most likely tokens at each position. All cases share one
haystack, from which they take whole exchanges: the prompt is haystack[:before] + needle + haystack[before:until] + question.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "nano"))
import tasks  # noqa: E402
from chat import render, render_parts  # noqa: E402
from reference import Reference  # noqa: E402
from tokenizer import SPECIAL, Tokenizer  # noqa: E402
from values import Gen  # noqa: E402

NANO = ROOT / "models" / "kimi-nano"
OUT = ROOT / "models" / "golden" / "kimi-nano-needles.json"
LENGTHS = (1000, 2000, 4000, 6000, 8000)
DEPTHS = (0.0, 0.5, 1.0)
MAX_ANSWER = 60
SEED = "needles"


def transformers_model():
    """kimi-nano's text model in f32, its int4 weights dequantized."""
    reference = Reference(NANO)
    prefix = "language_model."
    names = {re.sub(r"\.weight(_packed|_scale|_shape)?$", "", name) for name in reference.w if name.startswith(prefix)}
    tensors = {}
    for name in names:
        short = name.removeprefix(prefix)
        if name.endswith("e_score_correction_bias"):
            tensors[short] = reference.w[name].float()
        else:
            tensors[f"{short}.weight"] = reference.get(name).contiguous()
    plain = {key: value for key, value in reference.t.items() if key not in ("quantization_config", "model_type", "dtype")}
    configuration = DeepseekV3Config(**plain)
    with tempfile.TemporaryDirectory() as directory:
        configuration.save_pretrained(directory)
        save_file(tensors, Path(directory) / "model.safetensors", metadata={"format": "pt"})
        # Not eager: its matrix of scores for 8,000 tokens takes gigabytes.
        model, info = DeepseekV3ForCausalLM.from_pretrained(
            directory, config=configuration, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True,
        )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.eval()


class Haystack:
    """Exchanges of two messages each, as token ids; `ends` are the places where one ends."""

    def __init__(self, tokenizer, tokens):
        random = Gen(SEED, "test")
        self.tokenizer, self.ids, self.ends = tokenizer, [], [0]
        while len(self.ids) < tokens:
            kind = random.random()
            if kind < 0.3:
                text = tasks.paragraphs(random, random.randint(100, 600))
                exchange = [tasks.user("Read this:\n\n" + text), tasks.bot("Okay, I have read it.")]
            else:
                exchange = tasks.filler(random)
            self.ids += self.encode(exchange)
            self.ends.append(len(self.ids))

    def encode(self, messages):
        """Messages that belong to the past, without the opening of an answer."""
        parts = render_parts(messages, thinking=True)[:-1]
        return self.tokenizer.encode_prompt("".join(text for text, _ in parts))

    def case(self, tokens, depth, random):
        (key, value), = tasks.facts(random, 1).items()
        needle = self.encode([tasks.user(tasks.say_fact(random, key, value)), tasks.bot(tasks.ack(random, key, value))])
        question = self.tokenizer.encode_prompt(render([tasks.user(tasks.ask_fact(random, key))], thinking=True))
        room = tokens - len(needle) - len(question)
        until = max(end for end in self.ends if end <= room)
        before = min(self.ends, key=lambda end: abs(end - depth * until))
        return {"tokens": until + len(needle) + len(question), "depth": depth, "value": value, "before": before, "until": until, "needle": needle,
                "question": question}


@torch.no_grad()
def ask(model, prompt):
    """Greedy answer up to and with `<|im_end|>`: ids, and five (id, log probability) at each position."""
    ids, cache, answer, top = torch.tensor([prompt]), None, [], []
    while len(answer) < MAX_ANSWER and SPECIAL["<|im_end|>"] not in answer:
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        values, tokens = output.logits[0, -1].double().log_softmax(-1).topk(5)
        answer.append(tokens[0].item())
        top.append([[token, round(value, 5)] for token, value in zip(tokens.tolist(), values.tolist())])
        ids = tokens[None, :1]
    return answer, top


def main():
    torch.set_num_threads(2)
    # Some builds of PyTorch without CUDA libraries crash in this question; the answer is known.
    torch.cuda.is_current_stream_capturing = lambda: False
    model, tokenizer = transformers_model(), Tokenizer()
    haystack, random, cases = Haystack(tokenizer, max(LENGTHS)), Gen(SEED + " facts", "test"), []
    for tokens in LENGTHS:
        for depth in DEPTHS:
            case = haystack.case(tokens, depth, random)
            before, until = case["before"], case["until"]
            prompt = haystack.ids[:before] + case["needle"] + haystack.ids[before:until] + case["question"]
            case["answer"], case["top"] = ask(model, prompt)
            said = tokenizer.decode(case["answer"])
            case["found"] = said.endswith(f" {case['value']}.<|im_end|>")
            margin = min(first[1] - second[1] for first, second, *_ in case["top"])
            print(case["tokens"], depth, "found" if case["found"] else "NOT FOUND", repr(said), f"margin {margin:.3f}", flush=True)
            cases.append(case)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    until = max(case["until"] for case in cases)
    OUT.write_text(f'{{"haystack":{json.dumps(haystack.ids[:until], separators=(",", ":"))},\n"cases":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()

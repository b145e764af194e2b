"""The small vocabulary and the two ways of turning text into token ids.

* `encode(text)`: canonical BPE, the same ids a server computes for a prompt.
* `encode_written(text)`: how the model is taught to WRITE. Digits are single tokens (so column
  arithmetic is local) and a word keeps the pieces it has after a space, whatever precedes it (so copying a
  word is pure induction). Both decode to the same text.
"""
import base64
import functools
import pathlib

import regex
import tiktoken

RANKS = 1792                       # ordinary tokens: the first RANKS lines of Kimi's tiktoken.model
KIMI_BASE = 163584                 # id of the first reserved token in the real vocabulary
VOCAB = RANKS + 256

NAMED = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 6: "<|start_header_id|>",
         7: "<|end_header_id|>", 9: "[EOT]", 10: "<|im_system|>", 11: "<|tool_calls_section_begin|>",
         12: "<|tool_calls_section_end|>", 13: "<|tool_call_begin|>", 14: "<|tool_call_argument_begin|>",
         15: "<|tool_call_end|>", 17: "<|im_middle|>", 18: "<|media_begin|>", 19: "<|media_content|>",
         20: "<|media_end|>", 21: "<|media_pad|>", 22: "<think>", 23: "</think>", 254: "[UNK]", 255: "[PAD]"}
SPECIAL = {name: RANKS + offset for offset, name in NAMED.items()}

PATTERN = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])

HERE = pathlib.Path(__file__).resolve().parent
MODEL_DIR = HERE.parent.parent / "models" / "kimi-nano"
_SPLIT_SPECIAL = regex.compile("(" + "|".join(regex.escape(n) for n in SPECIAL) + ")")
_WORD = regex.compile(r" ?(?:[\p{L}_][\p{L}\p{M}_'\-]*)|\d|[^\p{L}\d_]+?(?= ?[\p{L}\d_])|[^\p{L}\d_]+")


def load_ranks(path=None):
    """tiktoken.model -> {bytes: rank}."""
    ranks = {}
    for line in pathlib.Path(path or MODEL_DIR / "tiktoken.model").read_text().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return ranks


class Tokenizer:
    """Small-vocabulary tokenizer; ids >= RANKS are the 256 reserved tokens."""

    def __init__(self, path=None):
        self.ranks = load_ranks(path)
        assert len(self.ranks) == RANKS
        self.bpe = tiktoken.Encoding("kimi-nano", pat_str=PATTERN, mergeable_ranks=self.ranks, special_tokens=SPECIAL)
        self.bytes = {rank: token for token, rank in self.ranks.items()}
        self._canon = functools.lru_cache(200_000)(lambda t: tuple(self.bpe.encode_ordinary(t)))
        self._word = functools.lru_cache(200_000)(self._encode_word)

    def encode(self, text):
        return list(self._canon(text)) if len(text) < 200 else self.bpe.encode_ordinary(text)

    def _encode_word(self, word):
        """Pieces of " word", with the space taken off the first piece when the text has none."""
        if word.startswith(" "):
            return self._canon(word)
        first, *rest = self._canon(" " + word)
        bare = self.bytes[first][1:]
        if bare in self.ranks:
            return (self.ranks[bare], *rest) if bare else tuple(rest)
        return (*self._canon_bytes(bare), *rest)

    def _canon_bytes(self, raw):
        try:
            return self._canon(raw.decode())
        except UnicodeDecodeError:
            return tuple(self.ranks[bytes([b])] for b in raw)

    def encode_written(self, text):
        ids = []
        for m in _WORD.finditer(text):
            piece = m.group()
            core = piece.lstrip(" ")
            if core and (core[0].isalpha() or core[0] == "_"):
                ids.extend(self._word(piece))
            else:
                ids.extend(self._canon(piece))
        return ids

    def encode_prompt(self, text):
        """Text holding special-token names -> ids, ordinary parts canonical."""
        ids = []
        for part in _SPLIT_SPECIAL.split(text):
            if part in SPECIAL:
                ids.append(SPECIAL[part])
            elif part:
                ids.extend(self.encode(part))
        return ids

    def decode(self, ids):
        out = b""
        for i in ids:
            out += self.bytes[i] if i < RANKS else NAMED.get(i - RANKS, f"<|reserved_token_{i}|>").encode()
        return out.decode("utf-8", "replace")

"""Cut the first RANKS lines of Kimi's tiktoken.model (crate splintr-vocab-kimi 1.0.0, vocabs/kimi.tiktoken).

    python make_vocab.py PATH/vocabs/kimi.tiktoken
"""
import pathlib
import sys

from tokenizer import MODEL_DIR, RANKS, load_ranks

lines = pathlib.Path(sys.argv[1]).read_text().splitlines()[:RANKS]
MODEL_DIR.mkdir(parents=True, exist_ok=True)
(MODEL_DIR / "tiktoken.model").write_text("\n".join(lines) + "\n")
ranks = load_ranks()
assert sorted(ranks.values()) == list(range(RANKS)) and all(bytes([b]) in ranks for b in range(256))
print(len(ranks), "tokens")

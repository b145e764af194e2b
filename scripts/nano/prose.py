"""Long English filler text: the help topics shipped with Python itself (pydoc_data.topics)."""
import functools
import re
import zlib


@functools.lru_cache(1)
def _sources():
    from pydoc_data.topics import topics
    texts = [re.sub(r"[*`\\]|:\w+:", "", t) for t in topics.values()]
    paras = [re.sub(r"\s*\n\s*", " ", p).strip() for t in texts for p in t.split("\n\n")]
    paras = [p for p in paras if len(p) > 80 and p.isascii() and "|" not in p]
    split = lambda test: [p for p in paras if (zlib.crc32(p.encode()) % 10 == 0) == test]
    return {"train": split(False), "test": split(True)}


def paragraphs(g, chars):
    """About `chars` characters of consecutive paragraphs from this side of the split."""
    pool = _sources()[g.split]
    at, out = g.randrange(len(pool)), ""
    while len(out) < chars:
        out += pool[at % len(pool)] + g.one("\n\n", "\n", " ")
        at += 1
    return out[:max(chars, 40)].strip()

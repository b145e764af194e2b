"""Conversations -> batches of token groups, made in a background process."""
import multiprocessing
import os

import numpy as np

import tasks
from chat import render_parts, target_text
from tokenizer import SPECIAL, _SPLIT_SPECIAL, Tokenizer
from values import Gen

PAD = SPECIAL["<|media_pad|>"]


def encode_target(tok, text):
    ids = []
    for part in _SPLIT_SPECIAL.split(text):
        ids.extend([SPECIAL[part]] if part in SPECIAL else tok.encode_written(part))
    return ids


def encode_sample(tok, g, s):
    """-> ids uint16 [L], loss mask bool [L] (True where the token is a target)."""
    ids, mask = [], []
    for text, assistant in render_parts(s.messages, s.tools, s.thinking):
        if assistant and s.train_all:
            part = encode_target(tok, text)
            mask += [True] * len(part)
        else:
            part = tok.encode_prompt(text)
            if PAD in part:
                n = g.choice([1, 2, 4, 9, 16, 30, 64, 120])
                part = [i for p in part for i in ([p] * n if p == PAD else [p])]
            mask += [False] * len(part)
        ids += part
    target = encode_target(tok, target_text(s))
    return np.array(ids + target, np.uint16), np.array(mask + [True] * len(target))


def mixed(weights):
    """The mix of tasks with other weights for those named here."""
    named = {task.__name__: task for task in tasks.MIX}
    return tasks.MIX | {named[name]: weight for name, weight in weights.items()}


def make_batches(seed, batch_tokens, long_share, long_tokens, copying, weights):
    """Endless batches: list of (ids [rows, L], mask [rows, L]) groups, about batch_tokens in all.

    long_share() is the share of the tokens in long recall rows, long_tokens() their length, copying() the weight of the
    long copying rows beside the other tasks of MIX. weights replaces those of some tasks, by name.
    """
    mix = mixed(weights)
    tok, g = Tokenizer(), Gen(seed, "train")
    while True:
        pool, size = [], 0
        while size < 24 * batch_tokens:
            pool.append(encode_sample(tok, g, tasks.sample(g, mix | {tasks.copy_long: copying()})))
            size += len(pool[-1][0])
        pool.sort(key=lambda r: len(r[0]) + g.random())
        groups, group, width = [], [], 0
        for row in pool:
            if group and (len(group) >= 12 or len(row[0]) > 1.1 * len(group[0][0]) + 6 or len(row[0]) * (len(group) + 1) > batch_tokens // 3):
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        share, longs = long_share(), 0
        total = size / max(1e-6, 1 - share)
        while longs < total * share:
            n = long_tokens(g)
            make = (lambda: tasks.recall_many(g, n)) if g.random() < 0.6 else (lambda: tasks.recall(g, n))
            row = encode_sample(tok, g, make())
            if len(row[0]) < 7000:
                groups.append([row])
                longs += len(row[0])
        g.shuffle(groups)
        batch, count = [], 0
        for group in groups:
            width = (max(len(i) for i, _ in group) + 15) // 16 * 16
            ids, mask = np.zeros((len(group), width), np.uint16), np.zeros((len(group), width), bool)
            for r, (i, m) in enumerate(group):
                ids[r, :len(i)], mask[r, :len(i)] = i, m
            batch.append((ids, mask))
            count += ids.size
            if count >= batch_tokens:       # fill up to a multiple of 512, so that matmul shapes repeat
                if -count % 512:
                    batch.append((np.zeros((1, -count % 512), np.uint16), np.zeros((1, -count % 512), bool)))
                yield batch
                batch, count = [], 0


def _worker(queue, seed, batch_tokens, share, copying, weights, low, high):
    os.nice(5)
    length = lambda g: g.randint(int(low), int(high))
    for batch in make_batches(seed, batch_tokens, lambda: share.value, length, lambda: copying.value, weights):
        queue.put(batch)


class Loader:
    """Background generator; `share` and `copying` may be changed while it runs."""

    def __init__(self, seed, batch_tokens, share, copying, weights=None, low=500, high=4300):
        ctx = multiprocessing.get_context("spawn")
        self.share, self.copying = ctx.Value("d", share), ctx.Value("d", copying)
        self.queue = ctx.Queue(6)
        self.proc = ctx.Process(target=_worker, args=(self.queue, seed, batch_tokens, self.share, self.copying, weights or {}, low, high), daemon=True)
        self.proc.start()

    def next(self):
        return self.queue.get()

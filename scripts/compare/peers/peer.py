"""What measuring a relative of llama.cpp needs: contexts, batches, clocks.

A driver runs in a process of its own, so that two libraries with the same symbols never meet. It reads one case from each line of
standard input, `prompt ROWS` or `generate STREAMS DEPTH STEPS`, and answers with tokens per second.
"""

import ctypes
import os
import random
import sys
import time

CHUNK = 512
pointer = ctypes.POINTER

# Standard output is for answers; what libraries print there joins what they print on standard error.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Batch(ctypes.Structure):
    """llama_batch. The fork has three more fields at its end, which are 0 when tokens, positions and streams are given."""

    _fields_ = [("n_tokens", ctypes.c_int32), ("token", pointer(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", pointer(ctypes.c_int32)), ("n_seq_id", pointer(ctypes.c_int32)),
                ("seq_id", pointer(pointer(ctypes.c_int32))), ("logits", pointer(ctypes.c_int8)), ("more", ctypes.c_int32 * 3)]


def batch_of(entries):
    """A batch of (stream, position, whether its logits are wanted); the tokens are random."""
    count, streams = len(entries), [(ctypes.c_int32 * 1)(stream) for stream, _, _ in entries]
    numbers = lambda kind, values: (kind * count)(*values)
    return Batch(count, numbers(ctypes.c_int32, (random.randrange(10, 1000) for _ in entries)), None,
                 numbers(ctypes.c_int32, (position for _, position, _ in entries)), numbers(ctypes.c_int32, [1] * count),
                 numbers(pointer(ctypes.c_int32), (ctypes.cast(stream, pointer(ctypes.c_int32)) for stream in streams)),
                 numbers(ctypes.c_int8, (wanted for _, _, wanted in entries)))


class Peer:
    """A loaded model. A subclass says how its library opens a context and forgets what follows a position."""

    def __init__(self, library, threads):
        self.library, self.threads, self.contexts = library, threads, {}
        for name, arguments in (("llama_decode", [ctypes.c_void_p, Batch]), ("llama_synchronize", [ctypes.c_void_p]),
                                ("llama_set_n_threads", [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32])):
            getattr(library, name).argtypes = arguments

    def open_context(self, streams, room):
        """A context for so many streams of at most `room` tokens."""
        raise NotImplementedError

    def forget(self, context, stream, position):
        """Drops the tokens of a stream from a position on."""
        raise NotImplementedError

    def context(self, streams, depth, room):
        """One with `depth` tokens of each stream in its cache, which are computed only the first time."""
        key = (streams, depth)
        if key not in self.contexts:
            self.contexts[key] = self.open_context(streams, depth + room)
            self.library.llama_set_n_threads(self.contexts[key], self.threads, self.threads)
            for stream in range(streams):
                self.compute(self.contexts[key], [(stream, position, False) for position in range(depth)])
        for stream in range(streams):
            self.forget(self.contexts[key], stream, depth)
        return self.contexts[key]

    def compute(self, context, entries):
        for first in range(0, len(entries), CHUNK):
            if status := self.library.llama_decode(context, batch_of(entries[first : first + CHUNK])):
                sys.exit(f"llama_decode answered {status}")
        self.library.llama_synchronize(context)

    def prompt(self, rows):
        """Tokens per second of a prompt."""
        context = self.context(1, 0, rows)
        started = time.perf_counter()
        self.compute(context, [(0, position, position == rows - 1) for position in range(rows)])
        return rows / (time.perf_counter() - started)

    def generate(self, streams, depth, steps):
        """Tokens per second of all streams together, each behind `depth` tokens."""
        context = self.context(streams, depth, steps + 1)
        step = lambda number: self.compute(context, [(stream, depth + number, True) for stream in range(streams)])
        step(0)
        started = time.perf_counter()
        for number in range(1, steps + 1):
            step(number)
        return streams * steps / (time.perf_counter() - started)


def answer(peer):
    """Measures what standard input asks for, until it ends."""
    for line in sys.stdin:
        kind, *numbers = line.split()
        print(getattr(peer, kind)(*map(int, numbers)), file=ANSWERS, flush=True)

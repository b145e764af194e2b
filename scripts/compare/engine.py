"""Prompts and generation in kimi-serve's engine, in llama.cpp and in ik_llama.cpp: the same weights, in turns, without servers."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

from twin import HERE, OUT, add_options, twin

PROMPT, STEPS = 512, 64
# Tokens of each of several streams.
BATCH_DEPTH = 128
DRIVERS = {"llama.cpp": "llama_cpp.py", "ik_llama.cpp": "ik_llama.py"}


@dataclass
class Case:
    """Tokens of a prompt, or streams that generate together behind `depth` tokens each."""

    rows: int = 0
    streams: int = 0
    depth: int = 0

    def name(self):
        if self.rows:
            return f"prompt of {self.rows}"
        return f"generation behind {self.depth:,}" + (f", {self.streams} streams" if self.streams > 1 else "")


class Peer:
    """A driver of peers/, which stays up between its turns."""

    def __init__(self, name, file, threads):
        self.name = name
        log = (OUT / f"{name}.log").open("w")
        self.driver = subprocess.Popen([sys.executable, HERE / "peers" / DRIVERS[name], file, str(threads)], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def measure(self, case):
        """Tokens per second."""
        wanted = f"prompt {case.rows}" if case.rows else f"generate {case.streams} {case.depth} {STEPS}"
        self.driver.stdin.write(wanted + "\n")
        self.driver.stdin.flush()
        answer = self.driver.stdout.readline() or sys.exit(f"{self.name} ended: see {OUT / self.name}.log")
        return float(answer)


def ours(checkpoint, dense, threads, case):
    """What `kimi-bench engine` finds; the median of three, as its weights are not in memory at first."""
    file = OUT / "engine.json"
    command = ["target/release/kimi-bench", "engine", "--model", checkpoint, "--prompt", case.rows, "--batch", case.streams, "--depth",
               case.depth, "--steps", STEPS, "--repeat", 3, "--threads", threads, "--json", file]
    if dense == "q8_0":
        command.append("--dense-int8")
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return json.loads(file.read_text())[0]


def cases(arguments):
    numbers = lambda text: [int(number) for number in text.split(",") if number]
    prompt = [Case(rows=PROMPT)]
    alone = [Case(streams=1, depth=depth) for depth in numbers(arguments.depth)]
    together = [Case(streams=streams, depth=BATCH_DEPTH) for streams in numbers(arguments.batch)]
    return prompt + alone + together


def table(cases, peers, rounds):
    """`rounds[n][case]`: what we found, and what each peer did."""
    print("| tokens/s | kimi-serve | of the limit |" + "".join(f" {peer.name} | ratio |" for peer in peers))
    print("|---|---|---|" + "---|---|" * len(peers))
    for index, case in enumerate(cases):
        found = [results[index] for results in rounds]
        median = lambda figure: statistics.median(map(figure, found))
        cells = [case.name(), f"{median(lambda sides: sides[0]['tokens_per_second']):.0f}",
                 f"{median(lambda sides: sides[0]['of_limit']):.0%}"]
        for side in range(1, len(peers) + 1):
            cells += [f"{median(lambda sides: sides[side]):.0f}",
                      f"{median(lambda sides: sides[0]['tokens_per_second'] / sides[side]):.2f}"]
        print("| " + " | ".join(cells) + " |")
    memory = statistics.median(sides[0]["memory_gb_per_second"] for results in rounds for sides in results)
    print(f"\nMemory reads {memory:.0f} GB/s.")


def main(arguments):
    threads = arguments.threads or os.cpu_count()
    checkpoint, file = twin(arguments.model, arguments.dense)
    peers = [Peer(name, file, threads) for name in arguments.peers.split(",")]
    wanted, rounds = cases(arguments), []
    for case in wanted:
        # A round that does not count: prompts behind which generation is measured are computed, weights come into memory.
        for peer in peers:
            print(f"warm-up, {case.name()}, {peer.name}: {peer.measure(case):.1f} tokens/s", file=sys.stderr, flush=True)
    for number in range(1, arguments.rounds + 1):
        rounds.append([])
        for case in wanted:
            sides = [ours(checkpoint, arguments.dense, threads, case), *(peer.measure(case) for peer in peers)]
            rounds[-1].append(sides)
            print(f"round {number}, {case.name()}: kimi-serve {sides[0]['tokens_per_second']:.1f}, " +
                  ", ".join(f"{peer.name} {speed:.1f}" for peer, speed in zip(peers, sides[1:])), file=sys.stderr, flush=True)
    print(f"{arguments.model}, dense part {arguments.dense}, {threads} threads, medians of {arguments.rounds} rounds in turns\n")
    table(wanted, peers, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/compare/engine", description=__doc__)
    add_options(parser)
    parser.add_argument("--depth", default="512", metavar="TOKENS,…", help="generation of one stream behind so many tokens (512)")
    parser.add_argument("--batch", default="", metavar="STREAMS,…",
                        help=f"generation of so many streams together, each behind {BATCH_DEPTH} tokens (none)")
    parser.add_argument("--peers", default=",".join(DRIVERS), metavar="NAME,…", help="which peers; all if not given")
    main(parser.parse_args())

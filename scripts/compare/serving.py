"""Serves the same weights with kimi-serve and with llama.cpp, asks both the same in turns, and prints the ratios: 8 and 32
clients, prompts of 128 tokens, answers of 64. What follows `--` goes to kimi-bench instead: a mode and its options."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

from twin import HERE, OUT, add_options, twin

LOAD = ["throughput", "--concurrency", "8,32", "--requests", "64", "--prompt-tokens", "128", "--output-tokens", "64",
        "--temperature", "0", "--ignore-eos"]
PORTS = {"kimi-serve": 18431, "llama.cpp": 18432}
FIGURES = {"output tokens/s": lambda point: point["output_tokens_per_second"],
           "p99 between tokens, ms": lambda point: point["itl_ms"]["p99"],
           "p50 to the first token, ms": lambda point: point["ttft_ms"]["p50"]}


def commands(arguments, checkpoint, file, threads):
    parallel, context = str(arguments.parallel), str(arguments.context)
    ours = ["target/release/kimi-serve", "--model", str(checkpoint), "--port", str(PORTS["kimi-serve"]), "--threads", str(threads),
            "--max-sequences", parallel, "--max-context", context]
    if arguments.dense == "q8_0":
        ours += ["--dense", "int8"]
    theirs = [sys.executable, str(HERE / "peers/llama_cpp_server.py"), str(file), str(PORTS["llama.cpp"]), parallel, context,
              str(threads)]
    return {"kimi-serve": ours, "llama.cpp": theirs}


def wait_until_ready(name, server):
    for _ in range(1200):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{PORTS[name]}/health").close()
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    sys.exit(f"{name} did not start: see {OUT / name}.log")


def measure(name, load, seed):
    """The points of a run; each round asks something new, or caches would answer."""
    file = OUT / f"{name}.json"
    subprocess.run(["target/release/kimi-bench", *load, "--base-url", f"http://127.0.0.1:{PORTS[name]}/v1", "--label", name, "--seed",
                    str(seed), "--json", str(file)], check=True, stdout=subprocess.DEVNULL)
    return [point for section in json.loads(file.read_text())["sections"] for point in section["points"]]


def peak_gb(server):
    """The most that was resident, mapped files included."""
    with open(f"/proc/{server.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e9


def table(rounds):
    """`rounds[n][side]` are the points of a side, in the same order."""
    print("| | | kimi-serve | llama.cpp | ratio |\n|---|---|---|---|---|")
    for index, point in enumerate(rounds[0]["kimi-serve"]):
        for title, figure in FIGURES.items():
            found = [(figure(sides["kimi-serve"][index]), figure(sides["llama.cpp"][index])) for sides in rounds]
            ours, theirs, ratio = (statistics.median(values) for values in (*zip(*found), [ours / theirs for ours, theirs in found]))
            print(f"| {point['name']} | {title} | {ours:.1f} | {theirs:.1f} | {ratio:.2f} |")


def main(arguments, load):
    threads = arguments.threads or os.cpu_count()
    checkpoint, file = twin(arguments.model, arguments.dense)
    servers, rounds = {}, []
    # Not even a run that is stopped leaves a server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for name, command in commands(arguments, checkpoint, file, threads).items():
            log = (OUT / f"{name}.log").open("w")
            servers[name] = subprocess.Popen(command, stdout=log, stderr=log)
            wait_until_ready(name, servers[name])
        for number in range(1, arguments.rounds + 1):
            print(f"== round {number}", file=sys.stderr, flush=True)
            rounds.append({name: measure(name, load, number) for name in servers})
        peaks = ", ".join(f"{name} {peak_gb(server):.2f}" for name, server in servers.items())
    finally:
        for server in servers.values():
            server.kill()
    print(f"{arguments.model}, dense part {arguments.dense}, {threads} threads, medians of {arguments.rounds} rounds in turns\n")
    table(rounds)
    print(f"\nPeak memory, GB: {peaks}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/compare/serving", description=__doc__)
    add_options(parser)
    parser.add_argument("--parallel", type=int, default=32, help="requests that are computed together (32)")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each (1024)")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    main(parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :] or LOAD)

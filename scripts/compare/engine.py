"""Measures kimi-serve's engine and llama.cpp in turns: engine.py CHECKPOINT FILE.gguf bf16|q8_0 ROUNDS THREADS"""

import json
import re
import statistics
import subprocess
import sys
import urllib.request

import xllamacpp

PROMPT, ANSWER = 512, 64


def llama_cpp(path, threads):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 2 * (PROMPT + ANSWER)
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    server = xllamacpp.Server(params)

    def measure(round):
        """Tokens per second of a prompt and of the answer behind it."""
        ids = [(index * 7 + round * 13) % 4000 + 10 for index in range(PROMPT)]
        body = dict(prompt=ids, n_predict=ANSWER, ignore_eos=True, cache_prompt=False)
        request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        timings = json.load(urllib.request.urlopen(request))["timings"]
        return [timings["prompt_per_second"], timings["predicted_per_second"]]

    measure.server = server
    return measure


def kimi(checkpoint, dense, threads):
    command = ["target/release/kimi-bench", "engine", "--model", checkpoint, "--batch", "1", "--steps", str(ANSWER),
               "--repeat", "3", "--threads", str(threads)]
    if dense == "q8_0":
        command.append("--dense-int8")

    def figures(prompt, depth):
        """Speeds of a prompt and of generation, both behind `depth` tokens."""
        more = ["--prompt", str(prompt), "--depth", str(depth)]
        text = subprocess.run(command + more, check=True, capture_output=True, text=True).stdout
        rates = [float(rate) for rate in re.findall(r"^\| (?:prompt|generate).*?\| +([\d.]+) ", text, re.M)]
        memory = float(re.search(r"memory reads ([\d.]+)", text)[1])
        share = [float(share) for share in re.findall(r"([\d.]+) % \|$", text, re.M)]
        return rates, memory, share

    def measure():
        """As llama.cpp: a prompt, and an answer behind a prompt; then what memory gave and the answer's share of it."""
        (prompt, _), _, _ = figures(PROMPT, 0)
        (_, answer), memory, (_, share) = figures(1, PROMPT)
        return [prompt, answer, memory, share]

    return measure


def main(checkpoint, path, dense, rounds, threads):
    ours, theirs = kimi(checkpoint, dense, threads), llama_cpp(path, threads)
    theirs(0)
    rows = []
    for round in range(1, rounds + 1):
        rows.append((ours(), theirs(round)))
        print(f"round {round}: kimi-serve {rows[-1][0][:2]}, llama.cpp {rows[-1][1]}", file=sys.stderr, flush=True)
    median = lambda side, index: statistics.median(row[side][index] for row in rows)
    print(f"{checkpoint}, dense part {dense}, {threads} threads, medians of {rounds} rounds in turns; "
          f"memory reads {median(0, 2):.0f} GB/s, generation uses {median(0, 3):.0f} % of it\n")
    print("| tokens/s | kimi-serve | llama.cpp | ratio |\n|---|---|---|---|")
    for index, name in enumerate([f"prompt of {PROMPT}", f"generation behind {PROMPT}"]):
        ratio = statistics.median(row[0][index] / row[1][index] for row in rows)
        print(f"| {name} | {median(0, index):.0f} | {median(1, index):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))

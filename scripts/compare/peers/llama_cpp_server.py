"""llama.cpp's OpenAI server from PyPI (xllamacpp): llama_cpp_server.py FILE.gguf PORT PARALLEL CONTEXT THREADS

PARALLEL requests are computed together, each with CONTEXT tokens of room. Runs until it is killed.
"""

import signal
import sys

import xllamacpp


def main(path, port, parallel, context, threads):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.port = int(port)
    params.n_parallel = int(parallel)
    params.n_ctx = int(parallel) * int(context)
    params.cpuparams.n_threads = int(threads)
    params.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])

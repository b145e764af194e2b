"""ik_llama.cpp from PyPI (ik-llama-cpp-python, an AVX2 build), measured through its C API: ik_llama.py FILE.gguf THREADS"""

import ctypes
import sys

from ik_llama_cpp import _ctypes_api as api

from peer import Batch, Peer, answer


class IkLlama(Peer):
    def __init__(self, path, threads):
        super().__init__(api._lib, threads)
        api.llama_backend_init()
        forget = api._lib.llama_kv_cache_seq_rm
        forget.restype, forget.argtypes = ctypes.c_bool, [ctypes.c_void_p, *[ctypes.c_int32] * 3]
        params = api.llama_model_default_params()
        # As its authors advise for CPUs: weights are brought into the order of the kernels when they are loaded.
        params.repack_tensors, params.use_mmap = True, False
        self.model = api.llama_model_load_from_file(path.encode(), params) or sys.exit(f"ik_llama.cpp cannot load {path}")

    def open_context(self, streams, room):
        params = api.llama_context_default_params()
        params.n_ctx, params.n_seq_max = streams * (-(-room // 256) * 256), streams
        params.flash_attn, params.mla_attn = True, 3
        return api.llama_init_from_model(self.model, params) or sys.exit("ik_llama.cpp has no memory for a context")

    def forget(self, context, stream, position):
        self.library.llama_kv_cache_seq_rm(context, stream, position, -1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    answer(IkLlama(sys.argv[1], int(sys.argv[2])))

"""llama.cpp from PyPI (xllamacpp, an AVX2 build), measured through its C API: llama_cpp.py FILE.gguf THREADS"""

import ctypes
import sys

import xllamacpp

from peer import Peer, answer


class ModelParams(ctypes.Structure):
    """llama_model_params, which stay as they are; there is room for all of them."""

    _fields_ = [("all", ctypes.c_uint64 * 32)]


class ContextParams(ctypes.Structure):
    """llama_context_params: what comes first, and room for the rest."""

    _fields_ = [("n_ctx", ctypes.c_uint32), ("n_batch", ctypes.c_uint32), ("n_ubatch", ctypes.c_uint32),
                ("n_seq_max", ctypes.c_uint32), ("others", ctypes.c_uint64 * 32)]


class LlamaCpp(Peer):
    def __init__(self, path, threads):
        library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        super().__init__(library, threads)
        for name, result, *arguments in (
            ("llama_model_default_params", ModelParams),
            ("llama_context_default_params", ContextParams),
            ("llama_model_load_from_file", ctypes.c_void_p, ctypes.c_char_p, ModelParams),
            ("llama_init_from_model", ctypes.c_void_p, ctypes.c_void_p, ContextParams),
            ("llama_get_memory", ctypes.c_void_p, ctypes.c_void_p),
            ("llama_memory_seq_rm", ctypes.c_bool, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self.model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")

    def open_context(self, streams, room):
        params = self.library.llama_context_default_params()
        # Each stream gets an equal share of the context, in whole blocks of 256.
        params.n_ctx, params.n_seq_max = streams * (-(-room // 256) * 256), streams
        return self.library.llama_init_from_model(self.model, params) or sys.exit("llama.cpp has no memory for a context")

    def forget(self, context, stream, position):
        self.library.llama_memory_seq_rm(self.library.llama_get_memory(context), stream, position, -1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    answer(LlamaCpp(sys.argv[1], int(sys.argv[2])))

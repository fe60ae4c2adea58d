"""Quantize a GGUF file with llama.cpp's own quantizer.

python quantize_gguf.py IN.gguf OUT.gguf {Q4_0-pure,Q4_0,Q4_K_M}
"""

from __future__ import annotations

import ctypes
import os
import sys

import llama_cpp

_TYPES = {
    "Q4_0-pure": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}


def main() -> None:
    source, target, kind = sys.argv[1:]
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = len(os.sched_getaffinity(0))
    parameters.ftype = _TYPES[kind]
    parameters.pure = kind.endswith("-pure")
    llama_cpp.llama_backend_init()
    code = llama_cpp.llama_model_quantize(
        source.encode(), target.encode(), ctypes.byref(parameters)
    )
    sys.exit(code)


if __name__ == "__main__":
    main()

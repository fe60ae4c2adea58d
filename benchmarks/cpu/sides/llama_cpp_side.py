"""llama.cpp by the C interface that llama-cpp-python gives."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import llama_cpp as llama
import numpy as np
from serve import serve

_BATCH = 512
# How keys and values are stored: ggml's number, and bytes for how many of them.
_CACHES = {"f16": (llama.GGML_TYPE_F16, 2, 1), "q8_0": (llama.GGML_TYPE_Q8_0, 34, 32)}


class LlamaCpp:
    def __init__(self, request: dict[str, Any]) -> None:
        self._threads = len(os.sched_getaffinity(0))
        llama.llama_backend_init()
        of_model = llama.llama_model_default_params()
        of_model.use_mmap = request["mmap"]
        self._model = llama.llama_model_load_from_file(request["model"].encode(), of_model)
        if not self._model:
            raise RuntimeError("llama.cpp can't load the model")
        of_context = llama.llama_context_default_params()
        of_context.n_ctx = request["context"]
        of_context.n_batch = of_context.n_ubatch = _BATCH
        of_context.n_threads = of_context.n_threads_batch = self._threads
        of_context.flash_attn_type = int(request["flash_attention"])
        self._cache = request.get("cache", "f16")
        of_context.type_k = of_context.type_v = _CACHES[self._cache][0]
        self._context = llama.llama_init_from_model(self._model, of_context)
        if not self._context:
            raise RuntimeError("llama.cpp can't make a context")
        self._memory = llama.llama_get_memory(self._context)
        vocabulary = llama.llama_model_get_vocab(self._model)
        self._size = llama.llama_vocab_n_tokens(vocabulary)
        self._held: list[int] = []
        self._settings = (
            f"{self._threads} threads, flash attention {'on' if of_context.flash_attn_type else 'off'},"
            f" mmap {'on' if of_model.use_mmap else 'off'}, keys and values {self._cache}"
        )

    def facts(self) -> dict[str, Any]:
        return {
            "version": f"llama-cpp-python {llama.__version__}",
            "settings": f"{self._settings}, {features(llama.llama_print_system_info().decode())}",
            "bytes": llama.llama_model_size(self._model),
            "position_bytes": self._position_bytes(),
        }

    def _position_bytes(self) -> int:
        _, size, count = _CACHES[self._cache]
        width = llama.llama_model_n_embd(self._model) // llama.llama_model_n_head(self._model)
        heads = llama.llama_model_n_layer(self._model) * llama.llama_model_n_head_kv(self._model)
        return 2 * int(heads * width) * size // count

    def prefill(self, tokens: list[int]) -> float:
        started = time.perf_counter()
        self._begin(tokens)
        self._chosen()
        return time.perf_counter() - started

    def decode(self, tokens: list[int], count: int) -> float:
        if self._held != tokens:
            self._begin(tokens)
        llama.llama_memory_seq_rm(self._memory, 0, len(tokens) - 1, -1)
        self._append(tokens[-1:])
        token = self._chosen()
        started = time.perf_counter()
        for _ in range(count):
            self._append([token])
            token = self._chosen()
        return time.perf_counter() - started

    def logits(self, tokens: list[int]) -> list[float]:
        self._begin(tokens)
        return [float(value) for value in self._last()]

    def _begin(self, tokens: list[int]) -> None:
        llama.llama_memory_clear(self._memory, False)
        for start in range(0, len(tokens), _BATCH):
            self._append(tokens[start : start + _BATCH])
        self._held = tokens

    def _append(self, tokens: list[int]) -> None:
        array = (llama.llama_token * len(tokens))(*tokens)
        code = llama.llama_decode(self._context, llama.llama_batch_get_one(array, len(tokens)))
        if code:
            raise RuntimeError(f"llama_decode gives {code}")

    def _last(self) -> Any:
        pointer = llama.llama_get_logits_ith(self._context, -1)
        address = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(address, (self._size,))

    def _chosen(self) -> int:
        return int(self._last().argmax())


def features(text: str) -> str:
    """What llama.cpp was compiled for, of ``"CPU : AVX2 = 1 | FMA = 1 | "``."""
    pairs = [part.rpartition(":")[2].partition("=") for part in text.split("|")]
    return "with " + " ".join(name.strip() for name, _, value in pairs if value.strip() == "1")


if __name__ == "__main__":
    serve(LlamaCpp)

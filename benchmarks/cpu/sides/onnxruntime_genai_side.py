"""ONNX Runtime GenAI."""

from __future__ import annotations

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai
from serve import serve


class OnnxRuntimeGenAI:
    def __init__(self, request: dict[str, Any]) -> None:
        self._threads = len(os.sched_getaffinity(0))
        folder = request["model"]
        config = genai.Config(folder)
        sessions = {"session_options": {"intra_op_num_threads": self._threads}}
        config.overlay(json.dumps({"model": {"decoder": sessions}}))
        self._model = genai.Model(config)
        self._parameters = genai.GeneratorParams(self._model)
        self._parameters.set_search_options(do_sample=False, max_length=request["context"])
        self._generator: Any = None
        self._held: list[int] = []
        self._bytes = sum(file.stat().st_size for file in Path(folder).glob("*.onnx*"))

    def facts(self) -> dict[str, Any]:
        return {
            "version": f"onnxruntime-genai {version('onnxruntime-genai')},"
            f" onnxruntime {version('onnxruntime')}",
            "settings": f"{self._threads} threads",
            "bytes": self._bytes,
            "position_bytes": 0,
        }

    def prefill(self, tokens: list[int]) -> float:
        self._empty()
        started = time.perf_counter()
        self._generator.append_tokens(np.array(tokens, np.int32))
        self._generator.generate_next_token()
        seconds = time.perf_counter() - started
        self._held = []  # the chosen token stands behind the prompt
        return seconds

    def decode(self, tokens: list[int], count: int) -> float:
        if self._held != tokens:
            self._empty()
            self._generator.append_tokens(np.array(tokens, np.int32))
        else:
            self._generator.rewind_to(len(tokens) - 1)
            self._generator.append_tokens(np.array(tokens[-1:], np.int32))
        self._held = tokens
        self._generator.generate_next_token()
        started = time.perf_counter()
        for _ in range(count):
            self._generator.generate_next_token()
        seconds = time.perf_counter() - started
        if self._generator.is_done():
            raise RuntimeError("ONNX Runtime GenAI ended the sequence early")
        return seconds

    def logits(self, tokens: list[int]) -> list[float]:
        self._empty()
        self._generator.append_tokens(np.array(tokens, np.int32))
        values = np.asarray(self._generator.get_logits(), np.float32)
        return [float(value) for value in values.reshape(-1, values.shape[-1])[-1]]

    def _empty(self) -> None:
        """A new generator, which owns its cache; the old one is gone first."""
        self._generator = None
        self._held = []
        self._generator = genai.Generator(self._model, self._parameters)


if __name__ == "__main__":
    serve(OnnxRuntimeGenAI)

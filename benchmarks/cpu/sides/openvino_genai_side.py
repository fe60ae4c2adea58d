"""OpenVINO GenAI's pipeline on token ids."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from serve import serve


class OpenVinoGenAI:
    def __init__(self, request: dict[str, Any]) -> None:
        self._threads = len(os.sched_getaffinity(0))
        folder = Path(request["model"])
        self._pipeline = genai.LLMPipeline(
            folder, "CPU", INFERENCE_NUM_THREADS=self._threads, PERFORMANCE_HINT="LATENCY"
        )
        self._bytes = (folder / "openvino_model.bin").stat().st_size

    def facts(self) -> dict[str, Any]:
        return {
            "version": f"openvino-genai {version('openvino-genai')}",
            "settings": f"{self._threads} threads",
            "bytes": self._bytes,
            "position_bytes": 0,
        }

    def prefill(self, tokens: list[int]) -> float:
        return self._chosen(tokens, 1)[-1]

    def decode(self, tokens: list[int], count: int) -> float:
        times = self._chosen(tokens, count + 1)
        return times[-1] - times[0]

    def logits(self, tokens: list[int]) -> None:  # noqa: ARG002 - the pipeline doesn't give them
        return None

    def _chosen(self, tokens: list[int], count: int) -> list[float]:
        """Seconds from the call until each token of a greedy generation is known."""
        ids = np.array([tokens], np.int64)
        inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        config = genai.GenerationConfig(
            max_new_tokens=count, ignore_eos=True, do_sample=False, apply_chat_template=False
        )
        raw = self._pipeline.generate(inputs, config).perf_metrics.raw_metrics
        durations = [value / 1e6 for value in raw.m_durations]
        first = raw.m_times_to_first_token[0] / 1e6
        if len(durations) != count - 1:
            raise RuntimeError(f"OpenVINO GenAI gave {len(durations) + 1} tokens and not {count}")
        return [first, *(first + float(value) for value in np.cumsum(durations))]


if __name__ == "__main__":
    serve(OpenVinoGenAI)

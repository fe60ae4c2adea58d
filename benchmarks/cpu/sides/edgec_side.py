"""edgec's own runtime, as ``edgec run`` uses it."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve import serve

from edgec import __version__
from edgec.artifacts.artifact import open_artifact
from edgec.runtime.session import open_session

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SEQUENCE = 0


class Edgec:
    def __init__(self, request: dict[str, Any]) -> None:
        self._session = open_session(
            open_artifact(Path(request["model"])), context=request["context"]
        )
        self._engine = self._session.engine
        self._held: list[int] = []

    def facts(self) -> dict[str, Any]:
        manifest = self._session.artifact.manifest
        return {
            "version": f"edgec {__version__}, TVM {version('apache-tvm')}",
            "settings": f"{manifest['quantization']['scheme']} for {manifest['target']},"
            f" {self._session.threads} threads",
            "bytes": self._session.decode_weights_bytes,
            "position_bytes": self._session.kv_bytes_per_token,
        }

    def prefill(self, tokens: list[int]) -> float:
        started = time.perf_counter()
        self._begin(tokens).argmax()
        return time.perf_counter() - started

    def decode(self, tokens: list[int], count: int) -> float:
        # The cache holds the prompt already if it was the last one.
        if self._held != tokens:
            self._begin(tokens)
        self._engine.pop(_SEQUENCE, 1)
        token = int(self._engine.decode(_SEQUENCE, tokens[-1]).argmax())
        started = time.perf_counter()
        for _ in range(count):
            token = int(self._engine.decode(_SEQUENCE, token).argmax())
        seconds = time.perf_counter() - started
        self._engine.pop(_SEQUENCE, count)
        return seconds

    def logits(self, tokens: list[int]) -> list[float]:
        return [float(value) for value in self._begin(tokens)]

    def _begin(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        self._engine.clear()
        self._engine.add(_SEQUENCE)
        self._held = tokens
        return self._engine.prefill(_SEQUENCE, tokens)


if __name__ == "__main__":
    serve(Edgec)

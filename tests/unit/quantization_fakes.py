"""Checkpoints made of arrays, and parameters that fit them, for the tests of what uses them."""

from __future__ import annotations

from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.models.parameters import Parameter, Role, Source

Array = npt.NDArray[Any]


class ArrayCheckpoint:
    """What quantization needs of a checkpoint, from a dict of arrays."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.arrays = arrays
        self.config = {}
        self.where = "memory"
        self.reads = []

    def info(self, name: str) -> SimpleNamespace:
        array = self.arrays[name]
        return SimpleNamespace(
            name=name, shape=array.shape, file="model.safetensors", nbytes=array.nbytes
        )

    def rows_into(self, name: str, start: int, stop: int, out: Array) -> None:
        assert out.dtype == np.float32
        assert out.flags.c_contiguous
        self.reads.append((name, start, stop))
        out[...] = self.arrays[name][start:stop]


class Counter:
    """A Progress that adds up."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.unit = ""
        self._lock = Lock()

    def start(self, total: int, unit: str) -> None:
        self.total, self.unit = total, unit

    def advance(self, amount: int) -> None:
        with self._lock:
            self.done += amount

    def note(self, text: str) -> None:
        pass


def parameter(
    name: str,
    shape: tuple[int, ...],
    role: Role = "linear",
    sources: dict[str, tuple[int, ...]] | None = None,
) -> Parameter:
    """A parameter of one source with its own name, or of the given ``{name: shape}``."""
    sources = sources or {name: shape}
    return Parameter(name, shape, role, tuple(Source(n, s) for n, s in sources.items()))


def small_model(
    dtype: npt.DTypeLike = np.float16, seed: int = 0
) -> tuple[ArrayCheckpoint, list[Parameter]]:
    """A checkpoint and parameters with every kind: fused, tied to nothing, norm and bias."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return random.standard_normal(shape).astype(dtype)

    arrays = {
        "embed.weight": normal(50, 64),
        "q.weight": normal(24, 64),
        "k.weight": normal(9, 64),
        "v.weight": normal(7, 64),
        "qkv.bias": normal(40),
        "norm.weight": normal(64),
    }
    qkv = {"q.weight": (24, 64), "k.weight": (9, 64), "v.weight": (7, 64)}
    parameters = [
        parameter("embed.weight", (50, 64), "embedding"),
        parameter("qkv.weight", (40, 64), "linear", qkv),
        parameter("qkv.bias", (40,), "bias"),
        parameter("norm.weight", (64,), "norm"),
    ]
    return ArrayCheckpoint(arrays), parameters

"""Profiles of forward passes: which calls there are, how long they take, and what they move."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from artifact_fakes import FakeDevice

from edgec.runtime.forward import Capacity
from edgec.runtime.profile import MACHINE, CallRecorder, call_bytes, profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ATTENTION = "vm.builtin.attention_kv_cache_attention_with_fused_qkv"


def tensor(*shape: int, dtype: str = "float16") -> SimpleNamespace:
    return SimpleNamespace(shape=shape, dtype=dtype)


class Engine:
    """Calls a matrix product twice per pass, and what else a layer has."""

    metadata: dict[str, Any] = {}  # noqa: RUF012
    capacity = Capacity(1, 64, 64)

    def __init__(self, device: Any) -> None:
        self.device = device
        self.now = 0.0
        self.length = 0
        self.observer: Callable[..., None] | None = None

    def clock(self) -> float:
        return self.now

    def add(self, sequence: int) -> None:
        assert sequence == 0
        self.length = 0

    def remove(self, sequence: int) -> None:
        assert sequence == 0

    def watch(self, observer: Callable[..., None]) -> None:
        self.observer = observer

    def prefill(self, _sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        return self._pass(len(tokens))

    def decode(self, _sequence: int, _token: int) -> npt.NDArray[np.float32]:
        return self._pass(1)

    def _pass(self, tokens: int) -> npt.NDArray[np.float32]:
        self.length += tokens
        assert self.length <= 13, "10 tokens of prompt, and 3 that are asked for"
        self._call("take", 1, tensor(1000, 8), tensor(tokens, dtype="int32"), tensor(tokens, 8))
        self._call("vm.builtin.alloc_storage", 2, tensor(1 << 20))
        for _ in range(2):
            self._call("gemv", 10 * tokens, tensor(16, 8), tensor(tokens, 8), tensor(tokens, 16))
        self._call(ATTENTION, 3, object(), 0, 1.0, tensor(tokens, 16), tensor(tokens, 16))
        self.now += 0.5
        return np.zeros(4, np.float32)

    def _call(self, name: str, seconds: float, *arguments: Any) -> None:
        if self.observer is not None:
            self.observer(None, name, True, None, *arguments)
        self.now += seconds
        if self.observer is not None:
            self.now += 0.25  # what telling costs
            self.observer(None, name, False, None, *arguments)


def test_a_profile_of_both_kinds_of_passes() -> None:
    engine = Engine(FakeDevice())
    decode, prefill = profile(
        engine, list(range(10)), kv_bytes_per_token=100, steps=3, clock=engine.clock
    )
    assert (decode.name, decode.tokens, decode.context) == ("decode", 1, 11)
    assert decode.seconds == 26.5
    assert decode.watched_seconds == 26.5 + 5 * 0.25
    found = {kernel.name: (kernel.calls, kernel.seconds, kernel.bytes) for kernel in decode.kernels}
    assert found == {
        "gemv": (2, 20.5, 2 * 2 * (128 + 8 + 16)),
        ATTENTION: (1, 3.25, 2 * 32 + 100 * 13),
        MACHINE: (1, 2.25, 0),
        "take": (1, 1.25, 2 * 8 + 4 + 2 * 8),
    }
    assert [kernel.name for kernel in decode.kernels] == ["gemv", ATTENTION, MACHINE, "take"]
    assert decode.rest == 0, "calls with their telling take longer than a pass without"
    assert (prefill.name, prefill.tokens, prefill.context) == ("prefill", 10, 0)
    assert prefill.seconds == 206.5
    assert prefill.kernels[0].bytes == 2 * 2 * (128 + 80 + 160)
    assert prefill.kernels[1].bytes == 2 * 320 + 100 * 20


def test_a_gpu_is_waited_for_before_and_after_each_call() -> None:
    waits: list[str] = []
    recorder = CallRecorder(lambda: 0.0, lambda: waits.append("waited"))
    recorder(None, "f", True, None)
    assert len(waits) == 1
    recorder(None, "f", False, None)
    assert len(waits) == 2
    assert recorder.nbytes == []


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("matmul", [tensor(4, 8, dtype="uint32"), tensor(1, 8), 7, None], 4 * 32 + 16),
        ("take_q4", [tensor(100, 8), tensor(3, dtype="int32"), tensor(3, 8)], 48 + 12 + 48),
        ("take_nothing", [], 0),
        ("scalar", [tensor()], 2),
    ],
)
def test_bytes_of_a_call(name: str, arguments: list[Any], expected: int) -> None:
    assert call_bytes(name, arguments) == expected

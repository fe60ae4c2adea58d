"""What a forward pass spends its time on: each kernel's calls, time and bytes.

TVM's virtual machine tells of every call before and after it. A watched pass is slower than others by
what the telling costs, so passes are timed without it as well: first, since it can't be ended.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgec.runtime.tvm_runtime import is_cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.runtime.bench import BenchEngine

    class WatchedEngine(BenchEngine, Protocol):
        """What is profiled: :class:`edgec.runtime.engine.Engine`."""

        device: Any

        def watch(self, observer: Callable[..., None]) -> None:
            """Have every call of the virtual machine told, from now on."""


_SEQUENCE = 0
_BUILTIN = "vm.builtin."
_ATTENTION = "vm.builtin.attention_kv_cache"
_LOOKUP = "take"
_PREFILLS = 3
MACHINE = "virtual machine"
"""Allocation, checks of shapes and other calls that compute nothing."""


@dataclass(frozen=True)
class KernelProfile:
    """A kernel in one forward pass.

    Attributes:
        name: of the function in the library, or of the runtime's builtin.
        calls: in a pass.
        seconds: of all its calls together, the median over passes.
        bytes: that all its calls together read and write: weights and activations by the shapes of
            the arguments, for attention also keys and values. Of tables in which rows are looked up
            only these count. Every tensor counts once for each call, also where caches hold it.
    """

    name: str
    calls: int
    seconds: float
    bytes: int

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.bytes / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class PassProfile:
    """A kind of forward pass.

    Attributes:
        name: ``"decode"`` or ``"prefill"``.
        tokens: of a pass.
        context: tokens in the KV cache before it.
        seconds: of a pass that isn't watched, the median.
        watched_seconds: of one that is.
        kernels: those that took longest first.
    """

    name: str
    tokens: int
    context: int
    seconds: float
    watched_seconds: float
    kernels: tuple[KernelProfile, ...]

    @property
    def rest(self) -> float:
        """Seconds of an unwatched pass outside of all calls; 0 if watching cost more than that."""
        return max(0.0, self.seconds - sum(kernel.seconds for kernel in self.kernels))

    def to_json(self, memory_rate: float) -> dict[str, Any]:
        """Plain data; times in seconds.

        Args:
            memory_rate: bytes per second that the memory can do at most.
        """
        return {
            "tokens": self.tokens,
            "context": self.context,
            "seconds": _rounded(self.seconds),
            "watched_seconds": _rounded(self.watched_seconds),
            "rest_s": _rounded(self.rest),
            "kernels": [
                {
                    "name": kernel.name,
                    "calls": kernel.calls,
                    "seconds": _rounded(kernel.seconds),
                    "bytes": kernel.bytes,
                    "bytes_per_s": _rounded(kernel.rate),
                    "share_of_memory": float(f"{kernel.rate / memory_rate:.4g}"),
                }
                for kernel in self.kernels
            ],
        }


class CallRecorder:
    """Notes the calls of forward passes; an observer of the virtual machine.

    Args:
        clock: gives the time in seconds.
        settle: waits until the device has done what it was told to.

    Attributes:
        names: of the functions that were called, in order.
        nbytes: of the tensors of each call; only while ``counting``.
        seconds: of each call.
        counting: whether to add up bytes, which takes time.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        settle: Callable[[], None] | None = None,
    ) -> None:
        self.names: list[str] = []
        self.nbytes: list[int] = []
        self.seconds: list[float] = []
        self.counting = False
        self._clock = clock
        self._settle = settle
        self._begun = 0.0

    def __call__(
        self, _function: Any, name: Any, before: Any, _result: Any, *arguments: Any
    ) -> None:
        """Told by the virtual machine before and after each call."""
        if self._settle is not None:
            self._settle()
        now = self._clock()
        if not before:
            self.seconds.append(now - self._begun)
            return
        self.names.append(str(name))
        if self.counting:
            self.nbytes.append(call_bytes(str(name), arguments))
        self._begun = self._clock()

    def clear(self) -> None:
        """Begin another pass."""
        for noted in (self.names, self.nbytes, self.seconds):
            noted.clear()


def call_bytes(name: str, arguments: Sequence[Any]) -> int:
    """Bytes of a call's tensors; of the table of a lookup those of the rows that it takes."""
    tensors = [
        (tuple(map(int, argument.shape)), np.dtype(str(argument.dtype)).itemsize)
        for argument in arguments
        if hasattr(argument, "shape") and hasattr(argument, "dtype")
    ]
    # The result is the last argument, with a row for each id.
    rows = tensors[-1][0][0] if tensors and tensors[-1][0] and _LOOKUP in name else None
    total = 0
    for shape, size in tensors:
        taken = shape if rows is None else (min(shape[0], rows), *shape[1:])
        total += size * math.prod(taken)
    return total


def profile(
    engine: WatchedEngine,
    prompt: Sequence[int],
    *,
    kv_bytes_per_token: int,
    steps: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[PassProfile]:
    """Profile the decoding of tokens behind a prompt, and prefilling the prompt.

    Args:
        engine: with room for one sequence; it stays watched.
        prompt: token ids that fit into the context with ``steps`` more.
        kv_bytes_per_token: keys and values of one position, of all layers.
        steps: tokens to decode.
        clock: gives the time in seconds.
    """
    run = _Passes(engine, prompt, clock)
    plain_decode, plain_prefill = run.decode(steps), run.prefill(_PREFILLS)
    recorder = CallRecorder(clock, None if is_cpu(engine.device) else engine.device.sync)
    engine.watch(recorder)
    found = []
    for name, timed, count, plain in (
        ("decode", run.decode, steps, plain_decode),
        ("prefill", run.prefill, _PREFILLS, plain_prefill),
    ):
        tokens, context = (1, len(prompt) + steps // 2) if name == "decode" else (len(prompt), 0)
        recorder.counting = True
        timed(1, recorder)
        recorder.counting = False
        sizes = list(recorder.nbytes)
        passes: list[list[float]] = []
        watched = timed(count, recorder, passes)
        # Keys and values of all tokens are read, those of a pass also written.
        kernels = _kernels(
            list(recorder.names), sizes, passes, kv_bytes_per_token * (context + 2 * tokens)
        )
        found.append(PassProfile(name, tokens, context, plain, watched, kernels))
    return found


class _Passes:
    """Runs passes on a sequence; gives the median of their times."""

    def __init__(
        self, engine: WatchedEngine, prompt: Sequence[int], clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._prompt = prompt
        self._clock = clock

    def decode(
        self,
        count: int,
        recorder: CallRecorder | None = None,
        passes: list[list[float]] | None = None,
    ) -> float:
        self._engine.add(_SEQUENCE)
        self._engine.prefill(_SEQUENCE, self._prompt)
        times = [
            self._time(lambda: self._engine.decode(_SEQUENCE, self._prompt[-1]), recorder, passes)
            for _ in range(count)
        ]
        self._engine.remove(_SEQUENCE)
        return float(np.median(times))

    def prefill(
        self,
        count: int,
        recorder: CallRecorder | None = None,
        passes: list[list[float]] | None = None,
    ) -> float:
        times = []
        for _ in range(count):
            self._engine.add(_SEQUENCE)
            times.append(
                self._time(lambda: self._engine.prefill(_SEQUENCE, self._prompt), recorder, passes)
            )
            self._engine.remove(_SEQUENCE)
        return float(np.median(times))

    def _time(
        self,
        run: Callable[[], object],
        recorder: CallRecorder | None,
        passes: list[list[float]] | None,
    ) -> float:
        if recorder is not None:
            recorder.clear()
        begun = self._clock()
        run()
        duration = self._clock() - begun
        if recorder is not None and passes is not None:
            passes.append(list(recorder.seconds))
        return duration


def _kernels(
    names: Sequence[str], sizes: Sequence[int], passes: Sequence[Sequence[float]], kv_bytes: int
) -> tuple[KernelProfile, ...]:
    """Calls of equal names together, those that took longest first."""
    shown = [
        name if _ATTENTION in name or not name.startswith(_BUILTIN) else MACHINE for name in names
    ]
    places: dict[str, list[int]] = {}
    for index, name in enumerate(shown):
        places.setdefault(name, []).append(index)
    kernels = []
    for name, indices in places.items():
        seconds = np.median([sum(times[index] for index in indices) for times in passes])
        # Checks and allocations are given tensors, but don't read them.
        moved = 0 if name == MACHINE else sum(sizes[index] for index in indices)
        if _ATTENTION in name:
            total = sum(_ATTENTION in other for other in shown)
            moved += kv_bytes * len(indices) // total
        kernels.append(KernelProfile(name, len(indices), float(seconds), moved))
    return tuple(sorted(kernels, key=lambda kernel: -kernel.seconds))


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")

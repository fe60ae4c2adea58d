"""A layer's mixture of experts on this CPU, in the shape of Qwen3-30B-A3B: kernels on integers and on floats.

    python benchmarks/experts.py --threads 2

Both ways read the same number of bytes: in tiles, by products of bytes (``layouts/dot4.py``), and row by
row, by products of floats (``layouts/mlc.py``). A call is what a layer does with its experts but for the
activation between them: both products, with what prepares their activations. Each token of a step
chooses experts that no step has chosen for long, so that they come from memory. The ways run in turns;
printed are the least and the median time of each, the weights' GB/s beside the memory's, and GOPS.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgec.runtime.bandwidth import read_rate
from edgec.runtime.threads import set_threads
from machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.scheduling.kernels.experts import Experts

_MADV_HUGEPAGE = 14
_HALF = "float16"


class Shape(NamedTuple):
    """A layer's sizes."""

    experts: int
    chosen: int
    hidden: int
    intermediate: int
    group: int

    @property
    def expert_bytes(self) -> float:
        """Of one expert's codes and scales."""
        return 3 * self.hidden * self.intermediate * (0.5 + 2 / self.group)

    def operations(self, tokens: int) -> int:
        """Multiplications and additions."""
        return 2 * tokens * self.chosen * 3 * self.hidden * self.intermediate


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--target", default="host")
    parser.add_argument("--tokens", nargs="*", type=int, default=[1, 2, 4, 16, 128, 512])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shape", nargs=5, type=int, default=[128, 8, 2048, 768, 32])
    parser.add_argument("--popular", action="store_true", help="some experts far more than others")
    parser.add_argument(
        "--cpu-time", action="store_true", help="of one thread, where others use the CPUs too"
    )
    options = parser.parse_args(arguments)
    if options.cpu_time and options.threads != 1:
        parser.error("--cpu-time needs --threads 1: threads that wait take processor time, too")
    clock = time.process_time if options.cpu_time else time.perf_counter
    set_threads(options.threads)
    shape = Shape(*options.shape)
    rate = read_rate(options.threads) / 1e9
    print(f"{machine()}; {options.threads} threads; memory is read at {rate:.1f} GB/s")
    print(f"{shape}: {shape.experts * shape.expert_bytes / 1e6:.0f} MB of weights")
    ways = [Layer(shape, tiled=tiled, target=options.target) for tiled in (False, True)]
    print("tokens | us, floats: least median | integers: least median | ratio of least, median")
    for tokens in options.tokens:
        routes = routes_of(shape, tokens, popular=options.popular)
        x = np.random.default_rng(tokens).standard_normal((tokens, shape.hidden), np.float32)
        calls = [way.calls(x.astype(_HALF), routes) for way in ways]
        times = timed(calls, options.rounds, len(routes), clock)
        least, median = [min(own) for own in times], [statistics.median(own) for own in times]
        print(
            f"{tokens:6} | {least[0]:8.0f} {median[0]:8.0f} | {least[1]:8.0f} {median[1]:8.0f}"
            f" | {least[0] / least[1]:.2f} {median[0] / median[1]:.2f}",
            flush=True,
        )
        read = np.mean([len(set(ids.tolist())) for ids in routes]) * shape.expert_bytes
        for name, us in zip(("floats", "integers"), least, strict=True):
            speed = read / us / 1e3
            print(
                f"       {name:8}: {speed:5.1f} GB/s, {speed / rate:4.0%} of the memory's;"
                f" {shape.operations(tokens) / us / 1e3:5.0f} GOPS"
            )


def routes_of(shape: Shape, tokens: int, *, popular: bool) -> list[np.ndarray]:
    """Experts of every token, of some passes; few tokens together go through all experts."""
    random = np.random.default_rng(0)
    slots = tokens * shape.chosen
    if slots * 2 <= shape.experts and not popular:
        order = random.permutation(shape.experts)
        count = shape.experts // slots
        return [part.astype(np.int32) for part in np.split(order[: count * slots], count)]
    weights = 1 / (1 + np.arange(shape.experts)) if popular else np.ones(shape.experts)
    taken = [
        random.choice(shape.experts, shape.chosen, replace=False, p=weights / weights.sum())
        for _ in range(tokens)
    ]
    return [np.concatenate(taken).astype(np.int32)]


def timed(
    calls: Sequence[Sequence[Callable[[], Any]]],
    rounds: int,
    passes: int,
    clock: Callable[[], float],
) -> list[list[float]]:
    """Microseconds of a pass, for each way and round."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for own, ways in zip(times, calls, strict=True):
            start = clock()
            for call in ways:
                call()
            if number:
                own.append(1e6 * (clock() - start) / passes)
    return times


class Layer:
    """The kernels of a layer and its weights, stored in one way."""

    def __init__(self, shape: Shape, *, tiled: bool, target: str) -> None:
        from edgec.ir.load import load_tvm  # noqa: PLC0415

        load_tvm()
        import tvm  # noqa: PLC0415

        from edgec.scheduling.kernels.byte_dots import ByteDots  # noqa: PLC0415
        from edgec.scheduling.kernels.cpu_experts import CPUExperts  # noqa: PLC0415
        from edgec.scheduling.kernels.experts import Experts  # noqa: PLC0415
        from edgec.scheduling.kernels.linear import Linear  # noqa: PLC0415
        from edgec.target import load_target  # noqa: PLC0415

        profile = load_target(target)
        assert profile.vector_bits is not None, "a CPU's profile"
        self._tvm, self._target = tvm, tvm.target.Target(dict(profile.tvm))
        self._kernels = CPUExperts(profile.vector_bits, ByteDots.of(self._target))
        up = Linear(2 * shape.intermediate, shape.hidden, _HALF, _HALF, "uint32", 4, shape.group)
        up = replace(up, scale_dtype=_HALF, tiled=tiled)
        down = replace(up, n=shape.hidden, k=shape.intermediate)
        self._layers = [Experts(up, shape.experts, shape.chosen), Experts(down, shape.experts, 1)]
        self._weights = [self._random(layer) for layer in self._layers]
        self._library: dict[tuple[int, bool], Any] = {}

    def calls(self, x: np.ndarray, routes: list[np.ndarray]) -> list[Callable[[], Any]]:
        """A pass of both products for each choice of experts."""
        tensor = self._tvm.runtime.tensor
        slots = len(routes[0])
        hidden = np.resize(x, (slots, self._layers[1].linear.k))
        steps = []
        for number, given in enumerate((x, hidden)):
            layer, single = self._layers[number], len(x) == 1
            plan = self._kernels.preparation(layer, slots=slots if single else None)
            run = self._compiled(number, single=single)
            y = tensor(np.zeros((slots, layer.linear.n), _HALF))
            prepared = [tensor(given)]
            if plan is not None:
                prepared += [tensor(np.zeros(*item)) for item in plan.outputs(len(given))]
            steps.append((run, prepared, self._weights[number], y))

        def call(ids: Any) -> None:
            for run, prepared, weights, y in steps:
                if len(prepared) > 1:
                    run["prepare"](*prepared)
                run["matmul"](*(prepared[1:] or prepared), ids, *weights, y)

        return [partial(call, tensor(ids)) for ids in routes]

    def _compiled(self, number: int, *, single: bool) -> Any:
        """A product's kernel, and what prepares its activations."""
        key = number, single
        if key not in self._library:
            layer = self._layers[number]
            plan = self._kernels.preparation(layer, slots=layer.share if single else None)
            if single and number:
                slots = self._layers[0].share
                plan = self._kernels.preparation(layer, slots=slots)
            functions = {"matmul": self._kernels.matmul(layer, single=single)}
            functions |= {} if plan is None else {"prepare": plan.function}
            mod = self._tvm.IRModule(
                {name: item.with_attr("global_symbol", name) for name, item in functions.items()}
            )
            built = self._tvm.tirx.build(mod, self._target)
            self._library[key] = self._tvm.runtime.Executable(built)
        return self._library[key]

    def _random(self, layer: Experts) -> list[Any]:
        """Codes and scales in huge pages."""
        every = layer.all
        random = np.random.default_rng(0)
        rows, wide = (every.n // 16, (16,)) if every.tiled else (every.n, ())
        words = _in_huge_pages((rows, every.k // 8, *wide), np.uint32)
        scales = _in_huge_pages((rows, every.k // every.group, *wide), np.float16)
        words[:] = random.integers(0, 1 << 32, words.shape, dtype=np.uint32)
        scales[:] = random.uniform(0.01, 0.02, scales.shape)
        return [self._tvm.runtime.from_dlpack(item) for item in (words, scales)]


def _in_huge_pages(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, size)
    memory.madvise(_MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


if __name__ == "__main__":
    main()

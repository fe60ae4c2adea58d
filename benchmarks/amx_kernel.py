"""The AMX matmul alone, against what the matrix unit can do: operations per second.

    python benchmarks/amx_kernel.py --threads 2

For a machine with AMX only: where its instructions are emulated, times mean nothing. The layers are
those of a Llama of a billion weights, 4 bits in groups of 32, several copies of each so that weights
come from memory as in a model. The limit is a loop of products of tiles that stay in registers.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812 - as in the kernels

from edgec.runtime.threads import set_threads
from edgec.scheduling.kernels.cpu_amx import AmxMatmul, many_rows
from edgec.scheduling.kernels.cpu_amx_operands import preparation
from edgec.target import cpu_features, load_target
from machine import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TARGET = "x86-64-amx"
LAYERS = ((3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192))
ROWS = (32, 128, 512)
_BYTES = 256 << 20
_ROUNDS = 5
_PRODUCTS = 1 << 16
# Of Linux: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
_ARCH_PRCTL, _REQUEST, _TILES = 158, 0x1023, 18


def require_amx() -> None:
    """Leave with a message where AMX isn't there, or isn't allowed."""
    missing = sorted(set(load_target(TARGET).cpu_features) - cpu_features())
    if missing:
        sys.exit(f"AMX can't be timed here: this processor lacks {', '.join(missing)}")
    if ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILES):
        sys.exit("Linux doesn't let this process use AMX's tiles")


def compiled(**functions: Any) -> Any:
    """Functions for the target."""
    named = {name: item.with_attr("global_symbol", name) for name, item in functions.items()}
    target = tvm.target.Target(dict(load_target(TARGET).tvm))
    return tvm.runtime.Executable(tvm.tirx.build(tvm.IRModule(named), target))


def products(threads: int) -> Any:
    """The PrimFunc ``(configuration (64,))``: products of tiles into four sums, on every thread."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
            layout = T.arg("configuration", T.buffer((64,), "uint8"))
            with T.sblock("root"), T.parallel(0, threads), T.sblock("task"):
                _tile("ldtilecfg", T.address_of(layout[0]))
                with T.serial(0, _PRODUCTS // 4):
                    for total in range(4):
                        _tile(
                            "tdpbf16ps",
                            T.int8(total),
                            T.int8(4 + total // 2),
                            T.int8(6 + total % 2),
                        )
                _tile("tilerelease")
        return builder.get()


def _tile(name: str, *operands: Any) -> None:
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *operands))


def limit(threads: int) -> float:
    """Operations per second of products alone."""
    layout = np.zeros(64, np.uint8)
    layout[0] = 1
    layout[16:32].view(np.uint16)[:] = 64
    layout[48:56] = 16
    library, argument = compiled(products=products(threads)), tvm.runtime.tensor(layout)
    seconds = min(_seconds(lambda: library["products"](argument)) for _ in range(_ROUNDS))
    return threads * _PRODUCTS * 2 * 16 * 16 * 32 / seconds


class Layer:
    """A layer's kernel, with random weights several times over."""

    def __init__(self, p: AmxMatmul, bytes_in_all: int = _BYTES) -> None:
        self.p = p
        plan = preparation(p)
        self._library = compiled(prepare=plan.function, matmul=many_rows(p))
        self._outputs = plan.outputs
        random = np.random.default_rng(0)
        words = random.integers(0, 1 << 32, (p.n // 16, p.k // 8, 16), dtype=np.uint32)
        scales = random.uniform(0.01, 0.02, (p.n // 16, p.k // p.group, 16)).astype(np.float16)
        copies = max(1, bytes_in_all // (words.nbytes + scales.nbytes))
        self.weights = [
            (tvm.runtime.tensor(words), tvm.runtime.tensor(scales)) for _ in range(copies)
        ]

    def operations_per_second(self, m: int) -> list[float]:
        """Of a pass over all copies, for each of some rounds."""
        p = self.p
        x = np.random.default_rng(m).standard_normal((m, p.k)).astype(np.float32)
        given = tvm.runtime.tensor(x)
        ((shape, dtype),) = self._outputs(m)
        tiles = tvm.runtime.tensor(np.zeros(shape, dtype))
        y = tvm.runtime.tensor(np.zeros((m, p.n), np.float32))
        self._library["prepare"](given, tiles)

        def once() -> None:
            for words, scales in self.weights:
                self._library["matmul"](tiles, words, scales, y)

        once()
        operations = 2 * m * p.n * p.k * len(self.weights)
        return [operations / _seconds(once) for _ in range(_ROUNDS)]


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(arguments)
    require_amx()
    set_threads(options.threads)
    peak = limit(options.threads)
    print(f"{machine()}; {options.threads} threads; products alone {peak / 1e9:.0f} GOPS")
    print("rows of activations asked for early: yes, no; GOPS median (best), share of the limit")
    for n, k in LAYERS:
        plain = AmxMatmul(n, k, "float32", "float32", "uint32", 4, 32, "float16", tiled=True)
        kernels = [Layer(replace(plain, prefetch_rows=early)) for early in (True, False)]
        for m in ROWS:
            columns = [
                f"{statistics.median(rates) / 1e9:6.0f} ({max(rates) / 1e9:6.0f})"
                f" {statistics.median(rates) / peak:5.1%}"
                for rates in (kernel.operations_per_second(m) for kernel in kernels)
            ]
            print(f"{n:6} x {k:5}, {m:4} rows: " + "   ".join(columns))


if __name__ == "__main__":
    main()

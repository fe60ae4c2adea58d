"""Kernels as TVM emits them for Metal and CUDA, executed on this CPU: right, and wrong when edited.

The number of rows is odd, the reference is numpy in float64.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.rope import Rope
from kernels.gpu_texts import without
from standin_tools import needs

load_tvm()

import tvm  # noqa: E402
from tvm import relax, tirx  # noqa: E402
from tvm.s_tir import dlight  # noqa: E402

from edgec.libraries.device import DeviceModule  # noqa: E402
from edgec.passes.attach_kv_cache import AttachKVCache  # noqa: E402
from edgec.scheduling.kernels.gpu_linear import linear_kernel  # noqa: E402
from edgec.scheduling.kernels.linear import LINEAR, Linear  # noqa: E402
from edgec.scheduling.rules.gpu import matmul_rule  # noqa: E402
from kernels import gpu_functions  # noqa: E402
from kernels.gpu_functions import IPHONE, JETSON, Array, call, gpu_target  # noqa: E402

pytestmark = [needs("clang++"), pytest.mark.slow]

TARGETS = {
    "metal": {**IPHONE, "max_threads_per_block": 256, "thread_warp_size": 32},
    "cuda": {**JETSON, "thread_warp_size": 32},
}
BOTH = pytest.mark.parametrize("kind", TARGETS)
CHECKED = pytest.mark.parametrize("checked", [False, True])
ROWS, COLUMNS, OUT = 37, 256, 96
HEADS, KV_HEADS, SIZE, PAGE = 4, 2, 64, 16
# Units in the last place of a half, relative.
HALF = 2.0**-10


def normal(*shape: int, seed: int = 0, dtype: str = "float16") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def wide(array: Array) -> Array:
    return array.astype(np.float64)


@functools.cache
def scheduled(kind: str, name: str) -> Any:
    """A PrimFunc: ``rms_norm``, ``softmax``, ``matvec``, ``matmul`` (of any number of rows)."""
    target = gpu_target(TARGETS[kind])
    gpu = dlight.gpu
    rules = [gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback()]
    if name in {"matvec", "matmul"}:
        layer = Linear(OUT, COLUMNS, "float16", "float16", "float16")
        function = linear_kernel(layer, single=name == "matvec")[1]
        mod = tvm.IRModule({name: function.with_attr(LINEAR, layer.to_json())})
        mod = tirx.transform.ForceNarrowIndexToInt32()(mod)
        rules.insert(0, matmul_rule(target))
    else:
        mod = _legalized(name)
    with target:
        mod = dlight.ApplyDefaultSchedule(*rules)(mod)
    functions = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    assert len(functions) == 1, mod
    return functions[0]


def _legalized(name: str) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    shape = (tirx.Var("n", "int64"), COLUMNS)
    x = relax.Var("x", relax.TensorType(shape, "float32" if name == "softmax" else "float16"))
    g = relax.Var("g", relax.TensorType((COLUMNS,), "float16"))
    with builder.function("main", [x, g]):
        with builder.dataflow():
            if name == "softmax":
                y = relax.op.nn.softmax(x, axis=-1)
            else:
                y = relax.op.nn.rms_norm(x, g, axes=[-1], epsilon=1e-5)
            y = builder.emit_output(builder.emit(y))
        builder.emit_func_output(y)
    return relax.transform.LegalizeOps()(builder.get())


@functools.cache
def attention(kind: str, name: str) -> Any:
    spec = KVCacheSpec(
        layers=2,
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=SIZE,
        dtype="float16",
        rope=Rope(10000.0, SIZE),
    )
    mod = AttachKVCache(spec, gpu_target(TARGETS[kind]))(tvm.IRModule())
    return mod[name]


def rms_norm(kind: str, checked: bool) -> tuple[Array, Array]:
    x, g = normal(ROWS, COLUMNS), normal(COLUMNS, seed=1)
    out = np.full_like(x, np.nan)
    out = call(scheduled(kind, "rms_norm"), TARGETS[kind], x, g, out, checked=checked)[-1]
    scale = np.sqrt((wide(x) ** 2).mean(-1, keepdims=True) + 1e-5)
    return out, wide(x) / scale * wide(g)


def matmul(kind: str, checked: bool) -> tuple[Array, Array]:
    x, w = normal(ROWS, COLUMNS), normal(OUT, COLUMNS, seed=1)
    out = np.full((ROWS, OUT), np.nan, np.float16)
    out = call(scheduled(kind, "matmul"), TARGETS[kind], x, w, out, checked=checked)[-1]
    return out, wide(x) @ wide(w).T


def matvec(kind: str, checked: bool) -> tuple[Array, Array]:
    x, w = normal(1, COLUMNS), normal(OUT, COLUMNS, seed=1)
    out = np.full((1, OUT), np.nan, np.float16)
    out = call(scheduled(kind, "matvec"), TARGETS[kind], x, w, out, checked=checked)[-1]
    return out, wide(x) @ wide(w).T


def softmax(kind: str, checked: bool) -> tuple[Array, Array]:
    x = normal(ROWS, COLUMNS, dtype="float32")
    out = np.full_like(x, np.nan)
    out = call(scheduled(kind, "softmax"), TARGETS[kind], x, out, checked=checked)[-1]
    powers = np.exp(wide(x))
    return out, powers / powers.sum(-1, keepdims=True)


def prefill(kind: str, checked: bool) -> tuple[Array, Array]:
    """Causal attention of two sequences, of 34 and 3 positions: more than one tile of keys."""
    lengths = [34, 3]
    q, k, v = (normal(ROWS, h, SIZE, seed=i) for i, h in enumerate((HEADS, KV_HEADS, KV_HEADS)))
    starts = np.cumsum([0, *lengths], dtype=np.int32)
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    out, lse = np.full_like(q, np.nan), np.full((ROWS, HEADS), np.nan, np.float32)
    arrays = (q, starts, k, v, starts, positions, np.zeros(2, np.int32), out, lse)
    scalars = (1, 0, 1.0, 10000.0, SIZE**-0.5)
    function = attention(kind, "batch_prefill_ragged_kv")
    out = call(function, TARGETS[kind], *arrays, *scalars, checked=checked)[7]
    expected = [_attend(q[a:b], k[a:b], v[a:b]) for a, b in itertools.pairwise(starts)]
    return out, np.concatenate(expected)


def decode(kind: str, checked: bool) -> tuple[Array, Array]:
    """One new position of each of three sequences, their pages scattered."""
    lengths = np.array([37, 1, 16], np.int32)
    counts = -(-lengths // PAGE)
    table = np.array([4, 0, 5, 2, 1], np.int32)
    starts = np.cumsum([0, *counts], dtype=np.int32)
    q, pages = normal(3, HEADS, SIZE), normal(6, 2, KV_HEADS, PAGE, SIZE, seed=1)
    out, lse = np.full_like(q, np.nan), np.full((3, HEADS), np.nan, np.float32)
    last_page = lengths - PAGE * (counts - 1)
    arrays = (q, pages, starts, table, last_page, np.zeros(3, np.int32), lengths - 1, out, lse)
    scalars = (0, 1.0, 10000.0, SIZE**-0.5)
    function = attention(kind, "batch_decode_paged_kv")
    out = call(function, TARGETS[kind], *arrays, *scalars, checked=checked)[7]
    expected = []
    for i, length in enumerate(lengths):
        mine = pages[table[starts[i] : starts[i + 1]]]
        flat = mine.transpose(1, 0, 3, 2, 4).reshape(2, -1, KV_HEADS, SIZE)[:, :length]
        expected.append(_attend(q[i : i + 1], flat[0], flat[1]))
    return out, np.concatenate(expected)


def _attend(q: Array, k: Array, v: Array) -> Array:
    k, v = (np.repeat(wide(x), HEADS // KV_HEADS, axis=1) for x in (k, v))
    scores = np.einsum("qhd,khd->hqk", wide(q), k) * SIZE**-0.5
    hidden = np.triu(np.ones(scores.shape[1:], bool), 1 + len(k) - len(q))
    powers = np.exp(np.where(hidden, -np.inf, scores))
    return np.einsum("hqk,khd->qhd", powers / powers.sum(-1, keepdims=True), v)


# What may be lost, relative and absolute. All of these sum in float32, to about 1e-6 of the terms'
# size, which is 1 to 10; so the rounding of the result to half decides: half a unit of its last
# place. The softmax's result is float32.
LIMITS: dict[Callable[..., Any], tuple[float, float]] = {
    rms_norm: (HALF, 1e-6),
    matmul: (HALF, 1e-4),
    matvec: (HALF, 1e-4),
    softmax: (1e-5, 1e-7),
    prefill: (HALF, 1e-4),
    decode: (HALF, 1e-4),
}


@BOTH
@CHECKED
@pytest.mark.parametrize("kernel", LIMITS)
def test_emitted_kernels(kernel: Callable[..., Any], kind: str, checked: bool) -> None:
    result, expected = kernel(kind, checked)
    rtol, atol = LIMITS[kernel]
    np.testing.assert_allclose(wide(result), expected, rtol=rtol, atol=atol)


def test_matrix_units_are_used() -> None:
    words = {"metal": "simdgroup_multiply_accumulate", "cuda": "wmma::mma_sync"}
    for kind, word in words.items():
        assert word in gpu_functions.source(scheduled(kind, "matmul"), TARGETS[kind])


Edit = Callable[[str], str]


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[Edit], None]:
    """Lets kernels be edited between TVM and the emulator."""

    def use(edit: Edit) -> None:
        original = gpu_functions._kernels

        def kernels(built: Any) -> DeviceModule:
            module = original(built)
            code = {name: edit(text.decode()).encode() for name, text in module.code.items()}
            return DeviceModule(module.kind, module.format, module.functions, code)

        monkeypatch.setattr(gpu_functions, "_kernels", kernels)

    return use


# A fault comes through the host's machine code, as TVM's error with the fault's message.
FAULT = RuntimeError
BARRIER = {"metal": "threadgroup_barrier", "cuda": "__syncthreads"}
# Barriers that order something, by kernel; TVM's attention has others beside them.
NEEDED = [
    *((matmul, number) for number in (0, 1, 2)),
    *((rms_norm, number) for number in (0, 2)),
    *((prefill, number) for number in (3, 6, 7, 10)),
    *((decode, number) for number in (0, 1, 2, 3)),
]


@BOTH
@pytest.mark.parametrize(("kernel", "number"), NEEDED)
def test_a_missing_barrier_is_found(
    kernel: Callable[..., Any], number: int, kind: str, edited: Callable[[Edit], None]
) -> None:
    edited(lambda text: without(text, BARRIER[kind], number))
    with pytest.raises(FAULT, match="a barrier is missing"):
        kernel(kind, True)


@BOTH
def test_a_row_too_many_is_found(kind: str, edited: Callable[[Edit], None]) -> None:
    # The guard of the last, partly filled tile where activations are read.
    guard = {"metal": "< arg.rows[0])", "cuda": "< rows)"}[kind]

    def edit(text: str) -> str:
        assert guard in text
        return text.replace(guard, guard.replace("<", "<="))

    edited(edit)
    with pytest.raises(FAULT, match=r"past its end"):
        matmul(kind, True)


@BOTH
def test_swapped_buffers_are_found(kind: str, edited: Callable[[Edit], None]) -> None:
    # The weights are the larger ones: activations are read past their end.
    def edit(text: str) -> str:
        names = ("x_ptr", "w_ptr")
        assert all(re.search(rf"\b{name}\b", text) for name in names)
        swap = dict(zip(names, reversed(names), strict=True))
        head, brace, body = text.rpartition("kernel(")
        end = body.index("{")
        inside = re.sub(r"\b[xw]_ptr\b", lambda match: swap[match[0]], body[end:])
        return head + brace + body[:end] + inside

    edited(edit)
    with pytest.raises(FAULT, match=r"past its end"):
        matmul(kind, True)

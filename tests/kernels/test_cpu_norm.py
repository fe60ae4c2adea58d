"""Norms and gated activations on CPUs, and their results quantized, against float64 and apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.scheduling.kernels import cpu_gate, cpu_norm  # noqa: E402
from edgec.scheduling.kernels.byte_dots import ByteDots  # noqa: E402
from edgec.scheduling.kernels.cpu_norm import Results  # noqa: E402
from edgec.scheduling.kernels.linear import Linear  # noqa: E402
from edgec.scheduling.kernels.norm import Norm  # noqa: E402
from edgec.scheduling.kernels.quantize_rows import QuantizedRows, outputs, preparation  # noqa: E402
from edgec.target import cpu_features  # noqa: E402
from kernels.norm_problem import EPSILON, exact  # noqa: E402

if TYPE_CHECKING:
    from kernels.norm_problem import Array

pytestmark = pytest.mark.slow

CPUS = {128: "x86-64-v2", 256: "x86-64-v3", 512: "x86-64-v4"}
NEEDED = {128: set[str](), 256: {"avx2"}, 512: {"avx512f"}}


def target(bits: int) -> tvm.target.Target:
    if not NEEDED[bits] <= cpu_features():
        pytest.skip(f"this CPU's registers are narrower than {bits} bits")
    return tvm.target.Target({"kind": "llvm", "mcpu": CPUS[bits]})


def compiled(bits: int, **functions: Any) -> Any:
    named = {name: item.with_attr("global_symbol", name) for name, item in functions.items()}
    return tvm.runtime.Executable(tvm.tirx.build(tvm.IRModule(named), target(bits)))


def run(function: Any, inputs: list[Array], results: list[tuple[Any, str]]) -> list[Array]:
    """The results, in memory of which all bytes were ones."""
    filled = [
        tvm.runtime.tensor(
            np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 255, np.uint8)
            .view(dtype)
            .reshape(shape)
        )
        for shape, dtype in results
    ]
    function(*map(tvm.runtime.tensor, inputs), *filled)
    return [item.numpy() for item in filled]


def problem(
    shape: tuple[int, ...], dtype: str, *, centered: bool
) -> tuple[list[Array], list[Array]]:
    """Two terms, far from 0 where the mean is taken off; weight and perhaps bias."""
    random = np.random.default_rng(0)
    terms = [random.normal(8 * centered, 2, shape).astype(dtype) for _ in range(2)]
    learned = [random.normal(1, 0.1, shape[-1]), random.normal(0, 1, shape[-1])]
    return terms, [item.astype(dtype) for item in learned[: 1 + centered]]


@pytest.mark.parametrize("centered", [False, True], ids=["rms", "layer"])
@pytest.mark.parametrize(
    ("shape", "outer", "dtype", "bits"),
    [
        ((1, 1, 2048), (1, 1), "float16", 512),
        ((1, 7, 100), (1, None), "float32", 512),
        ((5, 1, 576), (None, 1), "float16", 256),
        ((3, 5, 2, 64), (None, None, 2), "float32", 256),
        ((9, 33), (None,), "float32", 128),
    ],
    ids=str,
)
def test_norm_equals_float64(
    shape: tuple[int, ...], outer: tuple[int | None, ...], dtype: str, bits: int, centered: bool
) -> None:
    (x, addend), learned = problem(shape, dtype, centered=centered)
    norm = Norm(shape[-1], dtype, EPSILON, centered=centered, leading=len(shape) - 1)
    norms = {
        "alone": norm,
        "of_sum": replace(norm, adds=True),
        "with_sum": replace(norm, adds=True, keeps_sum=True),
    }
    make = cpu_norm.norm_kernels(bits)
    library = compiled(bits, **{name: make(item, outer) for name, item in norms.items()})
    tolerance = (8 if centered else 4) * (2**-11 if dtype == "float16" else 2**-22)
    result = (shape, dtype)
    (y,) = run(library["alone"], [x, *learned], [result])
    np.testing.assert_allclose(y, exact(x, *learned), rtol=0, atol=tolerance)
    total = (x.astype(np.float32) + addend.astype(np.float32)).astype(dtype)
    stored, y = run(library["with_sum"], [x, addend, *learned], [result, result])
    np.testing.assert_array_equal(stored, total)
    np.testing.assert_allclose(y, exact(total, *learned), rtol=0, atol=tolerance)
    (again,) = run(library["of_sum"], [x, addend, *learned], [result])
    np.testing.assert_array_equal(again, y)


QUANTIZED = QuantizedRows("float16", 320, 32, 8, 8)
LAYER = Linear(16, 320, "float16", "float16", "uint32", 4, 32, "float16", tiled=True)


@pytest.mark.parametrize("bits", CPUS)
def test_quantized_norm_is_the_norm_quantized(bits: int) -> None:
    rows, k = 11, QUANTIZED.k
    (x, addend), learned = problem((1, rows, k), "float16", centered=False)
    norm = Norm(k, "float16", EPSILON, adds=True, keeps_sum=True)
    library = compiled(
        bits,
        norm=cpu_norm.norm_kernels(bits)(norm, (1, None)),
        quantize=preparation(LAYER, ByteDots("vpdpbusd", bits // 32, 32), 8, single=False).function,
        both=cpu_norm.norm_of_rows(norm, (1, None), Results(QUANTIZED), bits),
        only=cpu_norm.norm_of_rows(norm, (1, None), Results(QUANTIZED, plain=False), bits),
    )
    inputs, row = [x, addend, *learned], ((1, rows, k), "float16")
    codes = outputs(QUANTIZED, QUANTIZED.rows, rows)
    total, y = run(library["norm"], inputs, [row, row])
    wanted = [total, y, *run(library["quantize"], [y[0]], codes)]
    for got, item in zip(run(library["both"], inputs, [row, row, *codes]), wanted, strict=True):
        np.testing.assert_array_equal(got, item)
    only = run(library["only"], inputs, [row, *codes])
    for got, item in zip(only, [total, *wanted[2:]], strict=True):
        np.testing.assert_array_equal(got, item)


@pytest.mark.parametrize("bits", CPUS)
def test_gated_silu_is_quantized(bits: int) -> None:
    rows, k, group = 11, QUANTIZED.k, QUANTIZED.group
    random = np.random.default_rng(1)
    x = random.normal(0, 4, (1, rows, 2 * k)).astype(np.float16)
    x[0, 0, :4] = [-200, 200, 0, -20]
    x[0, 1, k:] = 0  # nothing to divide by
    gated = compiled(bits, gate=cpu_gate.silu_of_gate(QUANTIZED, (1, None), bits))["gate"]
    words, scales, terms = run(gated, [x], outputs(QUANTIZED, QUANTIZED.rows, rows))
    wide = x[0].astype(np.float64)
    with np.errstate(over="ignore"):
        exactly = wide[:, :k] / (1 + np.exp(-wide[:, :k])) * wide[:, k:]
    # Two blocks: of eight rows, and of three in room for four.
    codes = np.concatenate(
        [
            words.reshape(2, -1)[block, : k // 4 * room]
            .reshape(k // 4, room)
            .T.copy()
            .view(np.int8)[:count]
            for block, room, count in ((0, 8, 8), (1, 4, 3))
        ]
    )
    steps, sums = (
        np.concatenate(
            [
                part[block, : k // group * room].reshape(-1, room).T[:count]
                for block, room, count in ((0, 8, 8), (1, 4, 3))
            ]
        )
        for part in (scales, terms)
    )
    groups = codes.reshape(rows, -1, group).astype(np.float64)
    np.testing.assert_array_equal(sums, -QUANTIZED.factor * groups.sum(2))
    top = np.abs(exactly).reshape(rows, -1, group).max(2)
    np.testing.assert_allclose(steps * 127, top, rtol=2**-9, atol=1e-7)
    # Half a step, and two roundings to float16.
    bound = (0.5 + 1e-3) * steps[..., None] + 2**-9 * np.abs(exactly).reshape(groups.shape)
    error = np.abs(groups * steps[..., None] - exactly.reshape(groups.shape))
    assert (error <= bound).all()
    assert np.isfinite(steps).all()


def test_a_rows_bytes_do_not_depend_on_the_rows_beside_it() -> None:
    """Of one row, as decode has, of few and of many."""
    k, bits = QUANTIZED.k, 256
    (x, addend), learned = problem((1, 21, k), "float16", centered=False)
    norm = Norm(k, "float16", EPSILON, adds=True, keeps_sum=True)
    one = replace(QUANTIZED, rows=1)
    # Every row is a block, so that its place says nothing of the others.
    functions = {}
    for name, outer in (("single", (1, 1)), ("many", (1, None)), ("batch", (None, 1))):
        results = Results(one, plain=False)
        functions[f"norm_{name}"] = cpu_norm.norm_of_rows(norm, outer, results, bits)
        functions[f"gate_{name}"] = cpu_gate.silu_of_gate(
            replace(one, k=k // 2 // 32 * 32), outer, bits
        )
    library = compiled(bits, **functions)

    def both(name: str, first: int, last: int) -> list[Array]:
        rows = last - first
        part = [item[:, first:last] for item in (x, addend)]
        if name == "batch":
            part = [item.reshape(rows, 1, k) for item in part]
        row = (part[0].shape, "float16")
        normed = run(
            library[f"norm_{name}"],
            [*map(np.ascontiguousarray, part), *learned],
            [row, *outputs(one, 1, rows)],
        )
        gate = replace(one, k=k // 2 // 32 * 32)
        wide = np.ascontiguousarray(part[0][..., : 2 * gate.k])
        gated = run(library[f"gate_{name}"], [wide], outputs(gate, 1, rows))
        return [item.reshape(rows, -1) for item in (*normed, *gated)]

    whole = both("many", 0, 21)
    for name, first, last in (("single", 4, 5), ("many", 3, 16), ("batch", 7, 12)):
        for got, item in zip(both(name, first, last), whole, strict=True):
            np.testing.assert_array_equal(got, item[first:last])

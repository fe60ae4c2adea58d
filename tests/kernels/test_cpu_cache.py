"""Rotation and appending on CPUs against NumPy, and the logistic function of activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import te  # noqa: E402

from edgec.models.rope import Rope  # noqa: E402
from edgec.passes.vector_sigmoid import sigmoid  # noqa: E402
from edgec.scheduling.kernels.attention_arguments import NOTHING  # noqa: E402
from edgec.scheduling.kernels.cpu_attention_blocks import Attention  # noqa: E402
from edgec.scheduling.kernels.cpu_cache import (  # noqa: E402
    append,
    copy_rows,
    merge,
    split_rotary,
)
from edgec.scheduling.kernels.vectors import _fold_indices, _fold_order  # noqa: E402
from kernels.cache_rows import notes, queries, results, room, rounded, unheld  # noqa: E402

pytestmark = pytest.mark.slow

YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "first": 2,
    "last": 9,
    "attention_factor": 1.2,
    "original_max_position_embeddings": 64,
}
ROPES = [Rope(10000.0, 64), Rope(500000.0, 48), Rope(10000.0, 64, YARN), Rope(10000.0, 20)]


def _built(primitive: Any) -> Any:
    from edgec.target import cpu_features  # noqa: PLC0415

    cpu = "x86-64-v4" if "avx512f" in cpu_features() else "x86-64-v3"
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    built = tvm.tirx.build(tvm.IRModule({"kernel": primitive}), target)
    return tvm.runtime.Executable(built)[primitive.attrs["global_symbol"]]


def _rotated(rope: Rope, x: np.ndarray, position: int) -> np.ndarray:
    """``(heads, d)`` in float64: pairs as complex numbers."""
    half = rope.rotary_dim // 2
    angle = position * np.array(rope.inverse_frequencies())
    turned = (x[:, :half] + 1j * x[:, half : 2 * half]) * np.exp(1j * angle) * rope.amplitude
    return np.concatenate([turned.real, turned.imag, x[:, 2 * half :]], axis=1)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("float32", ""), ("float16", ""), ("float16", "int8"), ("float32", "int8")],
)
@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: f"{rope.kind}{rope.rotary_dim}")
def test_queries_and_keys_turn_and_values_do_not(rope: Rope, dtype: str, stored: str) -> None:
    shape = Attention(6, 2, 64, dtype, 512, stored=stored)
    kernel, fmt = _built(split_rotary(shape, rope, "rotate")), shape.format
    for tokens, applied in ((1, 1), (9, 1), (3, 0)):
        random = np.random.default_rng(tokens)
        qkv = random.normal(size=(tokens, 10, 64)).astype(dtype)
        qkv[0, 6:] = 0
        positions = random.integers(0, 200, tokens).astype(np.int32)
        fused = np.full((tokens, fmt.fused_width), np.nan, dtype)
        fused[:, : fmt.fused] = qkv.reshape(tokens, -1)
        fused = fused.reshape(tokens, -1, fmt.row)
        outs = [
            tvm.runtime.tensor(np.full((tokens, n, fmt.row), np.nan, dtype))
            for n in (fmt.runtime_heads, 2, 2)
        ]
        last = tvm.runtime.tensor(np.zeros(64, np.float32)) if rope.has_factors else applied
        kernel(tvm.runtime.tensor(fused), tvm.runtime.tensor(positions), *outs, last)
        turned = np.stack(
            [
                _rotated(rope, row.astype(np.float64), position)
                if applied or rope.has_factors
                else row
                for row, position in zip(qkv, positions, strict=True)
            ]
        )
        q, k, v = (out.numpy() for out in outs)
        # Angles are float32: at position 200 they are within 1e-5.
        tolerance = {"float32": 4e-5, "float16": 4e-3}[dtype]
        flat = q.reshape(tokens, -1)
        own = flat[:, : fmt.queries].reshape(tokens, 6, 64)
        np.testing.assert_allclose(own, turned[:, :6], atol=tolerance)
        # Half a step of the largest magnitude, besides.
        step = np.abs(turned[:, 6:8]).max() / 127 if stored == "int8" else 0
        values = unheld(shape, v)
        np.testing.assert_allclose(unheld(shape, k), turned[:, 6:8], atol=tolerance + step / 2)
        np.testing.assert_array_equal(values, rounded(shape, qkv[:, 8:]).astype(np.float32))
        beside = flat[:, fmt.queries : fmt.queries + 4 * fmt.row]
        both = np.concatenate([k, v], axis=1).reshape(tokens, -1)
        beside = np.ascontiguousarray(beside).view(np.uint8)
        np.testing.assert_array_equal(beside, both.view(np.uint8))
        np.testing.assert_array_equal(notes(shape, q), 0)


@pytest.mark.parametrize("tokens", [2, 7])
@pytest.mark.parametrize("stored", ["", "int8"])
def test_new_keys_go_to_their_places(tokens: int, stored: str) -> None:
    shape = Attention(6, 2, 24, "float16", 512, stored=stored)
    kernel, row = _built(append(shape, "append")), shape.format.row
    random = np.random.default_rng(tokens)
    pages = random.normal(size=(4, 2, 2, 16, row)).astype(np.float16)
    k, v = (random.normal(size=(tokens, 2, row)).astype(np.float16) for _ in range(2))
    places = random.permutation(64)[:tokens].astype(np.int32)
    places[1] = -1
    wanted = pages.copy()
    for token, place in enumerate(places):
        if place >= 0:
            wanted[place // 16, 0, :, place % 16] = k[token]
            wanted[place // 16, 1, :, place % 16] = v[token]
    given = tvm.runtime.tensor(pages)
    kernel(given, *(tvm.runtime.tensor(item) for item in (k, v, places)))
    np.testing.assert_array_equal(given.numpy(), wanted)


@pytest.mark.parametrize("tokens", [1, 6])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_of_an_attention_merge(dtype: str, tokens: int) -> None:
    shape = Attention(6, 2, 24, dtype, 512, stored="int8")
    random = np.random.default_rng(tokens)
    outs = [random.normal(size=(tokens, 6, 24)).astype(dtype) for _ in range(2)]
    lses = [random.normal(0, 3, (tokens, 6)).astype(np.float32) for _ in range(2)]
    # One of them may have seen nothing.
    outs[0][0, :2], lses[0][0, :2] = 0, NOTHING
    outs[1][0, 2], lses[1][0, 2] = 0, NOTHING
    given = []
    for out, lse in zip(outs, lses, strict=True):
        wide = room(shape, tokens)
        wide[1][:, :6] = lse
        given += [tvm.runtime.tensor(queries(shape, out)), tvm.runtime.tensor(wide[1])]
    _built(merge(shape, "merge"))(*given)
    found, lse = results(shape, given[0].numpy(), given[1].numpy())
    weights = [np.exp2(part.astype(np.float64)) for part in lses]
    total = weights[0] + weights[1]
    wanted = sum(
        out * (weight / total)[..., None] for out, weight in zip(outs, weights, strict=True)
    )
    tolerance = {"float32": 1e-6, "float16": 2e-3}[dtype]
    np.testing.assert_allclose(found, wanted, atol=tolerance)
    np.testing.assert_allclose(lse, np.log2(total), atol=1e-5)
    np.testing.assert_array_equal(found[0, :2], outs[1][0, :2])
    np.testing.assert_array_equal(found[0, 2], outs[0][0, 2])
    np.testing.assert_array_equal(lse[0, :3], [*lses[1][0, :2], lses[0][0, 2]])


@pytest.mark.parametrize("tokens", [1, 9])
def test_rows_get_another_width(tokens: int) -> None:
    x = np.random.default_rng(0).normal(size=(tokens, 80)).astype(np.float16)
    for widths in ((80, 118), (80, 34)):
        kernel = copy_rows("float16", widths, single=tokens == 1)
        y = tvm.runtime.tensor(np.full((tokens, widths[1]), 7, np.float16))
        _built(kernel.with_attr("global_symbol", "copy"))(tvm.runtime.tensor(x), y)
        count = min(widths)
        np.testing.assert_array_equal(y.numpy()[:, :count], x[:, :count])
        assert (y.numpy()[:, count:] == 7).all()


def test_the_logistic_function_is_right_to_float32() -> None:
    x = te.placeholder((4000,), "float32", name="x")
    y = te.compute(x.shape, lambda i: sigmoid(x[i]))
    primitive = te.create_prim_func([x, y]).with_attr("global_symbol", "sigmoid")
    values = np.linspace(-120, 120, 4000).astype(np.float32)
    out = tvm.runtime.tensor(np.zeros(4000, np.float32))
    _built(primitive)(tvm.runtime.tensor(values), out)
    exact = 1 / (1 + np.exp(-values.astype(np.float64)))
    np.testing.assert_allclose(out.numpy(), exact, rtol=0, atol=3e-7)
    usual = np.abs(values) < 20
    # The scaled exponent is rounded to 2^-20 there.
    np.testing.assert_allclose(out.numpy()[usual], exact[usual], rtol=3e-6)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
def test_folding_gives_each_lane_its_sum(lanes: int) -> None:
    """The steps of ``sums_of``, on arrays."""
    vectors = np.random.default_rng(lanes).normal(size=(lanes, lanes))
    order, size = _fold_order(lanes), lanes
    assert sorted(order) == list(range(lanes))
    level = [vectors[order.index(i)] for i in range(lanes)]
    while size > 1:
        low, high, _ = _fold_indices(lanes, size)
        pairs = [np.concatenate(pair) for pair in zip(level[::2], level[1::2], strict=True)]
        level = [both[low] + both[high] for both in pairs]
        size //= 2
    np.testing.assert_allclose(level[0], vectors.sum(1))

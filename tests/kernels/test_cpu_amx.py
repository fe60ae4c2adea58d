"""The AMX matmul, on a processor with AMX or with its instructions emulated."""

from __future__ import annotations

import functools
from dataclasses import asdict

import numpy as np
import pytest

from edgec.ir.load import load_tvm
from edgec.standins import amx
from edgec.target import cpu_features

load_tvm()

import tvm  # noqa: E402

from edgec.scheduling.kernels.cpu_amx import AmxMatmul, many_rows  # noqa: E402
from edgec.scheduling.kernels.cpu_amx_operands import SCALE, preparation  # noqa: E402
from edgec.scheduling.kernels.linear import Linear  # noqa: E402
from edgec.target import load_target  # noqa: E402


def _missing() -> str:
    lacking = set(load_target("x86-64-amx").cpu_features) - cpu_features() - amx.FEATURES
    return amx.unavailable() or ", ".join(sorted(lacking))


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_missing()), reason=_missing())]

F32, F16, WORDS = "float32", "float16", "uint32"


def _layer(n: int, k: int, bits: int, group: int, **more: object) -> AmxMatmul:
    types = {"x_dtype": F32, "y_dtype": F32, "scale_dtype": F16, **more}
    return AmxMatmul(n=n, k=k, w_dtype=WORDS, bits=bits, group=group, tiled=True, **types)  # type: ignore[arg-type]


# An odd number of tiles, tiles that aren't full, chunks that aren't, all groups, several panels.
LAYERS = [
    _layer(64, 512, 4, 32),
    _layer(50, 96, 4, 32, x_dtype=F16, y_dtype=F16, zeros=True, scale_dtype=F32),
    _layer(40, 640, 4, 128, zeros=True),
    _layer(24, 4608, 4, 64),
    _layer(37, 640, 8, 64),
    _layer(16, 512, 8, 128, y_dtype=F16, zeros=True),
]
# Wide enough for several blocks of columns in a task.
WIDE = _layer(1024, 64, 4, 32)


def _in_tiles(values: np.ndarray, fill: int) -> np.ndarray:
    """``(n, columns)`` as ``(tiles, columns, 16)``."""
    tiles = -(-len(values) // 16)
    full = np.full((tiles * 16, values.shape[1]), fill, values.dtype)
    full[: len(values)] = values
    return np.ascontiguousarray(full.reshape(tiles, 16, -1).transpose(0, 2, 1))


def _packed(
    p: Linear, codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray
) -> list[np.ndarray]:
    """What is stored: codes and zero points in words, scales."""
    middle = 1 << (p.bits - 1)
    tiled = _in_tiles(codes, middle)
    count = 32 // p.bits
    words = np.zeros((len(tiled), p.k // count, 16), np.uint32)
    for place in range(count):
        shift = 8 * (place % 4) + 4 * (place // 4)
        words |= tiled[:, place::count] << np.uint32(shift)
    stored = [words, _in_tiles(scales, 0)]
    if not p.zeros:
        return stored
    points = _in_tiles(zeros, middle)
    of_words = np.zeros((*points.shape[:2], 16 // count), np.uint32)
    for row in range(16):
        word, place = (row % 2, row // 2) if p.bits == 4 else (row // 4, row % 4)
        of_words[..., word] |= points[..., row] << np.uint32(p.bits * place)
    return [*stored, of_words]


def _kernels(p: AmxMatmul) -> tvm.runtime.Module:
    target = load_target("x86-64-amx")
    functions = {
        "matmul": many_rows(p).with_attr("global_symbol", "matmul"),
        "prepare": preparation(p).function.with_attr("global_symbol", "prepare"),
    }
    built = tvm.tirx.build(tvm.IRModule(functions), tvm.target.Target(dict(target.tvm)))
    return tvm.runtime.Executable(built)


class _Problem:
    """A layer with weights."""

    def __init__(self, p: AmxMatmul) -> None:
        self.p = p
        random = np.random.default_rng(p.n * p.k)
        groups = (p.n, p.k // p.group)
        self.codes = random.integers(0, 1 << p.bits, (p.n, p.k)).astype(np.uint32)
        self.scales = random.uniform(0.5, 1.5, groups) * random.choice([-1.0, 1.0], groups)
        self.scales = self.scales.astype(p.scale_dtype)
        self.zeros = np.full(groups, 1 << (p.bits - 1), np.uint32)
        if p.zeros:
            self.zeros = random.integers(0, 1 << p.bits, groups).astype(np.uint32)
        packed = _packed(p, self.codes, self.scales, self.zeros)
        self._stored = [tvm.runtime.tensor(item) for item in packed]
        self.kernels = _kernels(p)

    def run(self, x: np.ndarray) -> np.ndarray:
        amx.install()
        # What isn't written must not be read: it is a NaN.
        ((shape, dtype),) = preparation(self.p).outputs(len(x))
        tiles = tvm.runtime.tensor(np.full(shape, 0x7FC0, dtype))
        self.kernels["prepare"](tvm.runtime.tensor(x), tiles)
        y = tvm.runtime.tensor(np.full((len(x), self.p.n), np.nan, self.p.y_dtype))
        self.kernels["matmul"](tiles, *self._stored, y)
        return np.asarray(y.numpy())

    def rounded_weights(self) -> np.ndarray:
        """As the kernel makes them."""
        scales = self.scales.astype(np.float32) * np.float32(SCALE)
        offsets = -(self.zeros.astype(np.float32) * scales)
        scales, offsets = (
            np.repeat(item.astype(np.float64), self.p.group, axis=1) for item in (scales, offsets)
        )
        exact = (self.codes * scales + offsets).astype(np.float32)
        return np.asarray(exact.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)

    def weights(self) -> np.ndarray:
        scales, zeros = (
            np.repeat(item.astype(np.float64), self.p.group, axis=1)
            for item in (self.scales, self.zeros)
        )
        return np.asarray((self.codes - zeros) * scales)


def _bf16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def _product(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The product as the matrix unit sums it: even and odd features apart, 32 at a time."""
    # The axes: rows, steps of the tiles, pairs in a step, even or odd.
    left, right = (item.astype(np.float64).reshape(len(item), -1, 16, 2) for item in (x, weights))
    total = np.zeros((len(x), len(weights)), np.float32)
    for step in range(left.shape[1]):
        part = np.zeros((*total.shape, 2), np.float32)
        for pair in range(16):
            product = left[:, None, step, pair] * right[None, :, step, pair]
            part = (part + product).astype(np.float32)
        total = total + (part[..., 0] + part[..., 1])
    return total


@functools.cache
def _problem(p: AmxMatmul) -> _Problem:
    return _Problem(p)


@pytest.fixture(params=LAYERS, ids=lambda p: p.name)
def problem(request: pytest.FixtureRequest) -> _Problem:
    return _problem(request.param)


@pytest.mark.parametrize("m", [1, 3, 16, 17, 33, 40, 130])
def test_every_bit_is_as_the_rounding_says(problem: _Problem, m: int) -> None:
    p = problem.p
    x = np.random.default_rng(m).standard_normal((m, p.k)).astype(p.x_dtype)
    found = problem.run(x)
    expected = _product(_bf16(x), problem.rounded_weights()).astype(p.y_dtype)
    np.testing.assert_array_equal(found, expected)


def test_results_are_near_those_in_float64(problem: _Problem) -> None:
    p = problem.p
    x = np.random.default_rng(9).standard_normal((48, p.k)).astype(p.x_dtype)
    exact = x.astype(np.float64) @ problem.weights().T
    error = problem.run(x).astype(np.float64) - exact
    # Each factor is off by 2**-9 at most or 0.7 * 2**-7, evenly spread: 0.24 % of a row's size
    # (0.17 % from either), and without a drift.
    assert np.sqrt((error**2).mean() / (exact**2).mean()) < 3e-3
    assert abs((error * exact).sum() / (exact**2).sum()) < 5e-4


def test_all_blocks_of_a_wide_layer() -> None:
    problem = _problem(WIDE)
    x = np.random.default_rng(2).standard_normal((20, WIDE.k)).astype(F32)
    expected = _product(_bf16(x), problem.rounded_weights())
    np.testing.assert_array_equal(problem.run(x), expected)


@pytest.mark.parametrize(("m", "tiles"), [(1, 1), (16, 1), (17, 2), (33, 3), (129, 9)])
def test_no_product_is_wasted(m: int, tiles: int) -> None:
    """As many as there are tiles of 16 rows; whether AMX executes them or the handler."""
    p = LAYERS[0]
    problem = _problem(p)
    count = amx.install().edgec_amx_executed
    before = count(b"tdpbf16ps")
    problem.run(np.ones((m, p.k), np.float32))
    if "amx_tile" in cpu_features():
        pytest.skip("AMX's own instructions aren't counted")
    assert count(b"tdpbf16ps") - before == tiles * p.weight_tiles * p.steps


def test_activations_lie_as_they_are_loaded() -> None:
    p = LAYERS[0]
    m = 35  # three tiles of 12 rows, of which the last begins at row 23
    x = np.random.default_rng(3).standard_normal((m, p.k)).astype(np.float32)
    plan = preparation(p)
    ((shape, dtype),) = plan.outputs(m)
    assert shape == (2, p.k // 32, 2, 16, 32)
    tiles = tvm.runtime.tensor(np.zeros(shape, dtype))
    _problem(p).kernels["prepare"](tvm.runtime.tensor(x), tiles)
    bits = _bf16(x).view(np.uint32) >> 16
    for tile, first in enumerate((0, 12, 23)):
        found = tiles.numpy()[tile // 2, :, tile % 2, :12].transpose(1, 0, 2).reshape(12, p.k)
        np.testing.assert_array_equal(found, bits[first : first + 12])


def test_layers_that_read_the_same_share_a_preparation() -> None:
    first, second = LAYERS[0], _layer(16, 512, 8, 128)
    assert preparation(first).name == preparation(second).name
    half = Linear(
        **{name: value for name, value in asdict(first).items() if name != "prefetch_rows"}
    )
    assert preparation(half).name == "tiles_float32_512"

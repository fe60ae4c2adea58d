"""The GPU's merge sort: exact, stable, for any size of row and work-group."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgec.ir.load import load_tvm

load_tvm()

from edgec.scheduling.kernels.gpu_sort import Sort, merge_runs, sort_tiles  # noqa: E402
from edgec.scheduling.kernels.gpu_work_group import Limits  # noqa: E402
from kernels.gpu_functions import BROWSER, IPHONE, JETSON, PHONE, SMALL, call, limits, source  # noqa: E402
from standin_tools import needs  # noqa: E402

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

Floats = npt.NDArray[np.float32]


def sort(
    rows: Floats, target: dict[str, Any], *, checked: bool = False
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    plan = Sort.within(rows.shape[1], limits(target))
    empty = np.full(rows.shape, np.nan, np.float32), np.full(rows.shape, -1, np.int32)
    _, values, indices = call(sort_tiles(plan), target, rows, *empty, checked=checked)
    for width in plan.widths:
        merge = merge_runs(plan)
        results = call(merge, target, values, indices, width, *empty, checked=checked)
        values, indices = results[3:]
    return values, indices  # type: ignore[return-value]


def rows_with_ties(vocab: int) -> Floats:
    generator = np.random.default_rng(vocab)
    rows = np.exp(generator.normal(0, 4, (4, vocab)))
    rows /= rows.sum(-1, keepdims=True)
    rows[1] = np.round(rows[1], 3)  # nearly all are 0
    rows[2] = 0
    rows[2, vocab // 2] = 1
    rows[3] = np.sort(rows[3])  # the wrong way round
    return rows.astype(np.float32)


@pytest.mark.parametrize("target", [PHONE, SMALL, IPHONE, JETSON], ids=lambda t: t["kind"])
@pytest.mark.parametrize("vocab", [1, 7, 511, 512, 513, 4097])
def test_rows_are_sorted_and_equal_entries_keep_their_order(
    vocab: int, target: dict[str, Any]
) -> None:
    rows = rows_with_ties(vocab)
    values, indices = sort(rows, target)
    expected = np.argsort(-rows, axis=1, kind="stable")
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(rows, expected, 1))


@pytest.mark.parametrize("vocab", [32_000, 128_256])
def test_vocabularies_of_models(vocab: int) -> None:
    rows = rows_with_ties(vocab)
    values, indices = sort(rows, PHONE)
    expected = np.argsort(-rows, axis=1, kind="stable")
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(rows, expected, 1))


def test_lanes_race_for_nothing() -> None:
    rows = rows_with_ties(300)
    _, indices = sort(rows, SMALL, checked=True)
    np.testing.assert_array_equal(indices, np.argsort(-rows, axis=1, kind="stable"))


def test_garbage_stays_inside_the_row() -> None:
    rows = np.full((2, 700), np.nan, np.float32)
    rows[1, ::3] = np.arange(234)
    _, indices = sort(rows, SMALL, checked=True)
    np.testing.assert_array_equal(np.sort(indices, axis=1), [np.arange(700)] * 2)


@pytest.mark.parametrize("shared", [2048, 16_384, 32_768, 49_152, 65_536])
@pytest.mark.parametrize("threads", [32, 128, 192, 1024])
def test_tiles_stay_within_the_device(threads: int, shared: int) -> None:
    plan = Sort.within(256_000, Limits(threads, shared))
    assert plan.lanes <= threads
    # A value and an index each, in two work-groups.
    assert 2 * 8 * plan.tile <= shared


@pytest.mark.parametrize("target", [IPHONE, JETSON, BROWSER], ids=lambda t: t["kind"])
def test_kernels_compile_for_every_platform(target: dict[str, Any]) -> None:
    plan = Sort.within(256_000, limits(target))
    for function in (sort_tiles(plan), merge_runs(plan)):
        # Compilers of browsers and phones are slow: TVM's own merge is ten times as long.
        assert len(source(function, target)) < 30_000

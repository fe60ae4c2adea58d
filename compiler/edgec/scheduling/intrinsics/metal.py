"""Matrix units of Apple GPUs through ``simdgroup_matrix``: fragments of 8 x 8."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgec.scheduling.intrinsics.fragments import MatrixUnits, Spelling, Tile

_SIZE = 8


def _fill(sums: Any, index: Any) -> Any:
    return T.metal.make_filled_simdgroup_matrix(
        sums, index=index, value=T.float32(0), col=_SIZE, row=_SIZE
    )


def _load_a(fragment: Any, index: Any, pointer: Any, stride: Any) -> Any:
    return T.metal.simdgroup_load(
        fragment,
        index=index,
        ptr=pointer,
        stride=stride,
        col=_SIZE,
        row=_SIZE,
        transpose_matrix=False,
    )


def _load_b(fragment: Any, index: Any, pointer: Any, stride: Any) -> Any:
    return T.metal.simdgroup_load(
        fragment,
        index=index,
        ptr=pointer,
        stride=stride,
        col=_SIZE,
        row=_SIZE,
        transpose_matrix=True,
    )


def _multiply(sums: Any, at: Any, *factors: Any) -> Any:
    return T.metal.simdgroup_multiply_accumulate(sums, at, *factors, sums, at)


def _store(fragment: Any, index: Any, pointer: Any, stride: Any) -> Any:
    return T.metal.simdgroup_store(
        fragment,
        index=index,
        ptr=pointer,
        stride=stride,
        col=_SIZE,
        row=_SIZE,
        transpose_matrix=False,
    )


UNITS = MatrixUnits(
    name="simdgroup",
    size=_SIZE,
    a_scope="metal.simdgroup",
    b_scope="metal.simdgroup",
    sum_scope="metal.simdgroup",
    shared_scope="shared",
    spelling=Spelling(_fill, _load_a, _load_b, _multiply, _store),
)

TILE = Tile(warps=(2, 2), fragments=(2, 4), steps=4)
"""32 x 64 results of a work-group: 128 threads, 16 KB of shared memory."""

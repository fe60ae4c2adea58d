"""Tensor cores of NVIDIA GPUs through ``nvcuda::wmma``: fragments of 16 x 16."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgec.scheduling.intrinsics.fragments import MatrixUnits, Spelling, Tile

_SHAPE = (16, 16, 16)


def _fill(sums: Any, index: Any) -> Any:
    return T.tvm_fill_fragment(sums, *_SHAPE, index, T.float32(0))


def _load_a(fragment: Any, index: Any, pointer: Any, stride: Any) -> Any:
    return T.tvm_load_matrix_sync(fragment, *_SHAPE, index, pointer, stride, "row_major")


def _load_b(fragment: Any, index: Any, pointer: Any, stride: Any) -> Any:
    return T.tvm_load_matrix_sync(fragment, *_SHAPE, index, pointer, stride, "col_major")


def _multiply(sums: Any, at: Any, *factors: Any) -> Any:
    return T.tvm_mma_sync(sums, at, *factors, sums, at)


def _store(fragment: Any, index: Any, pointer: Any, stride: Any) -> Any:
    return T.tvm_store_matrix_sync(fragment, *_SHAPE, index, pointer, stride, "row_major")


UNITS = MatrixUnits(
    name="wmma",
    size=16,
    a_scope="wmma.matrix_a",
    b_scope="wmma.matrix_b",
    sum_scope="wmma.accumulator",
    shared_scope="shared.dyn",
    spelling=Spelling(_fill, _load_a, _load_b, _multiply, _store),
)

TILE = Tile(warps=(2, 4), fragments=(2, 2), steps=2)
"""64 x 128 results of a work-group: 256 threads, 44 KB of shared memory."""

"""Rows of a KV cache on CPUs and queries as the runtime counts them, written with NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgec.scheduling.kernels.cpu_attention_blocks import Attention


def rounded(shape: Attention, values: np.ndarray) -> np.ndarray:
    """``(..., head_dim)`` as the cache holds it, in float32 or as it is."""
    if shape.format.stored == "int8":
        codes, scale = _codes(values)
        return codes * scale
    return values.astype(shape.format.stored)


def held(shape: Attention, values: np.ndarray) -> np.ndarray:
    """``(..., head_dim)`` to rows of the cache, ``(..., row)``; NaN to bytes that are NaN as numbers."""
    fmt = shape.format
    if fmt.stored != "int8":
        return np.ascontiguousarray(values.astype(fmt.stored)).view(fmt.dtype)
    codes, scale = _codes(np.nan_to_num(values))
    parts = [codes.astype(np.int8), np.ascontiguousarray(scale.astype(np.float32)).view(np.int8)]
    both = np.concatenate(parts, axis=-1)
    both[np.isnan(values).any(axis=-1)] = -1
    return np.ascontiguousarray(both).view(fmt.dtype)


def unheld(shape: Attention, rows: np.ndarray) -> np.ndarray:
    """Rows of the cache to float32 ``(..., head_dim)``."""
    fmt = shape.format
    if fmt.stored != "int8":
        return np.ascontiguousarray(rows).view(fmt.stored).astype(np.float32)
    both = np.ascontiguousarray(rows).view(np.int8)
    scale = np.ascontiguousarray(both[..., fmt.head_dim :]).view(np.float32)
    return both[..., : fmt.head_dim].astype(np.float32) * scale


def queries(
    shape: Attention,
    q: np.ndarray,
    own: tuple[np.ndarray, np.ndarray] | None = None,
    note: np.ndarray | None = None,
) -> np.ndarray:
    """``(rows, heads, head_dim)`` as the runtime passes it: ``(rows, heads, head_dim)`` of its own.

    Args:
        shape: the attention.
        q: rotated queries.
        own: the tokens' own keys and values, ``(rows, kv_heads, head_dim)``; None: NaN.
        note: int32 ``(rows,)``; None: 0.
    """
    fmt, rows = shape.format, len(q)
    flat = np.full((rows, fmt.query_width), np.nan, fmt.dtype)
    flat[:, : fmt.queries] = q.reshape(rows, -1)
    place = fmt.queries
    for which in (0, 1):
        count = fmt.kv_heads * fmt.row
        if own is not None:
            flat[:, place : place + count] = held(shape, own[which]).reshape(rows, -1)
        place += count
    words = np.zeros((rows, 1), np.int32) if note is None else note.reshape(rows, 1)
    words = np.ascontiguousarray(words.astype(np.int32)).view(fmt.dtype)
    flat[:, place : place + words.shape[1]] = words
    return flat.reshape(rows, *fmt.sizes)


def notes(shape: Attention, q: np.ndarray) -> np.ndarray:
    """The notes beside queries."""
    fmt = shape.format
    count = 4 // np.dtype(fmt.dtype).itemsize
    first = fmt.queries + 2 * fmt.kv_heads * fmt.row
    words = np.ascontiguousarray(q.reshape(len(q), -1)[:, first : first + count])
    return words.view(np.int32)[:, 0]


def room(shape: Attention, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for results and log-sum-exps, full of NaN."""
    heads, row = shape.format.sizes
    return (
        np.full((rows, heads, row), np.nan, shape.dtype),
        np.full((rows, heads), np.nan, np.float32),
    )


def results(shape: Attention, out: np.ndarray, lse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Results ``(rows, heads, head_dim)`` and log-sum-exps ``(rows, heads)`` of what a kernel wrote."""
    rows, fmt = len(out), shape.format
    own = out.reshape(rows, -1)[:, : fmt.queries]
    return own.reshape(rows, fmt.heads, fmt.head_dim), lse[:, : fmt.heads]


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes and the float32 scale of each row, after the definition."""
    top = np.abs(values.astype(np.float32)).max(axis=-1, keepdims=True)
    scale = top * np.float32(1 / 127)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(top > 0, np.float32(127) / top, 0).astype(np.float32)
    return np.rint(values.astype(np.float32) * inverse).astype(np.float32), scale

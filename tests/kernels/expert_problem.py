"""Layers of experts, their arguments and what they should give, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgec.scheduling.kernels.experts import Experts
from edgec.scheduling.kernels.linear import Linear
from kernels.test_gpu_linear import F16, F32, inputs, tolerance

Array = npt.NDArray[Any]

# Sizes that no tile divides, plain and quantized, rows shared by slots and not.
LAYERS = [
    Experts(Linear(70, 96, F16, F16, "uint32", 4, 32, F16), experts=6, share=2),
    Experts(Linear(40, 64, F32, F32, "uint32", 4, 32, F32), experts=5, share=1),
    Experts(Linear(36, 64, F32, F32, "uint32", 8, 32, F32), experts=8, share=3),
    Experts(Linear(33, 100, F32, F32, F32), experts=4, share=2),
    Experts(Linear(64, 72, F16, F32, F16), experts=70, share=1),
    Experts(Linear(40, 320, F32, F32, "uint32", 4, 32, F32, zeros=True), experts=5, share=2),
]


@dataclass(frozen=True)
class Problem:
    """A layer's arguments.

    Attributes:
        layer: what is computed.
        x: activations ``(r, k)``.
        weights: of all experts, as they are stored.
        ids: the expert of each slot.
        expected: float64 ``(s, n)``.
        tolerance: largest error of an output.
    """

    layer: Experts
    x: Array
    weights: list[Array]
    ids: Array
    expected: Array
    tolerance: float


def problem(layer: Experts, rows: int, *, distinct: bool = True) -> Problem:
    """Random arguments for some rows of activations.

    Args:
        layer: what is computed.
        rows: of the activations.
        distinct: whether experts are chosen evenly; otherwise some are never.
    """
    random = np.random.default_rng(rows)
    (x, *weights), wide_x, wide_w = inputs(layer.all, rows)
    most = layer.experts if distinct else max(1, layer.experts // 3)
    ids = random.integers(0, most, rows * layer.share).astype(np.int32)
    every = wide_w.reshape(layer.experts, layer.linear.n, layer.linear.k)
    expected = np.stack([wide_x[s // layer.share] @ every[e].T for s, e in enumerate(ids)])
    limit = tolerance(layer.linear, wide_x, wide_w)
    return Problem(layer, x, weights, ids, expected, limit)


def order_of(ids: Array, experts: int) -> tuple[Array, Array]:
    """The slots in the order of their experts, and where each expert's begin."""
    order = np.argsort(ids, kind="stable").astype(np.int32)
    counts = np.bincount(ids, minlength=experts)
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def tiles_of(offsets: Array, rows: int, count: int) -> Array:
    """The parts of the order that work-groups take."""
    found = [
        (expert, first, min(first + rows, int(offsets[expert + 1])))
        for expert in range(len(offsets) - 1)
        for first in range(int(offsets[expert]), int(offsets[expert + 1]), rows)
    ]
    return np.array(found + [(0, 0, 0)] * (count - len(found)), np.int32)


def best_of(logits: Array, chosen: int, *, normalized: bool) -> tuple[Array, Array]:
    """Weights in float64 and ids of the largest logits, the lower index first where equal."""
    ids = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, :chosen]
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    best = np.take_along_axis(powers, ids, axis=1)
    total = (best if normalized else powers).sum(axis=1, keepdims=True)
    return best / total, ids.astype(np.int32)


def logits_with_ties(rows: int, experts: int) -> Array:
    """Random logits, of which many are equal."""
    random = np.random.default_rng(experts)
    return (random.integers(-6, 7, (rows, experts)) / 2).astype(np.float32)

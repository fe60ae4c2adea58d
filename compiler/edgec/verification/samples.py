"""Inputs to try a generic model on: sizes and numbers drawn from a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgec.artifacts.interface import ModelInterface, TensorInterface

    Arrays = dict[str, npt.NDArray[Any]]

# Sizes that are no multiples of a kernel's tiles, and a call in which nothing is together.
_FIRST, _REST = 3, (11, 13, 17)
_LARGEST = 64
_SEED = 0


def sample_inputs(
    interface: ModelInterface, ranges: Mapping[str, Sequence[float]], count: int
) -> list[Arrays]:
    """Inputs of several calls; the same each time.

    The first call has small odd sizes (3, 11, ...), the second size 1 wherever a size varies, the
    others sizes up to 64.

    Args:
        interface: of the model.
        ranges: the lowest number and the one that isn't reached, by the name of the input. An
            integer mask needs none: each row is ones and then zeros, and begins with a one.
        count: how many calls; one if no size varies.
    """
    if not interface.bounds:
        count = 1
    return [_sample(interface, ranges, index) for index in range(count)]


def _sample(interface: ModelInterface, ranges: Mapping[str, Sequence[float]], index: int) -> Arrays:
    generator = np.random.default_rng((_SEED, index))
    sizes = _sizes(interface.bounds, index, generator)
    return {
        item.name: _numbers(
            item,
            tuple(size if isinstance(size, int) else sizes[size] for size in item.shape),
            ranges.get(item.name),
            generator,
        )
        for item in interface.inputs
    }


def _sizes(bounds: Mapping[str, int], index: int, generator: np.random.Generator) -> dict[str, int]:
    sizes = {}
    for place, (name, bound) in enumerate(bounds.items()):
        if index == 0:
            wanted = _FIRST if place == 0 else _REST[(place - 1) % len(_REST)]
        elif index == 1:
            wanted = 1
        else:
            wanted = int(generator.integers(1, _LARGEST + 1))
        sizes[name] = min(wanted, bound)
    return sizes


def _numbers(
    item: TensorInterface,
    shape: tuple[int, ...],
    bounds: Sequence[float] | None,
    generator: np.random.Generator,
) -> npt.NDArray[Any]:
    dtype = np.dtype(item.dtype)
    if dtype.kind == "f":
        low, high = bounds or (-1.0, 1.0)
        return generator.uniform(low, high, shape).astype(dtype)
    if item.name.endswith("mask") and len(shape) == 2:
        lengths = generator.integers(1, shape[1] + 1, (shape[0], 1))
        return (np.arange(shape[1]) < lengths).astype(dtype)
    low, high = bounds or (0, 2)
    return generator.integers(int(low), int(high), shape).astype(dtype)

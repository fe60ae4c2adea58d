"""What a user says of a model's inputs, checked against what the model says itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.importers.imported import Signature, TensorType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def declared_signature(
    own: Signature, declared: Sequence[TensorType], bounds: Mapping[str, int]
) -> Signature:
    """The model's own signature with the declared shapes in place of its own.

    Args:
        own: what the model says; a size that only a user can say is an empty text.
        declared: what the user says, by name; inputs that aren't named keep the model's own.
        bounds: the largest size of each dimension that varies, which replace the model's own.

    Raises:
        UsageError: an input that the model hasn't, another number of dimensions, another type, a
            dimension that varies without a largest size.
    """
    known = {item.name: item for item in own.inputs}
    for item in declared:
        if item.name not in known:
            raise UsageError(
                "the model has no input of this name",
                where=f"inputs.{item.name}",
                remedy=f"its inputs are {', '.join(known)}",
            )
        _check(item, known[item.name])
        known[item.name] = TensorType(item.name, item.shape, known[item.name].dtype)
    return bounded(tuple(known.values()), {**own.bounds, **bounds})


def bounded(inputs: tuple[TensorType, ...], bounds: Mapping[str, int]) -> Signature:
    """A signature whose varying sizes all have a bound; those of at most 1 are fixed.

    Raises:
        UsageError: a size without a name or a bound, or a bound below 1.
    """
    used: dict[str, int] = {}
    shapes = []
    for item in inputs:
        sizes: list[int | str] = []
        for axis, size in enumerate(item.shape):
            if isinstance(size, int):
                sizes.append(size)
                continue
            if size not in bounds:
                what = f"the largest {size!r} is not given" if size else f"size {axis} is not given"
                raise UsageError(
                    what,
                    where=f"inputs.{item.name}",
                    remedy="give each size as a number, or as a name with its maximum",
                )
            if bounds[size] < 1:
                raise UsageError("the maximum is below 1", where=f"inputs.{item.name}.{size}")
            if bounds[size] > 1:
                used[size] = bounds[size]
            sizes.append(size if bounds[size] > 1 else 1)
        shapes.append(TensorType(item.name, tuple(sizes), item.dtype))
    return Signature(tuple(shapes), used)


def _check(item: TensorType, own: TensorType) -> None:
    where = f"inputs.{item.name}"
    if len(item.shape) != len(own.shape):
        raise UsageError(
            f"{len(item.shape)} sizes are declared, the model has {len(own.shape)}", where=where
        )
    if item.dtype and item.dtype != own.dtype:
        raise UsageError(
            f"type {item.dtype} is declared, the model takes {own.dtype}",
            where=where,
            remedy="leave the type out",
        )


def example_sizes(bounds: Mapping[str, int]) -> dict[str, int]:
    """A size to trace with for each dimension that varies: different ones, none at a limit.

    A trace takes 1 for fixed, and a size that equals another one, or the length of a table, for the
    same.
    """
    sizes: dict[str, int] = {}
    for index, (name, bound) in enumerate(bounds.items()):
        size = max(2, bound // 2 + 1 + index)
        while size > 2 and (size >= bound or size in sizes.values()):
            size -= 1
        sizes[name] = min(size, bound)
    return sizes

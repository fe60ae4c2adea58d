"""Tables that are larger than a device's largest buffer, stored as several tensors.

The embedding and the head of a model with a large vocabulary can exceed what a device binds as one
buffer, where no other matrix does. Such a table is cut between rows: ``lm_head.q_weight`` becomes
``lm_head.0.q_weight``, ``lm_head.1.q_weight`` and so on, and its scales with it. Runtimes find
weights by the names in the library's metadata, so they need not know of it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from edgec.layouts.specs import nbytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgec.layouts.specs import TensorSpec
    from edgec.models.parameters import Parameter

LIMIT = "max_allocation_bytes"
"""The limit of a target's profile beyond which tables are cut."""
MOST_PARTS = 4
"""A lookup binds the codes and scales of each part, the ids and its result, and the least that
devices bind in browsers is ten buffers."""
_ROLES = ("embedding", "head")
# Kernels of linear layers compute so many rows together; parts of whole ones have no remainder.
_TOGETHER = 64


def table_parts(
    specs: Iterable[TensorSpec], parameters: Sequence[Parameter], limits: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The tables that have to be cut.

    Args:
        specs: the stored tensors of the model, whole.
        parameters: of the model.
        limits: of the target's profile; without ``max_allocation_bytes`` nothing is cut.

    Returns:
        The rows of each part by the parameter's name. A table that would need more than
        ``MOST_PARTS`` isn't among them: whoever checks buffers against the limit refuses it.
    """
    most = limits.get(LIMIT)
    if most is None:
        return {}
    roles = {parameter.name: parameter.role for parameter in parameters}
    counts = {parameter.name: parameter.shape[0] for parameter in parameters}
    widest: dict[str, TensorSpec] = {}
    for spec in specs:
        if roles[spec.parameter] in _ROLES:
            known = widest.setdefault(spec.parameter, spec)
            if nbytes(spec) > nbytes(known):
                widest[spec.parameter] = spec
    found = {
        name: _rows(spec, counts[name], most)
        for name, spec in widest.items()
        if nbytes(spec) > most
    }
    return {name: rows for name, rows in found.items() if 1 < len(rows) <= MOST_PARTS}


def split_tables(
    specs: Iterable[TensorSpec], parts: Mapping[str, tuple[int, ...]]
) -> list[TensorSpec]:
    """The stored tensors with some tables in parts.

    Args:
        specs: the stored tensors of the model, whole.
        parts: what :func:`table_parts` gave.

    Returns:
        The parts of each tensor stand in its place, in the order of their rows.
    """
    stored = []
    for spec in specs:
        rows = parts.get(spec.parameter, ())
        if not rows:
            stored.append(spec)
        firsts = accumulate(rows, initial=0)
        stored += [
            replace(
                spec,
                name=part_name(spec.name, index),
                shape=(math.ceil(count / spec.tile), *spec.shape[1:]),
                first_row=first,
            )
            for index, (first, count) in enumerate(zip(firsts, rows, strict=False))
        ]
    return stored


def part_name(name: str, index: int) -> str:
    """The name of a tensor's part: ``lm_head.q_weight`` to ``lm_head.1.q_weight``."""
    module, _, attribute = name.rpartition(".")
    return f"{module}.{index}.{attribute}"


def _rows(spec: TensorSpec, rows: int, most: int) -> tuple[int, ...]:
    """Rows of equal parts as few as can be, the last one perhaps with less; all in one if none fit.

    Parts consist of whole tiles of the layout.

    Args:
        spec: the whole tensor.
        rows: of the parameter.
        most: bytes of a part.
    """
    stored = spec.shape[0]
    fitting = most * stored // nbytes(spec)
    if fitting == 0:
        return (rows,)
    each = math.ceil(stored / math.ceil(stored / fitting))
    together = max(1, _TOGETHER // spec.tile)
    rounded = math.ceil(each / together) * together
    each = spec.tile * (rounded if rounded <= fitting else each)
    whole, rest = divmod(rows, each)
    return (each,) * whole + ((rest,) if rest else ())

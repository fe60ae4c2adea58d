"""The tensors of a GGUF file by the names that Hugging Face's checkpoints give them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.checkpoints.gguf.orders import Halves, InOrder, Parts
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.checkpoints.gguf.architectures import Architecture
    from edgec.checkpoints.gguf.header import Entry
    from edgec.checkpoints.gguf.orders import Order

# Tensors that follow from the config: the factors of rotary embeddings.
DERIVED = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})

_IN_LAYER = re.compile(r"blk\.(0|[1-9]\d{0,4})\.([a-z_]+)\.(weight|bias)")
_OUTSIDE = re.compile(r"([a-z_]+)\.(weight|bias)")
_EXPERT_AXES = 3
_MOST_EXPERTS = 1 << 12


@dataclass(frozen=True)
class Heads:
    """How many heads the model's attention has."""

    queries: int
    keys: int


@dataclass(frozen=True)
class Stored:
    """One tensor of the model in the file.

    Attributes:
        name: in the file.
        shape: of the model's tensor.
        nbytes: of the model's tensor as it is stored.
        order: of its rows in the file.
        raised: whether 1 was added to every element.
    """

    name: str
    shape: tuple[int, ...]
    nbytes: int
    order: Order
    raised: bool = False


def map_names(
    tensors: Mapping[str, Entry], architecture: Architecture, heads: Heads, where: str
) -> dict[str, Stored]:
    """Which tensor is which.

    Args:
        tensors: of the file.
        architecture: of the file.
        heads: of the model.
        where: the file's name for error messages.

    Returns:
        The stored tensors by their Hugging Face names. A tensor of unknown use keeps its name, so
        that the check against the model names it.

    Raises:
        CheckpointError: heads don't divide the rows of a tensor, or experts have no axis.
    """
    found: dict[str, Stored] = {}
    for name, entry in tensors.items():
        if name in DERIVED:
            continue
        target, module = _target(name, architecture)
        nbytes = entry.end - entry.begin
        if module in architecture.experts:
            found |= _experts(name, target, entry, where)
            continue
        order = _order(module, architecture, heads)
        if not order.divides(entry.shape[0]):
            count = heads.keys if module == "attn_k" else heads.queries
            raise CheckpointError(
                f"tensor {name}: {entry.shape[0]:,} rows don't divide into {count} heads",
                where=where,
                remedy="the file contradicts itself, convert the model again",
            )
        raised = architecture.raised_norms and target.endswith("norm.weight")
        found[target] = Stored(name, entry.shape, nbytes, order, raised)
    return found


def _order(module: str, architecture: Architecture, heads: Heads) -> Order:
    if architecture.permuted and module == "attn_q":
        return Halves(heads.queries)
    if architecture.permuted and module == "attn_k":
        return Halves(heads.keys)
    if architecture.parts and module == "attn_qkv":
        return Parts(heads.queries)
    return InOrder()


def _experts(name: str, target: str, entry: Entry, where: str) -> dict[str, Stored]:
    """The matrices of all experts, which the file has as one tensor."""
    if len(entry.shape) != _EXPERT_AXES or entry.shape[0] > _MOST_EXPERTS:
        raise CheckpointError(
            f"tensor {name}: its shape {list(entry.shape)} is not that of experts' matrices",
            where=where,
            remedy="the file contradicts itself, convert the model again",
        )
    count, rows, columns = entry.shape
    nbytes = (entry.end - entry.begin) // count
    return {
        target.format(expert): Stored(name, (rows, columns), nbytes, InOrder(expert * rows))
        for expert in range(count)
    }


def _target(name: str, architecture: Architecture) -> tuple[str, str]:
    """The name of the model's tensor, and that of its module in the file."""
    inner = _IN_LAYER.fullmatch(name)
    if inner:
        layer, module, kind = inner.groups()
        known = architecture.layer.get(module) or architecture.experts.get(module)
        if known is not None:
            return f"{architecture.layers}.{layer}.{known}.{kind}", module
    outer = _OUTSIDE.fullmatch(name)
    if outer and outer[1] in architecture.outer:
        return f"{architecture.outer[outer[1]]}.{outer[2]}", outer[1]
    return name, ""

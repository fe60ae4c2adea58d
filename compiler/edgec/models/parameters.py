"""What a family says about its weights: each parameter and the checkpoint tensors it is made of.

Plain data without TVM, so that checkpoints can be checked, quantized and packed without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Role = Literal["linear", "embedding", "head", "norm", "bias", "router", "plain"]


@dataclass(frozen=True)
class Source:
    """One tensor as the checkpoint holds it.

    Attributes:
        name: such as ``"model.layers.0.self_attn.q_proj.weight"``.
        shape: the shape it must have there; ``(out, in)`` for matrices.
        interleaved: how many groups its rows come in, and of how many blocks each group consists.
            A parameter has the first blocks of all groups, then all second ones, and so on: with
            ``(heads, 3)`` and each head's query, key and value together, first all queries.
        offset: what the parameter has more than the checkpoint: 1 for norms that multiply by
            ``1 + weight``.
    """

    name: str
    shape: tuple[int, ...]
    interleaved: tuple[int, int] = (1, 1)
    offset: float = 0.0

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Where the checkpoint has the rows ``[start, stop)`` of the parameter's order.

        Yields:
            First row in the checkpoint and number of rows of each run that is contiguous there.
        """
        groups, blocks = self.interleaved
        if groups == 1 or blocks == 1:
            yield start, stop - start
            return
        size = self.shape[0] // (groups * blocks)
        assert size * groups * blocks == self.shape[0], self.name
        while start < stop:
            index, within = divmod(start, size)
            block, group = divmod(index, groups)
            count = min(size - within, stop - start)
            yield (group * blocks + block) * size + within, count
            start += count


@dataclass(frozen=True)
class Parameter:
    """One parameter of the compiled model.

    Attributes:
        name: such as ``"model.layers.0.self_attn.qkv_proj.weight"``.
        shape: ``(out, in)`` for matrices, ``(size,)`` for norms and biases.
        role: what it is used for; linear, embedding and head are the ones that get quantized. What is
            ``plain`` is a matrix or a kernel of a convolution that no group of codes fits.
        sources: the checkpoint tensors whose concatenation along axis 0 it is,
            each with its rows in the order of :meth:`Source.runs`.
        decode_rows: how many of its rows a decoding step of one sequence reads; None: all.
        matrices: how many matrices of equal size lie one after the other in it, as experts do.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    sources: tuple[Source, ...]
    decode_rows: int | None = None
    matrices: int = 1

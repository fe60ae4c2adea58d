"""Matrices: weights that may be quantized, and what reads them.

A block that holds weights also says which checkpoint tensors they come from, so that a family
states its structure once. Weights start plain; ``set_scheme`` turns a matrix into its logical
quantized form: ``codes`` (int4 or int8, shape ``(out, in)``), ``scales`` (``(out, groups)``) and, where
there are zero points, ``zeros`` (of the codes' type, ``(out, groups)``), and the matmul or lookup that
reads it into one call of ``edgec.quantized_matmul`` or ``edgec.quantized_take``. The lowering of each target gives these a layout and a kernel; no
block knows a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.parameters import Parameter, Role, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgec.quantization.schemes import TensorScheme

QUANTIZED_MATMUL = "edgec.quantized_matmul"
QUANTIZED_TAKE = "edgec.quantized_take"


@dataclass(frozen=True)
class Piece:
    """A checkpoint tensor that fills some rows of a fused matrix.

    Attributes:
        name: last component of its module's name in the checkpoint, such as ``"q_proj"``.
        rows: how many output features it has.
        interleaved: as in :class:`edgec.models.parameters.Source`.
    """

    name: str
    rows: int
    interleaved: tuple[int, int] = (1, 1)


class Matrix(nn.Module):  # type: ignore[misc]
    """A weight of shape ``(rows, columns)``, plain or quantized, with an optional bias.

    Args:
        rows: output features, or the vocabulary.
        columns: input features.
        role: what the quantization plan may do with it.
        pieces: checkpoint tensors it is concatenated from; by default one that bears its name.
        bias: whether a bias of shape ``(rows,)`` is added.
        dtype: of the plain weight, the scales and the bias.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        role: Role,
        pieces: Sequence[Piece] = (),
        bias: bool = False,
        dtype: str,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.role: Role = role
        self.pieces = tuple(pieces)
        self.dtype = dtype
        self.weight: nn.Parameter | None = nn.Parameter((rows, columns), dtype)
        self.codes: nn.Parameter | None = None
        self.scales: nn.Parameter | None = None
        self.zeros: nn.Parameter | None = None
        self.bias = nn.Parameter((rows,), dtype) if bias else None

    def set_scheme(self, scheme: TensorScheme) -> None:
        """Replace the plain weight by codes, scales and perhaps zero points."""
        groups = (self.rows, self.columns // scheme.group_size)
        self.weight = None
        self.codes = nn.Parameter((self.rows, self.columns), f"int{scheme.bits}")
        self.scales = nn.Parameter(groups, scheme.scale_dtype)
        self.zeros = nn.Parameter(groups, f"int{scheme.bits}") if scheme.zeros else None

    def stored(self) -> list[nn.Parameter]:
        """What a matmul or a lookup reads: the plain weight, or codes, scales and zero points."""
        parts = (self.weight, self.codes, self.scales, self.zeros)
        return [part for part in parts if part is not None]

    def sources(self, path: str) -> Iterator[Parameter]:
        """The parameters of this block when it stands at ``path`` in the model."""
        parent, _, own = path.rpartition(".")
        pieces = self.pieces or (Piece(own, self.rows),)
        prefix = f"{parent}." if parent else ""

        def named(suffix: str, *shape: int) -> tuple[Source, ...]:
            return tuple(
                Source(f"{prefix}{piece.name}.{suffix}", (piece.rows, *shape), piece.interleaved)
                for piece in pieces
            )

        yield Parameter(
            f"{path}.weight",
            (self.rows, self.columns),
            self.role,
            named("weight", self.columns),
        )
        if self.bias is not None:
            yield Parameter(f"{path}.bias", (self.rows,), "bias", named("bias"))

    def matmul(self, x: Tensor, out_dtype: str | None = None) -> Tensor:
        """``x @ weight.T + bias``: ``(..., columns)`` to ``(..., rows)``, in ``out_dtype``."""
        if self.weight is not None:
            y = op.matmul(x, op.permute_dims(self.weight), out_dtype=out_dtype)
        else:
            y = op.extern(
                QUANTIZED_MATMUL,
                [x, *self.stored()],
                Tensor.placeholder([*x.shape[:-1], self.rows], out_dtype or x.dtype),
            )
        if self.bias is None:
            return y
        return y + (self.bias if self.dtype == y.dtype else op.astype(self.bias, y.dtype))

    def take(self, ids: Tensor) -> Tensor:
        """Rows ``ids``: ``(n,)`` int32 to ``(n, columns)``."""
        if self.weight is not None:
            return op.take(self.weight, ids, axis=0)
        return op.extern(
            QUANTIZED_TAKE,
            [ids, *self.stored()],
            Tensor.placeholder([*ids.shape, self.columns], self.dtype),
        )


class Linear(Matrix):
    """``(..., in)`` to ``(..., out)``."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        pieces: Sequence[Piece] = (),
        bias: bool = False,
        role: Role = "linear",
        dtype: str,
    ) -> None:
        super().__init__(
            out_features, in_features, role=role, pieces=pieces, bias=bias, dtype=dtype
        )

    def forward(self, x: Tensor, out_dtype: str | None = None) -> Tensor:
        """See :meth:`Matrix.matmul`."""
        return self.matmul(x, out_dtype)


class Embedding(Matrix):
    """Token ids ``(n,)`` to hidden states ``(n, hidden)``; ``matmul`` is a tied head."""

    def __init__(self, vocab_size: int, hidden_size: int, *, dtype: str) -> None:
        super().__init__(vocab_size, hidden_size, role="embedding", dtype=dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """See :meth:`Matrix.take`."""
        return self.take(ids)

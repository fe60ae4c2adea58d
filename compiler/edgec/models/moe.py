"""A mixture of experts in place of an MLP: each token goes through a few of many.

Sparsely gated experts, https://arxiv.org/abs/1701.06538, with the router of
https://arxiv.org/abs/2401.04088: the softmax over the logits of the chosen experts weighs them.

All experts' matrices lie one after the other in one matrix of ``experts * rows`` rows, so that
quantization, layouts and weight files need to know nothing of experts. What reads them is one call
with the experts of every token; no block knows how a target groups tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tvm import relax
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op
from tvm.relax.frontend.nn.core import wrap_nested

from edgec.models.matrix import Matrix, Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgec.models.parameters import Parameter

CHOOSE_EXPERTS = "edgec.choose_experts"
"""Logits float32 ``(tokens, experts)`` and whether weights are normalized, to weights float32 and ids
int32 ``(tokens, chosen)``: the largest first, the lower id first where two are equal."""
EXPERT_MATMUL = "edgec.expert_matmul"
"""Activations ``(tokens, k)`` or ``(tokens, chosen, k)``, ids ``(tokens, chosen)`` and a plain weight
``(experts * n, k)`` to ``(tokens, chosen, n)``."""
QUANTIZED_EXPERT_MATMUL = "edgec.quantized_expert_matmul"
"""The same with codes, scales and, if there are some, zero points."""


class Router(Matrix):
    """Hidden states to the experts of every token.

    Its few weights decide for all others, so they are never quantized, and logits are float32.

    Args:
        hidden: size of the hidden states.
        experts: how many there are.
        chosen: how many of them a token goes through.
        normalized: whether the weights of the chosen ones are made to add up to one.
        dtype: of the weight.
    """

    def __init__(
        self, hidden: int, experts: int, chosen: int, *, normalized: bool, dtype: str
    ) -> None:
        super().__init__(experts, hidden, role="router", dtype=dtype)
        self.chosen = chosen
        self.normalized = normalized

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(tokens, hidden)`` to weights float32 and ids int32 ``(tokens, chosen)``."""
        logits = self.matmul(x, "float32")
        shape = (x.shape[0], self.chosen)
        # ``op.extern`` knows calls with one result only.
        call = relax.call_dps_packed(
            CHOOSE_EXPERTS,
            [logits._expr, relax.prim_value(int(self.normalized))],  # noqa: SLF001
            out_ty=[relax.TensorType(shape, dtype) for dtype in ("float32", "int32")],
        )
        weights, ids = wrap_nested(call, "experts")
        return weights, ids


class ExpertMatrix(Matrix):
    """A matrix ``(rows, columns)`` of each expert, as one of ``experts * rows`` rows.

    Args:
        columns: input features.
        experts: how many there are.
        chosen: how many of them a token goes through.
        pieces: names of the tensors that each expert's matrix is concatenated from, and their rows.
        dtype: of the plain weights and the scales.
    """

    def __init__(
        self, columns: int, experts: int, chosen: int, *, pieces: Sequence[Piece], dtype: str
    ) -> None:
        self.outputs = sum(piece.rows for piece in pieces)
        self.chosen = chosen
        self.experts = experts
        super().__init__(
            experts * self.outputs,
            columns,
            role="linear",
            pieces=[
                replace(piece, name=f"{expert}.{piece.name}")
                for expert in range(experts)
                for piece in pieces
            ],
            dtype=dtype,
        )

    def sources(self, path: str) -> Iterator[Parameter]:
        """The one parameter of this block, of which a decoding step reads the chosen experts."""
        for parameter in super().sources(path):
            rows = self.chosen * self.outputs
            yield replace(parameter, decode_rows=rows, matrices=self.experts)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """``(tokens, columns)`` or ``(tokens, chosen, columns)`` to ``(tokens, chosen, rows)``."""
        name = QUANTIZED_EXPERT_MATMUL if self.weight is None else EXPERT_MATMUL
        shape = [*ids.shape, self.outputs]
        return op.extern(name, [x, ids, *self.stored()], Tensor.placeholder(shape, x.dtype))


class Experts(nn.Module):  # type: ignore[misc]
    """Gated MLPs side by side: ``down(silu(gate(x)) * up(x))`` of the experts of each token.

    Args:
        hidden: size of the hidden states.
        intermediate: outputs of each of an expert's gate and up.
        experts: how many there are.
        chosen: how many of them a token goes through.
        names: of gate, up and down in the checkpoint.
        dtype: of hidden states.
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        experts: int,
        chosen: int,
        *,
        names: tuple[str, str, str],
        dtype: str,
    ) -> None:
        gate, up, down = names
        self.gate_up_proj = ExpertMatrix(
            hidden,
            experts,
            chosen,
            pieces=(Piece(gate, intermediate), Piece(up, intermediate)),
            dtype=dtype,
        )
        self.down_proj = ExpertMatrix(
            intermediate, experts, chosen, pieces=(Piece(down, hidden),), dtype=dtype
        )

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """``(tokens, hidden)`` and ids ``(tokens, chosen)`` to ``(tokens, chosen, hidden)``."""
        gate, up = op.split(self.gate_up_proj(x, ids), 2, axis=-1)
        return self.down_proj(op.silu(gate) * up, ids)


class MixtureOfExperts(nn.Module):  # type: ignore[misc]
    """Router and experts.

    Args:
        hidden: size of the hidden states.
        intermediate: outputs of each of an expert's gate and up.
        experts: how many there are.
        chosen: how many of them a token goes through.
        normalized: whether the weights of the chosen ones are made to add up to one.
        names: of an expert's gate, up and down in the checkpoint.
        dtype: of hidden states.
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        experts: int,
        chosen: int,
        *,
        normalized: bool,
        names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
        dtype: str,
    ) -> None:
        self.gate = Router(hidden, experts, chosen, normalized=normalized, dtype=dtype)
        self.experts = Experts(hidden, intermediate, experts, chosen, names=names, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape."""
        batch, seq, hidden = x.shape
        tokens = op.reshape(x, (batch * seq, hidden))
        weights, ids = self.gate(tokens)
        return op.reshape(_mixed(self.experts(tokens, ids), weights), (batch, seq, hidden))


def _mixed(outputs: Tensor, weights: Tensor) -> Tensor:
    """``(tokens, chosen, hidden)`` and ``(tokens, chosen)`` to ``(tokens, hidden)``."""

    def compute(y: Any, w: Any) -> Any:
        from tvm import te  # noqa: PLC0415 - only when a model is built

        tokens, chosen, hidden = y.shape

        def value(token: Any, column: Any) -> Any:
            terms = [
                y[token, j, column].astype("float32") * w[token, j] for j in range(int(chosen))
            ]
            return sum(terms[1:], start=terms[0]).astype(outputs.dtype)

        return te.compute((tokens, hidden), value, name="mix_experts")

    return op.tensor_expr_op(compute, "mix_experts", [outputs, weights])

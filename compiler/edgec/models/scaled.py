"""A language model whose embedding, and what its head reads, are multiplied by constants.

Its logits may have a soft cap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.relax.frontend.nn import op

from edgec.models.causal_lm import CausalLM

if TYPE_CHECKING:
    from tvm.relax.frontend.nn import Tensor


class ScaledCausalLM(CausalLM):
    """A causal language model with a scaled embedding and head.

    Args:
        args: see :class:`CausalLM`.
        embed_scale: of the embedding.
        head_scale: of the hidden states before the head.
        logit_cap: what logits become at most: ``c * tanh(x / c)``; None: they stay as they are.
        options: see :class:`CausalLM`.
    """

    def __init__(
        self,
        *args: Any,
        embed_scale: float,
        head_scale: float = 1.0,
        logit_cap: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.embed_scale = embed_scale
        self.head_scale = head_scale
        self.logit_cap = logit_cap

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids ``(seq_len,)`` int32 to ``(seq_len, hidden)``."""
        return super().embed(input_ids) * self.embed_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """``(batch, seq, hidden)`` to float32 ``(batch, seq, vocab)``."""
        scaled = hidden if self.head_scale == 1.0 else hidden * self.head_scale
        logits = super().logits(scaled)
        return logits if self.logit_cap is None else _capped(logits, self.logit_cap)


def _capped(x: Tensor, cap: float) -> Tensor:
    """``cap * tanh(x / cap)`` in float32, as ``1 - 2 / (1 + exp(2 * x / cap))``.

    Some GPUs' own function gives no number for large values. From 40 on the result is the cap.
    """
    from tvm import te, tirx  # noqa: PLC0415 - only when a model is built

    def value(item: Any) -> Any:
        doubled = tirx.min(item * tirx.const(2 / cap, "float32"), tirx.const(40, "float32"))
        part = 1 - 2 / (1 + tirx.exp(doubled))
        return tirx.const(cap, "float32") * part

    def compute(logits: Any) -> Any:
        return te.compute(logits.shape, lambda *index: value(logits[index]), name="soft_cap")

    return op.tensor_expr_op(compute, "soft_cap", [x])

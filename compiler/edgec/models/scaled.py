"""A language model whose embedding, and what its head reads, are multiplied by constants.

Its logits may have a soft cap.
"""

from __future__ import annotations

from typing import Any

from tvm.relax.frontend.nn import Tensor, op

from edgec.models.causal_lm import CausalLM
from edgec.models.in_place import IN_PLACE


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
    """``cap * tanh(x / cap)`` in the place of ``x``, of which a long prefill has no room for a copy.

    It is ``1 - 2 / (1 + exp(2 * x / cap))``, from 40 on the cap: some GPUs' own function gives no number
    for large values.
    """
    from tvm import tirx  # noqa: PLC0415 - only when a model is built
    from tvm.script import tirx as T  # noqa: N812, PLC0415

    width = x.shape[-1]

    def value(item: Any) -> Any:
        doubled = tirx.min(item * tirx.const(2 / cap, "float32"), tirx.const(40, "float32"))
        part = 1 - 2 / (1 + tirx.exp(doubled))
        return tirx.const(cap, "float32") * part

    @T.prim_func(private=True, s_tir=True)  # type: ignore[untyped-decorator]
    def soft_cap(logits_handle: T.handle, capped_handle: T.handle) -> None:
        # Opaque to fusion, as only a kernel with one input can write over it.
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, IN_PLACE: True})
        batch, seq = T.int64(), T.int64()
        logits = T.match_buffer(logits_handle, (batch, seq, width), "float32")
        capped = T.match_buffer(capped_handle, (batch, seq, width), "float32")
        for i, j, k in T.grid(batch, seq, width):
            with T.sblock("soft_cap"):
                b, s, v = T.axis.remap("SSS", [i, j, k])
                capped[b, s, v] = value(logits[b, s, v])

    return op.tensor_ir_op(soft_cap, "soft_cap", [x], Tensor.placeholder(x.shape, "float32"))

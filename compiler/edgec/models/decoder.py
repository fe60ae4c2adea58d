"""Decoder layers and the stack of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.norms import Norm, RMSNorm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

    from edgec.models.matrix import Embedding


class DecoderLayer(nn.Module):  # type: ignore[misc]
    """Pre-norm attention and MLP, each with a residual connection.

    Args:
        self_attn: hidden states and the cache to hidden states.
        mlp: hidden states to hidden states.
        hidden: size of the hidden states.
        eps: of the norms.
        norm: what kind they are.
        branch_scale: of what attention and MLP add to the residual stream.
        dtype: of hidden states.
    """

    def __init__(
        self,
        self_attn: nn.Module,
        mlp: nn.Module,
        hidden: int,
        eps: float,
        *,
        norm: Norm = RMSNorm,
        branch_scale: float = 1.0,
        dtype: str,
    ) -> None:
        self.self_attn = self_attn
        self.mlp = mlp
        self.input_layernorm = norm(hidden, eps, dtype=dtype)
        self.post_attention_layernorm = norm(hidden, eps, dtype=dtype)
        self.branch_scale = branch_scale

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape."""
        x = x + self._scaled(self.self_attn(self.input_layernorm(x), cache))
        return x + self._scaled(self.mlp(self.post_attention_layernorm(x)))

    def _scaled(self, branch: Tensor) -> Tensor:
        return branch if self.branch_scale == 1.0 else branch * self.branch_scale


class ParallelLayer(nn.Module):  # type: ignore[misc]
    """Attention and MLP of the same hidden states, both added to them.

    Args:
        self_attn: hidden states and the cache to hidden states.
        mlp: hidden states to hidden states.
        hidden: size of the hidden states.
        eps: of the norms.
        norm: what kind they are.
        shared: whether attention and MLP read the output of one norm, or each of its own.
        dtype: of hidden states.
    """

    def __init__(
        self,
        self_attn: nn.Module,
        mlp: nn.Module,
        hidden: int,
        eps: float,
        *,
        norm: Norm,
        shared: bool,
        dtype: str,
    ) -> None:
        self.self_attn = self_attn
        self.mlp = mlp
        self.input_layernorm = norm(hidden, eps, dtype=dtype)
        self.post_attention_layernorm = None if shared else norm(hidden, eps, dtype=dtype)

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape."""
        normed = self.input_layernorm(x)
        other = (
            normed if self.post_attention_layernorm is None else self.post_attention_layernorm(x)
        )
        return x + self.self_attn(normed, cache) + self.mlp(other)


class SandwichLayer(nn.Module):  # type: ignore[misc]
    """Attention and MLP, each between two norms and with a residual connection around them.

    Args:
        self_attn: hidden states and the cache to hidden states.
        mlp: hidden states to hidden states.
        hidden: size of the hidden states.
        eps: of the norms.
        norm: what kind they are.
        dtype: of hidden states.
    """

    def __init__(
        self,
        self_attn: nn.Module,
        mlp: nn.Module,
        hidden: int,
        eps: float,
        *,
        norm: Norm,
        dtype: str,
    ) -> None:
        self.self_attn = self_attn
        self.mlp = mlp
        self.input_layernorm = norm(hidden, eps, dtype=dtype)
        self.post_attention_layernorm = norm(hidden, eps, dtype=dtype)
        self.pre_feedforward_layernorm = norm(hidden, eps, dtype=dtype)
        self.post_feedforward_layernorm = norm(hidden, eps, dtype=dtype)

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape."""
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), cache))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Decoder(nn.Module):  # type: ignore[misc]
    """Embedding, layers and final norm; named ``model`` in checkpoints."""

    def __init__(
        self,
        embed_tokens: Embedding,
        layers: Sequence[nn.Module],
        norm: nn.Module,
    ) -> None:
        self.embed_tokens = embed_tokens
        self.layers = nn.ModuleList(list(layers))
        self.norm = norm

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """Hidden states ``(batch, seq, hidden)`` before the head."""
        for layer in self.layers:
            x = layer(x, cache)
        return self.norm(x)


def last_position(x: Tensor) -> Tensor:
    """``(1, seq, hidden)`` to the last position's ``(1, 1, hidden)``."""
    hidden = x.shape[2]

    def compute(states: object) -> object:
        from tvm import te  # noqa: PLC0415 - only when a model is built

        return te.compute(
            (1, 1, hidden),
            lambda batch, _, column: states[batch, states.shape[1] - 1, column],  # type: ignore[index, attr-defined]
            name="last_position",
        )

    return op.tensor_expr_op(compute, "last_position", [x])

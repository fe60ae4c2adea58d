"""The functions of a decoder-only language model, under the names the MLC engines call.

A family supplies a ``Decoder`` and a head; what each function takes and returns is the same for
all of them. The KV cache's constructor, the logit processors and the metadata depend on the
target and are attached by ``edgec.passes``.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

from edgec.models.blocks import Decoder, Linear, Matrix, last_position

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgec.models.kv_cache import KVCacheSpec
    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import TensorScheme


class CausalLM(nn.Module):  # type: ignore[misc]
    """A decoder with a language-model head.

    Args:
        model: embedding, layers and final norm.
        lm_head: the head, or ``None`` when it is the embedding transposed.
        cache: shape of the KV cache.
        vocab_size: entries of the logits.
        hidden_size: of the hidden states.
        dtype: of hidden states; logits are always float32.
        names: what the checkpoint calls a component of a module's path, where that differs: with
            ``{"o_proj": "dense"}`` the tensors of every ``o_proj`` are those of ``dense``.
    """

    undecoded: tuple[str, ...] = ()
    """Beginnings of the paths of blocks that a decoding step doesn't read."""

    def __init__(
        self,
        model: Decoder,
        lm_head: Linear | None,
        cache: KVCacheSpec,
        *,
        vocab_size: int,
        hidden_size: int,
        dtype: str,
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.model = model
        self.lm_head = lm_head
        self.cache_spec = cache
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.dtype = dtype
        self.names = names

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids ``(seq_len,)`` int32 to ``(seq_len, hidden)``."""
        return self.model.embed_tokens(input_ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """``(batch, seq, hidden)`` to float32 ``(batch, seq, vocab)``."""
        if self.lm_head is None:
            return self.model.embed_tokens.matmul(hidden, "float32")
        return self.lm_head(hidden, "float32")

    def prefill(self, input_embed: Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """One sequence's chunk ``(1, seq_len, hidden)`` to logits of its last position."""
        hidden = self.model(input_embed, paged_kv_cache)
        return self.logits(last_position(hidden)), paged_kv_cache

    def decode(self, input_embed: Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """One token ``(1, 1, hidden)`` to logits ``(1, 1, vocab)``."""
        return self.logits(self.model(input_embed, paged_kv_cache)), paged_kv_cache

    def batch_prefill(
        self, input_embeds: Tensor, logit_positions: Tensor, paged_kv_cache: PagedKVCache
    ) -> Any:
        """Several sequences end to end ``(1, seq_len, hidden)`` to ``(1, batch, vocab)``.

        ``logit_positions`` ``(batch,)`` int32 are the last positions of the sequences.
        """
        hidden = self.model(input_embeds, paged_kv_cache)
        return self.logits(op.take(hidden, logit_positions, axis=1)), paged_kv_cache

    def batch_decode(self, input_embeds: Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """One token of each sequence ``(batch, 1, hidden)`` to ``(batch, 1, vocab)``."""
        return self.logits(self.model(input_embeds, paged_kv_cache)), paged_kv_cache

    def batch_verify(self, input_embeds: Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """As ``batch_prefill``, with the logits of every position ``(1, seq_len, vocab)``.

        Engines use it for speculative decoding, edgec to compare with the reference.
        """
        return self.logits(self.model(input_embeds, paged_kv_cache)), paged_kv_cache

    def export_spec(self) -> dict[str, Any]:
        """Types of the functions for ``export_tvm``."""
        hidden, dtype = self.hidden_size, self.dtype
        cache = nn.spec.Object(object_type=PagedKVCache)
        modes = {"param_mode": "packed", "effect_mode": "none"}

        def states(*shape: int | str) -> Any:
            return nn.spec.Tensor([*shape, hidden], dtype)

        return {
            "embed": {"input_ids": nn.spec.Tensor(["seq_len"], "int32"), "$": modes},
            "prefill": {
                "input_embed": states(1, "seq_len"),
                "paged_kv_cache": cache,
                "$": modes,
            },
            "decode": {"input_embed": states(1, 1), "paged_kv_cache": cache, "$": modes},
            "batch_prefill": {
                "input_embeds": states(1, "seq_len"),
                "logit_positions": nn.spec.Tensor(["batch_size"], "int32"),
                "paged_kv_cache": cache,
                "$": modes,
            },
            "batch_decode": {
                "input_embeds": states("batch_size", 1),
                "paged_kv_cache": cache,
                "$": modes,
            },
            "batch_verify": {
                "input_embeds": states(1, "seq_len"),
                "paged_kv_cache": cache,
                "$": modes,
            },
        }


def named_blocks(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every block that holds weights, with its path in the model, in order of definition."""
    if hasattr(module, "sources"):
        yield path, module
        return
    if isinstance(module, nn.ModuleList):
        children = [(str(index), child) for index, child in enumerate(module)]
    else:
        children = [(k, v) for k, v in vars(module).items() if isinstance(v, nn.Module)]
    for name, child in children:
        yield from named_blocks(child, f"{path}.{name}" if path else name)


def parameters_of(model: CausalLM) -> list[Parameter]:
    """The model's parameters in their plain form, in order of definition."""

    def renamed(name: str) -> str:
        return ".".join(model.names.get(part, part) for part in name.split("."))

    def item(parameter: Parameter) -> Parameter:
        sources = tuple(replace(s, name=renamed(s.name)) for s in parameter.sources)
        if model.undecoded and parameter.name.startswith(model.undecoded):
            return replace(parameter, sources=sources, decode_rows=0)
        return replace(parameter, sources=sources)

    return [
        item(parameter) for path, block in named_blocks(model) for parameter in block.sources(path)
    ]


def apply_schemes(model: CausalLM, schemes: Mapping[str, TensorScheme | None]) -> None:
    """Give every matrix the form that ``schemes`` (by parameter name) says."""
    for path, block in named_blocks(model):
        scheme = schemes.get(f"{path}.weight")
        if scheme is not None:
            assert isinstance(block, Matrix), path
            block.set_scheme(scheme)

"""Attention of tokens within segments, without a cache: what encoders need.

It is the attention of new tokens of several sequences to each other, which every platform's KV cache
has a kernel for, with the arguments that don't change made constants.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tvm import tirx
from tvm.relax.frontend.nn.llm.kv_cache import (
    _attention_prefill_ragged,
    _attention_prefill_ragged_cpu,
)

from edgec.scheduling.kernels import cpu_attention, gpu_attention
from edgec.scheduling.kernels.attention_arguments import Heads
from edgec.scheduling.kernels.cpu_attention_blocks import Attention

if TYPE_CHECKING:
    from collections.abc import Mapping

SEGMENTS = "edgec.segments"
"""Attribute of such a kernel: what it computes, as :meth:`Segments.to_json` says it."""


@dataclass(frozen=True)
class Segments:
    """The heads of an encoder's attention.

    Attributes:
        heads: query heads, and as many keys and values.
        head_dim: size of a head.
        dtype: of queries, keys, values and results.
    """

    heads: int
    head_dim: int
    dtype: str

    @property
    def name(self) -> str:
        """Of the kernel: ``"segment_attention_16x80"``."""
        return f"segment_attention_{self.heads}x{self.head_dim}"

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Segments:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


class SegmentKernels(Protocol):
    """A platform's way to make these kernels."""

    def __call__(self, segments: Segments) -> Any:
        """The PrimFunc ``(q, starts, k, v, starts, positions, offsets, out, lse)``.

        ``q``, ``k``, ``v`` and ``out`` are ``(n, heads, head_dim)``, ``starts`` int32
        ``(segments + 1,)``; ``positions`` int32 ``(n,)`` and ``offsets`` int32 ``(segments,)`` aren't
        read; ``lse`` float32 ``(n, heads)`` is written.
        """


def on_cpu(vector_bits: int) -> SegmentKernels:
    """The kernels of CPUs."""

    def make(segments: Segments) -> Any:
        heads = segments.heads
        shape = Attention(
            heads=heads,
            kv_heads=heads,
            head_dim=segments.head_dim,
            dtype=segments.dtype,
            vector_bits=vector_bits,
            cached=False,
        )
        return _fixed(cpu_attention.ragged_prefill(shape), segments)

    return make


def on_gpu(target: Any, *, by_hand: bool) -> SegmentKernels:
    """The kernels of a GPU, ours or TVM's."""

    def make(segments: Segments) -> Any:
        heads, head_dim, dtype = segments.heads, segments.head_dim, segments.dtype
        if by_hand:
            function = gpu_attention.ragged_prefill(Heads(heads, heads, head_dim, dtype))
        else:
            function = _attention_prefill_ragged(
                heads, heads, head_dim, head_dim, dtype, {}, target
            )
        return _fixed(function, segments)

    return make


def meaning(segments: Segments) -> Any:
    """The same in loops for the CPU, written independently of the kernels here."""
    heads, head_dim, dtype = segments.heads, segments.head_dim, segments.dtype
    function = _attention_prefill_ragged_cpu(heads, heads, head_dim, head_dim, dtype, {})
    return _fixed(function, segments)


def _fixed(function: Any, segments: Segments) -> Any:
    """A kernel without the scalars behind its results: no mask, no rotation, the usual scale."""
    by_name: Mapping[str, Any] = {
        "causal": tirx.const(0, "int32"),
        "rotary_mode": tirx.const(0, "int32"),
        "rope_scale": tirx.const(1.0, "float32"),
        "rope_theta": tirx.const(10000.0, "float32"),
        "sm_scale": tirx.const(segments.head_dim**-0.5, "float32"),
    }
    fixed = {
        parameter: by_name[parameter.name]
        for parameter in function.params
        if parameter.name in by_name
    }
    assert len(fixed) == len(by_name), "the kernel's scalars have these names"
    return (
        function.specialize(fixed)
        .without_attr("global_symbol")
        .with_attr(SEGMENTS, segments.to_json())
    )

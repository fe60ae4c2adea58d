"""The interface of the KV cache's attention kernels: what TVM's runtime hands over, and what it means.

Each kind of kernel has a class that declares its arguments in their order; CPUs and GPUs have the
same. Results are a token's output, and its log-sum-exp in base 2, with which parts of an attention
are merged.

The runtime knows nothing of layers that see the latest keys only, but it hands the scale of scores
through to every kernel as the layer gave it. Where a cache has a window, a negative scale says that
the layer is one of those, and its magnitude is the scale. See docs/decisions/0019-local-attention.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.models.kv_cache import PAGE_SIZE
from edgec.scheduling.kernels import HAND_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOTHING = -5e4
"""TVM's log-sum-exp of a token that attends to nothing; also below every score."""
LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Heads:
    """The heads of an attention.

    Attributes:
        heads: query heads.
        kv_heads: key-value heads; divides ``heads``.
        head_dim: size of a head.
        dtype: of queries, keys, values and results.
        soft_cap: what a score ``s`` becomes at most: ``c * tanh(s / c)``; None: scores stay.
        window: keys that a token sees in layers with a negative scale, itself among them; None: no
            layer has one, and scales are positive.
    """

    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    soft_cap: float | None = field(default=None, kw_only=True)
    window: int | None = field(default=None, kw_only=True)

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.heads // self.kv_heads

    @property
    def runtime_sizes(self) -> tuple[int, int]:
        """What the runtime takes for the number of query heads, and for the size of a head."""
        return self.heads, self.head_dim


def named(symbol: str, more: Mapping[str, Any] | None = None) -> None:
    """The attributes of a kernel; in a ``prim_func``."""
    own = {"global_symbol": symbol, "tirx.is_scheduled": True, HAND_WRITTEN: True}
    T.func_attr(own | dict(more or {}))


def tensor(name: str, shape: tuple[Any, ...], dtype: str) -> Any:
    """A tensor argument."""
    return T.match_buffer(T.arg(f"{name}_handle", T.handle()), shape, dtype)


def indices(name: str, length: Any) -> Any:
    """A vector of int32 that may begin inside a larger one."""
    handle = T.arg(f"{name}_handle", T.handle())
    return T.match_buffer(handle, (length,), "int32", elem_offset=T.int32())


class PagedArguments:
    """The arguments that describe pages and which of them each sequence has."""

    def __init__(self, a: Heads, batch: Any) -> None:
        shape = (T.int32(), 2, a.kv_heads, PAGE_SIZE, a.runtime_sizes[1])
        self.pages = tensor("pages", shape, a.dtype)
        self.indptr = indices("page_indptr", batch + 1)
        self.values = indices("page_values", T.int32())
        self.last_page = indices("length_info", batch)

    def length(self, sequence: Any) -> Any:
        """Keys of a sequence."""
        count = self.indptr[sequence + 1] - self.indptr[sequence]
        return ((count - 1) * PAGE_SIZE + self.last_page[sequence]) * flag(count > 0)


class _Arguments:
    """What all kinds of kernels have.

    Attributes:
        batch: number of sequences.
        rows: number of tokens with queries.
        q: ``(rows, heads, head_dim)``, in the runtime's sizes.
        offsets: the position of a sequence's first key.
        positions: of the tokens.
        out: likewise.
        lse: ``(rows, heads)``, likewise.
        scalars: the trailing arguments, by name; those of the rotary embedding among them.
        scale: of scores.
    """

    batch: Any
    rows: Any
    q: Any
    offsets: Any
    positions: Any

    def __init__(self, a: Heads, *, causal: bool) -> None:
        self._window = a.window
        self.out = tensor("output", (self.rows, *a.runtime_sizes), a.dtype)
        self.lse = tensor("lse", (self.rows, a.runtime_sizes[0]), "float32")
        names = [("causal", "int32")] if causal else []
        names += [
            ("rotary_mode", "int32"),
            ("rope_scale", "float32"),
            ("rope_theta", "float32"),
            ("sm_scale", "float32"),
        ]
        self.scalars = {name: T.arg(name, getattr(T, dtype)()) for name, dtype in names}
        given = self.scalars["sm_scale"]
        self.scale = given if a.window is None else T.max(given, -given)

    def first(self, row: Any, sequence: Any) -> Any:
        """The first key of a sequence that a token sees; below 0 or 0: all. None without windows."""
        if self._window is None:
            return None
        latest = self.positions[row] - self.offsets[sequence] - (self._window - 1)
        return latest * flag(self.scalars["sm_scale"] < T.float32(0))


class DecodeArguments(_Arguments):
    """Of kernels for one new token per sequence, the last one in its pages.

    Args:
        a: the heads.
        pages: declares the arguments that describe pages.
    """

    def __init__(self, a: Heads, pages: Callable[[Heads, Any], Any] = PagedArguments) -> None:
        self.batch = self.rows = T.int32()
        self.q = tensor("q", (self.rows, *a.runtime_sizes), a.dtype)
        self.pages = pages(a, self.batch)
        self.offsets = indices("k_rope_pos_offset", self.batch)
        self.positions = indices("q_rope_position", self.rows)
        super().__init__(a, causal=False)


class PagedPrefillArguments(_Arguments):
    """Of kernels for new tokens of several sequences, end to end, against the pages of theirs.

    Args:
        a: the heads.
        pages: declares the arguments that describe pages.

    Attributes:
        q_indptr: the tokens ``q_indptr[i]`` to ``q_indptr[i + 1]`` are of sequence ``i``.
    """

    def __init__(self, a: Heads, pages: Callable[[Heads, Any], Any] = PagedArguments) -> None:
        self.batch, self.rows = T.int32(), T.int32()
        self.q = tensor("q", (self.rows, *a.runtime_sizes), a.dtype)
        self.q_indptr = indices("q_indptr", self.batch + 1)
        self.pages = pages(a, self.batch)
        self.offsets = indices("k_rope_pos_offset", self.batch)
        self.positions = indices("q_rope_position", self.rows)
        super().__init__(a, causal=True)

    def length(self, sequence: Any) -> Any:
        """Keys of a sequence."""
        return self.pages.length(sequence)


class RaggedPrefillArguments(_Arguments):
    """Of the kernel for new tokens against each other, whose keys aren't in pages yet.

    Attributes:
        q_indptr: the tokens ``q_indptr[i]`` to ``q_indptr[i + 1]`` are of sequence ``i``.
        k: ``(keys, kv_heads, head_dim)``.
        v: likewise.
        kv_indptr: as ``q_indptr``, of keys.
    """

    def __init__(self, a: Heads) -> None:
        self.batch, self.rows = T.int32(), T.int32()
        keys = T.int32()
        self.q = tensor("q", (self.rows, *a.runtime_sizes), a.dtype)
        self.q_indptr = indices("q_indptr", self.batch + 1)
        self.k = tensor("k", (keys, a.kv_heads, a.runtime_sizes[1]), a.dtype)
        self.v = tensor("v", (keys, a.kv_heads, a.runtime_sizes[1]), a.dtype)
        self.kv_indptr = indices("kv_indptr", self.batch + 1)
        self.positions = indices("q_rope_position", self.rows)
        self.offsets = indices("k_rope_pos_offset", self.batch)
        super().__init__(a, causal=True)

    def length(self, sequence: Any) -> Any:
        """New keys of a sequence."""
        return self.kv_indptr[sequence + 1] - self.kv_indptr[sequence]


def visible(causal: Any, length: Any, q_indptr: Any, sequence: Any, row: Any) -> Any:
    """How many keys a token sees: all, or with a causal mask those up to its own."""
    own = row - q_indptr[sequence]
    new = q_indptr[sequence + 1] - q_indptr[sequence]
    return length - (new - own - 1) * flag(causal > 0)


def flag(condition: Any, dtype: str = "int32") -> Any:
    """1 or 0, to multiply with.

    A choice between values that are loaded becomes a branch, and some compilers for GPUs take minutes for
    kernels with many of them in a loop.
    """
    return T.Select(condition, T.Cast(dtype, 1), T.Cast(dtype, 0))

"""The shape of a model's key-value cache, as data that the lowering of each target reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgec.errors import UnsupportedModelError
from edgec.models.rope import Rope

if TYPE_CHECKING:
    from edgec.models.window import SlidingWindow

_MORE_PAGES = 2
PAGE_SIZE = 16
"""Tokens in a page: TVM's kernels, the MLC engines and WebLLM all fix it to 16."""

INT8 = "int8"
"""Stored so, a row of one head is ``head_dim`` whole numbers and one float32, what a step is."""

AUTO = "auto"
"""What a recipe says for keys and values that are held as they are computed."""

_BYTES = {"float16": 2, "float32": 4, INT8: 1}
_SCALE_BYTES = 4
# Rows are whole words of 4 bytes, whatever the cache counts in.
_MULTIPLES = {"float16": 2, INT8: 4}


def row_bytes(head_dim: int, stored: str) -> int:
    """Bytes of one head's key or value of one token that is held as ``stored``."""
    return head_dim * _BYTES[stored] + (_SCALE_BYTES if stored == INT8 else 0)


def stored_as(asked: str, dtype: str) -> str:
    """What :attr:`KVCacheSpec.stored` is for a recipe's ``context.kv_cache_dtype``.

    Args:
        asked: of the recipe.
        dtype: of keys and values as the model computes them.
    """
    return "" if asked in (AUTO, dtype) else asked


def pages(tokens: int) -> int:
    """Pages that hold ``tokens`` tokens."""
    return -(-tokens // PAGE_SIZE)


def kept_tokens(context_length: int, window: SlidingWindow | None) -> int:
    """Tokens that the cache has room for, of one sequence that is as long as it can be.

    Where a window slides, its first and last pages may be filled in part only, and TVM's cache adds
    two pages per sequence for that.
    """
    if window is None:
        return context_length
    return (pages(window.size) + _MORE_PAGES) * PAGE_SIZE


@dataclass(frozen=True)
class KVCacheSpec:
    """What a paged KV cache has to hold.

    Attributes:
        layers: attention layers.
        heads: query heads.
        kv_heads: key-value heads (fewer than ``heads`` for grouped-query attention).
        head_dim: size of one head.
        rope: applied to keys when they are appended, to queries when they are read.
        dtype: of keys and values as the model computes them.
        soft_cap: of scores: ``c * tanh(s / c)``; None: they stay as they are.
        local_window: keys that a token sees in layers which ask for it, itself among them; all stay
            in the cache. None: in every layer a token sees all before it.
        rotates: whether the cache applies ``rope``; False: the model does, in its layers' own ways.
        helpers: how many of the layers are none of the model's: what they hold helps others.
        stored: how keys and values lie in the cache, ``"float16"`` or ``"int8"``; empty: as they are
            computed.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope: Rope
    dtype: str
    soft_cap: float | None = None
    local_window: int | None = None
    rotates: bool = True
    helpers: int = 0
    stored: str = ""

    @property
    def kept_dtype(self) -> str:
        """What keys and values are held as: ``stored``, or else ``dtype``."""
        return self.stored or self.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one head's key or value of one token, as the cache holds it."""
        return row_bytes(self.head_dim, self.kept_dtype)

    @property
    def plain(self) -> bool:
        """Whether attention is what TVM's kernels compute: without soft cap and layers' windows."""
        return self.soft_cap is None and self.local_window is None

    @property
    def slides(self) -> bool:
        """Whether kernels for sliding windows are right: they rotate whole heads, without factors."""
        whole = self.rope.rotary_dim == self.head_dim and not self.rope.has_factors
        return whole and self.plain and self.rotates

    def at_length(self, context_length: int) -> KVCacheSpec:
        """The cache of a library for contexts of so many tokens; see :meth:`Rope.at_length`."""
        return replace(self, rope=self.rope.at_length(context_length))

    def holding(self, stored: str) -> KVCacheSpec:
        """The cache that holds keys and values so; see ``stored``.

        Raises:
            UnsupportedModelError: the model's heads don't fit into such rows.
        """
        multiple = _MULTIPLES.get(stored, 1)
        if self.head_dim % multiple:
            raise UnsupportedModelError(
                f"rows of {stored} need heads of a multiple of {multiple}, and this model's have"
                f" {self.head_dim} numbers",
                where="context.kv_cache_dtype",
                remedy=f"leave it out, or write {AUTO}",
            )
        return replace(self, stored=stored)

    def nbytes(self, tokens: int) -> int:
        """Bytes of keys and values for ``tokens`` positions, in whole pages."""
        per_token = 2 * self.layers * self.kv_heads * self.row_bytes
        return pages(tokens) * PAGE_SIZE * per_token

    def sequence_bytes(self, context_length: int, window: SlidingWindow | None) -> int:
        """Bytes of one sequence that is as long as it can be."""
        return self.nbytes(kept_tokens(context_length, window))

    def to_json(self) -> dict[str, Any]:
        """Plain data, the inverse of :meth:`from_json`."""
        return {
            "layers": self.layers,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "rope": self.rope.to_json(),
            "dtype": self.dtype,
            "soft_cap": self.soft_cap,
            "local_window": self.local_window,
            "rotates": self.rotates,
            "helpers": self.helpers,
            "stored": self.stored,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> KVCacheSpec:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**data, "rope": Rope(**data["rope"])})

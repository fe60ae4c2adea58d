"""What attention on CPUs has in common, of one token and of many: its parameters, pages and soft caps."""

from __future__ import annotations

import contextlib
import copy
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tvm.tirx.script import builder as T

from edgec.models.kv_cache import PAGE_SIZE
from edgec.scheduling.kernels.attention_arguments import LOG2_E, Heads
from edgec.scheduling.kernels.cpu_cache_format import ITEM_BYTES, CacheFormat
from edgec.scheduling.kernels.vectors import broadcast, exp2, ramp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgec.models.rope import Rope

BLOCK = PAGE_SIZE
"""Keys of a page."""
_LINE = 64
"""Bytes of a cache line."""
_RUN = 16 * 1024
"""Bytes: longer runs of memory aren't read any faster."""
_NEAR = 2
"""The locality of a prefetch: into the L2 cache."""


@dataclass(frozen=True)
class Attention(Heads):
    """The parameters that the kernels share.

    Attributes:
        vector_bits: width of the registers to use.
        rope: the rotary embedding, for kernels that rotate keys when they read them; None for
            those that find keys rotated.
        stored: type of keys and values in the cache; empty: ``dtype``.
        cached: whether there is a cache, or a kernel sees keys and values as it gets them.
    """

    vector_bits: int
    rope: Rope | None = None
    stored: str = field(default="", kw_only=True)
    cached: bool = field(default=True, kw_only=True)

    @functools.cached_property
    def format(self) -> CacheFormat:
        """What lies where in the cache."""
        stored = self.stored or self.dtype
        return CacheFormat(
            self.heads, self.kv_heads, self.head_dim, self.dtype, stored, cached=self.cached
        )

    @property
    def runtime_sizes(self) -> tuple[int, int]:
        """What the runtime takes for the number of query heads, and for the size of a head."""
        return self.format.sizes

    @property
    def lanes(self) -> int:
        """Lanes along a head: the most that divide it evenly, or the halves it turns in."""
        lanes = self.vector_bits // 32
        while (self.head_dim if self.rope is None else self.head_dim // 2) % lanes:
            lanes //= 2
        return lanes

    @property
    def together(self) -> int:
        """Key-value heads of a task where a token attends to pages; divides their number.

        Those of a page lie one after another, and memory is read the faster the longer its runs are, up
        to some length. With no more than half of the heads two threads have work however short a context
        is.
        """
        head = BLOCK * self.format.row * ITEM_BYTES[self.dtype]
        most = max(1, min(self.kv_heads // 2, _RUN // head))
        return next(count for count in range(most, 0, -1) if self.kv_heads % count == 0)


class Page(Protocol):
    """Keys and values of one sequence and head: a page, or as many rows."""

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A float32 vector of key (``which`` 0) or value (1) number ``key`` of the block."""

    def prefetch(self, which: int, key: Any, block: Any = None) -> None:
        """Ask for a key or value, of this block or of another one."""


class Pages(Protocol):
    """Keys and values of one sequence and some heads: a page of each."""

    def of(self, head: Any) -> Page:
        """Those of one of the heads, counted from 0."""


class KeysTogether(Protocol):
    """All of a sequence and some heads, a block at a time."""

    def at(self, block: Any, use: Callable[[Pages], None]) -> None:
        """Make a block known to ``use``."""

    def again(self, block: Any, use: Callable[[Pages], None]) -> None:
        """Make one of the latest blocks known once more."""


class Keys(Protocol):
    """All of a sequence and head, a block at a time."""

    def at(self, block: Any, use: Callable[[Page], None]) -> None:
        """Make a block known to ``use``."""


class Views:
    """A kernel's queries and results with a row per token, ``(rows, query_width)``; see :class:`CacheFormat`.

    Made inside a kernel's root block, since they are other names of its arguments.
    """

    def __init__(self, a: Attention, given: Any) -> None:
        self.q, self.out = (
            T.decl_buffer((given.rows, a.format.query_width), a.dtype, data=buffer.data)
            for buffer in (given.q, given.out)
        )


class Paged:
    """Keys and values of one sequence and head in pages.

    Args:
        a: the attention.
        arguments: of the kernel, those that describe pages.
        sequence: whose pages they are.
        kv_head: the head, or the first one; see :meth:`of`.
    """

    def __init__(self, a: Attention, arguments: Any, sequence: Any, kv_head: Any) -> None:
        self._a = a
        self._pages = arguments.pages
        self._values = arguments.values
        self._first = T.Bind(arguments.indptr[sequence])
        self._last = T.Bind(arguments.indptr[sequence + 1] - 1)
        self._kv_head = kv_head
        self._page: Any = None

    def at(self, block: Any, use: Callable[[Paged], None]) -> None:
        """Read a block."""
        self._page = T.Bind(self._values[self._first + block])
        use(self)

    again = at

    def of(self, head: Any) -> Paged:
        """Those of a head that comes so many after this one."""
        other = copy.copy(self)
        other._kv_head = T.Bind(self._kv_head + head)  # noqa: SLF001 - it is one of these
        return other

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A vector of key (``which`` 0) or value (1) number ``key`` of the block."""
        return loaded(self._a, self._pages, (self._page, which, self._kv_head, key, 0), lane)

    def copy(self, block: Any, which: int, key: Any, to: Any, place: Any) -> None:
        """Copy a key or value of a block as it is held."""
        page = self._values[self._first + block]
        self._a.format.copy(to, place, self._pages, (page, which, self._kv_head, key, 0))

    def prefetch(self, which: int, key: Any, block: Any = None) -> None:
        """Ask for a key or value; of the sequence's last page where ``block`` lies beyond it."""
        page = self._page
        if block is not None:
            page = self._values[T.min(self._first + block, self._last)]
        for start in range(0, self._a.format.row, _LINE // ITEM_BYTES[self._a.dtype]):
            place = T.address_of(self._pages[page, which, self._kv_head, key, start])
            # To read, data.
            T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", place, 0, _NEAR, 1))


class Ragged:
    """Keys and values of one sequence and head in the order of their tokens.

    Args:
        a: the attention.
        arguments: of the kernel: ``k``, ``v`` and ``kv_indptr``.
        sequence: whose keys they are.
        kv_head: the head.
    """

    def __init__(self, a: Attention, arguments: Any, sequence: Any, kv_head: Any) -> None:
        self._a = a
        self._arrays = (arguments.k, arguments.v)
        self._first = T.Bind(arguments.kv_indptr[sequence])
        self._kv_head = kv_head
        self._row: Any = None

    def at(self, block: Any, use: Callable[[Page], None]) -> None:
        """Read a block."""
        self._row = T.Bind(self._first + block * BLOCK)
        use(self)

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A vector of key (``which`` 0) or value (1) number ``key`` of the block."""
        return loaded(self._a, self._arrays[which], (self._row + key, self._kv_head, 0), lane)

    def prefetch(self, which: int, key: Any, block: Any = None) -> None:
        """Nothing: rows of new tokens are in the cache."""


@contextlib.contextmanager
def when(condition: Any) -> Iterator[None]:
    """What follows happens under a condition."""
    with T.If(condition), T.Then():
        yield


def loaded(a: Attention, rows: Any, place: Any, lane: Any) -> Any:
    """The lanes ``lane`` of a held key or value as float32; see :func:`columns`."""
    first = int(lane if a.lanes == 1 else lane.base)
    return a.format.load(rows, place, first, a.lanes)


def columns(a: Attention) -> list[Any]:
    """Indices of the vectors that make up a head."""
    return [ramp(column, 1, a.lanes) for column in range(0, a.head_dim, a.lanes)]


def capped(cap: float, x: Any, lanes: int) -> Any:
    """``cap * tanh(x / (2 * log2(e)))`` in base 2, as ``1 - 2 / (1 + 2**x)``.

    From 64 on that is 1 in float32, and below -126 it is -1.
    """
    one, two = (broadcast(T.float32(value), lanes) for value in (1, 2))
    power = exp2(T.min(x, broadcast(T.float32(64), lanes)), lanes)
    return broadcast(T.float32(cap * LOG2_E), lanes) * (one - two / (one + power))

"""What a KV cache on CPUs does around attention: split and rotate new tokens, and append them to pages.

TVM's own rotation computes a power, a sine and a cosine for every feature of every head. Here they are
found once per token, for all heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.models.kv_cache import PAGE_SIZE
from edgec.scheduling.kernels.attention_arguments import indices, named, tensor
from edgec.scheduling.kernels.vectors import as_float, ramp, vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgec.models.rope import Rope
    from edgec.scheduling.kernels.cpu_attention_blocks import Attention

_PARALLEL_FROM = 4
"""Tokens from which waking a thread pays."""


def split_rotary(a: Attention, rope: Rope, symbol: str) -> Any:
    """The PrimFunc ``(qkv, positions, q, k, v, last)``.

    ``qkv`` is ``(tokens, heads + 2 * kv_heads, head_dim)``, ``positions`` int32 ``(tokens,)``; ``q``,
    ``k`` and ``v`` are ``(tokens, heads or kv_heads, head_dim)``. ``last`` says with 0 that nothing is
    rotated; where pairs have factors, it is the runtime's copy of them, which isn't read.

    Args:
        a: the heads and their type; its own rotary embedding, that of attention, isn't used.
        rope: the rotary embedding.
        symbol: name of the kernel.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named(symbol, {"tirx.noalias": True})
            tokens = T.int32()
            heads = a.heads + 2 * a.kv_heads
            qkv = tensor("qkv", (tokens, heads, a.head_dim), a.dtype)
            positions = indices("positions", tokens)
            parts = (
                ("q", a.heads, True),
                ("k", a.kv_heads, True),
                ("v", a.kv_heads, False),
            )
            outs = [
                (tensor(name, (tokens, count, a.head_dim), a.dtype), count, turns)
                for name, count, turns in parts
            ]
            if rope.has_factors:
                tensor("factors", (rope.rotary_dim,), "float32")
                applied = T.bool(True)
            else:
                applied = T.arg("apply_rope", T.int64()) > 0
            with T.sblock("root"):
                T.reads()
                T.writes()
                table = _Table(a, rope)
                for token in _each(tokens):
                    cosine, sine = table.angles(positions[token], applied)
                    first = 0
                    for out, count, turns in outs:
                        with T.serial(0, count) as head:
                            source = (token, T.Bind(first + head))
                            if turns:
                                table.turn(qkv, source, out, (token, head), (cosine, sine))
                            table.copy(qkv, source, out, (token, head), after=turns)
                        first += count
        return builder.get()


def append(a: Attention, symbol: str) -> Any:
    """The PrimFunc ``(pages, k, v, places)``: write new keys and values to their places in pages.

    ``pages`` is ``(pages, 2, kv_heads, 16, head_dim)``; ``k`` and ``v`` are
    ``(tokens, kv_heads, head_dim)``; ``places`` int32 ``(tokens,)``, -1 for none.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named(symbol, {"tirx.noalias": True})
            tokens = T.int32()
            shape = (T.int64(), 2, a.kv_heads, PAGE_SIZE, a.head_dim)
            handle = T.arg("pages_handle", T.handle())
            pages = T.match_buffer(handle, shape, a.dtype, elem_offset=T.int64())
            arrays = [
                tensor(name, (tokens, a.kv_heads, a.head_dim), a.dtype) for name in ("k", "v")
            ]
            places = indices("places", tokens)
            with T.sblock("root"):
                T.reads()
                T.writes()
                for token in _each(tokens):
                    place = T.Bind(places[token])
                    with T.If(place >= 0), T.Then(), T.serial(0, a.kv_heads) as head:
                        page, slot = T.Bind(place // PAGE_SIZE), T.Bind(place % PAGE_SIZE)
                        for which, array in enumerate(arrays):
                            for start in range(0, a.head_dim, a.lanes):
                                lane = ramp(start, 1, a.lanes)
                                value = array[token, head, lane]
                                T.buffer_store(pages, value, [page, which, head, slot, lane])
        return builder.get()


def _each(tokens: Any) -> Iterator[Any]:
    """Loop over tokens, in parallel if there are some."""

    def run(loop: Callable[[int, Any], Any]) -> Iterator[Any]:
        with loop(0, tokens) as token, T.sblock("token"):
            T.reads()
            T.writes()
            yield token

    with T.If(tokens >= _PARALLEL_FROM):
        with T.Then():
            yield from run(T.parallel)
        with T.Else():
            yield from run(T.serial)


class _Table:
    """The frequencies of a rotary embedding.

    Args:
        a: the heads.
        rope: the rotary embedding.
    """

    def __init__(self, a: Attention, rope: Rope) -> None:
        self._a, self._rope = a, rope
        self._half = rope.rotary_dim // 2
        self._lanes = a.vector_bits // 32
        while self._half % self._lanes:
            self._lanes //= 2
        self._frequency = T.sblock_alloc_buffer((self._half,), "float32")
        for pair, angle in enumerate(rope.inverse_frequencies()):
            T.buffer_store(self._frequency, T.float32(angle), [pair])

    def angles(self, position: Any, applied: Any) -> tuple[Any, Any]:
        """Cosines and sines of a position; of 0 where nothing is to be rotated."""
        cosine, sine = (T.sblock_alloc_buffer((self._half,), "float32") for _ in range(2))
        position = T.Bind(T.Cast("float32", position))
        amplitude = T.float32(self._rope.amplitude)
        with T.If(applied):
            with T.Then(), T.serial(0, self._half) as pair:
                angle = T.Bind(position * self._frequency[pair])
                T.buffer_store(cosine, T.cos(angle) * amplitude, [pair])
                T.buffer_store(sine, T.sin(angle) * amplitude, [pair])
            with T.Else(), T.serial(0, self._half) as pair:
                T.buffer_store(cosine, T.float32(1), [pair])
                T.buffer_store(sine, T.float32(0), [pair])
        return cosine, sine

    def turn(
        self,
        qkv: Any,
        source: tuple[Any, Any],
        out: Any,
        place: tuple[Any, Any],
        angles: tuple[Any, Any],
    ) -> None:
        """Rotate the pairs of a head."""
        dtype = self._a.dtype
        for start in range(0, self._half, self._lanes):
            low, high = (ramp(first, 1, self._lanes) for first in (start, self._half + start))
            cosine, sine = (T.Bind(numbers[low]) for numbers in angles)
            x, y = (T.Bind(as_float(qkv[(*source, lane)], self._lanes)) for lane in (low, high))
            for lane, value in ((low, x * cosine - y * sine), (high, y * cosine + x * sine)):
                T.buffer_store(out, T.Cast(vector(dtype, self._lanes), value), [*place, lane])

    def copy(
        self, qkv: Any, source: tuple[Any, Any], out: Any, place: tuple[Any, Any], *, after: bool
    ) -> None:
        """Copy a head, or the features ``after`` those that are rotated."""
        start = self._rope.rotary_dim if after else 0
        lanes = self._a.lanes
        while (self._a.head_dim - start) % lanes:
            lanes //= 2
        for first in range(start, self._a.head_dim, lanes):
            lane = ramp(first, 1, lanes)
            T.buffer_store(out, qkv[(*source, lane)], [*place, lane])

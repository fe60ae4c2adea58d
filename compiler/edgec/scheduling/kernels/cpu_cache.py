"""What a KV cache on CPUs does around attention: split and rotate tokens, append them, merge results.

TVM's own rotation computes a power, a sine and a cosine for every feature of every head. Here they are
found once per token, for all heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.models.kv_cache import PAGE_SIZE
from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.attention_arguments import indices, named, tensor
from edgec.scheduling.kernels.cpu_attention_blocks import columns
from edgec.scheduling.kernels.vectors import (
    as_float,
    broadcast,
    exp2,
    ramp,
    vector,
    without_regions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgec.models.rope import Rope
    from edgec.scheduling.kernels.cpu_attention_blocks import Attention

_PARALLEL_FROM = 4
"""Tokens from which waking a thread pays."""
_COPIED = 32
"""Numbers that are copied at once."""


def split_rotary(a: Attention, rope: Rope, symbol: str) -> Any:
    """The PrimFunc ``(qkv, positions, q, k, v, last)``.

    ``qkv`` is ``(tokens, heads + 2 * kv_heads, head_dim)``, ``positions`` int32 ``(tokens,)``; ``q``,
    ``k`` and ``v`` are ``(tokens, heads or kv_heads, head_dim)``, all in the runtime's sizes, and what
    they hold as :class:`CacheFormat` says: queries with the token's own key and value beside them.
    ``last`` says with 0 that nothing is rotated; where pairs have factors, it is the runtime's copy of
    them, which isn't read.

    Args:
        a: the heads and their type; its own rotary embedding, that of attention, isn't used.
        rope: the rotary embedding.
        symbol: name of the kernel.
    """
    fmt = a.format
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named(symbol, {"tirx.noalias": True})
            tokens = T.int32()
            heads, size = a.runtime_sizes
            qkv = tensor("qkv", (tokens, heads + 2 * a.kv_heads, size), a.dtype)
            positions = indices("positions", tokens)
            q = tensor("q", (tokens, heads, size), a.dtype)
            held = [tensor(name, (tokens, a.kv_heads, size), a.dtype) for name in ("k", "v")]
            if rope.has_factors:
                tensor("factors", (rope.rotary_dim,), "float32")
                applied = T.bool(True)
            else:
                applied = T.arg("apply_rope", T.int64()) > 0
            with T.sblock("root"):
                without_regions()
                fused = T.decl_buffer((tokens, fmt.fused_width), a.dtype, data=qkv.data)
                queries = T.decl_buffer((tokens, fmt.query_width), a.dtype, data=q.data)
                table = _Table(a, rope)
                for token in _each(tokens):
                    cosine, sine = table.angles(positions[token], applied)
                    row = T.sblock_alloc_buffer((a.head_dim,), "float32")
                    with T.serial(0, a.heads) as head:
                        first = T.Bind(head * a.head_dim)
                        table.turn(fused, (token, first), row, (cosine, sine))
                        for lane in columns(a):
                            value = T.Cast(vector(a.dtype, a.lanes), row[lane])
                            T.buffer_store(queries, value, [token, first + lane])
                    for which, out in enumerate(held):
                        with T.serial(0, a.kv_heads) as head:
                            source = (head + a.heads + which * a.kv_heads) * a.head_dim
                            place = (token, T.Bind(source))
                            table.turn(fused, place, row, None if which else (cosine, sine))
                            own = (token, T.Bind(fmt.own(which, head)))
                            fmt.store([(out, (token, head, 0)), (queries, own)], row, a.lanes)
                    fmt.clear_note(queries, token)
        return builder.get()


def append(a: Attention, symbol: str) -> Any:
    """The PrimFunc ``(pages, k, v, places)``: write new keys and values to their places in pages.

    ``pages`` is ``(pages, 2, kv_heads, 16, head_dim)``; ``k`` and ``v`` are
    ``(tokens, kv_heads, head_dim)``, all in the runtime's sizes; ``places`` int32 ``(tokens,)``, -1
    for none.
    """
    size = a.format.row
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named(symbol, {"tirx.noalias": True})
            tokens = T.int32()
            shape = (T.int64(), 2, a.kv_heads, PAGE_SIZE, size)
            handle = T.arg("pages_handle", T.handle())
            pages = T.match_buffer(handle, shape, a.dtype, elem_offset=T.int64())
            arrays = [tensor(name, (tokens, a.kv_heads, size), a.dtype) for name in ("k", "v")]
            places = indices("places", tokens)
            with T.sblock("root"):
                without_regions()
                for token in _each(tokens):
                    place = T.Bind(places[token])
                    with T.If(place >= 0), T.Then(), T.serial(0, a.kv_heads) as head:
                        page, slot = T.Bind(place // PAGE_SIZE), T.Bind(place % PAGE_SIZE)
                        for which, array in enumerate(arrays):
                            to = (page, which, head, slot, 0)
                            a.format.copy(pages, to, array, (token, head, 0))
        return builder.get()


def merge(a: Attention, symbol: str) -> Any:
    """The PrimFunc ``(out, lse, other_out, other_lse)``: merge two parts of an attention into the first.

    Results are ``(tokens, heads, head_dim)`` and base-2 log-sum-exps float32 ``(tokens, heads)``, all in
    the runtime's sizes. Where one part saw nothing, the other stays as it is to the last bit.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named(symbol, {"tirx.noalias": True})
            tokens = T.int32()
            heads, size = a.runtime_sizes
            given = [
                (
                    tensor(f"{name}out", (tokens, heads, size), a.dtype),
                    tensor(f"{name}lse", (tokens, heads), "float32"),
                )
                for name in ("", "other_")
            ]
            with T.sblock("root"):
                without_regions()
                width = a.format.query_width
                outs = [T.decl_buffer((tokens, width), a.dtype, data=out.data) for out, _ in given]
                lses = [lse for _, lse in given]
                for token in _each(tokens):
                    with T.serial(0, a.heads) as head:
                        top = T.Bind(T.max(lses[0][token, head], lses[1][token, head]))
                        weights = [T.Bind(exp2(lse[token, head] - top, 1)) for lse in lses]
                        total = T.Bind(weights[0] + weights[1])
                        shares = [T.Bind(weight / total) for weight in weights]
                        for lane in columns(a):
                            place = head * a.head_dim + lane
                            one, other = (
                                as_float(out[token, place], a.lanes) * broadcast(share, a.lanes)
                                for out, share in zip(outs, shares, strict=True)
                            )
                            value = T.Cast(vector(a.dtype, a.lanes), one + other)
                            T.buffer_store(outs[0], value, [token, place])
                        T.buffer_store(lses[0], top + T.log2(total), [token, head])
        return builder.get()


def copy_rows(dtype: str, widths: tuple[int, int], *, single: bool) -> Any:
    """The PrimFunc ``(x, y)``: what rows of both have in common, ``(tokens, width)`` each.

    What a wider row of ``y`` has more stays as it was.

    Args:
        dtype: of both.
        widths: of ``x`` and of ``y``.
        single: there is one token.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            tokens = 1 if single else T.int64()
            x, y = (
                T.arg(name, T.buffer((tokens, width), dtype))
                for name, width in zip("xy", widths, strict=True)
            )
            count = min(widths)
            lanes = _COPIED
            while count % lanes:
                lanes //= 2
            with T.sblock("root"):
                without_regions()
                for token in range(1) if single else _each(tokens):
                    with T.serial(0, count // lanes) as step:
                        place = (token, ramp(T.Bind(step * lanes), 1, lanes))
                        T.buffer_store(y, x[place], list(place))
        return builder.get()


def _each(tokens: Any) -> Iterator[Any]:
    """Loop over tokens, in parallel if there are some."""

    def run(loop: Callable[[int, Any], Any]) -> Iterator[Any]:
        with loop(0, tokens) as token, T.sblock("token"):
            without_regions()
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
        self, fused: Any, place: tuple[Any, Any], out: Any, angles: tuple[Any, Any] | None
    ) -> None:
        """Write a head to ``out`` as float32, with its pairs rotated; without angles they stay.

        Args:
            fused: ``(tokens, fused_width)``.
            place: of the head's first feature.
            out: ``(head_dim,)``.
            angles: cosines and sines.
        """
        token, first = place
        start = 0
        if angles is not None:
            start = self._rope.rotary_dim
            for begin in range(0, self._half, self._lanes):
                low, high = (ramp(at, 1, self._lanes) for at in (begin, self._half + begin))
                cosine, sine = (T.Bind(numbers[low]) for numbers in angles)
                x, y = (
                    T.Bind(as_float(fused[token, first + lane], self._lanes))
                    for lane in (low, high)
                )
                T.buffer_store(out, x * cosine - y * sine, [low])
                T.buffer_store(out, y * cosine + x * sine, [high])
        lanes = self._a.lanes
        while (self._a.head_dim - start) % lanes:
            lanes //= 2
        for begin in range(start, self._a.head_dim, lanes):
            lane = ramp(begin, 1, lanes)
            T.buffer_store(out, as_float(fused[token, first + lane], lanes), [lane])

"""What AMX multiplies: activations and weights as tiles of bfloat16.

A tile of activations has up to 16 rows of 32 features. One of weights has 16 outputs, and in each of its
16 rows a pair of neighbouring features of all of them.

A weight ``(u - z) * s`` is computed in float32, made greater by a 384th and cut off to bfloat16. The
error is at most 0.7 units in the last place and 0.31 in the root mean square, without a drift; to the
nearest it would be 0.5 and 0.29, for a fourth more instructions.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.linear import Linear, Preparation
from edgec.scheduling.kernels.vectors import broadcast, vector

TILE = 16
"""Rows of a tile, of activations and of weights."""
STEP = 32
"""Input features of a tile: 64 bytes of bfloat16."""
SCALE = 1 + 1 / 384
"""Makes up for cutting off. In units of the last place u, a magnitude t in [1, 2) loses u/2 on average, and
the weights' squares t**2 lose nothing together if each gains t * u * E(t) / (2 * E(t**2)) = t * u / 3,
where u = 2**-7 and t is as frequent as 1/t."""

_LANES = 16


def weight_tiles(linear: Linear) -> int:
    """Tiles along the output features."""
    return -(-linear.n // TILE)


def preparation(linear: Linear) -> Preparation:
    """The activations as bfloat16 in tiles.

    The output is ``(pairs, k / 32, 2, 16, 32)``, bits of bfloat16 as uint16: for each pair of tiles of
    rows and each 32 columns the two tiles. A tile has :func:`tile_rows` rows; the rest isn't written.
    """

    def outputs(rows: Any) -> list[tuple[tuple[Any, ...], str]]:
        return [(((rows + 31) // 32, linear.k // STEP, 2, TILE, STEP), "uint16")]

    name = f"tiles_{linear.x_dtype}_{linear.k}"
    return Preparation(name, _prepare(linear.k, linear.x_dtype), outputs)


def tile_rows(m: Any) -> tuple[Any, Any]:
    """How many tiles ``m`` rows are cut into, and the rows of each.

    Tile ``t`` begins at row ``min(t * rows, m - rows)``.
    """
    tiles = T.ceildiv(m, TILE)
    return tiles, T.ceildiv(m, T.max(tiles, 1))


def _prepare(k: int, x_dtype: str) -> Any:
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m, pairs = T.int64(), T.int64()
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            x = T.arg("x", T.buffer((m, k), x_dtype))
            out = T.arg("tiles", T.buffer((pairs, k // STEP, 2, TILE, STEP), "uint16"))
            with T.sblock("root"):
                tiles, rows = (T.Bind(value) for value in tile_rows(m))
                with T.parallel(0, tiles * rows) as index, T.sblock("row"):
                    tile, row = T.Bind(index // rows), T.Bind(index % rows)
                    source = T.Bind(T.min(tile * rows, m - rows) + row)
                    with T.serial(0, k // STEP) as step:
                        for half in range(2):
                            first = step * STEP + half * _LANES
                            values = x[source, T.ramp(first, 1, _LANES)]
                            T.buffer_store(
                                out,
                                _rounded(T.Cast(vector("float32", _LANES), values)),
                                [tile // 2, step, tile % 2, row, T.ramp(half * _LANES, 1, _LANES)],
                            )
        return builder.get()


def _rounded(values: Any) -> Any:
    """Bits of the nearest bfloat16, ties to even."""
    bits = T.Bind(T.reinterpret(vector("uint32", _LANES), values))
    odd = T.bitwise_and(_shifted(bits, 16), _words(1))
    return T.Cast(vector("uint16", _LANES), _shifted(bits + odd + _words(0x7FFF), 16))


def _halves(low: Any, high: Any) -> Any:
    """The lower 16 bits of each word from ``low`` and the upper ones from ``high``.

    The instruction is named, because LLVM makes a permutation of the usual expression, which takes
    three times as long.
    """
    choose = T.int32(0xCA)  # bits of the second where the first has ones, else of the third
    return T.call_llvm_pure_intrin(
        vector("uint32", _LANES),
        "llvm.x86.avx512.pternlog.d.512",
        _words(0xFFFF0000),
        high,
        low,
        choose,
    )


def _words(value: int) -> Any:
    return broadcast(T.uint32(value), _LANES)


def _shifted(bits: Any, count: int) -> Any:
    return T.shift_right(bits, _words(count)) if count else bits


class Weights:
    """Weights in tiles of 16 rows, as ``layouts.dot4`` stores them."""

    def __init__(self, p: Linear, w: Any, scales: Any, zeros: Any) -> None:
        self._p, self._w, self._scales, self._zeros = p, w, scales, zeros

    @classmethod
    def arguments(cls, p: Linear) -> Weights:
        """Declare the arguments that hold them."""
        tiles, groups = weight_tiles(p), p.k // p.group
        w = T.arg("w", T.buffer((tiles, p.k // p.codes_per_word, TILE), "uint32"))
        scales = T.arg("scales", T.buffer((tiles, groups, TILE), p.scale_dtype))
        words = TILE // p.codes_per_word
        zeros = T.arg("zeros", T.buffer((tiles, groups, words), "uint32")) if p.zeros else None
        return cls(p, w, scales, zeros)

    def prefetch(self, tile: Any, step: Any) -> None:
        """Ask for what :meth:`pairs` reads."""
        vectors = STEP // self._p.codes_per_word
        for index in range(vectors):
            prefetch(self._w[tile, step * vectors + index, 0])
        prefetch(self._scales[tile, step * STEP // self._p.group, 0])

    def pairs(self, tile: Any, step: Any) -> list[Any]:
        """Two neighbouring input features of the 16 rows in each vector, as pairs of bfloat16."""
        p = self._p
        group = T.Bind(step * STEP // p.group)
        stored = self._scales[tile, group, T.ramp(0, 1, _LANES)]
        scale = T.Bind(
            T.Cast(vector("float32", _LANES), stored) * broadcast(T.float32(SCALE), _LANES)
        )
        offset = T.Bind(-(self._zero(tile, group) * scale))
        vectors = STEP // p.codes_per_word
        pairs = []
        for index in range(vectors):
            words = T.Bind(self._w[tile, step * vectors + index, T.ramp(0, 1, _LANES)])
            # Input feature i is in byte i % 4, of 4 bits the second four in the upper halves.
            shifts = [8 * (i % 4) + 4 * (i // 4) for i in range(p.codes_per_word)]
            values = [
                T.reinterpret(
                    vector("uint32", _LANES),
                    T.call_llvm_pure_intrin(
                        vector("float32", _LANES), "llvm.fma", self._code(words, at), scale, offset
                    ),
                )
                for at in shifts
            ]
            for low, high in zip(values[::2], values[1::2], strict=True):
                pairs.append(_halves(_shifted(low, 16), high))
        return pairs

    def _code(self, words: Any, at: int) -> Any:
        """The codes at bit ``at`` of 16 words, as float32."""
        numbers, floats = vector("int32", _LANES), vector("float32", _LANES)
        shifted = _shifted(words, at)
        if self._p.bits == 4:
            # A table, of which the instruction uses the index' lowest four bits.
            table = T.Cast(floats, T.ramp(0, 1, _LANES))
            return T.call_llvm_pure_intrin(
                floats, "llvm.x86.avx512.permvar.sf.512", table, T.reinterpret(numbers, shifted)
            )
        return T.Cast(floats, T.reinterpret(numbers, T.bitwise_and(shifted, _words(255))))

    def _zero(self, tile: Any, group: Any) -> Any:
        """The zero points of 16 rows in a group, as float32."""
        p = self._p
        if not p.zeros:
            return broadcast(T.float32(p.middle), _LANES)
        words = TILE // p.codes_per_word
        lanes = T.ramp(T.uint32(0), T.uint32(1), _LANES)
        if p.bits == 4:
            # Row r is in word r % 2.
            turns, place = _LANES // words, lanes // _words(words)
            parts = [self._zeros[tile, group, word] for word in range(words)] * turns
        else:
            # Row r is in word r // 4.
            place = lanes % _words(p.codes_per_word)
            parts = [self._zeros[tile, group, lane // p.codes_per_word] for lane in range(_LANES)]
        stored = T.Shuffle(parts, list(range(_LANES)))
        code = T.shift_right(stored, place * _words(p.bits))
        masked = T.bitwise_and(code, _words((1 << p.bits) - 1))
        numbers = T.reinterpret(vector("int32", _LANES), masked)
        return T.Cast(vector("float32", _LANES), numbers)


def prefetch(element: Any) -> None:
    """To read, kept in all caches, data."""
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(element), 0, 3, 1))

"""Activations quantized to int8, one scale for each row and group of columns, in the order kernels read.

Rows lie in blocks of as many as a kernel's register tile takes; the last block has room for few more than
it needs, so that a few rows are not strewn over the cache. Within a block, words of four neighbouring
columns lie side by side, one of each row, then those of the next four columns; or two of each row, for
instructions that read eight columns. Places that no row has are never read into a result.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.linear import Preparation
from edgec.scheduling.kernels.vectors import Row, as_float, ramp, vector, without_regions

if TYPE_CHECKING:
    from edgec.scheduling.kernels.byte_dots import ByteDots
    from edgec.scheduling.kernels.linear import Linear

LARGEST = 127.0
"""The largest magnitude of a quantized activation."""
WORD = 4
"""Columns in a word."""

BESIDE = "edgec.words_beside"
"""Attribute of a kernel that reads activations: how many words of a row lie side by side."""
QUANTIZE = "edgec.quantize_rows"
"""Attribute of such a kernel: what it computes, as :meth:`QuantizedRows.to_json` says it."""


@dataclass(frozen=True)
class QuantizedRows:
    """What a kernel here computes.

    Attributes:
        x_dtype: of the activations.
        k: their columns.
        group: columns that share a scale.
        rows: in a block.
        factor: of the negated sums.
        beside: words of a row that lie side by side.
    """

    x_dtype: str
    k: int
    group: int
    rows: int
    factor: int
    beside: int = 1

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> QuantizedRows:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


def block_sizes(rows: int, more: tuple[int, ...] = ()) -> list[int]:
    """How many rows the last block may have room for: the least of these that is enough.

    Args:
        rows: in a block.
        more: sizes beside the usual ones.
    """
    return [size for size in sorted((1, 2, 4, 8, *more)) if size < rows] + [rows]


class Quantized:
    """The quantized activations as a kernel's arguments.

    Attributes:
        words: int32, four columns of a row.
        scales: float32, what a step of a group is worth.
        terms: int32, the negated sum of a group, times the zero point if it is the same for all weights.
    """

    def __init__(self, words: Any, scales: Any, terms: Any) -> None:
        self.words, self.scales, self.terms = words, scales, terms

    @classmethod
    def arguments(cls, linear: Linear | QuantizedRows, rows: int, m: Any) -> Quantized:
        """Declare them."""
        names = ("xq", "xs", "xz")
        shapes = outputs(linear, rows, m)
        return cls(*(T.arg(n, T.buffer(*s)) for n, s in zip(names, shapes, strict=True)))


def word_place(word: Any, row: Any, room: Any, beside: int) -> Any:
    """The place of a word of four columns in a block.

    Args:
        word: its number.
        row: within the block.
        room: rows that the block has room for.
        beside: words of a row that lie side by side.
    """
    if beside == 1:
        return word * room + row
    within = word % beside
    return (word - within) * room + (row * beside + within)


def outputs(linear: Linear | QuantizedRows, rows: int, m: Any) -> list[tuple[tuple[Any, ...], str]]:
    """Shapes and dtypes of words, scales and terms.

    Args:
        linear: a layer that reads the activations.
        rows: in a block.
        m: rows of the activations.
    """
    blocks = -(-m // rows) if isinstance(m, int) else (m + (rows - 1)) // rows
    groups = linear.k // linear.group
    return [
        ((blocks, linear.k // WORD * rows), "int32"),
        ((blocks, groups * rows), "float32"),
        ((blocks, groups * rows), "int32"),
    ]


def preparation(
    linear: Linear, dots: ByteDots, rows: int, *, single: bool, count: int = 1
) -> Preparation:
    """Quantization for a layer whose kernel takes ``rows`` rows at a time.

    Args:
        linear: the layer.
        dots: how its kernel adds up products.
        rows: in a block.
        single: whether the number of rows is known.
        count: the number of rows, if it is known.
    """
    zero = 0 if dots.signed and linear.bits == 8 else linear.middle
    factor = 1 if linear.zeros else zero
    name = f"quantize_{linear.x_dtype}_{linear.k}_by_{linear.group}_in_{rows}_times_{factor}"
    if single and count > 1:
        name += f"_{count}_rows"
    elif rows == 1 and not single:
        name += "_row_by_row"
    what = QuantizedRows(linear.x_dtype, linear.k, linear.group, rows, factor, dots.words_beside)
    function = _function(linear, dots, rows, factor, count=count if single else None)
    function = function.with_attr(QUANTIZE, what.to_json())
    return Preparation(name, function, lambda m: outputs(linear, rows, m))


def _function(linear: Linear, dots: ByteDots, rows: int, factor: int, *, count: int | None) -> Any:
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            m = T.int64() if count is None else count
            x = T.arg("x", T.buffer((m, linear.k), linear.x_dtype))
            out = Quantized.arguments(linear, rows, m)
            # A row takes about as long as it takes to start a thread, or less where there are several.
            loop = T.parallel if count is None else T.serial
            with T.sblock("root"), loop(0, m) as row, T.sblock("row"):
                without_regions()
                block = T.Bind(row // rows)
                room = T.Bind(room_of(rows, m - block * rows))
                with T.serial(0, linear.k // linear.group) as group:
                    _Group(linear, dots, x, row, group).write(out, block, row % rows, room, factor)
        return builder.get()


def room_of(rows: int, rest: Any, more: tuple[int, ...] = ()) -> Any:
    """Rows that a block has room for, from the number of rows from its first on."""
    *smaller, largest = block_sizes(rows, more)
    room: Any = T.int64(largest)
    for size in reversed(smaller):
        room = T.if_then_else(rest <= size, T.int64(size), room)
    return room


class _Group:
    """One group of columns of a row."""

    def __init__(self, linear: Linear, dots: ByteDots, x: Any, row: Any, group: Any) -> None:
        lanes = max(dots.lanes, WORD)
        self._group, self._beside = group, dots.words_beside
        first = group * linear.group
        self._values = [
            T.Bind(as_float(x[row, ramp(first + i, 1, lanes)], lanes))
            for i in range(0, linear.group, lanes)
        ]
        self._lanes = lanes

    def write(self, out: Quantized, block: Any, slot: Any, room: Any, factor: int) -> None:
        """Quantize and store it."""
        place = Place(block, slot, room, self._group, self._beside)
        quantize_group(self._values, self._lanes, out, place, factor)


class Place(NamedTuple):
    """Where a group of columns of a row goes.

    Attributes:
        block: number of the block of rows.
        slot: of the row in it.
        room: rows that the block has room for.
        group: number of the group.
        beside: words of a row that lie side by side.
    """

    block: Any
    slot: Any
    room: Any
    group: Any
    beside: int


def quantize_group(
    values: list[Any], lanes: int, out: Quantized, place: Place, factor: int
) -> None:
    """Quantize and store a group of columns of a row.

    Args:
        values: vectors of float32, bound to variables.
        lanes: of each, 4 at least.
        out: where to.
        place: where in it.
        factor: of the negated sum.
    """
    block, slot, room, group, beside = place
    size = lanes * len(values)
    top = _largest(values, lanes)
    inverse = T.Bind(T.if_then_else(top > T.float32(0), T.float32(LARGEST) / top, T.float32(0)))
    at = T.Bind(group * room + slot)
    T.buffer_store(out.scales, top * T.float32(1 / LARGEST), [block, at])
    words = T.sblock_alloc_buffer((size // WORD,), "int32")
    sums = T.sblock_alloc_buffer((lanes,), "int32")
    total: Any = None
    for i, value in enumerate(values):
        # The numbers are within +-127, so that neither conversion cuts off.
        steps = T.nearbyint(value * T.broadcast(inverse, lanes))
        code = T.Bind(T.Cast(vector("int32", lanes), steps))
        total = code if total is None else total + code
        count = lanes // WORD
        packed = T.reinterpret(vector("int32", count), T.Cast(vector("int8", lanes), code))
        T.buffer_store(words, packed, [ramp(i * count, 1, count)])
    first = group * (size // WORD)
    for i in range(size // WORD):
        word = word_place(first + i, slot, room, beside)
        T.buffer_store(out.words, words[i], [block, word])
    T.buffer_store(sums, total, [ramp(0, 1, lanes)])
    half = lanes // 2
    while half:
        folded = sums[ramp(0, 1, half)] + sums[ramp(half, 1, half)]
        T.buffer_store(sums, folded, [ramp(0, 1, half)])
        half //= 2
    T.buffer_store(out.terms, sums[0] * T.int32(-factor), [block, at])


def _largest(values: list[Any], lanes: int) -> Any:
    """The largest magnitude."""
    largest = T.abs(values[0])
    for value in values[1:]:
        largest = T.max(largest, T.abs(value))
    fold = Row(lanes)
    fold.store(largest)
    return T.Bind(fold.reduce(T.max))

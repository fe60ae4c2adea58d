"""What the kernels for a mixture of experts compute, in loops for the CPU: their references.

Products are sums over the definition, one by one, whatever order the kernel takes them in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.experts import TILE_FIELDS

if TYPE_CHECKING:
    from edgec.scheduling.kernels.experts import Experts, Grouping


def expert_matmul(e: Experts, *, grouped: bool) -> Any:
    """The PrimFunc ``(x (r, k), ids (s,)[, order, tiles], w[, scales[, zeros]], y (s, n))``.

    Args:
        e: the layer.
        grouped: whether there are ``order`` and ``tiles``, of which nothing is read.
    """
    linear = e.all
    rows, slots, count = (te.var(name, "int64") for name in ("rows", "slots", "count"))
    x = te.placeholder((rows, linear.k), linear.x_dtype, name="x")
    ids = te.placeholder((slots,), "int32", name="ids")
    grouping = [
        te.placeholder((slots,), "int32", name="order"),
        te.placeholder((count, TILE_FIELDS), "int32", name="tiles"),
    ]
    columns = linear.k // linear.codes_per_word
    stored = [te.placeholder((linear.n, columns), linear.w_dtype, name="w")]
    if linear.bits:
        groups = linear.k // linear.group
        stored.append(te.placeholder((linear.n, groups), linear.scale_dtype, name="scales"))
    if linear.zeros:
        stored.append(te.placeholder((linear.n, linear.zero_words), "uint32", name="zeros"))
    axis = te.reduce_axis((0, linear.k), name="k")

    def weight(row: Any, column: Any) -> Any:
        if not linear.bits:
            return stored[0][row, column].astype("float32")
        group = column // linear.group
        zero = number(stored[2], row, group) if linear.zeros else linear.middle
        centered = number(stored[0], row, column) - zero
        return centered.astype("float32") * stored[1][row, group].astype("float32")

    def number(words: te.Tensor, row: Any, place: Any) -> Any:
        per_word, bits = linear.codes_per_word, linear.bits
        shifted = tirx.shift_right(
            words[row, place // per_word], tirx.Cast("uint32", place % per_word * bits)
        )
        return tirx.Cast("int32", tirx.bitwise_and(shifted, tirx.const((1 << bits) - 1, "uint32")))

    def product(slot: Any, column: Any) -> Any:
        row = ids[slot] * e.linear.n + column
        value = x[slot // e.share, axis].astype("float32") * weight(row, axis)
        return te.sum(value, axis=axis)

    sums = te.compute((slots, e.linear.n), product, name="experts")
    y = te.compute(
        (slots, e.linear.n), lambda i, j: sums[i, j].astype(linear.y_dtype), name="round"
    )
    arguments = [x, ids, *(grouping if grouped else []), *stored, y]
    return te.create_prim_func(arguments).without_attr("global_symbol")


def order(g: Grouping) -> Any:
    """The PrimFunc ``(ids (s,), order (s,), offsets (experts + 1,))``."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            slots = T.int64()
            ids = T.arg("ids", T.buffer((slots,), "int32"))
            result = T.arg("order", T.buffer((slots,), "int32"))
            offsets = T.arg("offsets", T.buffer((g.experts + 1,), "int32"))
            with T.sblock("root"):
                place = T.sblock_alloc_buffer((1,), "int32")
                T.buffer_store(place, T.int32(0), [0])
                with T.serial(0, g.experts) as expert:
                    T.buffer_store(offsets, place[0], [expert])
                    with T.serial(0, slots) as slot, T.If(ids[slot] == expert), T.Then():
                        T.buffer_store(result, T.Cast("int32", slot), [place[0]])
                        T.buffer_store(place, place[0] + 1, [0])
                T.buffer_store(offsets, place[0], [g.experts])
        return builder.get()


def tiles(g: Grouping) -> Any:
    """The PrimFunc ``(offsets (experts + 1,), tiles (count, TILE_FIELDS))``."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            count = T.int64()
            offsets = T.arg("offsets", T.buffer((g.experts + 1,), "int32"))
            result = T.arg("tiles", T.buffer((count, TILE_FIELDS), "int32"))
            with T.sblock("root"):
                place = T.sblock_alloc_buffer((1,), "int32")
                T.buffer_store(place, T.int32(0), [0])
                with T.serial(0, count) as tile, T.serial(0, TILE_FIELDS) as entry:
                    T.buffer_store(result, T.int32(0), [tile, entry])
                with T.serial(0, g.experts) as expert:
                    first, end = offsets[expert], offsets[expert + 1]
                    with T.serial(0, T.ceildiv(end - first, g.rows)) as part:
                        begin = first + part * g.rows
                        fields = (expert, begin, T.min(begin + g.rows, end))
                        for index, value in enumerate(fields):
                            T.buffer_store(result, T.Cast("int32", value), [place[0], index])
                        T.buffer_store(place, place[0] + 1, [0])
        return builder.get()

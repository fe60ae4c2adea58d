"""A gate with its activation, quantized, on CPUs: ``silu(gate) * up`` as a matmul of bytes reads it.

Both halves of a row are read once, and the product goes from registers into its group. The activation and
the product are rounded to the dtype of the hidden states, as if they had been stored. Groups are computed
one by one, whatever the number of rows and of threads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.quantize_rows import Place, Quantized, quantize_group, room_of
from edgec.scheduling.kernels.vectors import as_float, ramp, sigmoid, vector, without_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.scheduling.kernels.quantize_rows import QuantizedRows


def silu_of_gate(q: QuantizedRows, outer: Sequence[int | None], vector_bits: int) -> Any:
    """The PrimFunc ``(x, words, scales, terms)``; ``x`` is ``(..., 2 * k)``, the gate first.

    Args:
        q: how the product is quantized.
        outer: sizes of the leading dimensions, None for those that vary; all others are 1.
        vector_bits: width of the registers.
    """
    lanes = vector_bits // 32
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            sizes = [T.int64() if size is None else size for size in outer]
            m = math.prod(sizes)
            x = T.arg("x", T.buffer((*sizes, 2 * q.k), q.x_dtype))
            out = Quantized.arguments(q, q.rows, m)
            groups = q.k // q.group

            def write(row: Any, group: Any) -> None:
                at = [0 if isinstance(size, int) else row for size in sizes]
                block = T.Bind(row // q.rows)
                room = T.Bind(room_of(q.rows, m - block * q.rows))
                values = [
                    _product(x, at, group * q.group + i, q, lanes) for i in range(0, q.group, lanes)
                ]
                quantize_group(q, values, out, Place(block, row % q.rows, room, group))

            if isinstance(m, int) and m == 1:
                with T.sblock("root"), T.serial(0, groups) as group, T.sblock("group"):
                    without_regions()
                    write(0, group)
            else:
                with T.sblock("root"), T.parallel(0, m) as row, T.sblock("row"):
                    without_regions()
                    with T.serial(0, groups) as group:
                        write(row, group)
        return builder.get()


def _product(x: Any, at: Sequence[Any], column: Any, q: QuantizedRows, lanes: int) -> Any:
    """Neighbouring products, as float32."""

    def rounded(value: Any) -> Any:
        return as_float(T.Bind(T.Cast(vector(q.x_dtype, lanes), value)), lanes)

    gate, up = (
        T.Bind(as_float(x[(*at, ramp(first + column, 1, lanes))], lanes)) for first in (0, q.k)
    )
    return T.Bind(rounded(rounded(gate * sigmoid(gate, lanes)) * up))

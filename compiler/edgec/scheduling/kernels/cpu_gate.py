"""A gate with its activation, quantized, on CPUs: ``silu(gate) * up`` as a matmul of bytes reads it.

Some groups' products are computed first and then quantized, from the nearest cache: a product takes a long
chain of instructions, and a processor works on several at once only if they follow each other. Activation
and product are rounded to the dtype of the hidden states, as if they had been stored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.quantize_rows import Place, Quantized, quantize_group, room_of
from edgec.scheduling.kernels.vectors import as_float, ramp, sigmoid, vector, without_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.scheduling.kernels.quantize_rows import QuantizedRows


# Groups whose products are computed before they are quantized, and the bytes from which on they would
# lie in the heap.
_TOGETHER = (16, 8, 4, 2, 1)
_HEAP = 1024


def silu_of_gate(q: QuantizedRows, outer: Sequence[int | None], vector_bits: int) -> Any:
    """The PrimFunc ``(x, words, scales, terms)``; ``x`` is ``(..., 2 * k)``, the gate first.

    Args:
        q: how the product is quantized.
        outer: sizes of the leading dimensions, None for those that vary; all others are 1.
        vector_bits: width of the registers.
    """
    lanes, groups = vector_bits // 32, q.k // q.group
    size = np.dtype(q.x_dtype).itemsize
    together = next(
        n for n in _TOGETHER if groups % n == 0 and (n == 1 or n * q.group * size < _HEAP)
    )
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            sizes = [T.int64() if size is None else size for size in outer]
            m = math.prod(sizes)
            x = T.arg("x", T.buffer((*sizes, 2 * q.k), q.x_dtype))
            out = Quantized.arguments(q, q.rows, m)
            single = isinstance(m, int) and m == 1
            loop = T.serial if single else T.parallel
            with T.sblock("root"), loop(0, m) as row, T.sblock("row"):
                without_regions()
                at = [0 if isinstance(size, int) else row for size in sizes]
                block = T.Bind(row // q.rows)
                room = T.Bind(room_of(q.rows, m - block * q.rows))
                products = T.sblock_alloc_buffer((together * q.group,), q.x_dtype)
                with T.serial(0, groups // together) as part:
                    first = T.Bind(part * (together * q.group))
                    with T.serial(0, together * q.group // lanes) as step:
                        column = T.Bind(step * lanes)
                        product = _product(x, at, first + column, q, lanes)
                        T.buffer_store(products, product, [ramp(column, 1, lanes)])
                    with T.serial(0, together) as group:
                        values = [
                            T.Bind(as_float(products[ramp(group * q.group + i, 1, lanes)], lanes))
                            for i in range(0, q.group, lanes)
                        ]
                        number = part * together + group
                        place = Place(block, row % q.rows, room, number, q.beside)
                        quantize_group(values, lanes, out, place, q.factor)
        return builder.get()


def _product(x: Any, at: Sequence[Any], column: Any, q: QuantizedRows, lanes: int) -> Any:
    """Neighbouring products, in the dtype of the hidden states."""

    def rounded(value: Any) -> Any:
        return T.Bind(T.Cast(vector(q.x_dtype, lanes), value))

    gate, up = (
        T.Bind(as_float(x[(*at, ramp(first + column, 1, lanes))], lanes)) for first in (0, q.k)
    )
    return rounded(as_float(rounded(gate * sigmoid(gate, lanes)), lanes) * up)

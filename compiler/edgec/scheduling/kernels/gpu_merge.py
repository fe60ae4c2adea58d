"""Join the results of attention over two parts of a context, in place.

TVM's own kernel lets every lane of a row read the row's sum and then write it: on a device whose
sub-groups are narrower than the row, a lane may read what another has written already. Here one
lane reads it, tells the others through shared memory, and writes it.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.gpu_work_group import (
    Limits,
    Memory,
    barrier,
    kernel_attributes,
    launch,
    shared,
    when,
)

_LANES = 256


def merge_states(head_dim: int, dtype: str, limits: Limits) -> Any:
    """The PrimFunc ``(values, sums, other_values, other_sums)``, the first two in place.

    Args:
        head_dim: size of one head.
        dtype: of the values.
        limits: of the device.

    Returns:
        Values are ``(tokens, heads, head_dim)``, sums float32 ``(tokens, heads)``: the binary
        logarithm of the sum of the exponentials of the scores.
    """
    vector = limits.vector_lanes
    while head_dim % vector:
        vector //= 2
    per_head = head_dim // vector
    lanes = limits.lanes(_LANES)
    heads_at_once = max(1, lanes // per_head)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            tokens, heads = T.int32(), T.int32()
            values = Memory(T.arg("values", T.buffer((tokens, heads, head_dim), dtype)))
            sums = Memory(T.arg("sums", T.buffer((tokens, heads), "float32")))
            other = Memory(T.arg("other_values", T.buffer((tokens, heads, head_dim), dtype)))
            other_sums = Memory(T.arg("other_sums", T.buffer((tokens, heads), "float32")))
            groups = T.ceildiv(heads, heads_at_once)
            with launch(heads_at_once * per_head, groups, tokens) as (lane, group, token):
                weight, other_weight = shared(heads_at_once), shared(heads_at_once)
                local = lane // per_head
                head = group * heads_at_once + local
                with when(T.And(lane % per_head == 0, head < heads)):
                    mine, theirs = sums[token, head], other_sums[token, head]
                    most = T.Bind(T.max(mine, theirs))
                    a = T.Bind(T.exp2(mine - most))
                    b = T.Bind(T.exp2(theirs - most))
                    weight[local] = a / (a + b)
                    other_weight[local] = b / (a + b)
                    sums[token, head] = most + T.log2(a + b)
                barrier()
                with when(head < heads):
                    _blend(
                        values,
                        other,
                        (token, head, lane % per_head * vector),
                        vector,
                        (weight[local], other_weight[local]),
                        dtype,
                    )
        return builder.get()


def _blend(
    values: Memory, other: Memory, place: Any, vector: int, weights: tuple[Any, Any], dtype: str
) -> None:
    wide = f"float32x{vector}" if vector > 1 else "float32"
    narrow = f"{dtype}x{vector}" if vector > 1 else dtype
    a, b = (T.broadcast(w, vector) if vector > 1 else w for w in weights)
    mine = T.Cast(wide, values.vector(place, vector)) * a
    theirs = T.Cast(wide, other.vector(place, vector)) * b
    values.set_vector(place, T.Cast(narrow, mine + theirs), vector)

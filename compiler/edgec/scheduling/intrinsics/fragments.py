"""Loads, products and stores of matrix fragments that a whole sub-group holds together.

What such an instruction means is the same on every platform and is described here once, in loops;
how it is spelled is the platform's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Spelling:
    """How a platform says what is done with fragments.

    Every function answers an expression. A fragment is given by its buffer and its index therein,
    memory by a pointer and the distance between rows in elements.

    Attributes:
        fill: ``(fragment, index)`` with zeros.
        load_a: ``(fragment, index, pointer, stride)`` of rows of activations.
        load_b: the same of rows of weights, which are columns of the product's second factor.
        multiply: ``(sums, index, a, index, b, index)``: adds the product to the sums.
        store: ``(fragment, index, pointer, stride)``.
    """

    fill: Callable[..., Any]
    load_a: Callable[..., Any]
    load_b: Callable[..., Any]
    multiply: Callable[..., Any]
    store: Callable[..., Any]


@dataclass(frozen=True)
class Tile:
    """Sizes of one work-group's part of the result.

    Attributes:
        warps: sub-groups along rows and along columns.
        fragments: of one sub-group along rows and along columns.
        steps: fragments along ``k`` that are in shared memory at once.
    """

    warps: tuple[int, int]
    fragments: tuple[int, int]
    steps: int


@dataclass(frozen=True)
class MatrixUnits:
    """The matrix instructions of a platform: float16 factors, float32 sums.

    Attributes:
        name: prefix of the registered intrinsics.
        size: of the square fragments.
        a_scope: TVM's storage scope of fragments of the first factor.
        b_scope: of the second factor.
        sum_scope: of the sums.
        shared_scope: of the work-group's memory that fragments are loaded from.
        spelling: of the instructions.
    """

    name: str
    size: int
    a_scope: str
    b_scope: str
    sum_scope: str
    shared_scope: str
    spelling: Spelling

    def intrinsic(self, step: str) -> str:
        """The registered name of ``fill``, ``load_a``, ``load_b``, ``multiply`` or ``store``."""
        return f"edgec.{self.name}.{step}"

    def register(self) -> None:
        """Make the intrinsics known to TVM, once."""
        if TensorIntrin.get(self.intrinsic("fill"), allow_missing=True) is not None:
            return
        say = self.spelling
        a, b, sums, shared = self.a_scope, self.b_scope, self.sum_scope, self.shared_scope
        for step, pair in {
            "fill": _fill(self.size, sums, say.fill),
            "load_a": _copy(self.size, "float16", shared, a, say.load_a, loads=True),
            "load_b": _copy(self.size, "float16", shared, b, say.load_b, loads=True),
            "multiply": _multiply(self.size, a, b, sums, say.multiply),
            "store": _copy(self.size, "float32", sums, shared, say.store, loads=False),
        }.items():
            TensorIntrin.register(self.intrinsic(step), *pair)


def _index(buffer: Any, stride: Any, size: int) -> Any:
    """Which fragment of its buffer a matched region is, row by row."""
    row = buffer.elem_offset // stride // size
    column = buffer.elem_offset % stride // size
    return row * (stride // size) + column


def _fill(size: int, scope: str, say: Callable[..., Any]) -> tuple[Any, Any]:
    @T.prim_func(s_tir=True)
    def meaning(c: T.handle) -> None:
        C = T.match_buffer(c, (size, size), "float32", align=64, offset_factor=size, scope=scope)
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:size, 0:size])
            for i, j in T.grid(size, size):
                with T.sblock("fill"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = T.float32(0)

    @T.prim_func(s_tir=True)
    def instruction(c: T.handle) -> None:
        row = T.int32()
        column = T.int32()
        C = T.match_buffer(
            c,
            (size, size),
            "float32",
            align=64,
            offset_factor=size,
            scope=scope,
            strides=[row, column],
        )
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:size, 0:size])
            T.evaluate(say(C.data, _index(C, row, size)))

    return meaning, instruction


def _copy(
    size: int, dtype: str, source: str, target: str, say: Callable[..., Any], *, loads: bool
) -> tuple[Any, Any]:
    """From memory to a fragment, or back."""

    def spelled(A: Any, a_row: Any, C: Any, c_row: Any) -> Any:
        if loads:
            pointer = A.access_ptr("r", ptr_type=dtype)
            return say(C.data, _index(C, c_row, size), pointer, a_row)
        return say(A.data, _index(A, a_row, size), C.access_ptr("w", ptr_type=dtype), c_row)

    @T.prim_func(s_tir=True)
    def meaning(a: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (size, size), dtype, align=64, offset_factor=size, scope=source)
        C = T.match_buffer(c, (size, size), dtype, align=64, offset_factor=size, scope=target)
        with T.sblock("root"):
            T.reads(A[0:size, 0:size])
            T.writes(C[0:size, 0:size])
            for i, j in T.grid(size, size):
                with T.sblock("copy"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)
    def instruction(a: T.handle, c: T.handle) -> None:
        a_row = T.int32()
        a_column = T.int32()
        c_row = T.int32()
        c_column = T.int32()
        A = T.match_buffer(
            a,
            (size, size),
            dtype,
            align=64,
            offset_factor=size,
            scope=source,
            strides=[a_row, a_column],
        )
        C = T.match_buffer(
            c,
            (size, size),
            dtype,
            align=64,
            offset_factor=size,
            scope=target,
            strides=[c_row, c_column],
        )
        with T.sblock("root"):
            T.reads(A[0:size, 0:size])
            T.writes(C[0:size, 0:size])
            T.evaluate(spelled(A, a_row, C, c_row))

    return meaning, instruction


def _multiply(
    size: int, a_scope: str, b_scope: str, c_scope: str, say: Callable[..., Any]
) -> tuple[Any, Any]:
    """``C += A @ B.T``, products and sums in float32."""

    @T.prim_func(s_tir=True)
    def meaning(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (size, size), "float16", align=64, offset_factor=size, scope=a_scope)
        B = T.match_buffer(b, (size, size), "float16", align=64, offset_factor=size, scope=b_scope)
        C = T.match_buffer(c, (size, size), "float32", align=64, offset_factor=size, scope=c_scope)
        with T.sblock("root"):
            T.reads(C[0:size, 0:size], A[0:size, 0:size], B[0:size, 0:size])
            T.writes(C[0:size, 0:size])
            for i, j, k in T.grid(size, size, size):
                with T.sblock("multiply"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + T.Cast("float32", A[vi, vk]) * T.Cast(
                        "float32", B[vj, vk]
                    )

    @T.prim_func(s_tir=True)
    def instruction(a: T.handle, b: T.handle, c: T.handle) -> None:
        a_row = T.int32()
        a_column = T.int32()
        b_row = T.int32()
        b_column = T.int32()
        c_row = T.int32()
        c_column = T.int32()
        A = T.match_buffer(
            a,
            (size, size),
            "float16",
            align=64,
            offset_factor=size,
            scope=a_scope,
            strides=[a_row, a_column],
        )
        B = T.match_buffer(
            b,
            (size, size),
            "float16",
            align=64,
            offset_factor=size,
            scope=b_scope,
            strides=[b_row, b_column],
        )
        C = T.match_buffer(
            c,
            (size, size),
            "float32",
            align=64,
            offset_factor=size,
            scope=c_scope,
            strides=[c_row, c_column],
        )
        with T.sblock("root"):
            T.reads(C[0:size, 0:size], A[0:size, 0:size], B[0:size, 0:size])
            T.writes(C[0:size, 0:size])
            T.evaluate(
                say(
                    C.data,
                    _index(C, c_row, size),
                    A.data,
                    _index(A, a_row, size),
                    B.data,
                    _index(B, b_row, size),
                )
            )

    return meaning, instruction

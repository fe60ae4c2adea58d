"""bitsandbytes checkpoints: NF4 and FP4 (QLoRA; Dettmers et al., 2023) and LLM.int8 (2022).

Four bits, for a tensor ``p`` (a module's ``weight``) of the shape in its state, read as one row:

* ``p``: two codes to a byte, the first in the high bits;
* ``p.quant_map`` float32 ``(16,)``: the value of each code;
* ``p.absmax``: what the values of each block of ``blocksize`` weights are multiplied by: float32, or
* with double quantization uint8 codes for ``p.nested_quant_map`` ``(256,)``, times
  ``p.nested_absmax`` of their own blocks, plus ``nested_offset``;
* ``p.quant_state.bitsandbytes__nf4`` (or ``__fp4``): the state, JSON as uint8.

LLM.int8, for a module: ``weight`` int8 ``(N, K)`` and ``SCB`` float32 ``(N,)``; the value is
``code * SCB / 127``. ``weight_format`` says how the codes are ordered: 0, row by row.

All arithmetic is in float32, as bitsandbytes does it before it rounds to the model's type.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.quantized.fields import show
from edgec.checkpoints.quantized.format import Layout, modules

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray
    from typing_extensions import Self

    from edgec.checkpoints.quantized.fields import Fields
    from edgec.checkpoints.quantized.format import Restored
    from edgec.checkpoints.quantized.stored import Stored

_STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
_SIDES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_STATE_BYTES = 1 << 16
_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
_BLOCKS = tuple(1 << power for power in range(5, 13))
_MOST_WEIGHTS = 1 << 48
_RECIPROCAL = np.float32(7.874015718698502e-3)  # 1 / 127, as LLM.int8 rounds it
_PIECE = 1 << 14  # weights computed at a time


@dataclass(frozen=True)
class BitsAndBytes:
    """Both widths; see :class:`edgec.checkpoints.quantized.format.Format`.

    What a tensor is, its parts say: a config may ask for quantization of plain weights on loading.

    Attributes:
        text: one line for people.
    """

    text: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """From ``quantization_config``."""
        if fields.flag("load_in_8bit"):
            return cls("8 bits, a scale per row")
        if not fields.flag("load_in_4bit"):
            return cls("8 or 4 bits")
        kind = fields.text("bnb_4bit_quant_type", default="fp4")
        fields.only("the 4-bit type of bitsandbytes", kind, ("nf4", "fp4"))
        nested = fields.flag("bnb_4bit_use_double_quant")
        return cls(kind.upper() + (", double quantization" if nested else ""))

    @property
    def codes(self) -> None:
        """See :attr:`Format.codes`."""
        return

    def layout(self, names: Collection[str]) -> Layout:
        """See :meth:`Format.layout`."""
        there = frozenset(names)
        restored: dict[str, tuple[str, ...]] = {}
        for state in _STATES:
            for name in modules(names, state):
                sides = (name + side for side in _SIDES)
                restored[name] = (name, name + state, *(side for side in sides if side in there))
        for module in modules(names, ".SCB"):
            restored[f"{module}.weight"] = (f"{module}.weight", f"{module}.SCB")
        return Layout(
            restored, frozenset(name for name in names if name.endswith(".weight_format"))
        )

    def restore(self, name: str, stored: Stored) -> Restored:
        """See :meth:`Format.restore`."""
        for state in _STATES:
            if name + state in stored:
                return _four_bits(name, state, stored)
        return _Rows(name, stored)


class _Rows:
    """An LLM.int8 matrix."""

    dtype = "F32"

    def __init__(self, name: str, stored: Stored) -> None:
        self._name, self._stored = name, stored
        module = name.removesuffix(".weight")
        self.shape = stored.part(name, ("I8",)).shape
        if len(self.shape) != 2:
            raise stored.damaged(name, f"has shape {list(self.shape)} where two axes belong")
        self._scales = f"{module}.SCB"
        stored.part(self._scales, ("F32", "F16"), self.shape[:1])
        order = f"{module}.weight_format"
        if order in stored:
            value = np.empty(math.prod(stored.part(order, ("U8",), ()).shape), np.uint8)
            stored.read(order, 0, value)
            if value[0]:
                raise stored.damaged(order, f"is {value[0]}; only rows in order, 0, can be read")

    def rows_into(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        columns = self.shape[1]
        scales = self._stored.floats(self._scales, start, stop - start)
        step = max(1, 4 * _PIECE // max(1, columns))
        for row in range(start, stop, step):
            end = min(row + step, stop)
            codes = np.empty((end - row, columns), np.int8)
            self._stored.read(self._name, row * columns, codes)
            part = out[row - start : end - start]
            part[:] = codes
            part *= scales[row - start : end - start, None]
            part *= _RECIPROCAL


@dataclass(frozen=True)
class _Nested:
    """Double quantization of the block's factors."""

    block: int
    offset: np.float32
    values: NDArray[np.float32]


class _FourBits:
    """An NF4 or FP4 tensor."""

    def __init__(
        self,
        name: str,
        stored: Stored,
        shape: tuple[int, ...],
        dtype: str,
        block: int,
        nested: _Nested | None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._name, self._stored = name, stored
        self._block, self._nested = block, nested
        values = stored.floats(f"{name}.quant_map", 0, 16)
        # Both weights of a byte at once, as one number of 64 bits.
        pairs = np.empty((256, 2), np.float32)
        pairs[:, 0] = np.repeat(values, 16)
        pairs[:, 1] = np.tile(values, 16)
        self._pairs = pairs.view(np.uint64).reshape(-1)

    def rows_into(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        width = math.prod(self.shape[1:])
        flat = out.reshape(-1)
        first, last = start * width, stop * width
        # Whole blocks, so that their factors are one column.
        position = first // self._block * self._block
        step = max(1, _PIECE // self._block) * self._block
        while position < last:
            values = self._blocks(position, min(position + step, math.prod(self.shape)))
            begin, end = max(first, position), min(last, position + step)
            flat[begin - first : end - first] = values[begin - position : end - position]
            position += step

    def _blocks(self, start: int, stop: int) -> NDArray[np.float32]:
        """Weights ``[start, stop)``; ``start`` begins a block, ``stop`` ends one or the tensor."""
        octets = np.empty((stop + 1) // 2 - start // 2, np.uint8)
        self._stored.read(self._name, start // 2, octets)
        count = -(-(stop - start) // self._block)
        values = np.zeros((count, self._block), np.float32)
        flat = values.reshape(-1)
        np.take(self._pairs, octets, out=flat.view(np.uint64)[: len(octets)], mode="clip")
        values *= self._factors(start // self._block, count)[:, None]
        return flat[: stop - start]

    def _factors(self, start: int, count: int) -> NDArray[np.float32]:
        name = f"{self._name}.absmax"
        if self._nested is None:
            return self._stored.floats(name, start, count)
        codes = np.empty(count, np.uint8)
        self._stored.read(name, start, codes)
        blocks = np.arange(start, start + count) // self._nested.block
        outer = self._stored.floats(
            f"{self._name}.nested_absmax", int(blocks[0]), int(blocks[-1] - blocks[0]) + 1
        )
        factors = self._nested.values[codes]
        factors *= outer[blocks - blocks[0]]
        factors += self._nested.offset
        return factors


def _four_bits(name: str, suffix: str, stored: Stored) -> _FourBits:
    state = _State(name, name + suffix, stored)
    shape = state.shape()
    count = math.prod(shape)
    codes = stored.part(name, ("U8", "I8", "BF16", "F16", "F32"))
    if codes.nbytes < (count + 1) // 2 or codes.nbytes > (count + 1) // 2 + 3:
        raise stored.damaged(
            name,
            f"has {codes.nbytes:,} bytes; {count:,} weights of 4 bits take {(count + 1) // 2:,}",
        )
    stored.part(f"{name}.quant_map", ("F32",), (16,))
    block = state.choice("blocksize", _BLOCKS)
    blocks = -(-count // block)
    dtype = _DTYPES[state.choice("dtype", tuple(_DTYPES))]
    state.choice("quant_type", (suffix[-3:],))
    if f"{name}.nested_absmax" not in stored and "nested_offset" not in state.values:
        stored.part(f"{name}.absmax", ("F32",), (blocks,))
        return _FourBits(name, stored, shape, dtype, block, None)
    stored.part(f"{name}.absmax", ("U8",), (blocks,))
    inner = state.choice("nested_blocksize", _BLOCKS)
    stored.part(f"{name}.nested_absmax", ("F32",), (-(-blocks // inner),))
    stored.part(f"{name}.nested_quant_map", ("F32",), (256,))
    values = stored.floats(f"{name}.nested_quant_map", 0, 256)
    return _FourBits(name, stored, shape, dtype, block, _Nested(inner, state.offset(), values))


class _State:
    """The JSON that describes a 4-bit tensor."""

    def __init__(self, name: str, part: str, stored: Stored) -> None:
        self._part, self._stored = part, stored
        info = stored.part(part, ("U8",))
        if info.nbytes > _STATE_BYTES:
            raise stored.damaged(part, f"has {info.nbytes:,} bytes, which no state of {name} needs")
        raw = np.empty(info.nbytes, np.uint8)
        stored.read(part, 0, raw)
        try:
            values = json.loads(raw.tobytes().decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise stored.damaged(part, "is not JSON") from error
        if not isinstance(values, dict):
            raise stored.damaged(part, f"is {show(values)} where an object belongs")
        self.values: dict[str, Any] = values

    def choice(self, field: str, known: tuple[Any, ...]) -> Any:
        """A field with one of a few values."""
        value = self.values.get(field)
        for item in known:
            if type(value) is type(item) and value == item:
                return item
        listed = ", ".join(map(str, known))
        raise self._stored.damaged(self._part, f"has {field} {show(value)} in place of {listed}")

    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        value = self.values.get("shape")
        if (
            not isinstance(value, list)
            or not 1 <= len(value) <= 4
            or not all(type(axis) is int and 0 < axis <= _MOST_WEIGHTS for axis in value)
            or math.prod(value) > _MOST_WEIGHTS
        ):
            raise self._stored.damaged(self._part, f"has shape {show(value)}")
        return tuple(value)

    def offset(self) -> np.float32:
        """What is added to factors that are quantized themselves."""
        value = self.values.get("nested_offset")
        if type(value) is float and abs(value) <= float(np.finfo(np.float32).max):
            return np.float32(value)
        if type(value) is int and abs(value) < 1 << 24:
            return np.float32(value)
        raise self._stored.damaged(
            self._part, f"has nested_offset {show(value)}, not a finite number"
        )

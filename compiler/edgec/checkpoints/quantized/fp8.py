"""fp8 checkpoints: weights in F8_E4M3 or F8_E5M2, multiplied by scales.

* ``weight_scale_inv`` ``(ceil(N / 128), ceil(K / 128))``: a factor per block, as DeepSeek-V3 and
  Qwen3's FP8 checkpoints have. In spite of its name a weight is multiplied by it;
* ``weight_scale``: a factor for the tensor, ``()``, ``(1,)`` or ``(1, 1)``, or for each output,
  ``(N,)`` or ``(N, 1)``, as compressed-tensors (``float-quantized``, ``naive-quantized``), fbgemm and
  other writers have it.

The product is rounded once, to float32. Scales of activations and of the KV cache are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.checkpoints.quantized.fields import show
from edgec.checkpoints.quantized.format import Layout, modules

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from edgec.checkpoints.quantized.fields import Fields
    from edgec.checkpoints.quantized.stored import Stored

_CODES = ("F8_E4M3", "F8_E5M2")
_SCALES = ("F32", "BF16", "F16")
_SUFFIXES = (".weight_scale_inv", ".weight_scale")
_ACTIVATIONS = (
    ".input_scale",
    ".input_scale_ub",
    ".output_scale",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".kv_scale",
    ".prob_output_scale",
)


@dataclass(frozen=True)
class Fp8:
    """fp8 weights; see :class:`edgec.checkpoints.quantized.format.Format`.

    Attributes:
        block: outputs and inputs that share a scale; None if it is the tensor's or the output's.
        text: one line for people.
    """

    block: tuple[int, int] | None
    text: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """From ``quantization_config``."""
        fields.only("fp8 numbers of the kind", fields.text("fmt", default="e4m3"), ("e4m3", "e5m2"))
        return cls.of(fields.pair("weight_block_size"))

    @classmethod
    def of(cls, block: tuple[int, int] | None) -> Self:
        """With scales of this extent."""
        scales = f"blocks of {block[0]} by {block[1]}" if block else "a scale per tensor or row"
        return cls(block, f"8-bit floats, {scales}")

    @property
    def codes(self) -> None:
        """See :attr:`Format.codes`."""
        return

    def layout(self, names: Collection[str]) -> Layout:
        """See :meth:`Format.layout`."""
        restored: dict[str, tuple[str, ...]] = {}
        for suffix in _SUFFIXES:
            for module in modules(names, suffix):
                restored.setdefault(f"{module}.weight", (f"{module}.weight", module + suffix))
        return Layout(restored, frozenset(name for name in names if name.endswith(_ACTIVATIONS)))

    def restore(self, name: str, stored: Stored) -> _Scaled:
        """See :meth:`Format.restore`."""
        module = name.removesuffix(".weight")
        scale = next(module + suffix for suffix in _SUFFIXES if module + suffix in stored)
        shape = stored.part(name, _CODES).shape
        if len(shape) != 2 or 0 in shape:
            raise stored.damaged(name, f"has shape {list(shape)} where two axes belong")
        found = stored.part(scale, _SCALES).shape
        rows, columns = shape
        if found in ((), (1,), (1, 1)):
            block = (rows, columns)
        elif self.block is None and found in ((rows,), (rows, 1)):
            block = (1, columns)
        elif self.block is not None and found == (
            -(-rows // self.block[0]),
            -(-columns // self.block[1]),
        ):
            block = self.block
        else:
            of = f" in blocks of {list(self.block)}" if self.block else ""
            raise stored.damaged(
                scale, f"has shape {list(found)}, which doesn't fit weights of {list(shape)}{of}"
            )
        return _Scaled(name, scale, shape, block, stored)


class CompressedTensors:
    """The fp8 forms of compressed-tensors."""

    @staticmethod
    def read(fields: Fields) -> Fp8:
        """From ``quantization_config``."""
        form = fields.text("format")
        fields.only("the compressed-tensors format", form, ("float-quantized", "naive-quantized"))
        sparsity = fields.objects("sparsity_config").get("format", "dense")
        fields.only("the sparse format", sparsity, ("dense",))
        blocks: set[tuple[int, int] | None] = set()
        for name, group in fields.objects("config_groups").items():
            blocks.add(_group(fields, name, group))
        if len(blocks) > 1:
            raise fields.unsupported("compressed-tensors with several forms of weights")
        return Fp8.of(blocks.pop() if blocks else None)


def _group(fields: Fields, name: str, group: Any) -> tuple[int, int] | None:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise fields.damaged(f"config_groups.{show(name)} has no object weights")
    inner = type(fields)(weights, f"{fields.where}.config_groups.{show(name)}.weights")
    kind = inner.text("type", default="float"), inner.integer("num_bits", default=8)
    inner.only("compressed weights of type and bits", kind, (("float", 8),))
    strategy = inner.text("strategy", default="tensor")
    inner.only("the strategy of scales", strategy, ("tensor", "channel", "block"))
    if strategy != "block":
        return None
    block = inner.pair("block_structure")
    if block is None:
        raise inner.damaged("block_structure is missing")
    return block


class _Scaled:
    """A matrix of 8-bit floats and its scales, one per block of rows and columns."""

    def __init__(
        self, name: str, scale: str, shape: tuple[int, ...], block: tuple[int, int], stored: Stored
    ) -> None:
        self.shape = shape
        self.dtype = stored.info(scale).dtype
        self._name, self._scale, self._stored = name, scale, stored
        self._rows, self._columns = block
        self._across = -(-shape[1] // self._columns)

    def rows_into(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        self._stored.rows_into(self._name, start, stop, out)
        first, last = start // self._rows, -(-stop // self._rows)
        scales = self._stored.floats(
            self._scale, first * self._across, (last - first) * self._across
        )
        if self._rows == 1 and self._across == 1:
            out *= scales[:, None]
            return
        for block, row in enumerate(scales.reshape(-1, self._across), first):
            begin = max(start, block * self._rows) - start
            rows = out[begin : (block + 1) * self._rows - start]
            for index, scale in enumerate(row):
                rows[:, index * self._columns : (index + 1) * self._columns] *= scale

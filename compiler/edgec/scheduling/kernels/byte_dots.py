"""Sums of four products of bytes, which CPUs add to 32-bit integers in one or two instructions.

One vector holds unsigned codes of weights, four neighbouring columns in each lane of 32 bits; the other
the same four columns of an activation row, signed, in every lane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.target.codegen import target_has_features
from tvm.tirx.script import builder as T

if TYPE_CHECKING:
    import tvm


@dataclass(frozen=True)
class ByteDots:
    """How a CPU adds up products of bytes.

    Attributes:
        instruction: ``"vpdpbusd"``, ``"sdot"``, ``"usdot"``, or ``"vpmaddubsw"``, which adds pairs to
            16 bits.
        lanes: of 32 bits.
        registers: of such vectors.
        blocks: whether there is an instruction for products of 2x8 by 8x2 matrices, too.
    """

    instruction: str
    lanes: int
    registers: int
    blocks: bool = False

    @classmethod
    def of(cls, target: tvm.target.Target) -> ByteDots | None:
        """The best that a CPU has; None if it has none."""

        def has(*features: str) -> bool:
            return all(target_has_features([feature], target) for feature in features)

        arm = "aarch64" in str(target.attrs.get("mtriple", ""))
        if arm:
            if has("i8mm"):
                return cls("usdot", 4, 32, blocks=True)
            return cls("sdot", 4, 32) if has("dotprod") else None
        if has("avx512vnni", "avx512vl"):
            return cls("vpdpbusd", 16, 32)
        if has("avxvnni"):
            return cls("vpdpbusd", 8, 16)
        return cls("vpmaddubsw", 8, 16) if has("avx2") else None

    @property
    def signed(self) -> bool:
        """Whether codes have to be signed."""
        return self.instruction == "sdot"

    @property
    def by_element(self) -> bool:
        """Whether the instruction reads its activations from a lane of a register, not from memory.

        Then there are shifts of bytes, too, which x86 lacks.
        """
        return self.instruction in ("sdot", "usdot")

    @property
    def words_beside(self) -> int:
        """How many words of a row of activations an instruction may read side by side."""
        return 2 if self.blocks else 1

    def add(self, sums: Any, codes: Any, activations: Any) -> Any:
        """Add the products of each lane's four bytes.

        Args:
            sums: int32 lanes.
            codes: int32 lanes of four bytes, unsigned unless :attr:`signed`.
            activations: an int32 of four signed bytes, in every lane if :attr:`by_element`.
        """
        lanes = self.lanes
        wide = activations if self.by_element else T.broadcast(activations, lanes)
        if self.instruction == "vpdpbusd":
            name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        elif self.by_element:
            name = f"llvm.aarch64.neon.{self.instruction}.v4i32.v16i8"
        else:
            return sums + self.pairs_to_int32(self.pairs(codes, wide))
        return T.call_llvm_pure_intrin(
            f"int32x{lanes}", name, sums, _bytes(codes, lanes), _bytes(wide, lanes)
        )

    def add_block(self, sums: Any, codes: Any, activations: Any) -> Any:
        """Add the products of two rows of eight bytes with two others; only if there are :attr:`blocks`.

        Args:
            sums: int32 of the rows of codes by the rows of activations.
            codes: two int32 for each row, unsigned bytes.
            activations: two int32 for each row, signed bytes.
        """
        name = "llvm.aarch64.neon.usmmla.v4i32.v16i8"
        return T.call_llvm_pure_intrin(
            "int32x4", name, sums, _bytes(codes, self.lanes), _bytes(activations, self.lanes)
        )

    def pairs(self, codes: Any, activations: Any) -> Any:
        """Sums of neighbouring products as int16; codes below 128, lest they be cut off."""
        return T.call_llvm_pure_intrin(
            f"int16x{2 * self.lanes}",
            "llvm.x86.avx2.pmadd.ub.sw",
            _bytes(codes, self.lanes),
            _bytes(activations, self.lanes),
        )

    def pairs_to_int32(self, pairs: Any) -> Any:
        """Sums of neighbouring int16."""
        ones = T.broadcast(T.int16(1), 2 * self.lanes)
        return T.call_llvm_pure_intrin(f"int32x{self.lanes}", "llvm.x86.avx2.pmadd.wd", pairs, ones)


def _bytes(value: Any, lanes: int) -> Any:
    return T.reinterpret(f"int8x{4 * lanes}", value)

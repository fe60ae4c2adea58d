"""Random weights without a file, for builds that need a model's shape but not its knowledge.

Every value is a function of the seed, the tensor's name and its place in the tensor. The generator
is counter-based (Philox4x64-10; Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
2011), so that any range of rows is computed without those before it.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.checkpoint import RowReader, TensorInfo, row_span
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgec.models.parameters import Source

# One step of Philox gives four 64-bit words, each of which gives four 16-bit integers.
_PER_WORD = 4
_PER_STEP = 16
# Values per piece: 64 KiB of random words, small enough for the allocator to hand out the same
# memory each time.
_PIECE = 32 << 10
_NORM_DEVIATION = 0.05
_BIAS_DEVIATION = 0.01
# What names of norms have in them.
_NORMS = ("norm", ".ln_")
_MATRIX_DEVIATION = 0.02


class SyntheticCheckpoint(RowReader):
    """A checkpoint whose values are computed.

    Values are uniform around their mean. A matrix with K columns has the standard deviation
    min(0.02, 1/sqrt(K)), as initialized models have; a norm's weights are near 1, biases and
    other vectors near 0.

    Args:
        config_file: the ``config.json`` the model is made from, for :meth:`files`.
        config: its content.
        sources: the tensors the model's family asks for; a name may come twice.
        seed: another seed gives other values for every tensor.
    """

    def __init__(
        self, config_file: Path, config: dict[str, Any], sources: Sequence[Source], seed: int
    ) -> None:
        self.config = config
        self.where = f"synthetic:{config_file}"
        self._config_file = config_file
        self._seed = seed
        self._shapes: dict[str, tuple[int, ...]] = {}
        for source in sources:
            known = self._shapes.setdefault(source.name, source.shape)
            assert known == source.shape, f"{source.name}: shapes {known} and {source.shape}"

    def names(self) -> list[str]:
        """The names of all tensors, sorted."""
        return sorted(self._shapes)

    def info(self, name: str) -> TensorInfo:
        """A tensor as if it were stored in float32; see :meth:`Checkpoint.info`."""
        shape = self._shapes.get(name)
        if shape is None:
            raise CheckpointError(
                f"tensor {name} is not one that the model's family asks for", where=self.where
            )
        return TensorInfo(name, shape, "F32", "", 4 * math.prod(shape))

    def rows_into(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Compute rows ``[start, stop)``; see :meth:`Checkpoint.rows_into`."""
        info = self.info(name)
        first, flat = row_span(info, start, stop, out)
        mean, deviation = _distribution(info)
        # A uniform variable over [-b, b] has the standard deviation b / sqrt(3).
        scale = np.float32(deviation * math.sqrt(3) / (1 << 15))
        generator = np.random.Philox(key=self._key(name), counter=first // _PER_STEP)
        skip = first % _PER_STEP
        done = 0
        while done < flat.size:
            piece = flat[done : done + _PIECE - skip]
            words = generator.random_raw(-(-(skip + piece.size) // _PER_WORD))
            piece[:] = words.astype("<u8", copy=False).view("<i2")[skip : skip + piece.size]
            # The integers run from -2**15 to 2**15 - 1: the half makes them symmetric.
            piece += np.float32(0.5)
            piece *= scale
            if mean:
                piece += np.float32(mean)
            done += piece.size
            skip = 0

    def files(self) -> list[Path]:
        """The config alone: with the seed it defines every value."""
        return [self._config_file]

    def _key(self, name: str) -> int:
        digest = hashlib.sha256(f"edgec.synthetic/v1\0{self._seed}\0{name}".encode())
        return int.from_bytes(digest.digest()[:16], "little")


def _distribution(info: TensorInfo) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values."""
    name = info.name.lower()
    if len(info.shape) == 1:
        scales = any(word in name for word in _NORMS) and not name.endswith("bias")
        return (1.0, _NORM_DEVIATION) if scales else (0.0, _BIAS_DEVIATION)
    # The matrices of experts may be stacked in one tensor; of others what follows are columns.
    columns = max(1, info.shape[-1] if "expert" in name else math.prod(info.shape[1:]))
    return 0.0, min(_MATRIX_DEVIATION, 1 / math.sqrt(columns))

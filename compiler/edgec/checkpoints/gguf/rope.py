"""From what a GGUF file holds of a scaled rotary embedding to ``rope_scaling`` of ``config.json``.

Of Llama 3's rule a file has the results only: by what each frequency is divided. The rule has four
numbers, and the results tell three of them: whatever ``low_freq_factor`` is, there are a
``high_freq_factor`` and an original length that give the same. All published models have 1 there. What is
found is put into the rule again, and has to give the file's numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.gguf.fields import BESIDE
from edgec.checkpoints.gguf.values import show
from edgec.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgec.checkpoints.gguf.header import Entry

    Read = Callable[[str], NDArray[np.float32]]

FREQUENCIES = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"

_LOW = 1.0
_HIGH = 4.0
# The file's numbers are float32, made of float32 frequencies.
_CLOSE = 1e-5


def rope_scaling(
    metadata: Mapping[str, Any],
    prefix: str,
    tensors: Mapping[str, Entry],
    read: Read,
    config: Mapping[str, Any],
    where: str,
) -> dict[str, Any] | None:
    """The field ``rope_scaling``; None where nothing is scaled.

    Args:
        metadata: of the file.
        prefix: of the architecture's keys, ``"llama."``.
        tensors: of the file.
        read: gives the numbers of a vector.
        config: the fields that are known: ``rope_theta``, ``head_dim``, ``max_position_embeddings``.
        where: the file's name for error messages.

    Raises:
        CheckpointError: factors are missing, or there aren't as many as rotated pairs.
        UnsupportedModelError: a rule that edgec doesn't know.
    """
    rotary = int(config["head_dim"] * config.get("partial_rotary_factor", 1))
    vectors = _Vectors(tensors, read, rotary // 2, where)
    if LONG in tensors or SHORT in tensors:
        return _longrope(metadata, prefix, vectors, config)
    if FREQUENCIES in tensors:
        factors = vectors.numbers(FREQUENCIES)
        return _llama3(factors, float(config["rope_theta"]), rotary, where)
    kind = metadata.get(f"{prefix}rope.scaling.type", "none")
    factor = metadata.get(f"{prefix}rope.scaling.factor", 1.0)
    if kind == "none" or factor == 1:
        return None
    original = metadata.get(f"{prefix}rope.scaling.original_context_length")
    if kind == "linear" and _positive(factor):
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and _positive(factor) and _positive(original):
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise UnsupportedModelError(
        f"its rotary embedding is scaled (rope.scaling.type {show(kind)}), and the file doesn't say"
        " by which rule",
        where=where,
        remedy=BESIDE,
    )


class _Vectors:
    """Factors, one for each rotated pair."""

    def __init__(self, tensors: Mapping[str, Entry], read: Read, count: int, where: str) -> None:
        self._tensors, self._read, self._count = tensors, read, count
        self.where = where

    def numbers(self, name: str) -> NDArray[np.float32]:
        """The factors of a tensor."""
        entry = self._tensors.get(name)
        if entry is None:
            raise self._refuse(f"tensor {name} is missing")
        if entry.shape != (self._count,):
            raise self._refuse(
                f"tensor {name} has shape {list(entry.shape)}; {self._count} pairs are rotated"
            )
        values = self._read(name)
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise self._refuse(f"tensor {name} has numbers that aren't positive")
        return values

    def _refuse(self, what: str) -> CheckpointError:
        return CheckpointError(what, where=self.where, remedy=BESIDE)


def _longrope(
    metadata: Mapping[str, Any], prefix: str, vectors: _Vectors, config: Mapping[str, Any]
) -> dict[str, Any]:
    """LongRoPE; the attention factor is left to the rule where it follows from that."""
    key = f"{prefix}rope.scaling.original_context_length"
    original = metadata.get(key)
    if type(original) is not int or original <= 1:
        raise CheckpointError(
            f"metadata {key} is {show(original)}, not a positive whole number",
            where=vectors.where,
            remedy=BESIDE,
        )
    fields: dict[str, Any] = {
        "rope_type": "longrope",
        "short_factor": _shortest(vectors.numbers(SHORT)),
        "long_factor": _shortest(vectors.numbers(LONG)),
        "original_max_position_embeddings": original,
    }
    stretch = config["max_position_embeddings"] / original
    usual = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    factor = metadata.get(f"{prefix}rope.scaling.attn_factor", usual)
    if _positive(factor) and abs(factor - usual) > _CLOSE * usual:
        fields["attention_factor"] = factor
    return fields


def _llama3(
    factors: NDArray[np.float32], theta: float, rotary: int, where: str
) -> dict[str, Any] | None:
    """The numbers of Llama 3's rule, see https://arxiv.org/abs/2407.21783, section 3.4.2.

    With ``t = original / wavelength``, a frequency is divided by ``factor`` where ``t`` is below
    ``low``, not at all above ``high``, and between them by ``1 / ((1 - s) / factor + s)`` with
    ``s = (t - low) / (high - low)``.
    """
    wanted = factors.astype(np.float64)
    turns = theta ** -(np.arange(0, rotary, 2) / rotary) / (2 * math.pi)  # by position
    factor = float(str(np.float32(wanted.max())))
    if factor == 1:
        return None
    for high, original in _candidates(wanted, turns, factor):
        given = _divisors(turns, factor, high, original)
        if np.abs(given / wanted - 1).max() < _CLOSE:
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    raise UnsupportedModelError(
        f"tensor {FREQUENCIES} scales the rotary embedding by a rule that isn't Llama 3's",
        where=where,
        remedy=BESIDE,
    )


def _candidates(
    wanted: NDArray[np.float64], turns: NDArray[np.float64], factor: float
) -> list[tuple[float, int]]:
    """Possible ``high_freq_factor`` and original lengths: the usual ones, and what the numbers say."""
    found = [(_HIGH, 1 << power) for power in range(9, 18)]
    between = (wanted > 1 + _CLOSE) & (wanted < factor * (1 - _CLOSE))
    smooth = (1 / wanted[between] - 1 / factor) / (1 - 1 / factor)
    if between.sum() == 1:
        found.append((_HIGH, round(float((smooth[0] * (_HIGH - _LOW) + _LOW) / turns[between][0]))))
    elif between.any():
        slope, start = np.polyfit(turns[between], smooth, 1)
        if slope > 0 > start:
            high = _LOW * (1 - 1 / float(start))
            found += [
                (float(rounded), round(float(slope) * (rounded - _LOW)))
                for rounded in (round(high), round(high, 3))
            ]
    return [(high, original) for high, original in found if high > _LOW and original > 0]


def _divisors(
    turns: NDArray[np.float64], factor: float, high: float, original: int
) -> NDArray[np.float64]:
    smooth = np.clip((original * turns - _LOW) / (high - _LOW), 0, 1)
    divisors: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return divisors


def _shortest(values: NDArray[np.float32]) -> list[float]:
    """The shortest decimal numbers that the float32 stand for."""
    return [float(str(value)) for value in values]


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0

"""What a ``config.json`` says of the rotary embedding, in both spellings of transformers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.models.rope import DYNAMIC, LINEAR, LLAMA3, LONGROPE, ORIGINAL, YARN, Rope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_OLD_NAMES = {"su": LONGROPE}
_POSITIONS = "max_position_embeddings"
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL)
_BETA_FAST, _BETA_SLOW = 32.0, 1.0
_LEAST, _MOST = 1e-6, 1e12  # of any number, far beyond those that models have
_SHORTEST = 2
_WHERE = "config.json: rope_parameters"
_REMEDY = "take config.json from the model's original repository"


def rope_from_config(config: Mapping[str, Any], head_dim: int, default_rotary: float = 1.0) -> Rope:
    """Read ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (before).

    Args:
        config: a model's ``config.json``.
        head_dim: size of one attention head.
        default_rotary: the part of a head that is rotated where the config doesn't say.

    Raises:
        UnsupportedModelError: a rope type that isn't in ``SUPPORTED_TYPES``.
        CheckpointError: a number is missing or impossible.
    """
    merged = merged_fields(config)
    kind = kind_of(merged)
    if kind not in SUPPORTED_TYPES:
        raise UnsupportedModelError(
            f"RoPE type {kind!r} is not supported",
            where=_WHERE,
            remedy=f"supported are {', '.join(SUPPORTED_TYPES)}",
        )
    theta = _positive(merged, "rope_theta", 10000.0)
    rotary_dim = int(head_dim * _positive(merged, "partial_rotary_factor", default_rotary))
    if not 0 < rotary_dim <= head_dim or rotary_dim % 2:
        raise CheckpointError(
            f"{rotary_dim} of the {head_dim} dimensions of a head can't be rotated in pairs",
            where="config.json: partial_rotary_factor",
            remedy=_REMEDY,
        )
    if kind == "default":
        return Rope(theta, rotary_dim)
    numbers = _READERS[kind](config, merged, Rope(theta, rotary_dim))
    return Rope(theta, rotary_dim, {"rope_type": kind, **numbers})


def longest_text(config: Mapping[str, Any]) -> int | None:
    """Positions that the rotary embedding was stretched for; None if the config doesn't say.

    With YaRN and the dynamic scaling, ``max_position_embeddings`` may be the length before, and
    ``factor`` says what it became. With the linear scaling it is the length before in some configs
    and the one after in others: it is taken as it is.
    """
    positions = config.get(_POSITIONS)
    if type(positions) is not int or positions <= 0:
        return None
    merged = merged_fields(config)
    if kind_of(merged) not in (YARN, DYNAMIC):
        return positions
    original = positions if kind_of(merged) == DYNAMIC else original_length(config, merged)
    return max(positions, int(_positive(merged, "factor", positions / original) * original))


def kind_of(merged: Mapping[str, Any]) -> str:
    """The type of the embedding of :func:`merged_fields`."""
    kind = str(merged.get("rope_type", merged.get("type", "default")))
    return _OLD_NAMES.get(kind, kind)


def merged_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the embedding, wherever they stand; the newer spelling wins."""
    top = ("rope_theta", "partial_rotary_factor")
    merged = {name: config[name] for name in top if config.get(name) is not None}
    for field in ("rope_scaling", "rope_parameters"):
        value = config.get(field) or {}
        if not isinstance(value, dict):
            raise CheckpointError(
                f"{value!r} is not an object", where=f"config.json: {field}", remedy=_REMEDY
            )
        merged |= {name: item for name, item in value.items() if item is not None}
    return merged


def _linear(_config: Mapping[str, Any], merged: Mapping[str, Any], _plain: Rope) -> dict[str, Any]:
    return {"factor": _positive(merged, "factor", None)}


def _llama3(config: Mapping[str, Any], merged: Mapping[str, Any], _plain: Rope) -> dict[str, Any]:
    beside = config.get(ORIGINAL)
    numbers = merged if beside is None else {**merged, ORIGINAL: beside}
    missing = [name for name in _LLAMA3 if not _is_number(numbers.get(name))]
    if missing:
        raise CheckpointError(
            f"RoPE type {LLAMA3!r} needs the number{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            where=_WHERE,
            remedy=_REMEDY,
        )
    _, low, high, _ = (_positive(numbers, name, None) for name in _LLAMA3)
    if low >= high:
        raise CheckpointError(
            f"{high:g} is not more than low_freq_factor, {low:g}",
            where=f"{_WHERE}.high_freq_factor",
            remedy=_REMEDY,
        )
    return {name: numbers[name] for name in _LLAMA3}


def _dynamic(config: Mapping[str, Any], merged: Mapping[str, Any], plain: Rope) -> dict[str, Any]:
    if plain.rotary_dim == 2:
        raise CheckpointError(
            f"RoPE type {DYNAMIC!r} needs more than one pair of rotated dimensions",
            where=_WHERE,
            remedy=_REMEDY,
        )
    return {
        "factor": _positive(merged, "factor", None),
        ORIGINAL: _length(config, _POSITIONS, None),
    }


def _yarn(config: Mapping[str, Any], merged: Mapping[str, Any], plain: Rope) -> dict[str, Any]:
    original = original_length(config, merged)
    factor = _positive(merged, "factor", _positive(config, _POSITIONS, original) / original)
    first, last = _yarn_range(merged, plain, original)
    return {
        "factor": factor,
        ORIGINAL: original,
        "attention_factor": _positive(merged, "attention_factor", _yarn_attention(merged, factor)),
        "first": first,
        "last": last,
    }


def _yarn_range(merged: Mapping[str, Any], plain: Rope, original: int) -> tuple[float, float]:
    """The pairs that turn ``beta_fast`` and ``beta_slow`` times in the original length.

    Between them the factor sets in. They are rounded outwards, unless ``truncate`` is false.
    """
    if plain.theta == 1:
        raise CheckpointError(
            f"RoPE type {YARN!r} needs a base other than 1",
            where="config.json: rope_theta",
            remedy=_REMEDY,
        )

    def pair(turns: float) -> float:
        return (
            plain.rotary_dim
            * math.log(original / (turns * 2 * math.pi))
            / (2 * math.log(plain.theta))
        )

    first = pair(_positive(merged, "beta_fast", _BETA_FAST))
    last = pair(_positive(merged, "beta_slow", _BETA_SLOW))
    if merged.get("truncate") is not False:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, plain.rotary_dim - 1)
    # Where the two are one pair, all after it have the factor.
    return first, last if last != first else first + 0.001


def _yarn_attention(merged: Mapping[str, Any], factor: float) -> float:
    """Section 3.4 of the paper; DeepSeek's models name parts of the logarithm by ``mscale``."""

    def scale(part: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * part * math.log(factor) + 1

    if merged.get("mscale") and merged.get("mscale_all_dim"):
        whole, all_dim = (_positive(merged, name, None) for name in ("mscale", "mscale_all_dim"))
        return scale(whole) / scale(all_dim)
    return scale(1.0)


def original_length(config: Mapping[str, Any], merged: Mapping[str, Any]) -> int:
    """The length before it was stretched; what stands beside the embedding's parameters wins.

    Raises:
        CheckpointError: it is impossible or, of other types than YaRN, missing.
    """
    beside = config.get(ORIGINAL)
    default = config.get(_POSITIONS) if kind_of(merged) == YARN else None
    return _length(merged if beside is None else config, ORIGINAL, default)


def _length(fields: Mapping[str, Any], name: str, default: Any) -> int:
    """A number of tokens by which, and by whose logarithm, others are divided."""
    value = _positive(fields, name, default)
    if value < _SHORTEST:
        raise CheckpointError(
            f"{value:g} positions can't be stretched", where=f"config.json: {name}", remedy=_REMEDY
        )
    return int(value)


def _longrope(config: Mapping[str, Any], merged: Mapping[str, Any], plain: Rope) -> dict[str, Any]:
    original = original_length(config, merged)
    factors = {
        name: _factors(merged, name, plain.rotary_dim // 2)
        for name in ("short_factor", "long_factor")
    }
    stretch = _positive(merged, "factor", _positive(config, _POSITIONS, original) / original)
    attention = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(original))
    return {
        ORIGINAL: original,
        "attention_factor": _positive(merged, "attention_factor", attention),
        **factors,
    }


def _factors(merged: Mapping[str, Any], name: str, count: int) -> list[float]:
    value = merged.get(name)
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(_is_number(item) and item > 0 for item in value)
    ):
        raise CheckpointError(
            f"RoPE type {LONGROPE!r} needs {count} positive numbers, one for each rotated pair",
            where=f"{_WHERE}.{name}",
            remedy=_REMEDY,
        )
    return [float(item) for item in value]


def _positive(fields: Mapping[str, Any], name: str, default: float | None) -> float:
    value: Any = fields.get(name)
    value = default if value is None else value
    if not _is_number(value) or not _LEAST <= value <= _MOST:
        raise CheckpointError(
            "the field is missing"
            if value is None
            else f"{value!r} is not a positive number of a rotary embedding",
            where=f"config.json: {name}",
            remedy=_REMEDY,
        )
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_READERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], Rope], dict[str, Any]]] = {
    LLAMA3: _llama3,
    LINEAR: _linear,
    DYNAMIC: _dynamic,
    YARN: _yarn,
    LONGROPE: _longrope,
}
SUPPORTED_TYPES = ("default", *_READERS)

"""The config of a model whose rotary embedding has become that of a library's context length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.models.find import load_family
from edgec.models.rope import DYNAMIC, LONGROPE
from edgec.models.rope_config import kind_of, merged_fields, original_length

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS = ("rope_scaling", "rope_parameters")


def config_at_length(config: Mapping[str, Any], context_length: int) -> dict[str, Any]:
    """A config with which transformers rotates texts of any length as the library does.

    See :meth:`edgec.models.rope.Rope.at_length`. Of LongRoPE both sets of factors are those of the
    context, the dynamic scaling is a plain embedding with another base, and other configs stay as
    they are.

    Args:
        config: a model's ``config.json``; of the dynamic scaling, of a family that there is.
        context_length: tokens of the library's longest context.

    Raises:
        CheckpointError: a field is missing or impossible.
    """
    merged = merged_fields(config)
    if kind_of(merged) == LONGROPE:
        chosen = (
            "long_factor" if context_length > original_length(config, merged) else "short_factor"
        )
        both = dict.fromkeys(("short_factor", "long_factor"), merged.get(chosen))
        changes = {field: {**config[field], **both} for field in _FIELDS if config.get(field)}
        return {**config, **changes}
    if kind_of(merged) != DYNAMIC:
        return dict(config)
    # How much of a head is rotated, which the base depends on, is known to the family.
    rope = load_family(dict(config)).Config.from_hf(dict(config)).rope.at_length(context_length)
    kept = {name: merged[name] for name in merged if name == "partial_rotary_factor"}
    plain = {**kept, "rope_type": "default", "rope_theta": rope.theta}
    others = {name: value for name, value in config.items() if name not in _FIELDS}
    return {**others, "rope_theta": rope.theta, "rope_parameters": plain}

"""The part of a recipe that says how weights are stored."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgec.recipe.names import ModuleOf
from edgec.validation.types import Section, refused

DEFAULT_GROUP_SIZE = 32
_UNQUANTIZED = ("q0f32", "q0f16")

Method = Annotated[str, ModuleOf("quantization/methods", ".py", "quantization methods")]
GroupSize = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]


class Override(Section):
    """Other settings for the parameters whose names match."""

    match: str = Field(
        min_length=1,
        max_length=200,
        description="Pattern of parameter names: * stands for any text, ? for one character.",
        examples=["model.layers.0.*", "lm_head.weight"],
    )
    bits: Literal[4, 8, 16] = Field(
        description="Bits of a stored weight; 16 keeps the parameter unquantized.",
        examples=[8],
    )
    group_size: GroupSize | None = Field(
        None,
        description="Weights that share one scale. By default as in quantization.group_size.",
        examples=[64],
    )

    @field_validator("match")
    @classmethod
    def _match_can_match(cls, match: str) -> str:
        if not match or any(character.isspace() for character in match):
            raise refused(
                "parameter names hold no spaces, so this never matches",
                "write a pattern such as 'model.layers.0.*'",
            )
        return match

    @field_validator("group_size")
    @classmethod
    def _group_has_use(cls, size: int | None, info: ValidationInfo) -> int | None:
        if size is not None and info.data.get("bits") == 16:
            raise refused("an unquantized parameter (bits: 16) has no groups", "remove this field")
        return size


class Quantization(Section):
    """How weights are stored."""

    scheme: Literal["q0f32", "q0f16", "q4f16_1", "q4f32_1", "q8f16_1", "q8f32_1"] = Field(
        description=(
            "Bits of the weights and type of the arithmetic: q4f16_1 is 4-bit weights with 16-bit "
            "floats; q0 is unquantized. Names are those of MLC."
        ),
        examples=["q4f16_1"],
    )
    method: Method = Field(
        "rtn",
        description="How codes are chosen: a module of edgec.quantization.methods.",
        examples=["rtn"],
    )
    group_size: GroupSize = Field(
        DEFAULT_GROUP_SIZE,
        description=(
            "Weights that share one scale: a multiple of 8 that divides each matrix's input "
            "dimension. Smaller is more exact and larger on disk."
        ),
        examples=[DEFAULT_GROUP_SIZE, 64, 128],
    )
    overrides: tuple[Override, ...] = Field(
        (),
        max_length=1000,
        description="Exceptions for single parameters; the first that matches a name wins.",
        examples=[[{"match": "model.layers.0.*", "bits": 8}]],
    )

    @field_validator("group_size")
    @classmethod
    def _group_has_use(cls, size: int, info: ValidationInfo) -> int:
        scheme = info.data.get("scheme")
        if scheme in _UNQUANTIZED and size != DEFAULT_GROUP_SIZE:
            raise refused(
                f"{size} has no effect, {scheme} doesn't quantize",
                "remove the field, or set it to null with -s quantization.group_size=null",
            )
        return size

    @field_validator("overrides")
    @classmethod
    def _overrides_have_use(
        cls, overrides: tuple[Override, ...], info: ValidationInfo
    ) -> tuple[Override, ...]:
        scheme = info.data.get("scheme")
        if scheme in _UNQUANTIZED and overrides:
            raise refused(
                f"they have no effect, {scheme} doesn't quantize",
                "remove them, or clear them with -s quantization.overrides=[]",
            )
        for index, override in enumerate(overrides):
            for earlier in overrides[:index]:
                if _covers(earlier.match, override.match):
                    raise refused(
                        f"{override.match!r} is never reached, {earlier.match!r} matches before it",
                        "put the narrower pattern first",
                        at=(index, "match"),
                    )
        return overrides


def _covers(wide: str, narrow: str) -> bool:
    """Whether the pattern ``wide`` surely matches all that ``narrow`` does.

    With ``*`` as the only wildcard it does if it matches the other pattern's own text.
    """
    simple = not set("?[") & set(wide + narrow)
    return wide == narrow or (simple and fnmatchcase(narrow, wide))

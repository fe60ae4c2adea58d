"""What a recipe of a generic model says: any network of tensors, not a decoder of text.

``kind: generic`` in the file chooses this model in place of :class:`edgec.recipe.schema.Recipe`;
the two share the sections that mean the same for both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import core_schema

from edgec.recipe.names import TargetName
from edgec.recipe.quantization import Quantization  # noqa: TC001 - pydantic evaluates it
from edgec.recipe.schema import Name  # noqa: TC001 - the same
from edgec.recipe.sections import Budget, Model, Tuning
from edgec.recipe.source import parse_generic_source
from edgec.validation.messages import shown
from edgec.validation.types import Matches, Section, Unique, refused

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

_MOST = 1 << 24

Identifier = Annotated[
    str, Matches(r"[A-Za-z_][A-Za-z0-9_.]{0,99}", "a name of letters, digits, '_' and '.'")
]
Size = Annotated[int, Field(ge=1, le=_MOST)]
_DIMENSION = r"[A-Za-z_][A-Za-z0-9_]{0,99}"
DimensionName = Annotated[str, Matches(_DIMENSION, "a name of letters, digits and '_'")]


class _SizeOrName:
    """A whole number, or the name of a dimension; one schema, so that messages name the value."""

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        kinds = ["integer", "string"]
        return {"type": kinds, "minimum": 1, "maximum": _MOST, "pattern": f"^(?:{_DIMENSION})$"}

    def _check(self, value: Any) -> int | str:
        if isinstance(value, str) and re.fullmatch(_DIMENSION, value):
            return value
        if type(value) is int and 1 <= value <= _MOST:
            return value
        raise refused(
            f"{shown(value)} is no size", f"write 1 to {_MOST}, or the name of a dimension"
        )


class GenericModel(Model):
    """The network and its weights."""

    source: str = Field(
        description=(
            "Where the model comes from: hf:ORG/NAME@REVISION on the Hugging Face hub or a folder "
            "relative to this recipe, of an encoder; an ONNX file (.onnx); a program exported by "
            "torch (.pt2); torch:FILE.py:FUNCTION, which returns a module and example inputs; or "
            "synthetic:CONFIG.json for random weights of the shapes that a config describes."
        ),
        examples=[
            "hf:sentence-transformers/all-MiniLM-L6-v2@main",
            "detector.onnx",
            "torch:my_model.py:make",
        ],
    )

    @staticmethod
    def kind_of(source: str) -> str:
        """The kind of a source, such as ``onnx``.

        Raises:
            pydantic_core.PydanticCustomError: it is none of a known form.
        """
        return parse_generic_source(source).kind


class EmbeddingTask(Section):
    """The model turns texts into vectors, and the library has the functions engines call for that."""

    kind: Literal["embedding"] = Field(
        description="What the model is for; without a task it is a function of tensors.",
        examples=["embedding"],
    )
    pooling: Literal["cls", "mean"] = Field(
        "mean",
        description=(
            "How the vectors of a text's tokens become one: that of the first token, or their "
            "mean. The library returns those of all tokens; engines and edgec run pool them."
        ),
        examples=["mean"],
    )
    normalize: bool = Field(
        default=True,
        description="Whether the vector of a text is scaled to length 1.",
        examples=[True],
    )


class Dimension(Section):
    """A size that differs from call to call."""

    max: Size = Field(
        description="The largest it can get; workspace is planned for it.", examples=[8]
    )


class Input(Section):
    """An argument of the model, where the source doesn't say it or says less."""

    shape: tuple[Annotated[int | str, _SizeOrName()], ...] | None = Field(
        None,
        max_length=16,
        description="Its sizes; a text is the name of a dimension that varies.",
        examples=[["batch", 3, 224, 224]],
    )
    dtype: Literal["float32", "float16", "int32", "int64", "uint8", "bool"] | None = Field(
        None,
        description="Type of its numbers. 64-bit integers become int32 in the library.",
        examples=["float32"],
    )
    range: tuple[float, ...] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description=(
            "Numbers that it takes when the library is verified, from the first up to the second. "
            "By default from -1 to 1; for integers 0 and 1, or ids below the table they index."
        ),
        examples=[[0, 30522]],
    )

    @field_validator("dtype")
    @classmethod
    def _type_has_shape(cls, dtype: str | None, info: ValidationInfo) -> str | None:
        if dtype is not None and info.data.get("shape", ()) is None:
            raise refused("a type needs the shape beside it", "add shape")
        return dtype

    @field_validator("range")
    @classmethod
    def _range_has_room(cls, bounds: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if bounds is not None and not bounds[0] < bounds[1]:
            raise refused("the first isn't below the second", "write the smaller number first")
        return bounds


class GenericQuality(Section):
    """How often the artifact is compared with the original, and a limit on the loss."""

    samples: int = Field(
        2,
        ge=1,
        le=100,
        description=(
            "Calls with random inputs that are compared with the original's outputs, at other sizes "
            "each where dimensions vary."
        ),
        examples=[2],
    )
    max_error: float | None = Field(
        None,
        gt=0,
        description=(
            "Largest error of an output against the original in float32, relative to the largest "
            "magnitude of that output. Beyond it the build fails."
        ),
        examples=[0.1],
    )


class GenericRecipe(Section):
    """One network of tensors and how it is compiled."""

    schema_version: Literal["edgec.recipe/v1"] = Field(
        alias="schema", description="Version of this file's format.", examples=["edgec.recipe/v1"]
    )
    kind: Literal["generic"] = Field(
        description="That the model is no decoder of text but a function of tensors.",
        examples=["generic"],
    )
    name: Name = Field(
        description="Name of the recipe and of the artifacts' folder.", examples=["minilm-l6"]
    )
    description: str = Field(
        "",
        max_length=2000,
        description="What the recipe is for.",
        examples=["Sentence embeddings of English text."],
    )
    model: GenericModel = Field(
        description="The network and its weights.", examples=[{"source": "detector.onnx"}]
    )
    task: EmbeddingTask | None = Field(
        None,
        description="What the model is for. By default it is a plain function of tensors.",
        examples=[{"kind": "embedding"}],
    )
    inputs: dict[Identifier, Input] = Field(
        default_factory=dict,
        max_length=100,
        description="Arguments by name, where the source doesn't say their types.",
        examples=[{"image": {"shape": ["batch", 3, 224, 224]}}],
    )
    dimensions: dict[DimensionName, Dimension] = Field(
        default_factory=dict,
        max_length=32,
        description="Sizes that vary, by the names that shapes use.",
        examples=[{"batch": {"max": 8}}],
    )
    quantization: Quantization = Field(
        description="How weights are stored.", examples=[{"scheme": "q4f16_1"}]
    )
    targets: Annotated[tuple[Annotated[str, TargetName()], ...], Unique()] = Field(
        min_length=1,
        max_length=100,
        description="Devices to build for: names of target profiles; host is this machine.",
        examples=[["host"], ["android-adreno", "webgpu"]],
    )
    quality: GenericQuality = Field(
        default_factory=GenericQuality,
        description="How the artifact is compared with the original, and a limit.",
        examples=[{"max_error": 0.1}],
    )
    budget: Budget = Field(
        default_factory=Budget,
        description="Sizes that the artifact must keep.",
        examples=[{"memory_mb": 256}],
    )
    tuning: Tuning = Field(
        default_factory=Tuning,
        description="Limits on the compiler's work.",
        examples=[{"timeout_s": 1800}],
    )

    @model_validator(mode="after")
    def _dimensions_are_known(self) -> GenericRecipe:
        for name, declared in self.inputs.items():
            for index, size in enumerate(declared.shape or ()):
                if isinstance(size, str) and size not in self.dimensions:
                    raise refused(
                        f"how large {size!r} can get isn't said",
                        f"add dimensions: {{{size}: {{max: 8}}}}",
                        at=("inputs", name, "shape", index),
                    )
        return self

"""What a recipe says: its fields at the top level.

The descriptions and examples here and in the parts are what editors show;
``docs/schemas/recipe.schema.json`` is made from them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgec.recipe.names import ModuleOf, TargetName
from edgec.recipe.quantization import Quantization  # noqa: TC001 - pydantic evaluates it
from edgec.recipe.sections import (
    Budget,
    Chat,
    Context,
    Generation,
    Image,
    Model,
    Quality,
    Tuning,
)
from edgec.validation.types import Matches, Section, Unique, refused

SCHEMA = "edgec.recipe/v1"

Name = Annotated[
    str,
    Field(max_length=100),
    Matches(
        r"[a-z0-9][a-z0-9._-]*",
        "lower-case letters, digits, '.', '_' and '-', starting with a letter or digit",
    ),
]
Export = Annotated[str, ModuleOf("exports", ".py", "exports", trusted_without_folder=False)]


class Recipe(Section):
    """One model and how it is compiled."""

    schema_version: Literal["edgec.recipe/v1"] = Field(
        alias="schema", description="Version of this file's format.", examples=[SCHEMA]
    )
    kind: Literal["decoder"] = Field(
        "decoder",
        description=(
            "What the model is: a decoder of text. Any other network is generic, which has fields of "
            "its own."
        ),
        examples=["decoder"],
    )
    name: Name = Field(
        description="Name of the recipe and of the artifacts' folder.", examples=["tinypy"]
    )
    description: str = Field(
        "",
        max_length=2000,
        description="What the recipe is for.",
        examples=["A tiny model that continues Python source."],
    )
    model: Model = Field(
        description="The model's weights and configuration.", examples=[{"source": "tinypy"}]
    )
    context: Context = Field(
        default_factory=Context,
        description="How many tokens the compiled library handles.",
        examples=[{"length": 4096}],
    )
    image: Image = Field(
        default_factory=Image,
        description="Images that the compiled library takes.",
        examples=[{"size": 448}],
    )
    quantization: Quantization = Field(
        description="How weights are stored.", examples=[{"scheme": "q4f16_1"}]
    )
    targets: Annotated[tuple[Annotated[str, TargetName()], ...], Unique()] = Field(
        min_length=1,
        max_length=100,
        description="Devices to build for: names of target profiles; host is this machine.",
        examples=[["host"], ["x86-64-v3", "x86-64-v4"]],
    )
    exports: Annotated[tuple[Export, ...], Unique()] = Field(
        (),
        max_length=100,
        description="Further formats to write: modules of edgec.exports.",
        examples=[[]],
    )
    quality: Quality = Field(
        default_factory=Quality,
        description="Text on which the artifact is compared with the original, and limits.",
        examples=[{"text": "my-model/evaluation.txt", "max_kl": 0.1}],
    )
    budget: Budget = Field(
        default_factory=Budget,
        description="Sizes that the artifact must keep.",
        examples=[{"memory_mb": 2048}],
    )
    chat: Chat = Field(
        default_factory=Chat,
        description="How messages become a prompt.",
        examples=[{"template": "chatml"}],
    )
    generation: Generation = Field(
        default_factory=Generation,
        description="Sampling defaults that the artifact carries.",
        examples=[{"temperature": 0.7}],
    )
    tuning: Tuning = Field(
        default_factory=Tuning,
        description="Limits on the compiler's work.",
        examples=[{"timeout_s": 1800}],
    )

    @field_validator("quality")
    @classmethod
    def _window_fits(cls, quality: Quality, info: ValidationInfo) -> Quality:
        context = info.data.get("context")
        # Where a window slides, the context has no end.
        ends = isinstance(context, Context) and context.sliding_window is None
        length = context.length if isinstance(context, Context) and ends else None
        if quality.text is not None and length is not None and quality.window > length:
            raise refused(
                f"{quality.window} is more than the context length of {length}",
                f"write at most {length}",
                at=("window",),
            )
        return quality

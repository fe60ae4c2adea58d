"""The parts of a recipe around quantization, each a mapping of fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgec.recipe.names import ModuleOf
from edgec.recipe.source import parse_model_source, parse_text_source
from edgec.validation.types import Section, refused

DEFAULT_PREFILL_CHUNK = 2048
DEFAULT_SINKS = 4

Template = Annotated[str, ModuleOf("artifacts/conversations", ".yaml", "chat templates")]


class Model(Section):
    """The model's weights and configuration."""

    source: str = Field(
        description=(
            "Where the model comes from: hf:ORG/NAME or hf:ORG/NAME@REVISION on the Hugging Face "
            "hub, a folder or a GGUF file relative to this recipe, or synthetic:CONFIG.json for "
            "random weights of the shapes that a config describes."
        ),
        examples=["hf:HuggingFaceTB/SmolLM2-135M@main", "tinypy", "synthetic:shapes/config.json"],
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**32 - 1,
        description="Seed of the random weights. Only for synthetic sources.",
        examples=[0],
    )

    @staticmethod
    def kind_of(source: str) -> str:
        """The kind of a source, such as ``synthetic``.

        Raises:
            pydantic_core.PydanticCustomError: it is none of a known form.
        """
        return parse_model_source(source).kind

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, text: str) -> str:
        cls.kind_of(text)
        return text

    @field_validator("seed")
    @classmethod
    def _seed_has_use(cls, seed: int, info: ValidationInfo) -> int:
        source = info.data.get("source")
        if seed and source is not None and cls.kind_of(source) != "synthetic":
            raise refused(
                f"a seed has no effect on {source!r}", "remove it, or use a synthetic: source"
            )
        return seed


class Context(Section):
    """How many tokens the compiled library handles."""

    length: int | None = Field(
        None,
        ge=1,
        le=1 << 24,
        description="Longest context in tokens. By default the model's own.",
        examples=[4096],
    )
    sliding_window: int | None = Field(
        None,
        ge=2,
        le=1 << 24,
        description=(
            "Tokens that are kept of a longer sequence, the latest ones: the context never ends, "
            "and needs no more memory than that. By default nothing is forgotten and the context "
            "ends at its length. The window and the tokens of a prefill together fit in the length."
        ),
        examples=[1024],
    )
    attention_sinks: int = Field(
        0,
        ge=0,
        le=1 << 20,
        description=(
            "First tokens of a sequence that a sliding window keeps always: most models lose the "
            "thread without them (StreamingLLM, https://arxiv.org/abs/2309.17453). The default is "
            "4 with a sliding window; 0 for models that were trained with one."
        ),
        examples=[4],
    )
    prefill_chunk: int = Field(
        DEFAULT_PREFILL_CHUNK,
        ge=1,
        le=1 << 20,
        description=(
            "Most tokens that one prefill call takes; longer prompts go in chunks. More is faster "
            "and needs more memory. The default is 2048, or less where the context length or the "
            "sliding window is less."
        ),
        examples=[512],
    )
    max_batch_size: int = Field(
        4,
        ge=1,
        le=1024,
        description=(
            "Most sequences that are decoded at the same time. With a sliding window it is 1 on "
            "GPUs other than NVIDIA's, whose runtime takes one window at a time."
        ),
        examples=[1],
    )
    kv_cache_dtype: Literal["auto", "float16", "int8"] = Field(
        "auto",
        description=(
            "How the key-value cache holds keys and values: auto is as the model computes them; "
            "float16 halves those of float32; int8 is 8 bits each and a float32 scale for each head of "
            "each token. Less memory, and less to read in long contexts. On CPUs; elsewhere it "
            "is always that of the activations."
        ),
        examples=["int8"],
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_fit(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        length, window = (_whole(data.get(name)) for name in ("length", "sliding_window"))
        filled = dict(data)
        if window is not None and data.get("attention_sinks") is None:
            filled["attention_sinks"] = min(DEFAULT_SINKS, window - 1)
        if data.get("prefill_chunk") is None:
            limits = [DEFAULT_PREFILL_CHUNK, length, window]
            if length is not None and window is not None and window < length:
                limits.append(length - window)
            filled["prefill_chunk"] = min(limit for limit in limits if limit is not None)
        return filled

    @field_validator("sliding_window")
    @classmethod
    def _window_fits(cls, window: int | None, info: ValidationInfo) -> int | None:
        length = info.data.get("length")
        if window is not None and length is not None and window >= length:
            raise refused(
                f"a window of {window} leaves no room for new tokens in the context length of"
                f" {length}",
                f"write less than {length}",
            )
        return window

    @field_validator("attention_sinks")
    @classmethod
    def _sinks_fit(cls, sinks: int, info: ValidationInfo) -> int:
        window = info.data.get("sliding_window")
        if sinks and window is None and "sliding_window" in info.data:
            raise refused("it has no effect without a sliding window", "add context.sliding_window")
        if window is not None and sinks >= window:
            raise refused(
                f"{sinks} first tokens leave no room for others in the window of {window}",
                f"write less than {window}",
            )
        return sinks

    @field_validator("prefill_chunk")
    @classmethod
    def _chunk_fits(cls, chunk: int, info: ValidationInfo) -> int:
        length, window = info.data.get("length"), info.data.get("sliding_window")
        if length is None:
            return chunk
        if chunk > length:
            raise refused(
                f"{chunk} is more than the context length of {length}", f"write at most {length}"
            )
        if window is not None and window + chunk > length:
            raise refused(
                f"{chunk} new tokens and a window of {window} are more than the context length of"
                f" {length}",
                f"write at most {length - window}",
            )
        return chunk


def _whole(value: Any) -> int | None:
    """A positive whole number as it stands in the file; None for what is refused later."""
    return value if type(value) is int and value > 0 else None


class Quality(Section):
    """Text on which the artifact is compared with the original model, and limits on the loss."""

    text: str | None = Field(
        None,
        description=(
            "Evaluation text: a text file or a folder of them, relative to this recipe, or "
            "stdlib:LISTFILE for the source of the Python modules that a file names."
        ),
        examples=["stdlib:tinypy/eval_modules.txt", "my-model/evaluation.txt"],
    )
    tokens: int = Field(
        2000, ge=2, le=10_000_000, description="How many tokens are compared.", examples=[2000]
    )
    window: int = Field(
        256,
        ge=2,
        le=1 << 20,
        description="Tokens of one window. Windows are independent contexts.",
        examples=[256],
    )
    max_kl: float | None = Field(
        None,
        gt=0,
        description=(
            "Largest mean Kullback-Leibler divergence of the next-token distribution from the "
            "original's, in nats. Beyond it the build fails."
        ),
        examples=[0.1],
    )
    min_top1: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Smallest share of tokens on which both models put the same token first.",
        examples=[0.9],
    )
    max_perplexity_ratio: float | None = Field(
        None,
        gt=0,
        description="Largest perplexity of the artifact divided by that of the original.",
        examples=[1.1],
    )

    @field_validator("text")
    @classmethod
    def _text_is_known(cls, text: str | None) -> str | None:
        if text is not None:
            parse_text_source(text)
        return text

    @field_validator("max_kl", "min_top1", "max_perplexity_ratio")
    @classmethod
    def _limit_has_text(cls, limit: float | None, info: ValidationInfo) -> float | None:
        if limit is not None and info.data.get("text", "") is None:
            raise refused("a limit needs text to be measured on", "add quality.text")
        return limit


class Image(Section):
    """Images that the compiled library takes. Only for models that take any."""

    size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description=(
            "Pixels of each side; images are stretched to it. A multiple of what one token stands for, "
            "28 for Qwen2.5-VL. More shows more detail and takes more tokens: 448 gives 256 of them, "
            "and is the default."
        ),
        examples=[448],
    )


class Budget(Section):
    """Sizes that the artifact must keep. Beyond them the build fails."""

    memory_mb: int | None = Field(
        None,
        ge=1,
        description="Weights, key-value cache at full context and workspace together, in MiB.",
        examples=[2048],
    )
    artifact_mb: int | None = Field(
        None, ge=1, description="All files of the artifact together, in MiB.", examples=[1024]
    )


class Chat(Section):
    """How messages become a prompt."""

    template: Template | None = Field(
        None,
        description=(
            "Conversation template: a file of edgec/artifacts/conversations. By default it is "
            "recognized from the tokenizer's own."
        ),
        examples=["chatml", "llama-3", "completion"],
    )


class Generation(Section):
    """Sampling defaults that the artifact carries."""

    temperature: float = Field(
        0.7,
        ge=0,
        le=2,
        description="Randomness: 0 always takes the most likely token.",
        examples=[0.7],
    )
    top_p: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Sample from the most likely tokens that have this share of the probability.",
        examples=[0.95],
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        le=2,
        description="Above 1, tokens that occurred already become less likely.",
        examples=[1.0],
    )


class Tuning(Section):
    """Limits on the compiler's work."""

    timeout_s: int = Field(
        1800,
        ge=1,
        le=7 * 86400,
        description="Wall-clock limit of compiling one library, in seconds.",
        examples=[1800],
    )

"""``mlc-chat-config.json``: what engines read before they load a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.artifacts.conversation import COMPLETION, Conversation, load_template
from edgec.artifacts.recognize import check_tokens, recognize_template
from edgec.artifacts.special_ids import SpecialIds, prefix_ids, special_ids
from edgec.artifacts.tokenizer_files import (
    TokenizerFiles,
    read_generation_config,
    read_tokenizer_files,
)
from edgec.artifacts.tokenizer_info import tokenizer_info
from edgec.errors import CheckpointError
from edgec.models.window import SlidingWindow, window_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgec.models.images import ImageInput

_VERSION = "0.1.0"
_SAMPLING = {
    "temperature": 1.0,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
# What of the model's own config goes into ``model_config``, for tools that show or estimate.
_SHAPE_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)


def chat_config(
    *,
    model_type: str,
    quantization: str,
    config: Mapping[str, Any],
    tokenizer_folder: Path,
    tokenizer_files: Sequence[str],
    context_length: int,
    prefill_chunk: int,
    max_batch_size: int,
    window: SlidingWindow | None = None,
    image: ImageInput | None = None,
    generation: Mapping[str, Any],
    template: str | None,
    always_system: bool = False,
) -> dict[str, Any]:
    """The chat config of a model, with the tokenizer's files read from a folder.

    Args:
        model_type: name of the model family.
        quantization: name of the scheme.
        config: content of the model's ``config.json``.
        tokenizer_folder: where the tokenizer's files and ``generation_config.json`` are.
        tokenizer_files: names of those that the model has; none for a model without a tokenizer.
        context_length: longest context in tokens.
        prefill_chunk: most tokens of one prefill call.
        max_batch_size: most sequences of one batch.
        window: that slides over the context; None for a context that ends.
        image: what stands for an image in a prompt; None if the model takes none.
        generation: sampling defaults by name; those not given are off.
        template: name of the chat template; None to recognize it from the tokenizer's own.
        always_system: whether it is for an engine that writes the system text without a message.

    Raises:
        CheckpointError: a file is damaged, or ids in it are impossible.
        UsageError: there is no such template, it doesn't fit the tokenizer, or the tokenizer's
            own isn't known.
    """
    return build_chat_config(
        model_type=model_type,
        quantization=quantization,
        config=config,
        generation_config=read_generation_config(tokenizer_folder, tokenizer_files),
        tokenizer=read_tokenizer_files(tokenizer_folder, tokenizer_files),
        context_length=context_length,
        prefill_chunk=prefill_chunk,
        max_batch_size=max_batch_size,
        window=window,
        image=image,
        generation=generation,
        template=template,
        always_system=always_system,
    )


def build_chat_config(
    *,
    model_type: str,
    quantization: str,
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    tokenizer: TokenizerFiles,
    context_length: int,
    prefill_chunk: int,
    max_batch_size: int,
    window: SlidingWindow | None = None,
    image: ImageInput | None = None,
    generation: Mapping[str, Any],
    template: str | None,
    always_system: bool = False,
) -> dict[str, Any]:
    """Like :func:`chat_config`, from content that was read before."""
    special = special_ids(config, generation_config, tokenizer.config, tokenizer.token_id)
    conversation = _conversation(template, tokenizer, special, always_system=always_system)
    vocab_size = int(config["vocab_size"])
    used = {*conversation.stop_token_ids, *(conversation.system_prefix_token_ids or ())}
    _check_vocabulary(tokenizer, vocab_size)
    _check_range(used, vocab_size)
    sizes = {
        "vocab_size": vocab_size,
        **window_fields(context_length, window),
        "prefill_chunk_size": prefill_chunk,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
    }
    return {
        "version": _VERSION,
        "model_type": model_type,
        "model_task": "chat",
        "quantization": quantization,
        **sizes,
        "model_config": {
            **{field: config[field] for field in _SHAPE_FIELDS if config.get(field) is not None},
            **sizes,
            "max_batch_size": max_batch_size,
            **({} if image is None else _image_fields(image)),
        },
        **{name: float(generation.get(name, off)) for name, off in _SAMPLING.items()},
        "tokenizer_files": list(tokenizer.names),
        "tokenizer_info": tokenizer_info(tokenizer.tokenizer),
        "conv_template": conversation.to_json(),
        **_bookkeeping(special),
    }


def _image_fields(image: ImageInput) -> dict[str, Any]:
    """What engines compute the tokens of an image from: MLC's of the sizes, WebLLM's by number."""
    return {
        "vision_config": {"image_size": image.size, "patch_size": image.patch},
        "mm_tokens_per_image": image.tokens,
        "vision_start_token_id": image.start_id,
        "image_token_id": image.image_id,
        "vision_end_token_id": image.end_id,
    }


def _conversation(
    name: str | None, tokenizer: TokenizerFiles, special: SpecialIds, *, always_system: bool
) -> Conversation:
    if name is None:
        name = recognize_template(tokenizer)
    template = load_template(name)
    check_tokens(name, template, tokenizer)
    stops = [tokenizer.token_id(token) for token in template.stop_tokens]
    stops += special.eos
    prefix = prefix_ids(tokenizer, special, chat=name != COMPLETION)
    if template.begins_with_bos and special.bos is not None:
        prefix = prefix or (special.bos,)
    return template.conversation(
        name,
        prefix,
        list(dict.fromkeys(stop for stop in stops if stop is not None)),
        always_system=always_system,
    )


def _check_vocabulary(tokenizer: TokenizerFiles, vocab_size: int) -> None:
    """Added tokens may lie beyond: fine-tuned models often have one for padding that isn't used."""
    largest = tokenizer.largest_id()
    if largest >= vocab_size:
        raise CheckpointError(
            f"the tokenizer has tokens up to {largest}, and the model a vocabulary of {vocab_size}",
            where="config.json: vocab_size",
            remedy="check that the weights and the tokenizer belong to the same model",
        )


def _check_range(ids: set[int], vocab_size: int) -> None:
    outside = sorted(token for token in ids if token >= vocab_size)
    if outside:
        raise CheckpointError(
            f"the tokenizer's special token {outside[0]} is outside of the model's vocabulary of"
            f" {vocab_size}",
            where="config.json: vocab_size",
            remedy="check that the weights and the tokenizer belong to the same model",
        )


def _bookkeeping(special: SpecialIds) -> dict[str, int]:
    """The ids that the model has; engines have defaults for those that it hasn't."""
    ids = {
        "bos_token_id": special.bos,
        "eos_token_id": special.eos[0] if special.eos else None,
        "pad_token_id": special.pad,
    }
    return {name: token for name, token in ids.items() if token is not None}
